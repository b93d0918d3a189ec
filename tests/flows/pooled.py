"""A flow whose jobs are called by a pool's processes: python pooled.py spawn|fork WORK_DIR [ANGLES]

The job of the label `waits` ends when the file `go` is there.
"""

from __future__ import annotations

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor

from jobs import COUNT, WAIT, job_sync
from prefect import flow, task
from prefect.task_runners import ProcessPoolTaskRunner


def run(work_dir: str, label: str) -> str:
    return job_sync(work_dir, label, WAIT if label == "waits" else COUNT).state


@task
def step(work_dir: str, label: str) -> str:
    return run(work_dir, label)


@flow(task_runner=ProcessPoolTaskRunner(max_workers=2))
def spawned(work_dir: str, angles: list[float] | None = None) -> list[str]:
    """The flow's own process calls no job: the campaign is opened by a worker."""
    first = step.submit(work_dir, "first").result()
    return [first, step.submit(work_dir, "waits").result()]


@flow
def forked(work_dir: str) -> list[str]:
    fork = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(2, mp_context=fork) as pool:
        first = pool.submit(run, work_dir, "first").result()
        return [first, pool.submit(run, work_dir, "waits").result()]


if __name__ == "__main__":
    which = {"spawn": spawned, "fork": forked}[sys.argv[1]]
    more = {"angles": [i / 7 for i in range(int(sys.argv[3]))]} if len(sys.argv) > 3 else {}
    print("STATES", *which(sys.argv[2], **more))
