"""Sample-based quantum diagonalization of N₂, in small.

python flow.py [--seed N]
"""

import argparse
import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from molecule import NELEC, circuit, prepare
from prefect import flow
from qiskit.primitives import BitArray
from qiskit_addon_sqd.configuration_recovery import recover_configurations
from qiskit_addon_sqd.counts import bit_array_to_arrays, bitstring_matrix_to_integers
from qiskit_addon_sqd.subsampling import postselect_by_hamming_right_and_left, subsample

from hpc_prefect import (
    Iteration,
    Plot,
    campaign,
    cancel_jobs,
    converge,
    ensure_ready,
    run_job_from_blocks,
    sample,
)

HERE = Path(__file__).resolve().parent
HPC_PROFILE = "hpc-local"  # the one line to change for a cluster
QUANTUM_BACKEND = "qpu-ffsim"  # and for a real device


@dataclass
class Estimate:
    """What an iteration hands to the next.

    Attributes:
        occupancies: of the orbitals, (2, norb), spin up first.
        kept: determinants of one spin that weigh most.
    """

    energy: float = float("nan")
    occupancies: np.ndarray | None = None
    kept: np.ndarray = field(default_factory=lambda: np.array([], dtype=np.int64))


@flow(on_cancellation=[cancel_jobs])
async def sqd(seed: int = 1) -> float:
    """The energy in hartree."""
    work = HERE / "work"
    molecule = await asyncio.to_thread(prepare, work / "molecule.npz")

    async def step(before: Estimate, it: Iteration) -> Estimate:
        sampled = await sample(
            [circuit(molecule)],
            quantum_backend_block_name=QUANTUM_BACKEND,
            work_dir=work,
            variable_name="PROJECT-algorithm",
            options={"seed": int(it.rng.integers(2**63))},
        )
        batches = subspaces(sampled[0].data.meas, before, it.parameters, it.rng)
        integrals = {name: molecule[name] for name in ("h1", "eri", "core")}
        # The iteration's own folder; it is the same if the iteration is repeated after a kill.
        write(it.folder / "question.npz", nelec=NELEC, **integrals, **batches)
        await run_job_from_blocks(
            command_block_name="cmd-PROJECT",  # WHAT
            execution_profile_block_name="exec-PROJECT",  # HOW
            hpc_profile_block_name=HPC_PROFILE,  # WHERE
            work_dir=it.folder,
            script_filename="diagonalize",
            user_args=["question.npz", "answer.npz"],
            inputs=["question.npz"],
            expected_outputs=["answer.npz"],
        )
        with np.load(it.folder / "answer.npz") as answer:
            return Estimate(float(answer["energy"]), answer["occupancies"], answer["kept"])

    exact = float(molecule["exact"])
    result = await converge(
        step,
        Estimate(),
        measure=lambda state: {"energy": state.energy, "error_mha": 1e3 * (state.energy - exact)},
        stop_variable_name="PROJECT-algorithm",
        work_dir=work,
        seed=seed,
        name="sqd",
        plot=Plot(reference={"exact": exact}, target=1.6e-3, unit="Ha"),
    )
    return result.state.energy


def subspaces(
    samples: BitArray, before: Estimate, parameters: dict[str, Any], rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """One-spin determinants that span each batch's subspace, as integers.

    At first only samples with the right number of electrons are used; then all, the wrong ones
    repaired towards the occupancies of the last iteration.
    """
    flips = rng.random((samples.num_shots, samples.num_bits)) < parameters["bit_flip_rate"]
    bits, weights = bit_array_to_arrays(samples ^ BitArray.from_bool_array(flips))
    up, down = NELEC
    if before.occupancies is None:
        bits, weights = postselect_by_hamming_right_and_left(
            bits, weights, hamming_right=up, hamming_left=down
        )
    else:
        occupancies = (before.occupancies[0], before.occupancies[1])
        bits, weights = recover_configurations(bits, weights, occupancies, up, down, rand_seed=rng)
    drawn = subsample(
        bits,
        weights,
        samples_per_batch=parameters["samples_per_batch"],
        num_batches=parameters["batches"],
        rand_seed=rng,
    )
    return {
        f"batch{number}": np.union1d(both_spins(batch), before.kept)
        for number, batch in enumerate(drawn)
    }


def both_spins(batch: np.ndarray) -> np.ndarray:
    """The determinants of either spin: one list serves both."""
    half = batch.shape[1] // 2
    return bitstring_matrix_to_integers(np.vstack([batch[:, half:], batch[:, :half]]))


def write(path: Path, **arrays: Any) -> None:
    """Write a file as a whole or not at all: a job may be about to read it."""
    np.savez(part := path.with_suffix(".part.npz"), **arrays)
    part.replace(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The ground state of N₂ by SQD, in small.")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    ensure_ready(HERE / "blocks.toml")
    with campaign("sqd"):  # started again, the flow goes on with what it has
        energy = asyncio.run(sqd(arguments.seed))
    print(f"energy {energy:.4f} hartree")
