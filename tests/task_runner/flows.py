"""Flows whose tasks run on workers that are jobs; each run is a process of its own.

python flows.py FLOW WORK_DIR PROFILE EXECUTION WORKERS [ARGUMENT …]
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from contextvars import copy_context
from importlib import import_module
from pathlib import Path
from typing import Any

from prefect import flow, task

from hpc_prefect.errors import FlowRunCancelled, WorkersFailed
from hpc_prefect.task_runner import HPCTaskRunner


@task
def squared(number: int) -> tuple[int, int, str]:
    """The square, and which process of which job made it."""
    return number * number, os.getpid(), os.environ.get("SLURM_JOB_ID", "")


@task
def added(left: tuple[int, int, str], right: tuple[int, int, str]) -> int:
    return left[0] + right[0]


@task
def waiting(folder: str) -> None:
    """Tells that it has begun, and goes on until it is told to end."""
    Path(folder, f"begun-{os.getpid()}").touch()
    while not Path(folder, "go").exists():
        time.sleep(0.05)


@task
def ends_its_worker() -> None:
    os._exit(3)


@task
def leaves() -> None:
    sys.exit("the task has left")


@task
def sum_of_squares(count: int) -> int:
    """A task that has tasks of its own, and waits for them."""
    return sum(each.result()[0] for each in squared.map(range(count)))


@flow
def sums(count: int) -> dict[str, Any]:
    """Squares on workers, and a task that takes the results of two others."""
    squares = squared.map(range(count))
    both = added.submit(squares[1], squares[2])
    made = [each.result() for each in squares]
    return {
        "squares": [square for square, _, _ in made],
        "jobs": sorted({job for _, _, job in made}),
        "sum": both.result(),
    }


@flow
def told() -> dict[str, Any]:
    """What a flow is told when no worker ever comes."""
    first = squared.submit(3)
    try:
        first.result()
    except WorkersFailed as error:
        first.wait()
        return {"said": str(error), "task": first.state.name}
    raise AssertionError("a worker came")


@flow
def returned() -> list[Any]:
    """Tasks whose results the flow does not look at."""
    return [squared.submit(1), squared.submit(2)]


@flow
def held(folder: str, count: int) -> dict[str, Any]:
    """As many tasks as are asked for, until the file `go` is there."""
    tasks = [waiting.submit(folder) for _ in range(count)]
    try:
        for each in tasks:
            each.result()
    except FlowRunCancelled as error:
        return {"cancelled": str(error)}
    return {"done": count}


def _all_waited_for(folder: str, count: int) -> None:
    """In a function of its own: Dask keeps a worker for each result that is still held."""
    for each in [waiting.submit(folder) for _ in range(count)]:
        each.result()


@flow
def in_two_parts(folder: str, count: int) -> dict[str, Any]:
    """Tasks, then none until the file `on` is there, then some again."""
    _all_waited_for(folder, count)
    while not Path(folder, "on").exists():
        time.sleep(0.05)
    return {"squares": [each.result()[0] for each in squared.map(range(2))]}


@flow
def from_threads(count: int) -> dict[str, Any]:
    """Tasks whose first ones are submitted by several threads at once."""
    jobs = []
    at_once = threading.Barrier(count)

    def ask(number: int) -> None:
        at_once.wait()
        jobs.append(squared.submit(number).result()[2])

    threads = [threading.Thread(target=copy_context().run, args=(ask, n)) for n in range(count)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    return {"asked": len(jobs), "jobs": sorted(set(jobs))}


@flow
def of_tasks(count: int) -> dict[str, Any]:
    """More tasks with tasks of their own than workers have threads."""
    return {"sums": [each.result() for each in sum_of_squares.map([count] * 3)]}


@flow
def deadly() -> dict[str, Any]:
    """A task that no worker survives, and one that has nothing to do with it."""
    task_run = ends_its_worker.submit()
    task_run.wait()
    try:
        task_run.result()
    except WorkersFailed as error:
        other = squared.submit(3).result()[0]
        return {"said": str(error), "task": task_run.state.name, "other": other}
    raise AssertionError("a worker survived")


_MODULE = """
from prefect import task

def times_three(number):
    return 3 * number

@task
def tripled(number):
    return times_three(number)
"""


@flow
def left() -> dict[str, Any]:
    """A task that ends by something that is no `Exception`."""
    task_run = leaves.submit()
    task_run.wait()
    try:
        task_run.result()
    except SystemExit as error:
        return {"said": str(error), "task": task_run.state.name}
    raise AssertionError("the task came to a good end")


@flow
def of_a_module(folder: str, keep: str) -> dict[str, Any]:
    """A task of a module that is in a folder of its own; perhaps only this process can read it."""
    source = Path(folder, "module_of_the_flow.py")
    source.write_text(_MODULE)
    sys.path.insert(0, folder)
    module = import_module(source.stem)
    if keep != "keep":
        source.unlink()
    tasks = module.tripled.map(range(40))
    try:
        return {"tripled": [each.result() for each in tasks]}
    except WorkersFailed as error:
        return {"said": str(error)}


def main() -> None:
    name, work_dir, profile, execution, workers, *arguments = sys.argv[1:]
    least, _, most = workers.partition("-")
    runner = HPCTaskRunner(
        execution_profile_block_name=execution,
        hpc_profile_block_name=profile,
        work_dir=work_dir,
        workers=(int(least), int(most)) if most else int(least),
        idle_seconds=3,
    )
    wanted = globals()[name].with_options(task_runner=runner)
    given = [int(each) if each.isdecimal() else each for each in arguments]
    state = wanted(*given, return_state=True)
    made = state.result(raise_on_failure=False)
    plain = made if isinstance(made, dict) else {"made": repr(made)}
    print("END", json.dumps({"state": state.name, "message": state.message, **plain}))


if __name__ == "__main__":
    main()
