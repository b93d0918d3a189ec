"""The energy of two spins in a field, brought down on a simulated quantum computer: in seconds.

    python flow.py --work-dir DIR [--shots N] [--seed N]

The experiment of the page on records, history and comparison: few shots, a noisy curve.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

import numpy as np
from prefect import flow
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.quantum_info import SparsePauliOp

from hpc_prefect import (
    Iteration,
    Plot,
    QuantumBackendBlock,
    StopRule,
    converge,
    estimate,
    record_measures,
)

HAMILTONIAN = SparsePauliOp(["ZZ", "XI", "IX"], [-1.0, -0.5, -0.5])
EXACT = float(np.linalg.eigvalsh(HAMILTONIAN.to_matrix())[0])
BACKEND = "qpu-ising"
RATE = 0.5


def ansatz() -> QuantumCircuit:
    """Turns of each spin, before and after they are entangled."""
    angles = ParameterVector("angle", 4)
    circuit = QuantumCircuit(2, name="ising")
    circuit.ry(angles[0], 0)
    circuit.ry(angles[1], 1)
    circuit.cx(0, 1)
    circuit.ry(angles[2], 0)
    circuit.ry(angles[3], 1)
    return circuit


@flow
async def ising(work_dir: str, shots: int = 1000, seed: int = 1, iterations: int = 6) -> float:
    """Gradient descent by the parameter-shift rule; the last energy."""
    folder = Path(work_dir).absolute()

    async def step(state: dict[str, list[float]], it: Iteration) -> dict[str, list[float]]:
        angles = np.array(state["angles"])
        shifts = np.pi / 2 * np.vstack([np.zeros(4), np.eye(4), -np.eye(4)])
        found = await estimate(
            [(ansatz(), HAMILTONIAN, angles + shifts)],
            quantum_backend_block_name=BACKEND,
            work_dir=folder,
            options={"precision": shots**-0.5, "seed": int(it.rng.integers(2**31))},
        )
        energies = found[0].data.evs
        gradient = (energies[1:5] - energies[5:]) / 2
        return {"angles": (angles - RATE * gradient).tolist(), "energy": [float(energies[0])]}

    result = await converge(
        step,
        {"angles": [0.4, 0.1, 0.1, 0.3], "energy": [0.0]},
        measure=lambda state: {"energy": state["energy"][0]},
        stop=StopRule(value="energy", max_iterations=iterations),
        work_dir=folder,
        seed=seed,
        name="ising",
        plot=Plot(reference={"exact": EXACT}),
    )
    energy = float(result.history[-1]["energy"])
    record_measures(error=energy - EXACT)
    return energy


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work-dir", type=Path, required=True)
    parser.add_argument("--shots", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    QuantumBackendBlock(backend_name="aer").save(BACKEND, overwrite=True, _sync=True)
    print(asyncio.run(ising(str(arguments.work_dir), arguments.shots, arguments.seed)))
