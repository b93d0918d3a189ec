"""The ground state of three spins in a field, found by a loop that converges.

python flow.py [--seed N]
"""

import argparse
import asyncio
from pathlib import Path

import numpy as np
from prefect import flow
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.quantum_info import SparsePauliOp

from hpc_prefect import Iteration, Plot, campaign, converge, ensure_ready, estimate

HERE = Path(__file__).resolve().parent
QUANTUM_BACKEND = "qpu-aer"  # the one line to change for a real device
HAMILTONIAN = SparsePauliOp(["ZZI", "IZZ", "XII", "IXI", "IIX"], [-1, -1, -0.6, -0.6, -0.6])
EXACT = float(np.linalg.eigvalsh(HAMILTONIAN.to_matrix())[0])
ANGLES = 6


def ansatz() -> QuantumCircuit:
    """Turns of each spin, before and after they are entangled."""
    angles = ParameterVector("angle", ANGLES)
    circuit = QuantumCircuit(3, name="ansatz")
    for spin in range(3):
        circuit.ry(angles[spin], spin)
    circuit.cx(0, 1)
    circuit.cx(1, 2)
    for spin in range(3):
        circuit.ry(angles[3 + spin], spin)
    return circuit


@flow
async def vqe(seed: int = 1) -> float:
    """Gradient descent by the parameter-shift rule; the last energy."""
    work = HERE / "work"

    async def step(state: dict[str, list[float]], it: Iteration) -> dict[str, list[float]]:
        angles = np.array(state["angles"])
        shifts = np.pi / 2 * np.vstack([np.zeros(ANGLES), np.eye(ANGLES), -np.eye(ANGLES)])
        options = {"precision": it.parameters["precision"], "seed": int(it.rng.integers(2**31))}
        found = await estimate(
            [(ansatz(), HAMILTONIAN, angles + shifts)],
            quantum_backend_block_name=QUANTUM_BACKEND,
            work_dir=work,
            options=options,
        )
        energy, *shifted = found[0].data.evs
        gradient = (np.array(shifted[:ANGLES]) - np.array(shifted[ANGLES:])) / 2
        angles = angles - it.parameters["rate"] * gradient
        return {"angles": angles.tolist(), "energy": [float(energy)]}

    result = await converge(
        step,
        {"angles": [1.5, 0.0, 0.0, 0.8, 0.0, 0.0], "energy": [0.0]},
        measure=lambda state: {"energy": state["energy"][0]},
        stop_variable_name="PROJECT-algorithm",
        work_dir=work,
        seed=seed,
        name="vqe",
        plot=Plot(reference={"exact": EXACT}),
    )
    return result.state["energy"][0]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The ground state of three spins in a field.")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    ensure_ready(HERE / "blocks.toml")
    with campaign("vqe"):  # started again, the flow goes on with what it has
        energy = asyncio.run(vqe(arguments.seed))
    print(f"energy {energy:.3f}, exact {EXACT:.3f}")
