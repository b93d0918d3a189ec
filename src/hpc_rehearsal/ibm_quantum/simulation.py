"""What a job computes: its posted parameters → the text that the client decodes.

A process of its own runs it (`simulator.py`): python -m …simulation reads one job from each line
and answers with a line. Only that process imports Qiskit. Jobs are decoded and results are encoded
by the client's own code.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any

#: The backend that is ffsim.
FERMIONS = "ffsim_simulator"
#: Aer gives every group of parallel shots a seed of its own; with one group, a seed gives the same
#: samples on every machine.
_REPRODUCIBLE = {"max_parallel_shots": 1}
#: More qubits than fit into memory: Aer simulates only those that a circuit uses.
_ANY = 10_000
_PRECISION = 1 / 64
_SHOTS = 4096


class NotEmulated(Exception):
    """The backend that computes the job cannot do this."""


@dataclass(frozen=True)
class Work:
    """What is to be simulated.

    Attributes:
        program: sampler, estimator or executor.
        params: the posted parameters, JSON.
        backend: its noise is simulated if `noise`.
    """

    program: str
    params: str
    backend: str
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

    params = _decoded(work.params)
    options = params.get("options") or {}
    default = options.get("default_shots") or _SHOTS
    pubs = [SamplerPub.coerce(tuple(pub), default) for pub in params["pubs"]]
    result = _sampled(work, pubs, _seed(work, options))
    return Outcome(_encoded(result), _facts([pub.circuit for pub in pubs]))


def _sampled(work: Work, pubs: list[Any], seed: int | None) -> Any:
    if work.backend == FERMIONS:
        from hpc_rehearsal.ibm_quantum import fermions

        return fermions.sample(pubs, seed)
    from qiskit_aer.primitives import SamplerV2

    return SamplerV2.from_backend(_simulator(work), seed=seed).run(pubs).result()


def _estimate(work: Work) -> Outcome:
    from qiskit.primitives.containers.estimator_pub import EstimatorPub
    from qiskit_aer.primitives import EstimatorV2

    if work.backend == FERMIONS:
        raise NotEmulated(f"{FERMIONS} samples; it has no estimator")
    params = _decoded(work.params)
    options = params.get("options") or {}
    shots = options.get("default_shots")
    default = shots**-0.5 if shots else options.get("default_precision") or _PRECISION
    pubs = [EstimatorPub.coerce(tuple(pub), default) for pub in params["pubs"]]
    seed = options.get("seed_estimator", _seed(work, options))
    estimator = EstimatorV2.from_backend(
        _simulator(work), options={"run_options": {} if seed is None else {"seed_simulator": seed}}
    )
    result = estimator.run(pubs).result()
    return Outcome(_encoded(result), _facts([pub.circuit for pub in pubs]))


def _execute(work: Work) -> Outcome:
    from qiskit_ibm_runtime.quantum_program.params_converters import (
        QUANTUM_PROGRAM_PARAMS_CONVERTERS,
    )

    params = json.loads(work.params)
    converter = QUANTUM_PROGRAM_PARAMS_CONVERTERS[params["schema_version"]]
    posted = converter.model(**params)
    program, options = converter.decoder(posted)
    for item in program.items:
        if hasattr(item, "samplex"):
            item.samplex.finalize()  # the decoder does not do it
    if program.meas_level != "classified":
        raise NotEmulated(f"meas_level {program.meas_level!r}: only 'classified' is simulated")
    items = _executed(work, program, _seed(work, {"simulator": options.experimental or {}}))
    schema = import_module(type(posted).__module__)
    model = _result_model(schema, posted.quantum_program, items)
    return Outcome(model.model_dump_json(), _facts([item.circuit for item in program.items]))


def _executed(work: Work, program: Any, seed: int | None) -> list[dict[str, Any]]:
    """The arrays of each item of a quantum program, by their names."""
    if work.backend != FERMIONS:
        from qiskit_ibm_runtime.fake_provider.executor.run_quantum_program import (
            run_quantum_program,
        )
        from qiskit_ibm_runtime.options_models.simulator import SimulatorOptions

        options = SimulatorOptions(seed_simulator=seed)
        return [
            dict(item.items()) for item in run_quantum_program(_simulator(work), program, options)
        ]
    from qiskit.primitives.containers.sampler_pub import SamplerPub

    if any(hasattr(item, "samplex") for item in program.items):
        raise NotEmulated(f"twirling: {FERMIONS} samples circuits as they are")
    pubs = [
        SamplerPub.coerce((item.circuit, item.circuit_arguments, program.shots))
        for item in program.items
    ]
    return [
        {name: bits.to_bool_array(order="little") for name, bits in dict(result.data).items()}
        for result in _sampled(work, pubs, seed)
    ]


def _result_model(schema: Any, posted: Any, items: list[dict[str, Any]]) -> Any:
    """The result in the words of the schema in which the job was posted."""
    tensor = schema.CompressedTensorModel.from_numpy
    data = [
        schema.QuantumProgramResultItemModel(
            results={name: tensor(values) for name, values in item.items()},
            metadata=schema.ItemMetadataModel(),
        )
        for item in items
    ]
    return schema.QuantumProgramResultModel(
        data=data,
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
    folder = work.backend.removeprefix("fake_")
    module = import_module(f"qiskit_ibm_runtime.fake_provider.backends.{folder}")
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


def _answer(line: str) -> dict[str, Any]:
    try:
        return asdict(simulate(Work(**json.loads(line))))
    except Exception as error:  # noqa: BLE001 - whatever it was, it is the job's end
        return {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}


def main() -> None:
    from hpc_rehearsal.ibm_quantum.parent import end_with_parent

    end_with_parent()
    # Answers get a descriptor of their own: output of libraries must not mix with them.
    with os.fdopen(os.dup(sys.stdout.fileno()), "w") as answers:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        for line in sys.stdin:
            print(json.dumps(_answer(line)), file=answers, flush=True)


if __name__ == "__main__":
    main()
