"""Dask's cluster on batch jobs: more of them while tasks wait, fewer when none do."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Awaitable, Callable
from typing import Any

import dask
from distributed import Scheduler
from distributed.deploy.spec import ProcessInterface, SpecCluster
from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.security import Security

from hpc_prefect.batch.task import describe, tail_of
from hpc_prefect.errors import FlowRunCancelled, WorkersFailed
from hpc_prefect.executor.service import Handle
from hpc_prefect.job.result import JobResult
from hpc_prefect.task_runner.jobs import WorkerJobs
from hpc_prefect.task_runner.worker import own_scratch

#: After so many jobs in a row whose workers did not connect, no more are submitted.
_FAILURES = 3
#: The same after so many jobs in a row whose workers finished no task, but not before so many for
#: each present job. Dask does not count workers that leave before their walltime: it would start a
#: task that takes longer again and again.
_FRUITLESS = 9
_FRUITLESS_EACH = 3
#: Seconds to wait for a worker that was told to leave, before its job is cancelled.
_LEAVING = 10.0


class WorkerJob(ProcessInterface):  # type: ignore[misc]
    """One worker's job, as Dask's cluster sees it."""

    def __init__(self, scheduler: str, *, name: str, jobs: WorkerJobs, cluster: Any) -> None:
        super().__init__(scheduler, name)
        self.name = name
        self._scheduler = scheduler
        self._jobs = jobs
        self._told: Callable[[WorkerJob, str, FlowRunCancelled | None], None] = cluster.job_ended
        self._let_go: Callable[[str], Awaitable[None]] = cluster.let_go
        self._handle: Handle[JobResult] | None = None
        self._life: asyncio.Task[None] | None = None
        self._closing = False
        self.came = False  # whether its worker was ever connected
        self.fruitful = False  # whether it finished a task

    async def start(self) -> None:
        """Submit the job and follow it. Never raises: Dask would silently stop scaling for good."""
        self._life = asyncio.get_running_loop().create_task(self._live())
        await super().start()

    async def _live(self) -> None:
        """From the submission to the end of the job."""
        job = self._jobs.start(self.name, self._scheduler, self._handed_over)
        cancelled = None
        try:
            result = await asyncio.wrap_future(job)
            words = tail_of(result.stderr_path) if result.succeeded else describe(result)
        except FlowRunCancelled as error:
            words, cancelled = "", error
        except Exception as error:  # noqa: BLE001 - whatever it is, this worker will not come
            words = f"{type(error).__name__}: {error}"
        await super().close()
        if not self._closing:
            self._told(self, words, cancelled)

    def _handed_over(self, handle: Handle[JobResult]) -> None:
        """Keep the job's handle. Called in another thread: this method sets `_handle`, then reads
        `_closing`; `close` does the reverse, so one of them cancels the job."""
        self._handle = handle
        if self._closing and not self.came:
            handle.cancel()

    async def close(self) -> None:
        """End the job: its worker has no more work, or never connected."""
        self._closing = True
        if self._life is None:
            await super().close()
            return
        if self.came:
            await self._let_go(self.name)
            await asyncio.wait([self._life], timeout=_LEAVING)
        if not self._life.done() and self._handle is not None:
            self._handle.cancel()
        await asyncio.wait([self._life])


class EndsOfTasks(SchedulerPlugin):  # type: ignore[misc]
    """Tells the cluster which worker has finished a task, when Dask's scheduler learns it."""

    def __init__(self, told: Callable[[str], None]) -> None:
        self._told = told

    def transition(self, key: Any, start: str, finish: str, *args: Any, **known: Any) -> None:
        """Called by Dask for each change of a task. A task that failed in Prefect also becomes
        "memory": its result is a state."""
        if start == "processing" and finish == "memory":
            self._told(str(known.get("worker")))


