"""Watches jobs that a dead process left in a queue, until they have left it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpc_prefect.errors import TransportError
from hpc_prefect.job.state import JobState, Observation
from hpc_prefect.ledger.job_folder import JobFolder
from hpc_prefect.schedulers.base import NoAnswer

if TYPE_CHECKING:
    from hpc_prefect.executor.connection import Connection

logger = logging.getLogger("hpc_prefect.executor")


@dataclass(frozen=True)
class Orphan:
    """Its name in the scheduler, its folder, and how often it may be asked about."""

    tag: str
    folder: str
    poll_interval: float


async def await_end(job: Orphan, connection: Connection, gone: Callable[[], None]) -> None:
    """Call `gone`, in a thread, when it has left the queue. The job itself is not touched.

    It is asked about together with the jobs that this process waits for.
    """
    job_id = await _id_of(job, connection)
    if job_id:
        watch = _OrphanMonitor(job, job_id, connection.scheduler.patience.absent)
        connection.watch(watch)
        try:
            await watch.gone.wait()
        finally:
            connection.release(watch)
    await connection.shortly(gone)


async def _id_of(job: Orphan, connection: Connection) -> str:
    """The scheduler's id; empty when it was not submitted, or its verdict is there."""
    folder = JobFolder(connection.transport, job.folder)
    clock = asyncio.get_running_loop().time
    first_no: float | None = None
    while True:
        try:
            ledger = await connection.in_thread(folder.ledger)
            if ledger.result or not ledger.intended:
                return ""
            if ledger.job_id:
                return ledger.job_id
            asked = clock()
            found = await connection.find(job.tag)
            if not isinstance(found, NoAnswer):
                there = [id_ for id_, seen in found.items() if seen.state is not JobState.ENDED]
                if there:
                    return there[0]
                first_no = clock() if first_no is None else first_no
                if asked - first_no >= connection.scheduler.patience.find:
                    return ""
        except TransportError as error:
            logger.warning(
                "job %s was left by a process that died; whether it is still in the queue cannot"
                " be found out now: %s",
                job.tag,
                error,
            )
            await asyncio.sleep(job.poll_interval)


class _OrphanMonitor:
    """As the connection's loop needs it; see `Polled`. Only the scheduler's word counts."""

    def __init__(self, job: Orphan, job_id: str, patience: float) -> None:
        self.job_id = job_id
        self.poll_interval = job.poll_interval
        self.next_look = float("inf")
        self.wants_answer = True
        self.gone = asyncio.Event()
        self.tag = job.tag
        self._patience = patience
        self._absent_since: float | None = None

    def look(self, now: float) -> None: ...

    def heartbeat(self) -> None: ...

    def answered(self, now: float, seen: Observation | None, asked: float) -> None:
        if seen is not None and seen.tag and seen.tag != self.tag:
            seen = None
        self.wants_answer = seen is None  # until it is absent for long enough
        if seen is not None:
            self._absent_since = None
        elif self._absent_since is None:
            self._absent_since = now
        absent = self._absent_since is not None and asked - self._absent_since >= self._patience
        if absent or (seen is not None and seen.state is JobState.ENDED):
            self.gone.set()

    def broken(self, error: BaseException) -> None:
        logger.warning(
            "job %s, left by a process that died, cannot be watched: %r", self.tag, error
        )
