"""How often a job's own records are looked at: by what is new of it, and how many there are."""

from __future__ import annotations

import pytest

from hpc_prefect.errors import TransportError
from hpc_prefect.executor.attempt import Attempt, open_attempt
from hpc_prefect.executor.connection import Connection
from hpc_prefect.executor.looks import Looks
from hpc_prefect.executor.monitor import JobMonitor
from hpc_prefect.executor.output import Output
from hpc_prefect.executor.request import Silence
from hpc_prefect.job import folder as names
from hpc_prefect.transports.local import LocalTransport

from .rig import Rig

HOUR = 3600.0


def monitored(rig: Rig, connection: Connection, key: str = "k") -> tuple[Attempt, JobMonitor]:
    """A job that waits, of which only we know."""
    attempt = open_attempt(rig.request(rig.spec(), key), connection)
    assert isinstance(attempt, Attempt)
    attempt.job_id = "7"
    output = Output(attempt.folder, Silence())
    return attempt, JobMonitor(attempt, output, lambda: "", ask=False)


def pause_at(monitor: JobMonitor, now: float) -> float:
    """How long it is left alone after a look at this time."""
    monitor.look(now)
    return monitor.next_look - now


def begin(attempt: Attempt) -> None:
    line = names.journal_line(0.0, "start", token="t", id=attempt.job_id)
    attempt.folder.transport.append(attempt.folder.file(names.START), line)


async def test_a_short_job_is_looked_at_often_also_if_it_has_waited_for_long(rig: Rig):
    attempt, monitor = monitored(rig, rig.connection())
    now = monitor.next_look + HOUR
    waiting = pause_at(monitor, now)
    begin(attempt)
    assert pause_at(monitor, now + 1) < 0.1 * waiting
    assert pause_at(monitor, now + 1 + 10) < 0.05 * 10
    assert pause_at(monitor, now + HOUR) == waiting


async def test_among_many_jobs_each_is_looked_at_less_often(rig: Rig):
    connection = rig.connection()
    _, monitor = monitored(rig, connection)
    now = monitor.next_look + 2
    alone = pause_at(monitor, now)
    others = [monitored(rig, connection, f"k{n}")[1] for n in range(20)]
    for other in others:
        connection.watch(other)
    assert pause_at(monitor, now) > 2 * alone
    for other in others:
        connection.release(other)


async def test_who_runs_the_executor_may_say_how_often(rig: Rig):
    connection = rig.connection(looks=Looks(eager=0.5, latest=100.0))
    _, monitor = monitored(rig, connection)
    now = monitor.next_look
    assert pause_at(monitor, now + 10) == pytest.approx(5.0, abs=0.01)
    assert pause_at(monitor, now + HOUR) == pytest.approx(100.0)


class Broken(LocalTransport):
    """A file server that gives errors, once it is told to."""

    errs = False

    def read(self, path: str, offset: int = 0, size: int = -1) -> bytes | None:
        if self.errs:
            raise TransportError(f"cannot read {path}: Input/output error")
        return super().read(path, offset, size)


async def test_a_file_server_that_gives_errors_is_not_pressed(rig: Rig):
    transport = Broken()
    _, monitor = monitored(rig, rig.connection(transport=transport))
    transport.errs, now = True, monitor.next_look + HOUR
    with pytest.raises(TransportError):
        monitor.look(now)
    assert monitor.next_look > now
