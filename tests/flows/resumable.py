"""A flow that is killed and resumed, in a process of its own."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from jobs import COUNT, WAIT, job
from prefect import flow, task

from hpc_prefect import ONCE, campaign, scope


def note(work_dir: str, label: str) -> None:
    with Path(work_dir, "tasks").open("a") as file:
        file.write(f"{label}\n")


@task(cache_policy=ONCE)
def kept(work_dir: str, label: str) -> str:
    note(work_dir, f"kept-{label}")
    return label


@task
def not_kept(work_dir: str) -> None:
    note(work_dir, "not-kept")


@flow
async def resumable(work_dir: str, iterations: int = 3) -> str:
    """In its second iteration it waits for the file `go`."""
    not_kept(work_dir)
    kept(work_dir, "a")
    kept(work_dir, "a")  # another one
    for k in range(iterations):
        with scope(f"iter-{k}"):
            kept(work_dir, "b")
            await job(work_dir, f"step-{k}", WAIT if k == 1 else COUNT)
    note(work_dir, "end")
    return "done"


@flow
async def anew(work_dir: str) -> None:
    """Takes nothing over, but from itself."""
    with campaign("mine", fresh=True):
        await job(work_dir, "wait", WAIT)


@flow
async def lossy(work_dir: str, what: object) -> None:
    with campaign("lossy"):
        await job(work_dir, "wait", WAIT)


@flow
async def before_any_job(work_dir: str) -> None:
    note(work_dir, "begun")
    while not Path(work_dir, "go").exists():
        time.sleep(0.1)  # noqa: ASYNC251 - nothing else runs here
    await job(work_dir, "first")


if __name__ == "__main__":
    which, folder = sys.argv[1:]
    more = {"what": Path} if which == "lossy" else {}
    asyncio.run(globals()[which](folder, **more))
