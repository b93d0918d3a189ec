"""What a job computes: its posted parameters → the text that the client decodes.

Qiskit is imported here and nowhere else in the service. The words of both directions are the
client's own: its decoder reads what its encoder wrote, and the other way round.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import import_module
from typing import Any

#: Aer gives every group of parallel shots a seed of its own; one group makes a seed's samples the
#: same on every machine.
_REPRODUCIBLE = {"max_parallel_shots": 1}
#: More qubits than a simulator has memory for: Aer simulates those alone that a circuit uses.
_ANY = 10_000
_PRECISION = 1 / 64
_SHOTS = 4096


@dataclass(frozen=True)
class Work:
    """What is to be simulated.

    Attributes:
        program: sampler, estimator or executor.
        params: the posted parameters, JSON.
        device: the snapshot's folder name, as in `torino`; its noise is simulated if `noise`.
    """

    program: str
    params: str
    device: str
    noise: bool
    seed: int | None


@dataclass(frozen=True)
class Outcome:
    """The results as text, and what the metrics tell of the circuits."""

    text: str
    facts: dict[str, Any]


def simulate(work: Work) -> Outcome:
    """Run a job.

    Raises:
        Exception: whatever Qiskit raises for parameters it cannot read or run.
    """
    return {"sampler": _sample, "estimator": _estimate, "executor": _execute}[work.program](work)


def _sample(work: Work) -> Outcome:
    from qiskit.primitives.containers.sampler_pub import SamplerPub
    from qiskit_aer.primitives import SamplerV2

    params = _decoded(work.params)
    options = params.get("options") or {}
    default = options.get("default_shots") or _SHOTS
    pubs = [SamplerPub.coerce(tuple(pub), default) for pub in params["pubs"]]
    sampler = SamplerV2.from_backend(_simulator(work), seed=_seed(work, options))
    result = sampler.run(pubs).result()
    return Outcome(_encoded(result), _facts([pub.circuit for pub in pubs]))


def _estimate(work: Work) -> Outcome:
    from qiskit.primitives.containers.estimator_pub import EstimatorPub
    from qiskit_aer.primitives import EstimatorV2

    params = _decoded(work.params)
    options = params.get("options") or {}
    shots = options.get("default_shots")
    default = shots**-0.5 if shots else options.get("default_precision") or _PRECISION
    pubs = [EstimatorPub.coerce(tuple(pub), default) for pub in params["pubs"]]
    seed = _seed(work, options)
    estimator = EstimatorV2.from_backend(
        _simulator(work), options={"run_options": {} if seed is None else {"seed_simulator": seed}}
    )
    result = estimator.run(pubs).result()
    return Outcome(_encoded(result), _facts([pub.circuit for pub in pubs]))


def _execute(work: Work) -> Outcome:
    from qiskit_ibm_runtime.fake_provider.executor.run_quantum_program import run_quantum_program
    from qiskit_ibm_runtime.options_models.simulator import SimulatorOptions
    from qiskit_ibm_runtime.quantum_program.params_converters import (
        QUANTUM_PROGRAM_PARAMS_CONVERTERS,
    )

    params = json.loads(work.params)
    version = params["schema_version"]
    converter = QUANTUM_PROGRAM_PARAMS_CONVERTERS[version]
    posted = converter.model(**params)
    program, options = converter.decoder(posted)
    seed = _seed(work, {"simulator": options.experimental or {}})
    result = run_quantum_program(_simulator(work), program, SimulatorOptions(seed_simulator=seed))
    schema = import_module(type(posted).__module__)
    model = _result_model(schema, posted.quantum_program, result)
    return Outcome(model.model_dump_json(), _facts([item.circuit for item in program.items]))


def _result_model(schema: Any, posted: Any, result: Any) -> Any:
    """The result in the words of the schema in which the job was posted."""
    items = [
        schema.QuantumProgramResultItemModel(
            results={name: schema.CompressedTensorModel.from_numpy(v) for name, v in item.items()},
            metadata=schema.ItemMetadataModel(),
        )
        for item in result
    ]
    return schema.QuantumProgramResultModel(
        data=items,
        metadata=schema.MetadataModel(chunk_timing=[]),
        passthrough_data=posted.passthrough_data,
        semantic_role=posted.semantic_role,
    )


def _simulator(work: Work) -> Any:
    from qiskit_aer import AerSimulator

    if not work.noise:
        simulator = AerSimulator(**_REPRODUCIBLE)
        simulator.set_max_qubits(_ANY)
        return simulator
    module = import_module(f"qiskit_ibm_runtime.fake_provider.backends.{work.device}")
    (name,) = [name for name in vars(module) if name.startswith("Fake")]
    return AerSimulator.from_backend(getattr(module, name)(), **_REPRODUCIBLE)


def _seed(work: Work, options: dict[str, Any]) -> int | None:
    seed = (options.get("simulator") or {}).get("seed_simulator", work.seed)
    return None if seed is None else int(seed)


def _facts(circuits: list[Any]) -> dict[str, Any]:
    return {
        "num_circuits": len(circuits),
        "num_qubits": [circuit.num_qubits for circuit in circuits],
        "circuit_depths": [circuit.depth() for circuit in circuits],
    }


def _decoded(text: str) -> dict[str, Any]:
    from qiskit_ibm_runtime import RuntimeDecoder

    params: dict[str, Any] = json.loads(text, cls=RuntimeDecoder)
    return params


def _encoded(result: Any) -> str:
    from qiskit_ibm_runtime import RuntimeEncoder

    return json.dumps(result, cls=RuntimeEncoder)
