"""The magnetization of an Ising lattice over the temperature: an array of jobs in one call.

python flow.py [--size N] [--sweeps N]
"""

import argparse
import asyncio
import itertools
import json
from pathlib import Path

from prefect import flow

from hpc_prefect import (
    Member,
    campaign,
    cancel_jobs,
    ensure_ready,
    record_measures,
    run_jobs_from_blocks,
)

HERE = Path(__file__).resolve().parent
HPC_PROFILE = "hpc-local"  # the one line to change for a cluster
TEMPERATURES = [1.5 + 0.1 * step for step in range(16)]


@flow(on_cancellation=[cancel_jobs])
async def sweep(size: int = 16, sweeps: int = 200) -> dict[str, float]:
    """The magnetization at each temperature."""
    work = HERE / "work"
    results = {f"{each:.1f}": f"m-{each:.1f}-{size}-{sweeps}.json" for each in TEMPERATURES}
    await run_jobs_from_blocks(
        command_block_name="cmd-PROJECT",  # WHAT
        execution_profile_block_name="exec-PROJECT",  # HOW
        hpc_profile_block_name=HPC_PROFILE,  # WHERE
        work_dir=work,
        script_filename="ising",
        members=[
            Member(user_args=[temperature, size, sweeps, file], expected_outputs=[file])
            for temperature, file in results.items()
        ],
        pack=4,  # an element of the array runs four of them, one after another
    )
    found = {
        temperature: json.loads((work / file).read_text())["magnetization"]
        for temperature, file in results.items()
    }
    record_measures(transition=steepest(found))  # for `hpc-prefect runs compare`
    return found


def steepest(found: dict[str, float]) -> float:
    """The temperature above which the magnetization falls most."""
    falls = {a: found[a] - found[b] for a, b in itertools.pairwise(found)}
    return float(max(falls, key=lambda name: falls[name]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Sweep the temperature of an Ising lattice.")
    parser.add_argument("--size", type=int, default=16)
    parser.add_argument("--sweeps", type=int, default=200)
    arguments = parser.parse_args()
    ensure_ready(HERE / "blocks.toml")
    with campaign("sweep"):  # started again, the flow goes on with what it has
        found = asyncio.run(sweep(arguments.size, arguments.sweeps))
    for temperature, value in found.items():
        print(f"{temperature}  {value:.3f}  {'#' * round(40 * value)}")
