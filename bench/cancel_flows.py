"""The flows that `cancel.py` cancels, each in a process of its own: KIND HOW WORK_DIR PROFILE."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from pathlib import Path

from prefect import flow, task

from hpc_prefect import run_job_from_blocks, run_job_from_blocks_sync

KIND, HOW, FOLDER, PROFILE = sys.argv[1:]
LIMIT = 8.0
#: Says who it is, and runs for longer than anybody waits.
PROGRAM = "echo $$ > pid.part; mv pid.part pid; exec sleep 600"
FAILING = "while [ ! -e pid ]; do sleep 0.1; done; exit 3"


def call(program: str) -> dict[str, object]:
    Path(FOLDER, "t0").write_text(repr(time.time()))
    return {
        "command_block_name": "cmd-sh",
        "execution_profile_block_name": "exec-sh",
        "hpc_profile_block_name": PROFILE,
        "work_dir": FOLDER,
        "script_filename": "bad" if program is FAILING else "long",
        "user_args": [program],
        "timeout_seconds": LIMIT if HOW == "timeout of the call" else None,
    }


def limit(of: str) -> float | None:
    return LIMIT if f"timeout of the {of}" == HOW else None


@task
def in_a_thread(program: str) -> None:
    run_job_from_blocks_sync(**call(program))


@task(timeout_seconds=limit("task"))
async def awaited(program: str) -> None:
    await run_job_from_blocks(**call(program))


@task(timeout_seconds=limit("task"))
def called(program: str) -> None:
    run_job_from_blocks_sync(**call(program))


@flow(timeout_seconds=limit("flow"))
async def async_flow() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(awaited(PROGRAM))
        if HOW == "failed sibling":
            group.create_task(awaited(FAILING))


@flow(timeout_seconds=limit("flow"))
def sync_flow() -> None:
    called(PROGRAM)


@flow(timeout_seconds=limit("flow"))
def threads_flow() -> None:
    long = in_a_thread.submit(PROGRAM)
    if HOW == "failed sibling":
        in_a_thread.submit(FAILING).result()
    long.result()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if KIND == "async":
        asyncio.run(async_flow())
    elif KIND == "sync":
        sync_flow()
    else:
        threads_flow()
