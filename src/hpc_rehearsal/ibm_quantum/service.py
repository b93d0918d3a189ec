"""The service: its state, and the decisions on requests."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from fastapi import HTTPException, Request

from hpc_rehearsal.ibm_quantum import account, backends, usage
from hpc_rehearsal.ibm_quantum import store as states
from hpc_rehearsal.ibm_quantum.faults import Faults, error_body
from hpc_rehearsal.ibm_quantum.settings import Settings
from hpc_rehearsal.ibm_quantum.simulator import Simulator
from hpc_rehearsal.ibm_quantum.store import Job, Session, Store
from hpc_rehearsal.ibm_quantum.worker import Worker

PROGRAMS = ("sampler", "estimator", "executor")


class Refused(HTTPException):
    """A refused request, with an error code of the service."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(status, error_body(code, message))


class Service:
    """The service's state, and its decisions on requests."""

    def __init__(self, state: Path, settings: Settings) -> None:
        self.settings = settings
        self.store = Store(state)
        self.faults = Faults(state / "faults")
        self.devices = backends.devices(settings.devices)
        self.simulator = Simulator()
        self.requests: Counter[str] = Counter()

    def start(self) -> None:
        for name in self.devices:
            Worker(name, self).start()

    def device(self, name: str) -> backends.Device:
        if name not in self.devices:
            raise Refused(404, 1007, f"Backend {name} not found")
        return self.devices[name]

    def job(self, job_id: str) -> Job:
        job = self.store.job(job_id)
        if job is None:
            raise Refused(404, 1291, f"Job not found. Job ID: {job_id}")
        return job

    def session(self, session_id: str) -> Session:
        session = self.store.session(session_id)
        if session is None:
            raise Refused(404, 1292, f"Session not found. Session ID: {session_id}")
        return session

    def waiting(self, device: str) -> list[Job]:
        """The jobs of a device that are not over, in the order in which they run."""
        jobs = [job for job in self.store.jobs() if job.backend == device and not job.over]
        return sorted(jobs, key=lambda job: (job.status != states.RUNNING, job.due, job.created))

    def authorize(self, request: Request) -> None:
        """Refuse a request without a valid token of ours, or for another instance."""
        self.count(f"{request.method} {request.scope['route'].path}")
        claims = account.claims_of(self.settings, request.headers.get("authorization", ""))
        expired = self.faults.since("token-expired")
        if claims is None or (expired is not None and claims["issued"] < expired):
            raise Refused(401, 1200, "You are not authorized to do this action")
        if request.headers.get("service-crn") != self.settings.crn:
            raise Refused(403, 1200, "The instance is not one of this account's")

    def count(self, request: str) -> None:
        with self.store.changed:  # requests are answered in several threads
            self.requests[request] += 1

    def used_seconds(self) -> float:
        consumed = float((self.faults.read("usage") or {}).get("consumed", 0.0))
        return round(consumed + sum(job.qpu_seconds for job in self.store.posted()), 3)

    def limit_reached(self) -> bool:
        limit = self.settings.usage_limit_seconds
        return bool(limit) and self.used_seconds() >= limit

    def post(self, body: dict[str, Any]) -> Job:
        """Accept a job.

        Raises:
            Refused: it names something that does not exist, or its session accepts no jobs.
        """
        program, name = body.get("program_id"), body.get("backend")
        if program not in PROGRAMS:
            raise Refused(404, 1216, f"Program {program} not found")
        if name not in self.devices:
            raise Refused(400, 1007, f"Backend {name} not found")
        session = self.session(body["session_id"]) if body.get("session_id") else None
        if session is not None and (not session.accepting_jobs or session.expired):
            raise Refused(400, 1217, "The session does not accept jobs any more")
        tags = [str(tag) for tag in body.get("tags") or []]
        params = body.get("params") or {}
        shots = usage.executed_shots(program, params)
        copies = 1 if self.faults.take("duplicate", tags) is None else 2
        for _ in range(copies):
            job = Job(
                id=states.new_id(),
                program=program,
                backend=name,
                tags=tags,
                session_id=body.get("session_id"),
                max_seconds=body.get("cost"),
                private=bool(body.get("private")),
                due=time.time() + self._delay(session),
                needed_seconds=usage.seconds(shots, self.devices[name].repetition_seconds),
            )
            self.store.add(job, json.dumps(params))
        return job

    def _delay(self, session: Session | None) -> float:
        """The least seconds that a job waits; 0 in an active session."""
        if session is not None and session.activated is not None:
            return 0.0
        queue = self.faults.read("queue") or {}
        return float(queue.get("seconds", self.settings.queue_seconds))

    def cancel(self, job: Job) -> None:
        """End a job that waits or runs; later, with the fault `cancel-lags`, if it has not ended.

        Raises:
            Refused: it is over.
        """
        lag = self.faults.read("cancel-lags")
        with self.store.changed:
            if job.over:
                raise Refused(409, 1212, f"The job is over: {job.status}")
            if lag is None:
                self._end_cancelled(job)
                return
        later = threading.Timer(float(lag["seconds"]), self._end_cancelled, [job])
        later.daemon = True
        later.start()

    def _end_cancelled(self, job: Job) -> None:
        with self.store.changed:
            used = job.needed_seconds if job.status == states.RUNNING else 0.0
            self.store.finish(job, states.CANCELLED, qpu_seconds=used)

    def listed(self) -> list[Job]:
        """The jobs that a list shows: as at the real service, it may lag behind."""
        lag = self.faults.read("list-lags")
        jobs = self.store.jobs()
        if lag is None:
            return jobs
        until = datetime.now(UTC) - timedelta(seconds=float(lag["seconds"]))
        return [job for job in jobs if datetime.fromisoformat(job.created) <= until]

    def delete(self, job: Job) -> None:
        """Forget a job.

        Raises:
            Refused: it waits or runs.
        """
        if not job.over:
            raise Refused(409, 1213, f"The job is not over: {job.status}")
        self.store.delete(job)

    def close(self, session: Session) -> None:
        """Take no more jobs, and cancel those that wait."""
        session.accepting_jobs = False
        session.closed = session.closed or states.now()
        self.store.keep_session(session)
        for job in self.store.jobs_of(session):
            if job.status == states.QUEUED:
                self.store.finish(job, states.CANCELLED)
