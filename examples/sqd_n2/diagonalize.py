#!/usr/bin/env python3
"""diagonalize.py QUESTION ANSWER: the lowest state of a Hamiltonian in each of several subspaces.

An MPI program: the batches are spread over the ranks, and each is solved by one of them with
PySCF's selected CI. How many ranks there are changes the time, not one bit of the energies.

QUESTION is an npz with
    h1, eri             integrals, (norb,)*2 and (norb,)*4      core       energy to add, hartree
    nelec               electrons, spin up and spin down        threshold  amplitude, see carryover
    strings_0 …         sorted one-spin determinants of each batch, used for both spins
ANSWER is an npz with
    energies            (batches,), hartree                     best       the lowest batch
    spin_squares        (batches,)                              dimensions (batches,), determinants
    occupancies         (batches, 2, norb)
    carryover           one-spin determinants of the best batch that occur in a configuration with
                        an amplitude above the threshold, heaviest first
    ranks               (batches,), who solved it

It appears whole or not at all, and has no times in it: the same question gives the same bytes.
Any rank's failure ends all of them with a non-zero code.
"""

from __future__ import annotations

import io
import os
import sys
import time
import traceback
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

# Before NumPy and PySCF are loaded: sums of several threads differ in their last bits.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from mpi4py import MPI
from pyscf.fci import selected_ci


class Solution(NamedTuple):
    """One batch, solved."""

    energy: float
    spin_square: float
    occupancies: np.ndarray
    carryover: np.ndarray
    rank: int


def main(question_path: Path, answer_path: Path) -> None:
    """Solve this rank's batches; rank 0 collects and writes."""
    world = MPI.COMM_WORLD
    check_launcher(world.size)
    with np.load(question_path) as stored:
        question = {name: stored[name] for name in stored}
    batches = [
        question[f"strings_{i}"] for i in range(sum(n.startswith("strings_") for n in question))
    ]
    if not batches:
        raise ValueError(f"{question_path} holds no batch (strings_0 …)")
    mine = shares([len(batch) for batch in batches], world.size)[world.rank]
    started = time.perf_counter()
    solved = {i: solve(batches[i], question, world.rank) for i in mine}
    seconds = time.perf_counter() - started
    gathered = world.gather((solved, seconds))
    if gathered is not None:
        everything = {i: each for part, _ in gathered for i, each in part.items()}
        solutions = [everything[i] for i in range(len(batches))]
        write(answer_path, solutions, batches, [spent for _, spent in gathered])


def check_launcher(ranks: int) -> None:
    """Refuse to run as so many programs of one rank, each of which would do all of the work.

    Raises:
        RuntimeError: the launcher started several ranks, but they do not find each other.
    """
    for name in ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS"):
        told = os.environ.get(name, "")
        if ranks == 1 and told.isdecimal() and int(told) > 1:
            library = MPI.Get_library_version().partition("\n")[0].rstrip("\0")
            raise RuntimeError(
                f"started as one of {told} ranks ({name}), but MPI knows only this one: the"
                f" launcher is not that of mpi4py's MPI, {library}; MPI4PY_LIBMPI names another"
            )


def shares(sizes: list[int], ranks: int) -> list[list[int]]:
    """Which batches each rank solves: the largest first, each to the rank with least to do."""
    load = [0] * ranks
    mine: list[list[int]] = [[] for _ in range(ranks)]
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        rank = load.index(min(load))
        load[rank] += sizes[i] ** 3  # the cost of a batch, about
        mine[rank].append(i)
    return mine


def solve(strings: np.ndarray, question: dict[str, np.ndarray], rank: int) -> Solution:
    """The lowest state in the product space of `strings` for both spins."""
    norb = question["h1"].shape[0]
    nelec = tuple(int(n) for n in question["nelec"])
    solver = selected_ci.SelectedCI()
    energy, state = selected_ci.kernel_fixed_space(
        solver, question["h1"], question["eri"], norb, nelec, (strings, strings), tol=1e-10
    )
    if not np.all(solver.converged):
        raise RuntimeError(f"the solver did not converge for a batch of {len(strings)} strings")
    amplitudes = np.abs(np.asarray(state))
    large = amplitudes > float(question["threshold"])
    weights = (amplitudes**2).sum(axis=0) + (amplitudes**2).sum(axis=1)
    kept = np.flatnonzero(large.any(axis=0) | large.any(axis=1))
    return Solution(
        energy=float(energy) + float(question["core"]),
        spin_square=float(solver.spin_square(state, norb, nelec)[0]),
        occupancies=np.array([np.diag(dm) for dm in solver.make_rdm1s(state, norb, nelec)]),
        carryover=strings[kept[np.argsort(-weights[kept], kind="stable")]],
        rank=rank,
    )


def write(
    path: Path, solutions: list[Solution], batches: list[np.ndarray], seconds: list[float]
) -> None:
    """Write the answer under a temporary name, then rename it."""
    energies = np.array([each.energy for each in solutions])
    best = int(np.argmin(energies))
    buffer = io.BytesIO()
    np.savez(
        buffer,
        energies=energies,
        best=best,
        spin_squares=np.array([each.spin_square for each in solutions]),
        dimensions=np.array([len(batch) ** 2 for batch in batches]),
        occupancies=np.array([each.occupancies for each in solutions]),
        carryover=solutions[best].carryover,
        ranks=np.array([each.rank for each in solutions]),
    )
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    temporary.write_bytes(buffer.getvalue())
    temporary.replace(path)
    print(f"{len(batches)} batches on {len(seconds)} ranks, lowest energy {energies[best]:.9f} Ha")
    print(f"the slowest rank took {max(seconds):.3f} s")


def abort(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """End every rank: the others would wait for this one for ever."""
    rank = MPI.COMM_WORLD.rank
    where = "".join(traceback.format_exception(kind, error, trace))
    reason = f"diagonalize.py: rank {rank}: {kind.__name__}: {error}"
    print(f"{where}\n{reason}", file=sys.stderr, flush=True)
    time.sleep(1)  # a launcher that is told to abort may drop what it has not read yet
    MPI.COMM_WORLD.Abort(1)


if __name__ == "__main__":
    sys.excepthook = abort
    if len(sys.argv) != 3:
        sys.exit("usage: diagonalize.py QUESTION ANSWER")
    main(Path(sys.argv[1]), Path(sys.argv[2]))
