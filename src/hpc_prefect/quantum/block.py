"""The block that says where to sample."""

from __future__ import annotations

from typing import ClassVar, Literal

from prefect.blocks.core import Block
from pydantic import ConfigDict, Field, HttpUrl

from hpc_prefect.blocks.checks import StoredModel
from hpc_prefect.quantum.backends import BackendSpec


class QuantumBackendBlock(StoredModel, Block):
    """WHERE to sample: a simulator or a fake device, later a quantum computer.

    A document of kind `ibm` can be stored; sampling with it is refused for now.

    Example:
        Load a stored backend:
        ```python
        from hpc_prefect.quantum import QuantumBackendBlock

        backend = QuantumBackendBlock.load("BLOCK_NAME")
        ```
    """

    # Of the two bases Prefect's would win, which keeps unknown fields.
    model_config = ConfigDict(extra="ignore")

    _block_type_name: ClassVar[str | None] = "HPC-Prefect Quantum Backend"
    _block_type_slug: ClassVar[str | None] = "hpc-prefect-quantum-backend"
    _documentation_url: ClassVar[HttpUrl | None] = HttpUrl(
        "https://docs.prefect.io/v3/concepts/blocks"
    )

    kind: Literal["simulator", "fake-device", "ibm"] = "simulator"
    """What it is: a simulator, a simulated copy of a device, or a computer of IBM Quantum."""
    backend_name: str = "aer"
    """Simulator: `aer`, `ffsim` (LUCJ circuits) or `uniform` (random bits, the baseline). Fake
    device: `generic`, or one of qiskit-ibm-runtime such as `FakeTorino`. IBM: the device's name."""
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

    def spec(self) -> BackendSpec:
        """The block as plain values."""
        return BackendSpec(
            kind=self.kind,
            backend_name=self.backend_name,
            simulator_method=self.simulator_method,
            num_qubits=self.num_qubits,
            noise=self.noise,
        )
