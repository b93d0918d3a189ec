"""Flows that are cancelled while no call of ours waits; started by `test_cancelled_between.py`.

Each runs a job, or some, before it is cancelled, and would run many more if it were not.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.context import FlowRunContext

from hpc_prefect.convergence import StopRule, converge

if __package__:  # the tests read its names
    from .jobs import LONG, job, job_sync
else:
    from jobs import LONG, job, job_sync

#: More than anybody waits for: a loop that ends by itself was not cancelled.
MANY = 100
PAUSE = 1.0
FAILS = 'echo "$1" >> runs; exit 3'


def known_as(work_dir: str) -> None:
    context = FlowRunContext.get()
    assert context is not None
    assert context.flow_run is not None
    Path(work_dir, "flow-run").write_text(str(context.flow_run.id))


def note(work_dir: str, label: str) -> None:
    with Path(work_dir, "runs").open("a") as file:
        file.write(f"{label}\n")


@flow
async def pauses(work_dir: str) -> None:
    known_as(work_dir)
    for number in range(MANY):
        await job(work_dir, f"job-{number}")
        await asyncio.sleep(PAUSE)


@flow
def pauses_sync(work_dir: str) -> None:
    known_as(work_dir)
    for number in range(MANY):
        job_sync(work_dir, f"job-{number}")
        time.sleep(PAUSE)


@flow
def second_job(work_dir: str) -> None:
    """The first job's client is closed when the second one runs."""
    known_as(work_dir)
    job_sync(work_dir, "job-0", 'echo "$1" >> runs; sleep 2')
    job_sync(work_dir, "job-1", LONG)


@task
def one(work_dir: str, label: str) -> None:
    job_sync(work_dir, label)


@flow
def threads(work_dir: str) -> None:
    known_as(work_dir)
    for number in range(MANY):
        one.submit(work_dir, f"job-{number}").result()
        time.sleep(PAUSE)


@task
async def paused(work_dir: str, first: int) -> None:
    for number in range(MANY):
        await job(work_dir, f"job-{first + number}")
        await asyncio.sleep(PAUSE)


@flow
async def group(work_dir: str) -> None:
    known_as(work_dir)
    async with asyncio.TaskGroup() as tasks:
        for first in (0, MANY):
            tasks.create_task(paused(work_dir, first))


@task(retries=MANY, retry_delay_seconds=PAUSE)
def failing(work_dir: str) -> None:
    job_sync(work_dir, "fails", FAILS)


@flow
def retried(work_dir: str) -> None:
    known_as(work_dir)
    failing(work_dir)


@task(retries=MANY, retry_delay_seconds=PAUSE)
async def failing_async(work_dir: str) -> None:
    await job(work_dir, "fails", FAILS)


@flow
async def retried_async(work_dir: str) -> None:
    known_as(work_dir)
    await failing_async(work_dir)


@flow(retries=MANY, retry_delay_seconds=PAUSE)
def flow_retried(work_dir: str) -> None:
    known_as(work_dir)
    job_sync(work_dir, "fails", FAILS)


@flow(retries=MANY, retry_delay_seconds=10 * PAUSE)
def waits_for_retry(work_dir: str) -> None:
    """Cancelled while it waits: Prefect begins the next attempt all the same."""
    known_as(work_dir)
    job_sync(work_dir, "fails", FAILS)


@flow
def inner(work_dir: str, number: int) -> None:
    job_sync(work_dir, f"job-{number}")
    time.sleep(PAUSE)


@flow
def sub_flows(work_dir: str) -> None:
    known_as(work_dir)
    for number in range(MANY):
        inner(work_dir, number)


@flow
async def converging(work_dir: str) -> None:
    """Its steps run no jobs: the next iteration is a call of its own."""
    known_as(work_dir)

    async def step(state: float, iteration: Any) -> float:
        note(work_dir, f"iteration-{iteration.number}")
        await asyncio.sleep(PAUSE)
        return state + 1

    await converge(
        step, 0.0, measure=float, work_dir=work_dir, seed=1, stop=StopRule(max_iterations=MANY)
    )


@flow
def late(work_dir: str) -> None:
    """Its first call comes long after it began, and after it was cancelled."""
    known_as(work_dir)
    Path(work_dir, "runs").write_text("waiting\n")
    while not Path(work_dir, "cancelled").exists():
        time.sleep(0.1)
    time.sleep(6)
    job_sync(work_dir, "late")


@flow
def no_more_calls(work_dir: str) -> str:
    """After its only job it computes to its end."""
    known_as(work_dir)
    job_sync(work_dir, "job-0")
    while not Path(work_dir, "cancelled").exists():
        time.sleep(0.1)
    return "computed"


@flow
async def swallows(work_dir: str) -> str:
    """Takes even a `BaseException` for no reason to stop."""
    known_as(work_dir)
    for number in range(MANY):
        try:
            await job(work_dir, f"job-{number}")
        except BaseException:  # noqa: BLE001 - that is what such flows do
            return "all is well"
        await asyncio.sleep(PAUSE)
    return "never told"


FLOWS: dict[str, Any] = {
    each.fn.__name__: each
    for each in (
        *(pauses, pauses_sync, second_job, threads, group, retried, retried_async, flow_retried),
        *(waits_for_retry, sub_flows, converging, late, no_more_calls, swallows),
    )
}

if __name__ == "__main__":
    ended = FLOWS[sys.argv[1]](sys.argv[2])
    if asyncio.iscoroutine(ended):
        asyncio.run(ended)
