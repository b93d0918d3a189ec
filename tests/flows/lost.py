"""Calls from where Prefect's contexts do not reach by themselves: python lost.py WHAT WORK_DIR"""

from __future__ import annotations

import gc
import multiprocessing
import os
import sys
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from uuid import UUID

sys.path.insert(0, str(Path(__file__).parent))

from jobs import job_sync
from prefect import flow, tags, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRunPolicy
from prefect.flow_engine import run_flow
from prefect.runtime import flow_run
from prefect.states import Pending
from prefect.task_runners import ProcessPoolTaskRunner

from hpc_prefect import campaign, scope


def run(work_dir: str, label: str) -> str:
    return job_sync(work_dir, label).state


# --- tasks of a pool


@task
def pooled(work_dir: str, label: str) -> str:
    return run(work_dir, label)


@task
def pooled_in_scope(work_dir: str, label: str) -> str:
    with scope("inner"):
        return inner(work_dir, label)


@task
def inner(work_dir: str, label: str) -> str:
    return run(work_dir, label)


@flow(task_runner=ProcessPoolTaskRunner(max_workers=2))
def scopes(work_dir: str) -> list[str]:
    """The same task with the same parameters in four places."""
    futures = [pooled.submit(work_dir, "x"), pooled_in_scope.submit(work_dir, "x")]
    for walker in range(2):
        with scope(f"walker-{walker}"), tags("any"):
            futures.append(pooled.submit(work_dir, "x"))
    return [future.result() for future in futures]


@flow(task_runner=ProcessPoolTaskRunner(max_workers=2))
def identical(work_dir: str) -> list[str]:
    return [future.result() for future in pooled.map([work_dir] * 4, ["x"] * 4)]


@flow(task_runner=ProcessPoolTaskRunner(max_workers=2))
def paused(work_dir: str) -> list[str]:
    """Its process is gone after its jobs the first time."""
    states = identical.fn(work_dir)
    noted = Path(work_dir, "run")
    run = flow_run.id
    if not noted.exists():
        noted.write_text(f"{run} {flow_run.run_count}")
        for worker in multiprocessing.active_children():
            worker.kill()
        os._exit(0)
    assert noted.read_text() == f"{run} {flow_run.run_count}", "the same attempt of the same run"
    return states


def paused_and_resumed(work_dir: str) -> list[str]:
    """The flow run goes on where Prefect has it as resumed: id and count of attempts stay."""
    noted = Path(work_dir, "run")
    if not noted.exists():
        return paused(work_dir)
    with get_client(sync_client=True) as client:
        run_id = UUID(noted.read_text().split()[0])
        client.set_flow_run_state(run_id, Pending(), force=True)
        # What Prefect itself notes when a paused run of a deployment is resumed.
        client.update_flow_run(run_id, empirical_policy=FlowRunPolicy(resuming=True))
        run = client.read_flow_run(run_id)
    result: list[str] = run_flow(paused, flow_run=run, parameters=run.parameters)  # type: ignore[assignment]
    return result


@flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
def named_inside(work_dir: str) -> list[str]:
    with campaign("inside"):
        return [pooled.submit(work_dir, "x").result()]


@flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
def below(work_dir: str) -> list[str]:
    return [pooled.submit(work_dir, "x").result()]


@flow
def sub_flow(work_dir: str) -> list[str]:
    return below(work_dir)


# --- plain threads and processes


def in_thread(*call: object) -> str:
    with ThreadPoolExecutor(1) as pool:
        future: Future[str] = pool.submit(*call)  # type: ignore[arg-type]
        return future.result()


@flow
def threads(work_dir: str) -> list[str]:
    return [in_thread(run, work_dir, "x")]


@flow
def copied(work_dir: str) -> list[str]:
    with campaign("copied"):
        return [in_thread(copy_context().run, run, work_dir, "x")]


def in_process(work_dir: str) -> str:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(run, work_dir, "x").result()


@flow
def processes(work_dir: str) -> list[str]:
    return [in_process(work_dir)]


@flow
def nothing() -> None:
    """Ends before the call."""


@flow(retries=1)
def retried() -> None:
    """Ends before the call, at its second attempt."""
    if flow_run.run_count == 1:
        raise ValueError("on purpose")


def main(what: str, work_dir: str) -> list[str]:
    if what == "identical":
        with campaign("identical"):
            return identical(work_dir)
    if what == "named outside":
        with campaign("outside"):
            return below(work_dir)
    if what == "threads of a script":
        return [in_thread(run, work_dir, "x")]
    if what == "threads after a flow":
        nothing()
        return [in_thread(run, work_dir, "x")]
    if what == "threads after a retried flow":
        gc.disable()  # the context of the first attempt stays until it is collected
        retried()
        return [in_thread(run, work_dir, "x")]
    if what == "threads in a campaign":
        with campaign("script"):
            return [in_thread(run, work_dir, "x")]
    if what == "threads in a scope":
        with scope("walker"):
            return [in_thread(run, work_dir, "x")]
    result: list[str] = globals()[what.replace(" ", "_")](work_dir)
    return result


if __name__ == "__main__":
    print("STATES", *main(*sys.argv[1:]))
