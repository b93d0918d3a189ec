"""Flows that are served, in a process of their own; started by `test_served.py`."""

from __future__ import annotations

import os
from pathlib import Path

from jobs import WAIT, job
from prefect import flow, serve

from hpc_prefect import cancel_jobs


@flow(on_cancellation=[cancel_jobs])
async def hooked(work_dir: str) -> None:
    Path(work_dir, "pid").write_text(str(os.getpid()))
    await job(work_dir, "wait", WAIT)


@flow
async def unhooked(work_dir: str) -> None:
    await job(work_dir, "wait", WAIT)


if __name__ == "__main__":
    serve(hooked.to_deployment("test"), unhooked.to_deployment("test"))
