"""SQD for N₂: sample on a quantum computer, diagonalize on a supercomputer, until it converges.

Each iteration is done twice with the same budget: with samples of the LUCJ circuit, and with
uniformly random bits in their place, without which the numbers of the first would mislead.
"""

import asyncio
from pathlib import Path

from chemistry import NELEC, Molecule, prepare
from prefect import flow, task
from recovery import Estimate, determinants, fork
from subspaces import diagonalize, nodes

from hpc_prefect import (
    ONCE,
    Convergence,
    Iteration,
    Plot,
    cancel_jobs,
    converge,
    sample,
)

State = dict[str, Estimate]


@flow(on_cancellation=[cancel_jobs])
async def sqd_n2(
    work_dir: str,
    hpc_profile: str = "hpc-local",
    quantum_backend: str = "qpu-simulator",
    seed: int = 1,
    hold: bool = False,
) -> Convergence[State]:
    """The ground-state energy of N₂, cc-pVDZ, 10 electrons in 12 orbitals, by SQD.

    With `hold` the loop runs in a held allocation, and each of its subspaces is a job of an array.
    """
    folder = Path(work_dir).absolute()
    molecule = await asyncio.to_thread(task(prepare, cache_policy=ONCE), folder / "molecule.npz")
    backends = {"lucj": quantum_backend, "uniform": "qpu-uniform"}

    async def step(state: State, it: Iteration) -> State:
        rngs = {name: fork(it.rng) for name in backends}
        return {name: await improve(name, state[name], it, rngs[name]) for name in backends}

    async def improve(name, before, it, rng) -> Estimate:
        sampled = await sample(
            [molecule.circuit()],
            quantum_backend_block_name=backends[name],
            work_dir=folder,
            variable_name="sqd-quantum",
            options={"seed": int(rng.integers(2**63))},
        )
        bits = sampled[0].data.meas
        batches = await asyncio.to_thread(determinants, bits, before, NELEC, it.parameters, rng)
        threshold = it.parameters["carryover_threshold"]
        label = f"{name}-{it.number}"
        return await diagonalize(
            *(folder, label, molecule, batches),
            threshold=threshold,
            hpc_profile=hpc_profile,
            array=hold,
        )

    async with nodes(hpc_profile, folder, hold=hold):
        return await converge(
            step,
            {name: Estimate() for name in backends},
            measure=lambda state: columns(state, molecule),
            work_dir=folder,
            stop_variable_name="sqd-algorithm",
            seed=seed,
            name="sqd-n2",
            plot=Plot(
                columns=("energy", "uniform_energy"),
                reference={"exact": molecule.e_exact, "CCSD": molecule.e_ccsd},
                target=1.6e-3,
                unit="Ha",
            ),
        )


def columns(state: State, molecule: Molecule) -> dict[str, float | int]:
    """The columns of the iteration table: LUCJ, then `uniform_…`; errors in millihartree."""
    row: dict[str, float | int] = {}
    for name, prefix in (("lucj", ""), ("uniform", "uniform_")):
        row[f"{prefix}energy"] = state[name].energy
        row[f"{prefix}error_mha"] = 1e3 * (state[name].energy - molecule.e_exact)
        row[f"{prefix}dimension"] = state[name].dimension
    return row
