"""The jobs and sessions of the service, on disk: they outlive it.

jobs/ID/job.json      the job's record
jobs/ID/params.json   the posted parameters, unchanged
jobs/ID/results.json  the result, which the client decodes, or the traceback of a failure
sessions/ID.json
"""

from __future__ import annotations

import json
import math
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hpc_rehearsal.ibm_quantum.settings import write_text

QUEUED, RUNNING = "Queued", "Running"
COMPLETED, FAILED, CANCELLED = "Completed", "Failed", "Cancelled"
OVER = frozenset({COMPLETED, FAILED, CANCELLED})

#: Letters and digits of the real service's ids, which have 20 of them.
_LETTERS = "0123456789abcdefghijklmnopqrstuv"


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def new_id() -> str:
    return "d" + "".join(secrets.choice(_LETTERS) for _ in range(19))


@dataclass(kw_only=True)
class Job:
    """A job.

    Attributes:
        due: when its turn comes, in seconds since the epoch.
        needed_seconds: QPU seconds that it needs.
        qpu_seconds: QPU seconds that it has used.
    """

    id: str
    program: str
    backend: str
    tags: list[str]
    session_id: str | None
    max_seconds: float | None
    private: bool
    due: float
    needed_seconds: float
    created: str = field(default_factory=now)
    status: str = QUEUED
    reason: str | None = None
    reason_code: int | None = None
    running: str | None = None
    finished: str | None = None
    qpu_seconds: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)
    deleted: bool = False

    @property
    def over(self) -> bool:
        return self.status in OVER

    @property
    def estimated_seconds(self) -> int:
        return math.ceil(self.needed_seconds)


@dataclass(kw_only=True)
class Session:
    """A session (mode "dedicated") or a batch; `activated` when its first job starts."""

    id: str
    mode: str
    backend: str
    max_seconds: int | None
    created: str = field(default_factory=now)
    accepting_jobs: bool = True
    activated: float | None = None
    closed: str | None = None

    @property
    def expired(self) -> bool:
        """Whether it has been active for its whole `max_seconds`."""
        return (
            self.activated is not None
            and self.max_seconds is not None
            and time.time() > self.activated + self.max_seconds
        )


class Store:
    """All jobs and sessions. Change a job only by `change`."""

    def __init__(self, state: Path) -> None:
        self._jobs_folder = state / "jobs"
        self._sessions_folder = state / "sessions"
        for folder in (self._jobs_folder, self._sessions_folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.changed = threading.Condition(threading.RLock())
        self._jobs = {job.id: job for job in self._read_jobs()}
        self._sessions = {
            (session := Session(**json.loads(path.read_text()))).id: session
            for path in self._sessions_folder.glob("*.json")
        }

    def _read_jobs(self) -> Iterator[Job]:
        for path in self._jobs_folder.glob("*/job.json"):
            yield Job(**json.loads(path.read_text()))

    def add(self, job: Job, params: str) -> None:
        """Add a new job; it is written to disk first."""
        folder = self._jobs_folder / job.id
        folder.mkdir(mode=0o700)
        write_text(folder / "params.json", params)
        with self.changed:
            self._write(job)
            self._jobs[job.id] = job
            self.changed.notify_all()

    def job(self, job_id: str) -> Job | None:
        job = self._jobs.get(job_id)
        return None if job is None or job.deleted else job

    def jobs(self) -> list[Job]:
        """All jobs, the oldest first."""
        return [job for job in self.posted() if not job.deleted]

    def posted(self) -> list[Job]:
        """All jobs that were ever accepted, the oldest first."""
        with self.changed:
            return sorted(self._jobs.values(), key=lambda job: job.created)

    def change(self, job: Job, change: Callable[[Job], None]) -> None:
        with self.changed:
            change(job)
            self._write(job)
            self.changed.notify_all()

    def start(self, job: Job) -> None:
        """Let the job run, unless it has ended already."""
        with self.changed:
            if job.over:
                return
            job.status, job.running = RUNNING, job.running or now()
            self._write(job)
            session = self._sessions.get(job.session_id or "")
            if session is not None and session.activated is None:
                session.activated = time.time()
                self.keep_session(session)
            self.changed.notify_all()

    def finish(self, job: Job, status: str, *, results: str = "", **facts: Any) -> None:
        """End the job, unless it has ended already: a job that was cancelled stays so."""
        with self.changed:
            if job.over:
                return
            write_text(self._jobs_folder / job.id / "results.json", results)
            for name, value in facts.items():
                setattr(job, name, value)
            job.status, job.finished = status, now()
            self._write(job)
            self.changed.notify_all()

    def delete(self, job: Job) -> None:
        """Remove a job's parameters and results; it still counts as posted."""
        with self.changed:
            job.deleted = True
            self._write(job)
            for kind in ("params", "results"):
                (self._jobs_folder / job.id / f"{kind}.json").unlink(missing_ok=True)

    def params(self, job: Job) -> str:
        return (self._jobs_folder / job.id / "params.json").read_text()

    def results(self, job: Job) -> str | None:
        try:
            return (self._jobs_folder / job.id / "results.json").read_text()
        except FileNotFoundError:
            return None

    def session(self, session_id: str) -> Session | None:
        return self._sessions.get(session_id)

    def keep_session(self, session: Session) -> None:
        """Write a session that is new or was changed."""
        with self.changed:
            write_text(self._sessions_folder / f"{session.id}.json", json.dumps(asdict(session)))
            self._sessions[session.id] = session
            self.changed.notify_all()

    def jobs_of(self, session: Session) -> list[Job]:
        return [job for job in self.jobs() if job.session_id == session.id]

    def _write(self, job: Job) -> None:
        write_text(self._jobs_folder / job.id / "job.json", json.dumps(asdict(job)))
