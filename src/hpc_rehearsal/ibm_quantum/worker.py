"""Runs the jobs: one thread for each device, as a device runs one job at a time."""

from __future__ import annotations

import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING

from hpc_rehearsal.ibm_quantum import store as states
from hpc_rehearsal.ibm_quantum.simulation import Work
from hpc_rehearsal.ibm_quantum.simulator import SimulationFailed, SimulationStopped

if TYPE_CHECKING:
    from hpc_rehearsal.ibm_quantum.service import Service
    from hpc_rehearsal.ibm_quantum.store import Job

_LOOK_SECONDS = 0.05
RAN_TOO_LONG = 1305  # the one code that the client itself knows
_FAILED = 9999


class Worker(threading.Thread):
    """Runs the jobs of a device, one after another."""

    def __init__(self, device: str, service: Service) -> None:
        super().__init__(name=f"device-{device}", daemon=True)
        self._device = device
        self._service = service
        self._store = service.store

    def run(self) -> None:
        while True:
            job = self._next()
            if job is None:
                continue
            try:
                self._run(job)
            except Exception as error:  # noqa: BLE001 - the device goes on; the job says why
                details = traceback.format_exc()
                print(details, file=sys.stderr, flush=True)
                self._fail(job, f"{type(error).__name__}: {error}", details)

    def _next(self) -> Job | None:
        """The next job; one that was running when the service was killed comes first."""
        with self._store.changed:
            waiting = self._service.waiting(self._device)
            if not waiting:
                self._store.changed.wait()
                return None
            first = waiting[0]
            if self._overdue(first):
                self._store.finish(first, states.CANCELLED, reason="The session is over")
                return None
            if self._held(first):
                self._store.changed.wait(_LOOK_SECONDS)
                return None
            return first

    def _overdue(self, job: Job) -> bool:
        session = self._store.session(job.session_id) if job.session_id else None
        return session is not None and session.expired and job.status == states.QUEUED

    def _held(self, job: Job) -> bool:
        service = self._service
        return (
            (job.status == states.QUEUED and job.due > time.time())
            or service.faults.maintenance(self._device)
            or service.limit_reached()
        )

    def _run(self, job: Job) -> None:
        self._store.start(job)
        self._stay(job)
        failure = None if job.over else self._service.faults.job_failure(job)
        if failure is not None:
            reason, code = failure
            self._fail(job, reason, reason, code)
        elif job.max_seconds and job.needed_seconds > job.max_seconds:
            self._store.finish(
                job,
                states.CANCELLED,
                reason=f"Job exceeded its maximum execution time of {job.max_seconds} s",
                reason_code=RAN_TOO_LONG,
                qpu_seconds=float(job.max_seconds),
            )
        elif not job.over:
            self._simulate(job)

    def _fail(self, job: Job, reason: str, details: str, code: int = _FAILED) -> None:
        self._store.finish(job, states.FAILED, results=details, reason=reason, reason_code=code)

    def _stay(self, job: Job) -> None:
        """Run as long as the settings say, or until the job is cancelled."""
        until = time.monotonic() + self._service.settings.run_seconds
        with self._store.changed:
            while not job.over and (left := until - time.monotonic()) > 0:
                self._store.changed.wait(left)

    def _simulate(self, job: Job) -> None:
        settings = self._service.settings
        params = self._store.params(job)
        work = Work(job.program, params, job.backend, settings.noise, settings.seed)
        try:
            outcome = self._service.simulator.run(work, lambda: job.over)
        except SimulationStopped:
            return
        except SimulationFailed as failed:
            self._fail(job, str(failed), failed.details)
            return
        self._store.finish(
            job,
            states.COMPLETED,
            results=outcome.text,
            facts=outcome.facts,
            qpu_seconds=job.needed_seconds,
        )
