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

#: After so many jobs in a row of which no worker came, no further one is submitted.
_FAILURES = 3
#: After so many jobs in a row whose workers have finished no task (and so many for each job that
#: there is) none is submitted either. Dask itself does not count workers that leave before their
#: walltime, and begins a task that takes longer again for ever.
_FRUITLESS = 9
_FRUITLESS_EACH = 3
#: Seconds for which a worker that was told to leave is waited for, before its job is cancelled.
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
        self.fruitful = False  # whether a task came to its end on it

    async def start(self) -> None:
        """Begin the job's life. Never raises: Dask would stop its scaling for good, in silence."""
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
        """Another thread's; it and `close` look for each other's trace after leaving their own."""
        self._handle = handle
        if self._closing and not self.came:
            handle.cancel()

    async def close(self) -> None:
        """End the job: its worker has nothing to do any more, or never came."""
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
    """Tells the cluster on which worker a task came to its end, as Dask's scheduler notices it."""

    def __init__(self, told: Callable[[str], None]) -> None:
        self._told = told

    def transition(self, key: Any, start: str, finish: str, *args: Any, **known: Any) -> None:
        """A task's state in Dask; one that failed in Prefect is "memory" too, it holds a state."""
        if start == "processing" and finish == "memory":
            self._told(str(known.get("worker")))


class WorkerCluster(SpecCluster):  # type: ignore[misc]
    """A Dask scheduler in the flow's process, and the jobs of its workers.

    Attributes:
        failure: why no further worker will come, to be raised where a task was wanted; None while
            they do.
        last_end: what is known of the last worker that was lost.
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
            # Its pages know no password, and a login node has many users.
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
        """None: see above."""
        return ""

    def adapt(self, *, minimum: int, maximum: int, **options: Any) -> Any:
        """Have between so many and so many jobs; Dask itself counts workers."""
        each = self._jobs.ranks or 1
        if self._jobs.ranks:
            options["worker_key"] = job_of_rank  # a job's workers come and go together
        return super().adapt(minimum=minimum * each, maximum=maximum * each, **options)

    def scale(self, n: int = 0, memory: None = None, cores: None = None) -> Any:
        """Have jobs for so many workers."""
        return super().scale(math.ceil(n / (self._jobs.ranks or 1)))

    scale_up = scale

    def _new_worker_name(self, worker_number: int) -> str:
        """One that no worker of this run had before: it also names the job."""
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
        """The job that carries a worker: in an MPI job each rank is one."""
        return job_of(worker) if self._jobs.ranks else worker

    async def let_go(self, job: str) -> None:
        """Have a job's workers leave by themselves, their results saved on other workers."""
        workers = self.scheduler.workers.values()
        addresses = [each.address for each in workers if self._job_of(str(each.name)) == job]
        await self.scheduler.retire_workers(addresses, close_workers=True, remove=True)

    def job_ended(self, job: WorkerJob, words: str, cancelled: FlowRunCancelled | None) -> None:
        """A job has ended that nobody asked to: another one takes its place while there is work."""
        self.workers.pop(job.name, None)
        self.worker_spec.pop(job.name, None)
        if cancelled is not None:
            self._fail(cancelled)
            return
        if job.came:
            self._jobs.warn(f"{job.name} has ended; what it had to do goes to others. {words}")
            self.last_end = f"{job.name} has ended. {words}"
            if not job.fruitful:
                self._count_fruitless()
            return
        self._lost_in_a_row += 1
        self._jobs.warn(f"{job.name} has ended, and no worker came of it. {words}")
        if self._lost_in_a_row >= _FAILURES:
            self._fail(
                WorkersFailed(
                    f"{self._lost_in_a_row} jobs in a row ended before their worker came, so no"
                    f" further one is submitted and the flow's tasks are given up. The last one:"
                    f" {words}"
                )
            )

    def _count_fruitless(self) -> None:
        """A worker that came has left again, and no task was done by it."""
        self._fruitless_in_a_row += 1
        jobs = len(self.worker_spec) + 1  # with this one
        if self._fruitless_in_a_row >= max(_FRUITLESS, _FRUITLESS_EACH * jobs):
            self._fail(
                WorkersFailed(
                    f"{self._fruitless_in_a_row} jobs in a row ended whose workers had finished no"
                    " task, so no further one is submitted and the flow's tasks are given up."
                    " Either a task takes longer than the walltime of a worker (see the execution"
                    " profile), or it ends its worker, or the worker cannot read it."
                    f" {self.last_end}"
                )
            )

    def _fail(self, failure: BaseException) -> None:
        """No further worker will come."""
        if self.failure is not None:
            return
        self.failure = failure
        if self._adaptive is not None:
            self._adaptive.stop()
        self.worker_spec.clear()
        self._correct_state()
        self._on_failure()


def job_of(worker: str) -> str:
    """The name of an MPI job by that of the worker on one of its ranks."""
    return worker.rpartition("-")[0]


def job_of_rank(worker: Any) -> str:
    """The same of what Dask's scheduler knows of a worker."""
    return job_of(str(worker.name))


def _for_workers(security: Security) -> dict[str, str]:
    """The keys by which a worker and the scheduler know each other, as Dask reads them.

    They go with the job's secrets: a file that the script reads once and removes.
    """
    keys = security.get_tls_config_for_role("worker")
    prefix = "DASK_DISTRIBUTED__COMM"
    return {
        f"{prefix}__REQUIRE_ENCRYPTION": "True",
        f"{prefix}__TLS__CA_FILE": keys["ca_file"],
        f"{prefix}__TLS__WORKER__CERT": keys["cert"],
        f"{prefix}__TLS__WORKER__KEY": keys["key"],
        # For a task that has tasks of its own, which it hands to the same scheduler.
        f"{prefix}__TLS__CLIENT__CERT": keys["cert"],
        f"{prefix}__TLS__CLIENT__KEY": keys["key"],
    }
