"""Circuits that several tests sample."""

from __future__ import annotations

import ffsim
import numpy as np
from ffsim.qiskit import PrepareHartreeFockJW, UCJOpSpinBalancedJW
from qiskit.circuit import QuantumCircuit, QuantumRegister


def bell() -> QuantumCircuit:
    circuit = QuantumCircuit(2)
    circuit.h(0)
    circuit.cx(0, 1)
    circuit.measure_all()
    return circuit


def lucj(seed: int = 7, norb: int = 4, nelec: tuple[int, int] = (2, 1)) -> QuantumCircuit:
    """A small LUCJ circuit with random amplitudes."""
    operator = ffsim.random.random_ucj_op_spin_balanced(
        norb, n_reps=1, seed=np.random.default_rng(seed)
    )
    qubits = QuantumRegister(2 * norb, "q")
    circuit = QuantumCircuit(qubits)
    circuit.append(PrepareHartreeFockJW(norb, nelec), qubits)
    circuit.append(UCJOpSpinBalancedJW(operator), qubits)
    circuit.measure_all()
    return circuit
