"""The family of backends; `build` chooses one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from hpc_prefect.errors import ConfigurationError
from hpc_prefect.extras import missing
from hpc_prefect.quantum.backend import Backend, EstimatingBackend, Sampled, SamplingBackend
from hpc_prefect.quantum.options import suggestion
from hpc_prefect.quantum.services import VENDORS, vendor

if TYPE_CHECKING:
    from hpc_prefect.quantum.services.ibm.client import Account

Kind = Literal["simulator", "fake-device", "ibm", "qiskit"]

SIMULATORS = ("aer", "ffsim", "uniform")


@dataclass(frozen=True, kw_only=True)
class BackendSpec:
    """Which backend: what a `QuantumBackendBlock` says, as plain values."""

    kind: Kind = "simulator"
    backend_name: str = "aer"
    simulator_method: str = "automatic"
    num_qubits: int = 0
    noise: bool = True
    min_num_qubits: int = 0
    only_devices: tuple[str, ...] = ()
    fractional_gates: bool = False
    mode: str = "job"
    max_session_seconds: int = 0
    interface: str = "auto"
    transpilation: tuple[tuple[str, Any], ...] = ()
    max_qpu_seconds: float = 0.0
    on_cancel: str = "cancel"


def build(spec: BackendSpec, account: Account | None = None) -> Backend:
    """The backend that `spec` asks for. Nothing is asked of any service.

    Args:
        account: of a service; None for the environment's.

    Raises:
        ConfigurationError: there is no such backend, its package is not installed, or `spec` sets
            something that it cannot honour.
    """
    if spec.kind in VENDORS:
        built: Backend = vendor(spec.kind).build(spec, account)
        return built
    if spec.kind == "fake-device":
        return _fake_device(spec)
    return _simulator(spec)


def _fake_device(spec: BackendSpec) -> Backend:
    from hpc_prefect.quantum.simulators.fake_device import GENERIC, FakeDeviceBackend

    snapshot = () if spec.backend_name == GENERIC else ("qiskit_ibm_runtime",)
    needed = ("qiskit", "qiskit_aer", *snapshot)
    if spec.num_qubits and spec.backend_name != GENERIC:
        raise ConfigurationError(
            f"num_qubits: the device {spec.backend_name!r} has its own; set it only for 'generic'"
        )
    need(f"the fake device {spec.backend_name!r}", *needed)
    return FakeDeviceBackend(
        spec.backend_name,
        num_qubits=spec.num_qubits,
        noise=spec.noise,
        method=spec.simulator_method,
        transpilation=dict(spec.transpilation),
    )


def _simulator(spec: BackendSpec) -> Backend:
    name = spec.backend_name
    if name not in SIMULATORS:
        hint = suggestion(name, SIMULATORS)
        raise ConfigurationError(f"backend_name: there is no simulator {name!r}{hint}")
    if spec.num_qubits:
        raise ConfigurationError(
            f"num_qubits: the simulator {name!r} takes circuits of any size; remove it"
        )
    if name != "aer" and spec.simulator_method != "automatic":
        raise ConfigurationError(
            f"simulator_method: only Aer has methods, the simulator {name!r} has none; remove it"
        )
    if not spec.noise:
        raise ConfigurationError(
            f"noise: the simulator {name!r} has none; set it only for a fake device"
        )
    if name == "aer":
        from hpc_prefect.quantum.simulators.aer import AerBackend

        need("the simulator 'aer'", "qiskit", "qiskit_aer")
        return AerBackend(spec.simulator_method)
    if name == "ffsim":
        from hpc_prefect.quantum.simulators.ffsim import FfsimBackend

        need("the simulator 'ffsim'", "qiskit", "ffsim")
        return FfsimBackend()
    from hpc_prefect.quantum.simulators.uniform import UniformBackend

    return UniformBackend()


def need(what: str, *modules: str) -> None:
    if told := missing(what, *modules):
        raise ConfigurationError(f"backend_name: {told}")


__all__ = [
    "SIMULATORS",
    "Backend",
    "BackendSpec",
    "EstimatingBackend",
    "Kind",
    "Sampled",
    "SamplingBackend",
    "build",
]
