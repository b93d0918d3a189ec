"""What Prefect's API and the session's queue hold of a flow run, and waiting for it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.objects import Artifact, FlowRun, Log, TaskRun
from prefect.client.schemas.sorting import TaskRunSort

from hpc_prefect.executor.connection import Connection
from hpc_prefect.job.state import Observation
from hpc_prefect.ledger.job_folder import JobFolder
from hpc_prefect.schedulers import scheduler_for
from hpc_prefect.schedulers.base import NoAnswer
from hpc_prefect.transports.local import LocalTransport

from .. import warm
from . import jobs

T = TypeVar("T")

HERE = Path(jobs.__file__)
#: The folder of the programs that tests start.
PROGRAMS = HERE.parent
MAIN = "import sys; from hpc_prefect.cli import main; sys.exit(main())"


# --- waiting, and processes of their own


def until(condition: Callable[[], T], seconds: float = 300) -> T:
    """Wait until the condition gives something true, and return that."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.02)
    return found


@contextmanager
def process(*arguments: str, file: Path = HERE) -> Iterator[warm.Process]:
    """A flow of `jobs.py` in a process of its own, in the session's Prefect; killed at the end."""
    started = warm.Process([str(file), *arguments], stdout=warm.PIPE, stderr=warm.STDOUT)
    try:
        yield started
    finally:
        started.kill()
        started.communicate()


def command(*arguments: str, **more: Any) -> warm.CompletedProcess[str]:
    """`hpc-prefect …`; from another folder than the flow's, as after another login."""
    words = ["-c", MAIN, *arguments]
    return warm.run(words, stdout=warm.PIPE, stderr=warm.STDOUT, timeout=200, **more)


def ended(started: warm.Process, code: int = 0) -> str:
    """What a process printed, once it has ended with this code."""
    out, _ = started.communicate(timeout=120)
    assert started.returncode == code, out
    return out


def states(said: str) -> list[str]:
    """The states in the line of `jobs.py` and its like; Prefect's loggers may write after it."""
    [line] = [line for line in said.splitlines() if line.startswith("STATES ")]
    return line.split()[1:]


# --- what Prefect's API holds


def run_of(work_dir: Path) -> str:
    """The flow run that works in a work_dir."""
    (claim,) = work_dir.glob(".hpc-prefect/*/claim-1")
    return str(json.loads(claim.read_text())["flow_run"])


def flow_run(run_id: UUID | str) -> FlowRun:
    with get_client(sync_client=True) as client:
        return client.read_flow_run(UUID(str(run_id)))


def task_runs(run_id: UUID | str, *, count: int = 1) -> list[TaskRun]:
    """The flow run's task runs, once `count` of them have ended: their states travel as events."""
    with get_client(sync_client=True) as client:

        def final() -> list[TaskRun]:
            found = client.read_task_runs(
                flow_run_filter=_run(run_id), sort=TaskRunSort.EXPECTED_START_TIME_ASC, limit=200
            )
            done = [each for each in found if each.state is not None and each.state.is_final()]
            return done if len(done) >= count else []

        return until(final)


def logs(run_id: UUID | str, containing: str = "") -> list[Log]:
    """The log records of a flow run and its tasks that hold this text, oldest first."""
    found: list[Log] = []
    wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[UUID(str(run_id))]))
    with get_client(sync_client=True) as client:
        while True:
            page = client.read_logs(wanted, limit=200, offset=len(found))
            found += page
            if len(page) < 200:
                return [each for each in found if containing in each.message]


def artifacts(run_id: UUID | str) -> list[Artifact]:
    """The artifacts of a flow run, newest first."""
    wanted = {"artifacts": {"flow_run_id": {"any_": [str(run_id)]}}, "sort": "CREATED_DESC"}
    with get_client(sync_client=True) as client:
        found = client.request("POST", "/artifacts/filter", json=wanted).json()
    return [Artifact.model_validate(each) for each in found]


def artifacts_with(run_id: UUID | str, *about: str) -> list[Artifact]:
    """The same, once there is one about each of these: they are sent in the background."""

    def found() -> list[Artifact]:
        there = artifacts(run_id)
        told = [str(each.description) for each in there]
        return there if all(any(t.startswith(a) for t in told) for a in about) else []

    return until(found)


def table_on(page: Artifact, title: str) -> list[dict[str, str]]:
    """The rows of a table in Markdown, below the heading that begins so."""
    section = str(page.data).partition(f"### {title}")[2].partition("\n### ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    head, _, *rows = [
        [cell.strip().replace("\\", "") for cell in line.strip("|").split(" | ")] for line in lines
    ]
    return [dict(zip(head, row, strict=True)) for row in rows]


def _run(run_id: UUID | str) -> FlowRunFilter:
    return FlowRunFilter(id=FlowRunFilterId(any_=[UUID(str(run_id))]))


# --- what the queue holds


def remote(spool: Path, job_id: str) -> Observation:
    """What the session's queue says of a job."""
    pool = ThreadPoolExecutor(1)
    connection = Connection(scheduler_for("local"), LocalTransport(), {"spool": str(spool)}, pool)
    answer = connection.converse(connection.scheduler.observe([job_id], connection.options))
    assert not isinstance(answer, NoAnswer), answer
    return answer[job_id]


def ids(work_dir: Path) -> list[str]:
    """The scheduler's ids of the jobs of a work_dir, as their journals tell, in their order."""
    folders = [str(path) for path in work_dir.glob(".hpc-prefect/*/??/*")]
    found = [JobFolder(LocalTransport(), folder).ledger().job_id for folder in folders]
    return sorted(filter(None, found), key=lambda job_id: int(job_id.partition(".")[0]))


def words(spool: Path, work_dir: Path) -> list[str]:
    """The queue's words for the jobs of a work_dir."""
    return [remote(spool, job_id).word for job_id in ids(work_dir)]


def submitted(spool: Path) -> list[str]:
    """The numbers of all jobs that the session's queue has been given."""
    return sorted(path.name for path in spool.glob("jobs/*"))
