"""The block that says where to sample."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Literal

from prefect.blocks.core import Block
from pydantic import ConfigDict, Field, HttpUrl, model_validator
from pydantic_core import PydanticCustomError

from hpc_prefect.blocks.checks import StoredModel, is_loading
from hpc_prefect.blocks.links import LOGO, documentation
from hpc_prefect.quantum.backends import BackendSpec, Kind
from hpc_prefect.quantum.services import VENDORS
from hpc_prefect.quantum.transpilation import OPTIONS, transpilation_problems

#: Fields for a computer of IBM Quantum only …
_IBM_ONLY = (
    "credentials_block_name",
    "min_num_qubits",
    "only_devices",
    "fractional_gates",
    "mode",
    "max_session_seconds",
    "interface",
)
#: … or for any service.
_SERVICES_ONLY = ("max_qpu_seconds", "on_cancel")


class QuantumBackendBlock(StoredModel, Block):
    """WHERE to sample or estimate: a simulator, a fake device, a quantum computer.

    Loading it asks Prefect only, no service.

    Example:
        Load a stored backend:
        ```python
        from hpc_prefect.quantum import QuantumBackendBlock

        backend = QuantumBackendBlock.load("BLOCK_NAME")
        ```
    """

    # Without this the configuration of Prefect's base class would win, which keeps unknown fields.
    model_config = ConfigDict(extra="ignore")

    _block_type_name: ClassVar[str | None] = "HPC-Prefect Quantum Backend"
    _block_type_slug: ClassVar[str | None] = "hpc-prefect-quantum-backend"
    _documentation_url: ClassVar[HttpUrl | None] = documentation("quantum.html")
    _logo_url: ClassVar[HttpUrl | None] = LOGO

    kind: Kind = "simulator"
    """What it is: a simulator, a simulated copy of a device, a computer of IBM Quantum, or any
    vendor's Qiskit backend."""
    backend_name: str = "aer"
    """Simulator: `aer`, `ffsim` (LUCJ circuits) or `uniform` (random bits, the baseline). Fake
    device: `generic`, or one of qiskit-ibm-runtime such as `FakeTorino`. IBM: the device's name,
    or `least-busy`. Qiskit: `package.module:name` of a backend, or of what makes one."""
    simulator_method: Literal[
        "automatic",
        "statevector",
        "density_matrix",
        "stabilizer",
        "extended_stabilizer",
        "matrix_product_state",
    ] = "automatic"
    """Method of Aer, for `aer` and fake devices."""
    num_qubits: int = Field(default=0, ge=0)
    """Qubits of the fake device `generic`, a line of them; 0 for everything else."""
    noise: bool = True
    """Fake device: simulate its errors too, which multiplies the time."""

    transpilation: dict[str, Any] = Field(default_factory=dict)
    """For devices: `optimization_level`, `seed_transpiler` (Variable and call win over these two),
    `initial_layout`, `layout_method`, `routing_method`, `translation_method`,
    `scheduling_method`, `approximation_degree`, as Qiskit's transpiler takes them."""
    credentials_block_name: str = ""
    """IBM: the `IBMQuantumCredentials` block; empty: the account that qiskit-ibm-runtime finds by
    itself, in its environment or its saved file."""
    min_num_qubits: int = Field(default=0, ge=0)
    """IBM, `least-busy`: qubits that the device has at least."""
    only_devices: list[str] = Field(default_factory=list)
    """IBM, `least-busy`: the devices among which to choose; empty: all of the instance."""
    fractional_gates: bool = False
    """IBM: use the device's fractional gates."""
    mode: Literal["job", "batch", "session"] = "job"
    """IBM: `job` runs each job by itself; `batch` and `session` open one for the flow run, which
    closes it at its end. A session is billed while it is open."""
    max_session_seconds: int = Field(default=0, ge=0)
    """IBM: how long a batch or session may be open; 0: as long as the plan allows."""
    interface: Literal["auto", "v2", "executor"] = "auto"
    """IBM: SamplerV2 and EstimatorV2 (`v2`), or their successors (`executor`, from
    qiskit-ibm-runtime 0.50 on). `auto` takes the successors where they can do the work."""
    max_qpu_seconds: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Services: QPU seconds that one experiment may use, all of its runs together; 0: no limit."""
    on_cancel: Literal["cancel", "keep"] = "cancel"
    """Services: what becomes of a job when its flow run is cancelled. One that is kept is attached
    again by the next run."""

    @model_validator(mode="after")
    def _check(self) -> QuantumBackendBlock:
        if not is_loading() and (problems := self.problems()):
            raise PydanticCustomError("value", "; ".join(problems))
        return self

    def problems(self) -> list[str]:
        """What is wrong with the fields together; asks no service."""
        found = [f"transpilation: {each}" for each in transpilation_problems(self.transpilation)]
        if self.kind == "simulator" and self.transpilation:
            found.append("transpilation: a simulator takes circuits as they are; remove it")
        if self.kind != "ibm":
            found += self._out_of_place(_IBM_ONLY, "kind 'ibm'")
        if self.kind not in VENDORS:
            found += self._out_of_place(_SERVICES_ONLY, f"the kinds {', '.join(VENDORS)}")
        if self.max_session_seconds and self.mode == "job":
            found.append("max_session_seconds: there is none in mode 'job'; remove it")
        return found

    def _out_of_place(self, names: Iterable[str], belong: str) -> list[str]:
        fields = type(self).model_fields
        return [
            f"{name}: it is for {belong}, and this is a {self.kind}; remove it"
            for name in names
            if getattr(self, name) != fields[name].get_default(call_default_factory=True)
        ]

    def spec(self) -> BackendSpec:
        """The block as plain values."""
        return BackendSpec(
            kind=self.kind,
            backend_name=self.backend_name,
            simulator_method=self.simulator_method,
            num_qubits=self.num_qubits,
            noise=self.noise,
            min_num_qubits=self.min_num_qubits,
            only_devices=tuple(self.only_devices),
            fractional_gates=self.fractional_gates,
            mode=self.mode,
            max_session_seconds=self.max_session_seconds,
            interface=self.interface,
            transpilation=tuple(
                (name, value)
                for name, value in sorted(self.transpilation.items())
                if name not in OPTIONS
            ),
            max_qpu_seconds=self.max_qpu_seconds,
            on_cancel=self.on_cancel,
        )

    def option_layer(self) -> dict[str, Any]:
        """The block's values for the options that Variable and call may change."""
        return {name: self.transpilation[name] for name in OPTIONS if name in self.transpilation}
