"""Flows whose jobs run in a held allocation, also in processes of their own."""

from __future__ import annotations

import asyncio
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from prefect import flow, task

from hpc_prefect import (
    JobResult,
    Member,
    StopRule,
    allocation,
    campaign,
    converge,
    run_job_from_blocks,
    run_job_from_blocks_sync,
    run_jobs_from_blocks,
    scope,
)

if __name__ == "__main__":  # as a program it is in no package
    sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.flows.jobs import COUNT, HERE, WAIT
from tests.flows.seen import until

SHAPE = "exec-alloc"
NAMES = {
    "command_block_name": "cmd-sh",
    "execution_profile_block_name": "exec-minute",
    "hpc_profile_block_name": HERE,
}


def held(work_dir: str, **more: Any) -> Any:
    """An allocation of two cores."""
    return allocation(
        execution_profile_block_name=SHAPE, hpc_profile_block_name=HERE, work_dir=work_dir, **more
    )


async def job(work_dir: str, label: str, script: str = COUNT, **more: Any) -> JobResult:
    return await run_job_from_blocks(
        **NAMES,
        work_dir=work_dir,
        script_filename=label,
        user_args=[script, "sh", label],
        **more,
    )


@task
async def in_a_task(work_dir: str, label: str) -> JobResult:
    return await job(work_dir, label)


@task
def in_a_thread(work_dir: str, label: str) -> JobResult:
    return run_job_from_blocks_sync(
        **NAMES, work_dir=work_dir, script_filename=label, user_args=[COUNT, "sh", label]
    )


@flow
async def everywhere(work_dir: str) -> list[str]:
    """Jobs of the flow itself, of a task and of a thread; then one after the block."""
    async with held(work_dir) as nodes:
        thread = in_a_thread.submit(work_dir, "thread")
        inside = [
            await job(work_dir, "flow"),
            await in_a_task(work_dir, "task"),
            await asyncio.to_thread(thread.result),
            await job(work_dir, "told", allocation=nodes),
        ]
    after = await job(work_dir, "after")
    assert nodes.use.held >= nodes.use.used > 0
    return [result.job_id for result in (*inside, after)]


async def handed_over(work_dir: str) -> list[str]:
    """Jobs of a script's threads, and of a loop in a task, that know nothing of the block."""

    def told(label: str, **more: Any) -> JobResult:
        return run_job_from_blocks_sync(
            **NAMES,
            work_dir=work_dir,
            script_filename=label,
            user_args=[COUNT, "sh", label],
            job_key=label,
            **more,
        )

    def unsaid(label: str, nodes: Any) -> JobResult:
        with nodes.calls_inside():
            return told(label)

    async def step(state: list[str], iteration: Any) -> list[str]:
        return [*state, (await job(work_dir, "step")).job_id]

    async def looped(given: asyncio.Future[Any]) -> list[str]:
        once, nodes = StopRule(max_iterations=1), await given
        loop = await converge(
            step, [], measure=len, work_dir=work_dir, stop=once, seed=1, allocation=nodes
        )
        return loop.state

    given = asyncio.get_running_loop().create_future()
    loop = asyncio.ensure_future(looped(given))
    with ThreadPoolExecutor() as threads:
        async with held(work_dir) as nodes:
            single = [threads.submit(told, label, allocation=nodes) for label in ("one", "two")]
            single += [threads.submit(unsaid, "three", nodes), threads.submit(told, "out")]
            found = [(await asyncio.wrap_future(each)).job_id for each in single]
            given.set_result(nodes)
            return found + await loop


@flow
def in_sync(work_dir: str) -> list[str]:
    with held(work_dir):
        inside = in_a_thread(work_dir, "in")
    return [inside.job_id, in_a_thread(work_dir, "out").job_id]


@flow
async def an_array(work_dir: str, pack: int) -> list[str]:
    async with held(work_dir):
        results = await run_jobs_from_blocks(
            **NAMES,
            work_dir=work_dir,
            script_filename="scan",
            members=[Member(user_args=[COUNT, "sh", f"m{k}"]) for k in range(6)],
            pack=pack,
        )
    return [result.state for result in results]


@flow
async def another_profile(work_dir: str) -> str:
    async with held(work_dir):
        arguments = {**NAMES, "execution_profile_block_name": "exec-sh"}
        longer = await run_job_from_blocks(
            **arguments,
            work_dir=work_dir,
            script_filename="longer",
            user_args=[COUNT, "sh", "longer"],
            execution_profile_overrides={"walltime": "10:00:00"},
        )
    return longer.job_id


@flow
async def loop(work_dir: str, steps: int, script: str = COUNT) -> list[str]:
    found = []
    with campaign("loop"):
        async with held(work_dir):
            for k in range(steps):
                with scope(f"step-{k}"):
                    found.append((await job(work_dir, f"s{k}", script)).job_id)
    return found


@flow
async def retried(work_dir: str) -> list[str]:
    async with held(work_dir):
        return [(await job(work_dir, "again", WAIT, retries=1)).job_id]


@flow
async def fails(work_dir: str) -> None:
    async with held(work_dir):
        waiting = asyncio.ensure_future(job(work_dir, "waits", WAIT))
        await asyncio.to_thread(until, Path(work_dir, "runs").exists)
        waiting.cancel()
        raise ValueError("the flow's own")


if __name__ == "__main__":
    # A process that was started in the background ignores Ctrl-C; a user's does not.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    name, folder = sys.argv[1:3]
    if name == "loop":
        print("IDS", *asyncio.run(loop(folder, 3, WAIT)))
    elif name == "retried":
        print("IDS", *asyncio.run(retried(folder)))
