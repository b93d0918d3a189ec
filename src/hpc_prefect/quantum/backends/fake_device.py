"""Fake devices: the connectivity, gates and noise of a quantum computer, simulated by Aer.

`FakeTorino` and its like are snapshots of real devices and come with qiskit-ibm-runtime; `generic`
is Qiskit's own made-up device, here a line of qubits.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hpc_prefect.errors import ConfigurationError
from hpc_prefect.quantum.backends.aer import REPRODUCIBLE
from hpc_prefect.quantum.backends.base import Sampled
from hpc_prefect.quantum.options import suggestion

if TYPE_CHECKING:
    from qiskit.primitives.containers.sampler_pub import SamplerPub

    from hpc_prefect.quantum.options import SamplerOptions

GENERIC = "generic"


class FakeDeviceBackend:
    """Circuits are transpiled for the device (a device runs only its own gates), then simulated.

    Args:
        device: `generic`, or the name of a class in `qiskit_ibm_runtime.fake_provider`.
        num_qubits: of the generic device.
        noise: simulate the device's errors too. That multiplies the time: 16 noisy qubits can
            take minutes.
        method: of Aer.
    """

    def __init__(
        self, device: str, *, num_qubits: int = 0, noise: bool = True, method: str = "automatic"
    ) -> None:
        self._device_name = device
        self._num_qubits = num_qubits
        self._noise = noise
        self._method = method
        self._device = _generic(num_qubits) if device == GENERIC else _snapshot(device)

    @property
    def name(self) -> str:
        return f"fake device {self._device_name}"

    @property
    def identity(self) -> Mapping[str, Any]:
        return {
            "kind": "fake-device",
            "name": self._device_name,
            "num_qubits": self._num_qubits,
            "noise": self._noise,
            "method": self._method,
        }

    @property
    def honours(self) -> Collection[str]:
        return ("seed", "seed_transpiler", "optimization_level")

    @property
    def packages(self) -> Sequence[str]:
        return ("qiskit-aer", "qiskit-ibm-runtime")

    def run(self, pubs: Sequence[SamplerPub], options: SamplerOptions) -> Sampled:
        from qiskit.primitives.containers.sampler_pub import SamplerPub
        from qiskit.transpiler.preset_passmanagers import generate_preset_pass_manager
        from qiskit_aer import AerSimulator
        from qiskit_aer.primitives import SamplerV2

        passes = generate_preset_pass_manager(
            optimization_level=options.optimization_level,
            backend=self._device,
            seed_transpiler=options.layout_seed,
        )
        # One at a time: a list would be transpiled in forked processes, and this is a thread.
        native = [
            SamplerPub(passes.run(pub.circuit), pub.parameter_values, pub.shots) for pub in pubs
        ]
        settings = {"method": self._method, **REPRODUCIBLE}
        simulator = (
            AerSimulator.from_backend(self._device, **settings)
            if self._noise
            else AerSimulator(**settings)
        )
        sampler = SamplerV2.from_backend(simulator, seed=options.seed)
        facts = {
            "noise": self._noise,
            "transpiled": [
                {
                    "seed_transpiler": options.layout_seed,
                    "optimization_level": options.optimization_level,
                    "depth": pub.circuit.depth(),
                    "operations": dict(pub.circuit.count_ops()),
                }
                for pub in native
            ],
        }
        return Sampled(sampler.run(native).result(), facts)


def _generic(num_qubits: int) -> Any:
    from qiskit.providers.fake_provider import GenericBackendV2
    from qiskit.transpiler import CouplingMap

    if num_qubits < 1:
        raise ConfigurationError("num_qubits: the fake device 'generic' needs a number of qubits")
    # Its properties are drawn at random: from one seed, or each object would be another device.
    line = CouplingMap.from_line(num_qubits)
    return GenericBackendV2(num_qubits, coupling_map=line, noise_info=True, seed=0)


def _snapshot(name: str) -> Any:
    try:
        from qiskit_ibm_runtime import fake_provider
    except ImportError as error:
        raise ConfigurationError(
            f"backend_name: the fake device {name!r} comes with qiskit-ibm-runtime, which is not"
            " installed; run `pip install 'hpc-prefect[ibm]'`, or use 'generic'"
        ) from error
    known = [each for each in dir(fake_provider) if each.startswith("Fake")]
    known = [each for each in known if not each.startswith("FakeProvider")]
    if name not in known:
        hint = suggestion(name, [*known, GENERIC])
        raise ConfigurationError(f"backend_name: there is no fake device {name!r}{hint}")
    return getattr(fake_provider, name)()
