"""The family of sampling backends; `build` chooses one."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from hpc_prefect.errors import ConfigurationError
from hpc_prefect.quantum.backends.base import Sampled, SamplingBackend
from hpc_prefect.quantum.options import suggestion

Kind = Literal["simulator", "fake-device", "ibm"]

SIMULATORS = ("aer", "ffsim", "uniform")


@dataclass(frozen=True, kw_only=True)
class BackendSpec:
    """Which backend: what a `QuantumBackendBlock` says, as plain values."""

    kind: Kind = "simulator"
    backend_name: str = "aer"
    simulator_method: str = "automatic"
    num_qubits: int = 0
    noise: bool = True


def build(spec: BackendSpec) -> SamplingBackend:
    """The backend that `spec` asks for.

    Raises:
        ConfigurationError: there is none, its package is not installed, or `spec` sets something
            that it cannot honour.
    """
    if spec.kind == "ibm":
        raise ConfigurationError(
            "kind: sampling on IBM Quantum is not supported yet; use a block of kind 'simulator'"
            " or 'fake-device'"
        )
    if spec.kind == "fake-device":
        return _fake_device(spec)
    return _simulator(spec)


def _fake_device(spec: BackendSpec) -> SamplingBackend:
    from hpc_prefect.quantum.backends.fake_device import GENERIC, FakeDeviceBackend

    if spec.num_qubits and spec.backend_name != GENERIC:
        raise ConfigurationError(
            f"num_qubits: the device {spec.backend_name!r} has its own; set it only for 'generic'"
        )
    _need("qiskit_aer", "qiskit-aer")
    return FakeDeviceBackend(
        spec.backend_name,
        num_qubits=spec.num_qubits,
        noise=spec.noise,
        method=spec.simulator_method,
    )


def _simulator(spec: BackendSpec) -> SamplingBackend:
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
        from hpc_prefect.quantum.backends.aer import AerBackend

        _need("qiskit_aer", "qiskit-aer")
        return AerBackend(spec.simulator_method)
    if name == "ffsim":
        from hpc_prefect.quantum.backends.ffsim import FfsimBackend

        _need("ffsim", "ffsim")
        return FfsimBackend()
    from hpc_prefect.quantum.backends.uniform import UniformBackend

    return UniformBackend()


def _need(module: str, distribution: str) -> None:
    if find_spec(module) is None:
        raise ConfigurationError(
            f"backend_name: {distribution} is not installed;"
            " run `pip install 'hpc-prefect[quantum]'`"
        )


__all__ = ["SIMULATORS", "BackendSpec", "Kind", "Sampled", "SamplingBackend", "build"]
