"""The loop around SQD: optimize the couplings of the LUCJ circuit by differential evolution.

In each generation every walker has a circuit with couplings of its own. All are sampled at once and
diagonalized at once, an HPC job each; new couplings stay when they give a lower energy than those
before. The best walker's determinants are carried over to all of the next generation. As many
walkers with uniformly random bits, without which the numbers of the first would mislead, have the
same budget.
"""

import asyncio
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any

from chemistry import prepare
from exchange import ask, read_answer, read_energies
from prefect import flow, task
from recovery import Estimate, fork
from walkers import NOTHING, Found, Generation, columns, proposed, subspaces, succeeded

from hpc_prefect import (
    ONCE,
    Convergence,
    Iteration,
    Plot,
    cancel_jobs,
    converge,
    run_job_from_blocks,
    sample,
    scope,
)

Key = tuple[str, int]  # the kind of samples, the walker's number


@flow(on_cancellation=[cancel_jobs])
async def optimize_lucj(
    work_dir: str,
    hpc_profile: str = "hpc-local",
    quantum_backend: str = "qpu-simulator",
    basis: str = "cc-pvdz",
    norb: int = 10,
    seed: int = 1,
) -> Convergence[Generation]:
    """The lowest SQD energy of N₂ that LUCJ circuits with optimized couplings lead to."""
    folder = Path(work_dir).absolute()
    stored = folder / f"molecule-{basis}-{norb}.npz"
    molecule = await asyncio.to_thread(
        task(prepare, cache_policy=ONCE), stored, basis=basis, norb=norb
    )
    backends = {"lucj": quantum_backend, "uniform": "qpu-uniform"}

    async def step(before: Generation, it: Iteration) -> Generation:
        vectors = proposed(before.population, molecule.couplings, it.parameters, it.rng)
        found = await all_of(
            {
                # Forked here, in order: which walker is the faster one must not matter.
                (kind, i): walk((kind, i), vector, before.best[kind], it, fork(it.rng))
                for kind in backends
                for i, vector in enumerate(vectors)
            },
            it.number,
        )
        return succeeded(before, vectors, found)

    async def walk(key: Key, couplings, best: Estimate, it: Iteration, rng) -> Found:
        kind, walker = key
        with scope(f"{kind}-walker-{walker}"):
            sampled = await sample(
                [molecule.with_couplings(couplings).circuit()],
                quantum_backend_block_name=backends[kind],
                work_dir=folder,
                variable_name="sqd-walkers",
                options={"seed": int(rng.integers(2**63))},
            )
            own, batches = await asyncio.to_thread(
                subspaces, sampled[0].data.meas, best, it.parameters, rng
            )
            threshold = it.parameters["carryover_threshold"]
            label = f"{kind}-{it.number}-{walker}"
            question, answer = ask(folder, label, molecule, batches, threshold=threshold)
            await run_job_from_blocks(
                command_block_name="cmd-diag",
                execution_profile_block_name="exec-diag-mpi",
                hpc_profile_block_name=hpc_profile,
                work_dir=folder,
                script_filename=f"diag-{label}",
                user_args=[question, answer],
                inputs=[question],
                expected_outputs=[answer],
                retries=1,  # after a node failure or a preemption, not after the program's error
            )
        fitness = float(read_energies(folder / answer)[:own].min())
        return Found(fitness, read_answer(folder / answer))

    return await converge(
        step,
        Generation(population=None, replaced=0, best=dict.fromkeys(backends, NOTHING)),
        measure=lambda generation: columns(generation, molecule),
        work_dir=folder,
        stop_variable_name="sqd-walkers",
        seed=seed,
        name="sqd-n2-walkers",
        plot=Plot(
            columns=("energy", "best_walker", "uniform_energy"),
            reference={"exact": molecule.e_exact, "CCSD": molecule.e_ccsd},
            target=1.6e-3,
            unit="Ha",
        ),
    )


async def all_of(
    walkers: Mapping[Key, Coroutine[Any, Any, Found]], generation: int
) -> dict[Key, Found]:
    """What every walker found. One that fails interrupts no other: their jobs are paid for.

    Raises:
        ExceptionGroup: of all failures, once every walker has ended.
    """
    ended = await asyncio.gather(*walkers.values(), return_exceptions=True)
    named = dict(zip(walkers, ended, strict=True))
    failures = {key: end for key, end in named.items() if isinstance(end, BaseException)}
    for end in failures.values():
        if not isinstance(end, Exception):
            raise end
    if failures:
        lines = [
            f"generation {generation}: {len(failures)} of {len(named)} walkers failed; what the"
            " others found is kept, and started again the flow runs only these:",
            *(f"{kind} walker {i}: {first_line(end)}" for (kind, i), end in failures.items()),
        ]
        raise ExceptionGroup("\n".join(lines), list(failures.values()))
    return named


def first_line(error: object) -> str:
    return str(error).partition("\n")[0]
