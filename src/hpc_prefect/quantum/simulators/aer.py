"""Qiskit Aer, as an ideal simulator."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hpc_prefect.quantum.backend import Sampled, Simulating

if TYPE_CHECKING:
    from qiskit import QuantumCircuit
    from qiskit.primitives.containers.estimator_pub import EstimatorPub
    from qiskit.primitives.containers.sampler_pub import SamplerPub

    from hpc_prefect.quantum.options import EstimatorOptions, SamplerOptions

#: Aer gives every group of parallel shots a seed of its own, so that the samples of one seed would
#: depend on the number of cores. (qiskit-aer 0.18: 0 means as many groups as threads.)
REPRODUCIBLE = {"max_parallel_shots": 1}


class AerBackend(Simulating):
    """Circuits are run as they are; operations that Aer does not know are decomposed first."""

    def __init__(self, method: str = "automatic") -> None:
        self._method = method

    @property
    def name(self) -> str:
        return "simulator aer"

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"kind": "simulator", "name": "aer", "method": self._method}

    @property
    def honours(self) -> Collection[str]:
        return ("seed",)

    @property
    def packages(self) -> Sequence[str]:
        return ("qiskit-aer",)

    def run(self, pubs: Sequence[SamplerPub], options: SamplerOptions) -> Sampled:
        from qiskit.primitives.containers.sampler_pub import SamplerPub
        from qiskit_aer import AerSimulator
        from qiskit_aer.primitives import SamplerV2

        simulator = AerSimulator(method=self._method, **REPRODUCIBLE)
        native = [
            SamplerPub(_decomposed(pub.circuit, simulator), pub.parameter_values, pub.shots)
            for pub in pubs
        ]
        sampler = SamplerV2.from_backend(simulator, seed=options.seed)
        return Sampled(sampler.run(native).result(), {"method": self._method})

    def estimate(self, pubs: Sequence[EstimatorPub], options: EstimatorOptions) -> Sampled:
        from qiskit.primitives.containers.estimator_pub import EstimatorPub
        from qiskit_aer import AerSimulator
        from qiskit_aer.primitives import EstimatorV2

        simulator = AerSimulator(method=self._method, **REPRODUCIBLE)
        native = [
            EstimatorPub(
                _decomposed(pub.circuit, simulator),
                pub.observables,
                pub.parameter_values,
                pub.precision,
            )
            for pub in pubs
        ]
        chosen = {"run_options": {"seed_simulator": options.seed}}
        estimator = EstimatorV2.from_backend(simulator, options=chosen)
        return Sampled(estimator.run(native).result(), {"method": self._method})


def _decomposed(circuit: QuantumCircuit, simulator: Any) -> QuantumCircuit:
    known = set(simulator.target.operation_names) | {"barrier"}
    if known.issuperset(circuit.count_ops()):
        return circuit
    from qiskit.circuit.library import get_standard_gate_name_mapping
    from qiskit.transpiler.preset_passmanagers import generate_preset_pass_manager

    # Level 0 and no layout: the same operations in simpler gates, which must be Qiskit's own.
    words = sorted(known & set(get_standard_gate_name_mapping()))
    passes = generate_preset_pass_manager(
        optimization_level=0, basis_gates=words, seed_transpiler=0
    )
    return passes.run(circuit)
