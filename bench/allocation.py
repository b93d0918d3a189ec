"""A loop whose jobs each wait in the queue, on a real Slurm: in a held allocation and without.

Run by `make bench` as root where HPC_PREFECT_ENGINES names slurm, or on CI; anywhere else it says
so and ends. STEPS (default 10) iterations of one job of a second on a node of four cores. Every
submission waits WAIT seconds (30): the profile has `--begin=now+WAIT`. Then the time from the
hand-over of a job to its start in an allocation, TURNS times.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time

from common import HOME, prefect_server, told  # before Prefect
from slurm import cluster, counted

# isort: split

from prefect import flow

from hpc_prefect import (
    CommandBlock,
    ExecutionProfileBlock,
    HPCProfileBlock,
    allocation,
    run_job_from_blocks,
    scope,
)

STEPS = int(os.environ.get("STEPS", "10"))
WAIT = int(os.environ.get("WAIT", "30"))
TURNS = int(os.environ.get("TURNS", "20"))
WORK_SECONDS = 1.0
MOST_RATIO, MOST_LATENCY = 1.15, 1.0


def save_blocks() -> None:
    command = CommandBlock(command_name="sleep", executable_key="sleep")
    command.save("cmd", _sync=True)
    minute = ExecutionProfileBlock(profile_name="minute", command_name="sleep", walltime="00:01:00")
    minute.save("exec", _sync=True)
    shape = ExecutionProfileBlock(
        profile_name="held", command_name="sleep", ranks_per_node=4, walltime="00:20:00"
    )
    shape.save("exec-alloc", _sync=True)
    for name, directives in (("waits", [f"--begin=now+{WAIT}"]), ("at-once", [])):
        place = HPCProfileBlock(
            scheduler="slurm",
            executables={"sleep": "/bin/sleep"},
            slurm={"directives": directives},
            poll_interval=5.0,
        )
        place.save(name, _sync=True)


async def step(hpc: str, work_dir: str, name: str, seconds: float) -> float | None:
    """Run one; node-hours that it used."""
    result = await run_job_from_blocks(
        command_block_name="cmd",
        execution_profile_block_name="exec",
        hpc_profile_block_name=hpc,
        work_dir=work_dir,
        script_filename=name,
        user_args=[seconds],
    )
    return result.queue_seconds if seconds == 0 else (result.run_seconds or 0.0) / 3600


async def loop(work_dir: str) -> float:
    hours = 0.0
    for k in range(STEPS):
        with scope(f"step-{k}"):
            hours += await step("waits", work_dir, "step", WORK_SECONDS) or 0.0
    return hours


@flow
async def alone(work_dir: str) -> tuple[float, float]:
    """Wall seconds, and node-hours."""
    began = time.perf_counter()
    hours = await loop(work_dir)
    return time.perf_counter() - began, hours


@flow
async def held(work_dir: str) -> tuple[float, float, float]:
    """Wall seconds, and node-hours held and used."""
    began = time.perf_counter()
    async with allocation(
        execution_profile_block_name="exec-alloc",
        hpc_profile_block_name="waits",
        work_dir=work_dir,
    ) as nodes:
        await loop(work_dir)
    return time.perf_counter() - began, nodes.use.held, nodes.use.used


@flow
async def latencies(work_dir: str) -> list[float]:
    """Seconds from the hand-over of a job to its start, one job after another."""
    found = []
    async with allocation(
        execution_profile_block_name="exec-alloc",
        hpc_profile_block_name="at-once",
        work_dir=work_dir,
    ):
        for turn in range(TURNS):
            found.append(await step("at-once", work_dir, f"turn-{turn}", 0) or 0.0)
            await asyncio.sleep(turn % 5)  # the agent looks ever less often while it waits
    return found[1:]  # the first one waited for the allocation


def main() -> None:
    named = os.environ.get("HPC_PREFECT_ENGINES", "").replace(",", " ").split()
    if os.geteuid() != 0 or not ("slurm" in named or os.environ.get("CI") == "true"):
        print("not run: it needs a real Slurm; set HPC_PREFECT_ENGINES=slurm as root")
        HOME.rmdir()
        return
    with cluster(), prefect_server():
        save_blocks()
        report()


def report() -> None:
    work = STEPS * WORK_SECONDS
    with counted() as commands:
        seconds, node_hours, used = asyncio.run(held(str(HOME / "held")))
    ratio = seconds / (WAIT + work)
    print(
        f"{STEPS} steps of {WORK_SECONDS:g} s, each submission waits {WAIT} s, in an allocation:"
        f" {seconds:.1f} s, {ratio:.2f} × (one wait + the work)"
        f" ({told(ratio, MOST_RATIO, 'x')}); held {1000 * node_hours:.2f} and used"
        f" {1000 * used:.2f} thousandths of a node-hour; {dict(sorted(commands.items()))}"
    )
    waits = asyncio.run(latencies(str(HOME / "latencies")))
    print(
        f"hand-over to start: median {1000 * statistics.median(waits):.0f} ms, worst"
        f" {1000 * max(waits):.0f} ms of {len(waits)} ({told(max(waits), MOST_LATENCY, 's')})"
    )
    with counted() as commands:
        seconds, node_hours = asyncio.run(alone(str(HOME / "alone")))
    print(
        f"without: {seconds:.1f} s, {seconds / WAIT:.1f} waits;"
        f" {1000 * node_hours:.2f} thousandths of a node-hour; {dict(sorted(commands.items()))}"
    )


if __name__ == "__main__":
    main()
