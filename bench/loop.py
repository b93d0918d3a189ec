"""The SQD demo's loop under orchestration, beside the same steps as a plain script with `mpiexec`.

    python bench/loop.py [--turns 3] [--iterations 5] [--ranks 2]

Run by `make bench`. Both have the molecule prepared, and as many iterations, whether they have
converged or not; they sample, recover configurations and run `mpiexec -n 2 diagonalize.py` with the
same numbers, so that they have the same energies to the last bit, which is checked. They take
turns, each first every other time, and the ratios of turns count: on a busy machine a time by
itself says nothing. The flow is the demo's, with its default profile and with artifacts. Where the
ranks fill all cores, each second of CPU of Prefect's server is one that they wait: `--ranks 1` on
two cores shows what a machine with a core to spare has. It starts a Prefect server of its own in a
temporary home, and stops it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import statistics
import subprocess
import sys
import time
import tomllib
from pathlib import Path

from common import HOME, load, prefect_server, told  # before Prefect

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "sqd_n2"))
os.environ["OMP_NUM_THREADS"] = "1"  # as `make demo` has it
os.environ["HOME"] = str(HOME)  # the queue is there: nobody else's jobs are to be in it

# isort: split

import numpy as np
from chemistry import NELEC, Molecule, prepare
from exchange import ask, read_answer
from ffsim.qiskit import FfsimSampler
from flow import sqd_n2
from prefect.variables import Variable
from qiskit.primitives import BitArray
from recovery import Estimate, determinants, fork

from hpc_prefect import ExecutionProfileBlock
from hpc_prefect.block_files import apply

DEMO = Path(__file__).parents[1] / "examples" / "sqd_n2"
TURNS, ITERATIONS, RANKS = 3, 5, 2
MOST_RATIO = 1.05
PREPARED = HOME / "prepared.npz"


# --- as a plain script


def by_hand(
    folder: Path, seed: int, *, iterations: int, ranks: int
) -> tuple[float, float, list[float]]:
    """Seconds of so many iterations, of these in `mpiexec`, and the energies."""
    variables = tomllib.loads((DEMO / "blocks.toml").read_text())["variable"]
    began = time.perf_counter()
    molecule, rng = prepare(folder / "molecule.npz"), np.random.default_rng(seed)
    state = {"lucj": Estimate(), "uniform": Estimate()}
    energies, in_programs = [], 0.0
    for number in range(1, iterations + 1):
        rngs = {name: fork(rng) for name in state}
        for name, own in rngs.items():
            bits = sampled(name, molecule, own, variables["sqd-quantum"]["shots"])
            numbers = variables["sqd-algorithm"]
            batches = determinants(bits, state[name], NELEC, numbers, own)
            threshold = numbers["carryover_threshold"]
            label = f"{name}-{number}"
            question, answer = ask(folder, label, molecule, batches, threshold=threshold)
            before = time.perf_counter()
            diagonalized(folder, question, answer, ranks)
            in_programs += time.perf_counter() - before
            state[name] = read_answer(folder / answer)
        energies.append(state["lucj"].energy)
    return time.perf_counter() - began, in_programs, energies


def sampled(name: str, molecule: Molecule, rng: np.random.Generator, shots: int) -> BitArray:
    """As the simulators of the demo's two quantum blocks have it."""
    seed, circuit = int(rng.integers(2**63)), molecule.circuit()
    if name == "uniform":
        shape = (shots, -(-circuit.num_qubits // 8))
        own = np.random.default_rng(seed)
        return BitArray(own.integers(0, 256, shape, dtype=np.uint8), circuit.num_qubits)
    return FfsimSampler(seed=seed).run([(circuit,)], shots=shots).result()[0].data.meas


def diagonalized(folder: Path, question: str, answer: str, ranks: int) -> None:
    path = f"{sys.prefix}/bin:{os.environ['PATH']}"
    subprocess.run(
        ["mpiexec", "-n", str(ranks), DEMO / "diagonalize.py", question, answer],
        env=os.environ | {"PATH": path},
        cwd=folder,
        stdout=subprocess.DEVNULL,
        check=True,
    )


# --- under orchestration


async def save_blocks(*, iterations: int, ranks: int) -> None:
    document = apply.read_file(DEMO / "blocks.toml", venv=sys.prefix, environ=os.environ)
    await apply.apply_document(document, report=lambda change: None, force=True)
    profile = await ExecutionProfileBlock.aload("exec-diag-mpi")
    profile.ranks_per_node = ranks
    await profile.save("exec-diag-mpi", overwrite=True)
    numbers = tomllib.loads((DEMO / "blocks.toml").read_text())["variable"]["sqd-algorithm"]
    stop = {"value": "energy", "max_iterations": iterations}
    await Variable.aset("sqd-algorithm", numbers | {"stop": stop}, overwrite=True)


def orchestrated(folder: Path, seed: int) -> tuple[float, list[float]]:
    """Seconds of the flow, and its energies."""
    began = time.perf_counter()
    result = asyncio.run(sqd_n2(str(folder), seed=seed))
    seconds = time.perf_counter() - began
    return seconds, [float(row["energy"]) for row in result.history]


# --- what is told


def folder_of(name: str) -> Path:
    folder = HOME / name
    folder.mkdir()
    shutil.copy(PREPARED, folder / "molecule.npz")
    return folder


def turn(number: int, *, iterations: int, ranks: int) -> float:
    """The ratio of one turn."""
    seed = number + 1

    def flow() -> tuple[float, list[float]]:
        return orchestrated(folder_of(f"flow-{number}"), seed)

    def script() -> tuple[float, float, list[float]]:
        return by_hand(folder_of(f"script-{number}"), seed, iterations=iterations, ranks=ranks)

    if number % 2:
        hand, programs, energies = script()
        ours, found = flow()
    else:
        ours, found = flow()
        hand, programs, energies = script()
    assert found == energies, (found, energies)
    print(
        f"turn {number}: {iterations} iterations in {ours:.1f} s; by hand {hand:.1f} s,"
        f" {programs:.1f} of it in mpiexec; ratio {ours / hand:.3f}; {load()}",
        flush=True,
    )
    return ours / hand


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--turns", type=int, default=TURNS)
    parser.add_argument("--iterations", type=int, default=ITERATIONS)
    parser.add_argument("--ranks", type=int, default=RANKS)
    asked = parser.parse_args()
    sizes = {"iterations": asked.iterations, "ranks": asked.ranks}
    print("preparing the molecule …", file=sys.stderr)
    prepare(PREPARED)
    with prefect_server():
        asyncio.run(save_blocks(**sizes))
        orchestrated(folder_of("warm-up"), 0)
        ratios = [turn(number, **sizes) for number in range(asked.turns)]
    ratio = statistics.median(ratios)
    print(
        f"the demo's loop, {asked.ranks} ranks on {os.cpu_count()} cores: {ratio:.3f} × the plain"
        f" script, median of {len(ratios)}"
        f" ({min(ratios):.3f} to {max(ratios):.3f}; {told(ratio, MOST_RATIO, 'x')})"
    )


if __name__ == "__main__":
    main()
