#!/usr/bin/env python3
"""diagonalize.py QUESTION ANSWER: the lowest state in each of several subspaces, by MPI ranks."""

import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy: sums of threads differ in last bits

import numpy as np
from pyscf.fci import selected_ci

try:
    from mpi4py import MPI
except ImportError:  # one process solves all
    rank, ranks, world = 0, 1, None
else:
    world = MPI.COMM_WORLD
    rank, ranks = world.rank, world.size


def main(question_file: str, answer_file: str) -> None:
    with np.load(question_file) as stored:
        question = dict(stored)
    batches = [question[name] for name in sorted(question) if name.startswith("batch")]
    mine = {i: solve(batches[i], question) for i in range(rank, len(batches), ranks)}
    parts = world.gather(mine) if world else [mine]
    if parts is not None:  # on rank 0
        solved = {i: one for part in parts for i, one in part.items()}
        energy, occupancies, kept = min(solved.values(), key=lambda one: one[0])
        print(f"{len(batches)} subspaces on {ranks} ranks, lowest energy {energy:.6f}", flush=True)
        np.savez(answer_file, energy=energy, occupancies=occupancies, kept=kept)


def solve(
    strings: np.ndarray, question: dict[str, np.ndarray]
) -> tuple[float, np.ndarray, np.ndarray]:
    """Energy and occupancies in the space of all pairs of these determinants of one spin.

    And the determinants that weigh most, which the next iteration keeps.
    """
    norb, nelec = len(question["h1"]), tuple(question["nelec"])
    solver = selected_ci.SelectedCI()
    energy, state = selected_ci.kernel_fixed_space(
        solver, question["h1"], question["eri"], norb, nelec, (strings, strings)
    )
    up, down = solver.make_rdm1s(state, norb, nelec)
    large = np.abs(np.asarray(state)) > 1e-3
    kept = strings[large.any(axis=0) | large.any(axis=1)]
    return float(energy + question["core"]), np.array([np.diag(up), np.diag(down)]), kept


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
