"""The flows that `cancel.py` cancels, each in a process of its own: KIND HOW WORK_DIR PROFILE."""

from __future__ import annotations

import asyncio
import itertools
import signal
import sys
import time
from pathlib import Path

from prefect import flow, task

from hpc_prefect import run_job_from_blocks, run_job_from_blocks_sync

KIND, HOW, FOLDER, PROFILE = sys.argv[1:]
LIMIT = 8.0
PAUSE = 1.0
#: Says who it is, and runs for longer than anybody waits.
PROGRAM = "echo $$ > pid.part; mv pid.part pid; exec sleep 600"
SHORT = "echo $$ > pid"
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


def call_of(number: int) -> dict[str, object]:
    return {**call(PROGRAM), "script_filename": f"short-{number}", "user_args": [SHORT]}


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


@task
def short_in_a_thread(number: int) -> None:
    run_job_from_blocks_sync(**call_of(number))


@flow
async def async_pauses() -> None:
    for number in itertools.count():
        await run_job_from_blocks(**call_of(number))
        await asyncio.sleep(PAUSE)


@flow
def sync_pauses() -> None:
    for number in itertools.count():
        run_job_from_blocks_sync(**call_of(number))
        time.sleep(PAUSE)


@flow
def threads_pauses() -> None:
    for number in itertools.count():
        short_in_a_thread.submit(number).result()
        time.sleep(PAUSE)


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
    pauses = HOW == "cancelled between jobs"
    if KIND == "async":
        asyncio.run(async_pauses() if pauses else async_flow())
    elif KIND == "sync":
        (sync_pauses if pauses else sync_flow)()
    else:
        (threads_pauses if pauses else threads_flow)()
