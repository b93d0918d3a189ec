"""Prefect tasks by the thousand, on workers that are batch jobs.

    runner.py      `HPCTaskRunner`, the task runner of a flow
    client.py      the client that submits its tasks to workers
    cluster.py     Dask's cluster, whose workers come and go with their jobs
    jobs.py        the job of a worker: its blocks, its submission, its end
    worker.py      the program that such a job runs

Dask (`distributed`, by `prefect-dask`) runs the tasks; this package runs the jobs of its workers.
"""

from typing import TYPE_CHECKING

from hpc_prefect.extras import missing

if TYPE_CHECKING:
    from hpc_prefect.task_runner.runner import HPCTaskRunner

__all__ = ["HPCTaskRunner"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if sentence := missing(name, "prefect_dask", "distributed", "cryptography"):
        raise ImportError(sentence)
    from hpc_prefect.task_runner.runner import HPCTaskRunner

    return HPCTaskRunner
