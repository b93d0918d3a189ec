"""What a job costs beside the program that it runs: on the clock for one, in CPU for many at once.

Run by `make bench`. It starts a Prefect server of its own in a temporary home and stops it. Times
are medians of one run; on a busy machine compare the ratios. To create a file can take a disk's
file system 0.1 ms of CPU, and 0.6 ms when many were deleted just before: TMPDIR=/dev/shm shows
what is left without that.
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import statistics
import subprocess
import time
from pathlib import Path

from common import HOME, copy_of, prefect_server, told  # before Prefect

# isort: split

from prefect import flow, task

from hpc_prefect import (
    CommandBlock,
    ExecutionProfileBlock,
    HPCProfileBlock,
    JobResult,
    run_job_from_blocks,
)

CALLS = 20
AT_ONCE = 100
WARM_UP = 20
MOST_EXTRA_SECONDS = 0.35
MOST_CPU_MS = 20.0


def save_blocks() -> None:
    CommandBlock(command_name="true", executable_key="true").save("cmd", _sync=True)
    profile = ExecutionProfileBlock(profile_name="true", command_name="true")
    profile.save("exec", _sync=True)
    here = HPCProfileBlock(
        scheduler="local",
        executables={"true": "/bin/true"},
        local={"slots": os.cpu_count() or 1, "spool": str(HOME / "spool")},
    )
    here.save("hpc", _sync=True)


async def job(label: str, work_dir: Path = HOME / "work") -> JobResult:
    return await run_job_from_blocks(
        command_block_name="cmd",
        execution_profile_block_name="exec",
        hpc_profile_block_name="hpc",
        work_dir=work_dir,
        script_filename=label,
    )


@task
async def nothing() -> None:
    """A bare Prefect task: what any task costs."""


# --- one after another


@flow
async def one_by_one() -> tuple[list[float], list[float]]:
    """Seconds of each call, and of each run of the same script by bash, turn by turn."""
    await job("warm-up")
    called, plain = [], []
    for n in range(CALLS):
        began = time.perf_counter()
        result = await job(f"job-{n}")
        called.append(time.perf_counter() - began)
        plain.append(await asyncio.to_thread(seconds_of_script, result))
    return called, plain


def seconds_of_script(result: JobResult) -> float:
    """The rendered script once more by bash alone, in a copy of its folder with a fresh guard."""
    script = Path(copy_of(result.folder))
    environment = {**os.environ, "HPC_LOCAL_JOBID": "1.bench"}
    began = time.perf_counter()
    subprocess.run([str(script)], env=environment, check=True)
    seconds = time.perf_counter() - began
    assert (script.parent / "guard").is_symlink(), "it ran elsewhere"
    return seconds


# --- all at once


def own_cpu() -> float:
    return time.process_time()


def childrens_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@flow
async def all_at_once() -> tuple[float, float, float, float]:
    """Own and children's CPU seconds and the wall time of the jobs; own CPU of bare tasks."""
    await asyncio.gather(*(job(f"warm-up-{n}") for n in range(WARM_UP)))
    await asyncio.gather(*(nothing() for _ in range(WARM_UP)))
    gc.collect()  # a pass over all that is imported takes 75 ms, whenever it happens to be due
    before, children, began = own_cpu(), childrens_cpu(), time.perf_counter()
    await asyncio.gather(*(job(f"many-{n}") for n in range(AT_ONCE)))
    wall = time.perf_counter() - began
    jobs, children = own_cpu() - before, childrens_cpu() - children
    gc.collect()
    before = own_cpu()
    await asyncio.gather(*(nothing() for _ in range(AT_ONCE)))
    return jobs, children, wall, own_cpu() - before


# --- in a work_dir each

FOLDERS = 100
TURNS = 3


@flow
async def in_folders() -> tuple[list[float], list[float]]:
    """Seconds of many jobs at once in one work_dir, and in one each, turn by turn."""
    await asyncio.gather(*(job(f"warm-up-{n}") for n in range(WARM_UP)))
    shared, apart = [], []
    for turn in range(TURNS):
        folders = [HOME / "apart" / f"{turn}-{n}" for n in range(FOLDERS)]
        began = time.perf_counter()
        await asyncio.gather(*(job(f"shared-{turn}-{n}") for n in range(FOLDERS)))
        shared.append(time.perf_counter() - began)
        began = time.perf_counter()
        await asyncio.gather(*(job("apart", folder) for folder in folders))
        apart.append(time.perf_counter() - began)
    return shared, apart


# --- what is told


def report_one_by_one() -> None:
    called, plain = (statistics.median(each) for each in asyncio.run(one_by_one()))
    extra = called - plain
    print(f"/bin/true through the call, median of {CALLS}:   {called:.3f} s")
    print(f"the same script by bash:                  {plain:.3f} s")
    print(
        f"extra: {extra:.3f} s (ratio {called / plain:.1f}); {told(extra, MOST_EXTRA_SECONDS, 's')}"
    )


def report_folders() -> None:
    shared, apart = (statistics.median(each) for each in asyncio.run(in_folders()))
    print(
        f"{FOLDERS} at once in one work_dir: {shared:.1f} s; in a work_dir each: {apart:.1f} s"
        f" (ratio {apart / shared:.2f}; wanted: at most 1.1)"
    )


def report_all_at_once() -> None:
    # The table of jobs is renewed every 10 s at most: no cost of a job, but of a flow run.
    os.environ["PREFECT_INTEGRATIONS_HPC_PREFECT_ARTIFACTS"] = "false"
    jobs, children, wall, bare = asyncio.run(all_at_once())
    cpu, floor = 1000 * jobs / AT_ONCE, 1000 * bare / AT_ONCE
    print(f"{AT_ONCE} at once: {wall:.1f} s in all ({1000 * wall / AT_ONCE:.0f} ms a job)")
    print(
        f"CPU of the orchestrator: {cpu:.1f} ms a job; a bare Prefect task {floor:.1f} ms "
        f"(ratio {cpu / floor:.1f}); {told(cpu, MOST_CPU_MS, 'ms')}"
    )
    print(
        f"CPU of its children: {1000 * children / AT_ONCE:.1f} ms a job (the queue's commands; "
        "not in it: supervisors and scripts, which are detached)"
    )


def main() -> None:
    with prefect_server():
        save_blocks()
        report_one_by_one()
        report_all_at_once()
        report_folders()


if __name__ == "__main__":
    main()
