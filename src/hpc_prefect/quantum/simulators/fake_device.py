"""Fake devices: the connectivity, gates and noise of a quantum computer, simulated by Aer.

`FakeTorino` and its like are snapshots of real devices and come with qiskit-ibm-runtime; `generic`
is Qiskit's own made-up device, here a line of qubits.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hpc_prefect.errors import ConfigurationError
from hpc_prefect.quantum.backend import Sampled, Simulating
from hpc_prefect.quantum.options import suggestion
from hpc_prefect.quantum.simulators.aer import REPRODUCIBLE

if TYPE_CHECKING:
    from qiskit import QuantumCircuit
    from qiskit.primitives.containers.estimator_pub import EstimatorPub
    from qiskit.primitives.containers.sampler_pub import SamplerPub

    from hpc_prefect.quantum.options import EstimatorOptions, PrimitiveOptions, SamplerOptions
    from hpc_prefect.quantum.sampling import Request

GENERIC = "generic"


class FakeDeviceBackend(Simulating):
    """Circuits are transpiled for the device (a device runs only its own gates), then simulated.

    Args:
        device: `generic`, or the name of a class in `qiskit_ibm_runtime.fake_provider`.
        num_qubits: of the generic device.
        noise: simulate the device's errors too. That multiplies the time: 16 noisy qubits can
            take minutes.
        method: of Aer.
        transpilation: further settings of Qiskit's preset pass manager.
    """

    def __init__(
        self,
        device: str,
        *,
        num_qubits: int = 0,
        noise: bool = True,
        method: str = "automatic",
        transpilation: Mapping[str, Any] | None = None,
    ) -> None:
        self._device_name = device
        self._num_qubits = num_qubits
        self._noise = noise
        self._method = method
        self._transpilation = dict(transpilation or {})
        self._device = _generic(num_qubits) if device == GENERIC else _snapshot(device)

    @property
    def name(self) -> str:
        return f"fake device {self._device_name}"

    @property
    def identity(self) -> Mapping[str, Any]:
        further = {"transpilation": self._transpilation} if self._transpilation else {}
        return {
            "kind": "fake-device",
            "name": self._device_name,
            "num_qubits": self._num_qubits,
            "noise": self._noise,
            "method": self._method,
            **further,
        }

    @property
    def honours(self) -> Collection[str]:
        return ("seed", "seed_transpiler", "optimization_level")

    @property
    def packages(self) -> Sequence[str]:
        return ("qiskit-aer", "qiskit-ibm-runtime")

    def problems(self, request: Request, numbers: Sequence[int]) -> list[str]:
        """What the device cannot do of a request; `numbers` are those of its PUBs."""
        from hpc_prefect.quantum.checks import device_problems

        return device_problems(dict(zip(numbers, request.pubs, strict=True)), self._device)

    def run(self, pubs: Sequence[SamplerPub], options: SamplerOptions) -> Sampled:
        from qiskit.primitives.containers.sampler_pub import SamplerPub
        from qiskit_aer.primitives import SamplerV2

        # One at a time: a list would be transpiled in forked processes, and this is a thread.
        circuits = [self._passes(options).run(pub.circuit) for pub in pubs]
        native = [
            SamplerPub(circuit, pub.parameter_values, pub.shots)
            for circuit, pub in zip(circuits, pubs, strict=True)
        ]
        sampler = SamplerV2.from_backend(self._simulator(), seed=options.seed)
        return Sampled(sampler.run(native).result(), self._facts(circuits, options))

    def estimate(self, pubs: Sequence[EstimatorPub], options: EstimatorOptions) -> Sampled:
        from qiskit.primitives.containers.estimator_pub import EstimatorPub
        from qiskit_aer.primitives import EstimatorV2

        circuits = [self._passes(options).run(pub.circuit) for pub in pubs]
        native = [
            EstimatorPub(
                circuit,
                pub.observables.apply_layout(circuit.layout, circuit.num_qubits),
                pub.parameter_values,
                pub.precision,
            )
            for circuit, pub in zip(circuits, pubs, strict=True)
        ]
        chosen = {"run_options": {"seed_simulator": options.seed}}
        estimator = EstimatorV2.from_backend(self._simulator(), options=chosen)
        return Sampled(estimator.run(native).result(), self._facts(circuits, options))

    def _passes(self, options: PrimitiveOptions) -> Any:
        from qiskit.transpiler.preset_passmanagers import generate_preset_pass_manager

        return generate_preset_pass_manager(
            optimization_level=options.optimization_level,
            backend=self._device,
            seed_transpiler=options.layout_seed,
            **self._transpilation,
        )

    def _simulator(self) -> Any:
        from qiskit_aer import AerSimulator

        settings = {"method": self._method, **REPRODUCIBLE}
        if self._noise:
            return AerSimulator.from_backend(self._device, **settings)
        return AerSimulator(**settings)

    def _facts(self, circuits: Sequence[QuantumCircuit], options: PrimitiveOptions) -> Any:
        return {
            "noise": self._noise,
            "transpiled": [
                {
                    "seed_transpiler": options.layout_seed,
                    "optimization_level": options.optimization_level,
                    "depth": circuit.depth(),
                    "operations": dict(circuit.count_ops()),
                }
                for circuit in circuits
            ],
        }


def _generic(num_qubits: int) -> Any:
    from qiskit.providers.fake_provider import GenericBackendV2
    from qiskit.transpiler import CouplingMap

    if num_qubits < 1:
        raise ConfigurationError("num_qubits: the fake device 'generic' needs a number of qubits")
    # Its properties are random: with a fixed seed, or else each object would be another device.
    line = CouplingMap.from_line(num_qubits)
    return GenericBackendV2(num_qubits, coupling_map=line, noise_info=True, seed=0)


def _snapshot(name: str) -> Any:
    from qiskit_ibm_runtime import fake_provider

    known = [each for each in dir(fake_provider) if each.startswith("Fake")]
    known = [each for each in known if not each.startswith("FakeProvider")]
    if name not in known:
        hint = suggestion(name, [*known, GENERIC])
        raise ConfigurationError(f"backend_name: there is no fake device {name!r}{hint}")
    return getattr(fake_provider, name)()
