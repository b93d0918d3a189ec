"""Values of Qiskit as parameters of flows and tasks: plain data that tells them."""

from __future__ import annotations

from qiskit.circuit import QuantumCircuit
from qiskit.primitives import BitArray
from qiskit.quantum_info import SparsePauliOp

from hpc_prefect.quantum.circuit_digest import structure_digest


def as_data(value: object) -> object:
    """Circuits, counts and observables; NotImplemented for what else there is.

    Raises:
        TypeError: a circuit holds an operation that cannot be told.
    """
    if isinstance(value, QuantumCircuit):
        return structure_digest(value)
    if isinstance(value, BitArray):
        return [value.num_bits, value.array]
    if isinstance(value, SparsePauliOp):
        return value.to_list()
    return NotImplemented
