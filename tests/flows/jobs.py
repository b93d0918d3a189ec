"""Flows and tasks that tests of several rooms run, also in processes of their own."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.task_runners import ProcessPoolTaskRunner

from hpc_prefect import (
    JobResult,
    Member,
    RetryPolicy,
    campaign,
    run_job_from_blocks,
    run_job_from_blocks_sync,
    run_jobs_from_blocks,
    scope,
)

#: Appends its label to the file `runs`, so that the programs themselves count how often they ran;
#: fails when a file `fail-<label>` is there, which it removes.
COUNT = """
echo "$1" >> runs
if rm "fail-$1" 2> /dev/null; then echo "label $1 was told to fail" >&2; exit 3; fi
"""
#: The same, but it ends only when the file `go` is there.
WAIT = COUNT + 'while [ ! -e go ]; do sleep 0.05; done; echo "$1" >> ended\n'
#: A program that takes longer than anybody waits.
LONG = 'echo "$1" >> runs; exec sleep 300'

#: The processes of pytest-xdist share a Prefect server, but each has a queue of its own; names that
#: are not alike, for the tests of what is told about a name that is not there.
HERE = "hpc-" + sha256(os.environ.get("PYTEST_XDIST_WORKER", "one").encode()).hexdigest()[:8]

NAMES = {
    "command_block_name": "cmd-sh",
    "execution_profile_block_name": "exec-sh",
    "hpc_profile_block_name": HERE,
}


async def job(work_dir: str, label: str, script: str = COUNT, **more: Any) -> JobResult:
    arguments = {
        **NAMES,
        "work_dir": work_dir,
        "script_filename": label,
        "user_args": [script, "sh", label],
        **more,
    }
    return await run_job_from_blocks(**arguments)


def job_sync(work_dir: str, label: str, script: str = COUNT, **more: Any) -> JobResult:
    arguments = {
        **NAMES,
        "work_dir": work_dir,
        "script_filename": label,
        "user_args": [script, "sh", label],
        **more,
    }
    return run_job_from_blocks_sync(**arguments)


def runs(work_dir: Path) -> list[str]:
    """The labels of all programs that ran, in order."""
    file = work_dir / "runs"
    return file.read_text().split() if file.exists() else []


@task(retries=1)
async def three_jobs(work_dir: str, label: str) -> list[str]:
    return [(await job(work_dir, f"{label}{step}")).folder for step in "abc"]


@task(retries=1)
async def three_jobs_in_a_task(work_dir: str, label: str) -> list[str]:
    return [(await one_job(work_dir, f"{label}{step}")).folder for step in "abc"]


@task
async def one_job(work_dir: str, label: str) -> JobResult:
    return await job(work_dir, label)


@task
def one_job_sync(work_dir: str, label: str) -> JobResult:
    return job_sync(work_dir, label)


@flow
async def below(work_dir: str, label: str) -> str:
    return (await job(work_dir, label)).folder


@flow
async def loop(work_dir: str, iterations: int) -> None:
    """Every iteration runs the very same job, in its own scope."""
    for k in range(iterations):
        with scope(f"iter-{k}"):
            await job(work_dir, "same")
            if k == 2:
                await job(work_dir, "wait", WAIT)


@flow
async def sweep(work_dir: str, count: int) -> list[str]:
    """An array of members that wait."""
    given = [Member(user_args=[WAIT, "sh", f"m{k}"]) for k in range(count)]
    results = await run_jobs_from_blocks(
        **NAMES, work_dir=work_dir, script_filename="scan", members=given
    )
    return [result.state for result in results]


@flow
async def alone(work_dir: str) -> None:
    await job(work_dir, "wait", WAIT)


@flow
async def gathered(work_dir: str) -> None:
    """Two jobs at once, one of which ends while the other one waits."""
    waiting = asyncio.create_task(job(work_dir, "wait", WAIT))
    await job(work_dir, "short")
    Path(work_dir, "short-ended").touch()
    await waiting


@flow
def alone_sync(work_dir: str) -> None:
    job_sync(work_dir, "wait", WAIT)


@task
def wait_in_a_thread(work_dir: str) -> None:
    job_sync(work_dir, "wait", WAIT)


@flow
def in_a_thread(work_dir: str) -> None:
    wait_in_a_thread.submit(work_dir).result()


@flow
async def stubborn(work_dir: str) -> None:
    """Takes no error for an answer, and runs a job in a sub-flow besides."""
    with suppress(Exception):
        await asyncio.gather(alone(work_dir), job(work_dir, "long", LONG))
    await job(work_dir, "another")


@flow
async def grouped(work_dir: str) -> None:
    """A task group takes no notice of a CancelledError that a task of its own raises."""
    async with asyncio.TaskGroup() as group:
        group.create_task(job(work_dir, "wait", WAIT))


@flow
async def heedless(work_dir: str) -> str:
    await asyncio.gather(job(work_dir, "wait", WAIT), return_exceptions=True)
    return "all is well"


@flow
async def cancelled_by_sigterm(work_dir: str) -> None:
    await job(work_dir, "wait", WAIT, hpc_profile_block_name="hpc-cancels")


#: Takes no notice of SIGTERM, so that its end comes with the queue's SIGKILL.
OBSTINATE = "trap '' TERM; " + 'echo "$1" >> runs; while :; do sleep 0.1; done\n'


@flow
async def three_of_two(work_dir: str) -> None:
    """Two jobs run that are slow to end, and a third one waits in the queue of two."""
    jobs = (
        job(work_dir, f"obstinate-{number}", OBSTINATE, hpc_profile_block_name="hpc-two")
        for number in range(3)
    )
    await asyncio.gather(*jobs)


@flow
async def failing(work_dir: str) -> None:
    await job(work_dir, "fails", 'echo "$1" >> runs; exit 3')


@flow
async def in_two(below: str, first: int, second: int) -> None:
    """Two jobs, one after the other, in the work_dirs of these numbers."""
    with campaign(f"in-two-{below}"):
        await job(f"{below}/{first}", "first")
        await job(f"{below}/{second}", "second", WAIT)


@task
def job_in_a_process(work_dir: str) -> None:
    job_sync(work_dir, Path(work_dir).name)


@flow(task_runner=ProcessPoolTaskRunner(max_workers=2))  # type: ignore[arg-type]
def in_a_pool(below: str) -> None:
    """A job in each of three work_dirs, by processes of a pool; failures are taken note of."""
    for each in [job_in_a_process.submit(f"{below}/{name}") for name in "abc"]:
        each.result(raise_on_failure=False)


@flow
async def retried(work_dir: str) -> None:
    """The first attempt has too little time; the second one ends when `go` is there."""
    script = 'echo "$1" >> runs; while [ ! -e go ]; do sleep 0.05; done\n'
    await job(
        work_dir,
        "slow",
        script,
        execution_profile_overrides={"walltime": "00:00:01"},
        retries=1,
        retry_policy=RetryPolicy(walltime_factor=100),
    )


FLOWS: dict[str, Any] = {
    each.fn.__name__: each
    for each in (
        *(loop, alone, gathered, alone_sync, in_a_thread, stubborn),
        *(grouped, heedless),
        *(cancelled_by_sigterm, retried, three_of_two, failing, in_two),
        *(in_a_pool, sweep),
    )
}

if __name__ == "__main__":
    # A process that was started in the background ignores Ctrl-C; a user's does not.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if sys.argv[1] == "script":
        print(job_sync(sys.argv[2], "wait", WAIT).folder)
    elif sys.argv[1] == "async_script":
        print(asyncio.run(job(sys.argv[2], "wait", WAIT)).folder)
    else:
        ended = FLOWS[sys.argv[1]](sys.argv[2], *map(int, sys.argv[3:]))
        if ended is not None:
            asyncio.run(ended)
