"""Asks schedulers about jobs of folders, each about all of its jobs in one command."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import cast

from hpc_prefect.executor.connection import Connection
from hpc_prefect.job.state import Observation
from hpc_prefect.operations.kinds import provider_of
from hpc_prefect.operations.snapshot import JobSnapshot
from hpc_prefect.schedulers.base import NoAnswer, Scheduler
from hpc_prefect.transports.host import host

#: Commands of one scheduler at once.
_WORKERS = 4


def connections(
    jobs: Sequence[JobSnapshot], until: float
) -> list[tuple[Connection, list[JobSnapshot]]]:
    """The jobs that have been resolved, by the scheduler that they were meant for.

    A scheduler that a later version of this package knew cannot be asked by this one.

    Args:
        until: see `Connection`.
    """
    found: dict[str, tuple[Connection, list[JobSnapshot]]] = {}
    for job in jobs:
        if job.spec is None:
            continue
        site = job.spec.site
        key = json.dumps([site.scheduler, site.options], sort_keys=True, default=str)
        if key not in found:
            try:
                provider = provider_of(job)
            except KeyError:
                continue
            # Each has threads of its own: one that hangs must not hold up others.
            pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="hpc-prefect-asks")
            connection = Connection(
                cast(Scheduler, provider), job.folder.transport, site.options, pool, until=until
            )
            found[key] = (connection, [])
        found[key][1].append(job)
    return list(found.values())


def ask(jobs: Sequence[JobSnapshot], *, wait: float = 60.0) -> list[JobSnapshot]:
    """The jobs, updated by what their schedulers say now if they have no verdict.

    Args:
        wait: seconds after which a scheduler that has not answered gives no answer.
    """
    open_jobs = [job for job in jobs if job.job_id and not job.is_over]
    asked = [
        (connection.pool.submit(connection.observe, [job.job_id for job in theirs]), theirs)
        for connection, theirs in connections(open_jobs, host().monotonic() + wait)
    ]
    said: dict[str, Observation | NoAnswer | None] = {}
    for answer, theirs in asked:
        found = answer.result()
        said |= {job.folder.path: found.get(job.job_id) for job in theirs}
    return [job.seen(said[path]) if (path := job.folder.path) in said else job for job in jobs]
