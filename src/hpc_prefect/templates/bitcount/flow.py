"""Bitstrings of a quantum computer (here imitated) are counted by an MPI program in a batch job.

python flow.py [--shots N] [--seed N]
"""

import argparse
import asyncio
import json
import random
from pathlib import Path

from prefect import flow

from hpc_prefect import (
    campaign,
    cancel_jobs,
    ensure_ready,
    record_measures,
    run_job_from_blocks,
)

HERE = Path(__file__).resolve().parent
HPC_PROFILE = "hpc-local"  # the one line to change for a cluster
QUBITS = 10


@flow(on_cancellation=[cancel_jobs])
async def bitcount(shots: int = 10_000, seed: int = 1) -> dict[str, int]:
    """How often each bitstring was measured."""
    work = HERE / "work"
    bits, counts = f"bits-{shots}-{seed}.txt", f"counts-{shots}-{seed}.json"
    write(work / bits, "\n".join(imitated_ghz(shots, seed)))
    await run_job_from_blocks(
        command_block_name="cmd-PROJECT",  # WHAT
        execution_profile_block_name="exec-PROJECT",  # HOW
        hpc_profile_block_name=HPC_PROFILE,  # WHERE
        work_dir=work,
        script_filename="count-bits",
        user_args=[bits, counts],
        inputs=[bits],  # must be there; their content is part of the job's identity
        expected_outputs=[counts],  # or the job has failed, whatever its exit code says
    )
    found: dict[str, int] = json.loads((work / counts).read_text())
    alike = sum(found.get(bit * QUBITS, 0) for bit in "01")
    record_measures(all_alike=alike / shots)  # for `hpc-prefect runs compare`
    return found


def imitated_ghz(shots: int, seed: int) -> list[str]:
    """All zeros or all ones, and now and then an error."""
    rng = random.Random(seed)
    ideal = [rng.choice((0, 1)) for _ in range(shots)]
    return ["".join(str(bit ^ (rng.random() < 0.01)) for _ in range(QUBITS)) for bit in ideal]


def write(path: Path, text: str) -> None:
    """Write a file as a whole or not at all: a job may be about to read it."""
    path.parent.mkdir(exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(text)
    part.replace(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Count bitstrings in a batch job.")
    parser.add_argument("--shots", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    ensure_ready(HERE / "blocks.toml")
    with campaign("bitcount"):  # started again, the flow goes on with what it has
        found = asyncio.run(bitcount(arguments.shots, arguments.seed))
    for bitstring, count in sorted(found.items(), key=lambda item: -item[1])[:5]:
        print(bitstring, count)
