"""Qiskit's values as parameters of flows and tasks: as plain data, for digests and records."""

from __future__ import annotations

from qiskit.circuit import QuantumCircuit
from qiskit.primitives import BitArray
from qiskit.quantum_info import SparsePauliOp

from hpc_prefect.quantum.circuit_digest import structure_digest


def as_data(value: object) -> object:
    """A circuit, counts or observables as plain data; NotImplemented for anything else.

    Raises:
        TypeError: a circuit holds an operation that has no digest.
    """
    if isinstance(value, QuantumCircuit):
        return structure_digest(value)
    if isinstance(value, BitArray):
        return [value.num_bits, value.array]
    if isinstance(value, SparsePauliOp):
        return value.to_list()
    return NotImplemented