class WorkerCluster(SpecCluster):  # type: ignore[misc]
    """A Dask scheduler in the flow's process, and the jobs of its workers.

    Attributes:
        failure: why no more workers are started; it is raised to callers of tasks. None while they
            are.
        last_end: what is known of the end of the last worker that was lost.
    """

    def __init__(self, jobs: WorkerJobs, *, host: str, on_failure: Callable[[], None]) -> None:
        self._jobs = jobs
        self._lost_in_a_row = 0
        self._fruitless_in_a_row = 0
        self._numbers = itertools.count(1)
        self._on_failure = on_failure
        self.failure: BaseException | None = None
        self.last_end = ""
        security = Security.temporary()
        jobs.secrets = _for_workers(security)
        worker: dict[str, Any] = {"cls": WorkerJob, "options": {"jobs": jobs, "cluster": self}}
        if jobs.ranks:
            worker["group"] = [f"-{rank}" for rank in range(jobs.ranks)]
        scheduler = {
            "protocol": "tls://",
            "security": security,
            "host": host or None,
            "port": 0,
            # Dask's pages have no password, and a login node has many users.
            "dashboard": False,
            "dashboard_address": "127.0.0.1:0",
        }
        settings = {"distributed.scheduler.http.routes": [], "temporary-directory": own_scratch()}
        with dask.config.set(settings):
            super().__init__(
                worker=worker,
                scheduler={"cls": Scheduler, "options": scheduler},
                security=security,
                name="hpc-prefect",
            )
        self.scheduler.add_plugin(EndsOfTasks(self._task_ended), name="hpc-prefect")

    @property
    def dashboard_link(self) -> str:
        """Empty: there is no dashboard."""
        return ""

    def adapt(self, *, minimum: int, maximum: int, **options: Any) -> Any:
        """Keep between `minimum` and `maximum` jobs; Dask itself counts workers."""
        each = self._jobs.ranks or 1
        if self._jobs.ranks:
            options["worker_key"] = job_of_rank  # a job's workers come and go together
        return super().adapt(minimum=minimum * each, maximum=maximum * each, **options)

    def scale(self, n: int = 0, memory: None = None, cores: None = None) -> Any:
        """Scale to as many jobs as `n` workers need."""
        return super().scale(math.ceil(n / (self._jobs.ranks or 1)))

    scale_up = scale

    def _new_worker_name(self, worker_number: int) -> str:
        """A name that no worker of this run had before; it also names the job."""
        return f"worker-{next(self._numbers)}"

    def _update_worker_status(self, op: str, msg: Any) -> None:
        if op == "add":
            for each in msg["workers"].values():
                self._worker_came(each["name"])
        super()._update_worker_status(op, msg)

    def _worker_came(self, name: str) -> None:
        self._lost_in_a_row = 0
        job = self.workers.get(self._job_of(name))
        if job is not None:
            job.came = True

    def _task_ended(self, address: str) -> None:
        self._fruitless_in_a_row = 0
        worker = self.scheduler.workers.get(address)
        job = self.workers.get(self._job_of(str(worker.name))) if worker is not None else None
        if job is not None:
            job.fruitful = True

    def _job_of(self, worker: str) -> str:
        """The name of a worker's job: in an MPI job each rank is a worker."""
        return job_of(worker) if self._jobs.ranks else worker

    async def let_go(self, job: str) -> None:
        """Tell a job's workers to leave, after their results were copied to other workers."""
        workers = self.scheduler.workers.values()
        addresses = [each.address for each in workers if self._job_of(str(each.name)) == job]
        await self.scheduler.retire_workers(addresses, close_workers=True, remove=True)

    def job_ended(self, job: WorkerJob, words: str, cancelled: FlowRunCancelled | None) -> None:
        """A job has ended by itself: another one replaces it while there is work."""
        self.workers.pop(job.name, None)
        self.worker_spec.pop(job.name, None)
        if cancelled is not None:
            self._fail(cancelled)
            return
        if job.came:
            self._jobs.warn(
                f"worker job {job.name} has ended; other workers get its tasks. {words}"
            )
            self.last_end = f"The last worker job to end was {job.name}: {words}"
            if not job.fruitful:
                self._count_fruitless()
            return
        self._lost_in_a_row += 1
        self._jobs.warn(
            f"worker job {job.name} ended before its worker connected to the flow. {words}"
        )
        if self._lost_in_a_row >= _FAILURES:
            self._fail(
                WorkersFailed(
                    f"{self._lost_in_a_row} worker jobs in a row ended before their worker"
                    f" connected to the flow. No further one is submitted, and the flow's tasks"
                    f" fail. The last one: {words}"
                )
            )

    def _count_fruitless(self) -> None:
        """Count a worker that connected and left without finishing a task."""
        self._fruitless_in_a_row += 1
        jobs = len(self.worker_spec) + 1  # with this one
        if self._fruitless_in_a_row >= max(_FRUITLESS, _FRUITLESS_EACH * jobs):
            self._fail(
                WorkersFailed(
                    f"{self._fruitless_in_a_row} worker jobs in a row ended without finishing a"
                    " task. No further one is submitted, and the flow's tasks fail. Either a task"
                    " takes longer than the walltime of a worker (see the execution profile), or"
                    " it ends its worker's process, or the workers cannot import the flow's code."
                    f" {self.last_end}"
                )
            )

    def _fail(self, failure: BaseException) -> None:
        """Give up: start no more workers."""
        if self.failure is not None:
            return
        self.failure = failure
        if self._adaptive is not None:
            self._adaptive.stop()
        self.worker_spec.clear()
        self._correct_state()
        self._on_failure()


def job_of(worker: str) -> str:
    """The name of an MPI job, from the name of the worker on one of its ranks."""
    return worker.rpartition("-")[0]


def job_of_rank(worker: Any) -> str:
    """The same from Dask's own object for a worker."""
    return job_of(str(worker.name))


def _for_workers(security: Security) -> dict[str, str]:
    """The TLS keys of workers and scheduler, as the environment variables that Dask reads.

    They are sent with the job's secrets: in a file that the script reads once and removes.
    """
    keys = security.get_tls_config_for_role("worker")
    prefix = "DASK_DISTRIBUTED__COMM"
    return {
        f"{prefix}__REQUIRE_ENCRYPTION": "True",
        f"{prefix}__TLS__CA_FILE": keys["ca_file"],
        f"{prefix}__TLS__WORKER__CERT": keys["cert"],
        f"{prefix}__TLS__WORKER__KEY": keys["key"],
        # For a task that submits tasks of its own to the same scheduler.
        f"{prefix}__TLS__CLIENT__CERT": keys["cert"],
        f"{prefix}__TLS__CLIENT__KEY": keys["key"],
    }
