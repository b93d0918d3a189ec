"""Who runs the jobs: one thread for each device, as a device runs one job at a time."""

from __future__ import annotations

import threading
import time
import traceback
from typing import TYPE_CHECKING

from hpc_prefect.rehearsal.ibm_quantum import store as states
from hpc_prefect.rehearsal.ibm_quantum import usage

if TYPE_CHECKING:
    from hpc_prefect.rehearsal.ibm_quantum.backends import Device
    from hpc_prefect.rehearsal.ibm_quantum.faults import Faults
    from hpc_prefect.rehearsal.ibm_quantum.settings import Settings
    from hpc_prefect.rehearsal.ibm_quantum.store import Job, Store

_LOOK_SECONDS = 0.05


class Worker(threading.Thread):
    """The life of a device's jobs."""

    def __init__(self, device: Device, store: Store, faults: Faults, settings: Settings) -> None:
        super().__init__(name=f"device-{device.name}", daemon=True)
        self._device = device
        self._store = store
        self._faults = faults
        self._settings = settings

    def run(self) -> None:
        while True:
            job = self._next()
            if job is not None:
                self._run(job)

    def _next(self) -> Job | None:
        """The job whose turn it is; one that a killed service left running comes first."""
        with self._store.changed:
            mine = [
                job
                for job in self._store.jobs()
                if job.backend == self._device.name and not job.over
            ]
            if not mine:
                self._store.changed.wait()
                return None
            ready = [job for job in mine if job.status == states.RUNNING or job.due <= time.time()]
            if not ready or self._faults.maintenance(self._device.name):
                self._store.changed.wait(_LOOK_SECONDS)
                return None
            return min(ready, key=lambda job: (job.status != states.RUNNING, job.due, job.created))

    def _run(self, job: Job) -> None:
        self._store.change(job, _start)
        self._stay(job)
        failure = self._faults.job_failure(job)
        if job.over:
            return
        if failure is not None:
            reason, code = failure
            self._store.finish(job, states.FAILED, results=reason, reason=reason, reason_code=code)
            return
        limit = job.max_seconds
        if limit and job.estimated_seconds > limit:
            self._store.finish(
                job,
                states.CANCELLED,
                reason="Job ran longer than maximum execution time",
                reason_code=1305,
                qpu_seconds=float(limit),
            )
            return
        self._simulate(job)

    def _stay(self, job: Job) -> None:
        """Run as long as the settings say, or until the job is cancelled."""
        until = time.monotonic() + self._settings.run_seconds
        with self._store.changed:
            while not job.over and (left := until - time.monotonic()) > 0:
                self._store.changed.wait(left)

    def _simulate(self, job: Job) -> None:
        from hpc_prefect.rehearsal.ibm_quantum import simulation

        seconds = job.estimated_seconds
        try:
            outcome = simulation.simulate(
                simulation.Work(
                    program=job.program,
                    params=self._store.params(job),
                    device=job.backend.removeprefix("fake_"),
                    noise=self._settings.noise,
                    seed=self._settings.seed,
                )
            )
        except Exception as error:  # noqa: BLE001 - whatever it was, it is the job's end
            self._store.finish(
                job,
                states.FAILED,
                results=traceback.format_exc(),
                reason=f"{type(error).__name__}: {error}",
                reason_code=1520,
                qpu_seconds=usage.OVERHEAD_SECONDS,
            )
            return
        self._store.finish(
            job,
            states.COMPLETED,
            results=outcome.text,
            facts=outcome.facts,
            qpu_seconds=seconds,
        )


def _start(job: Job) -> None:
    if not job.over:
        job.status = states.RUNNING
        job.running = job.running or states.now()
