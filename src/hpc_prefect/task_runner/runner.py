"""`HPCTaskRunner`: a flow's tasks on workers that are batch jobs of the three blocks."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from threading import Lock
from typing import Any, TypeVar

from distributed import Future, get_worker, rejoin, secede
from distributed.scheduler import KilledWorker
from prefect.client.schemas.objects import State
from prefect.states import Failed
from prefect.tasks import Task
from prefect_dask.task_runners import DaskTaskRunner, PrefectDaskFuture

from hpc_prefect.blocks import CommandBlock, ExecutionProfileBlock, HPCProfileBlock
from hpc_prefect.errors import WorkersFailed
from hpc_prefect.flow_runs.sync import run_sync
from hpc_prefect.task_runner.client import WorkerClient
from hpc_prefect.task_runner.cluster import WorkerCluster
from hpc_prefect.task_runner.jobs import WorkerBlocks, WorkerJobs

R = TypeVar("R")

#: Seconds between two decisions on the number of workers.
_LOOK_EVERY = 1.0
#: The level of Dask's logger before each of the runs under way.
_LEVELS: list[int] = []


class WorkerFuture(PrefectDaskFuture[R]):  # type: ignore[misc]
    """A task on a worker: its result, or why no worker will run it."""

    cluster: WorkerCluster | None = None
    _final_state: State[Any] | None

    @property
    def _given_up(self) -> BaseException | None:
        """Why the task's end will never be known; None if it is known, or may still be."""
        future = self.wrapped_future
        if future.status == "error":  # not a failed task: that returns a state, no error to Dask
            last_end = self.cluster.last_end if self.cluster is not None else ""
            return _lost_with_workers(future.exception(), last_end)
        return self.cluster.failure if future.cancelled() and self.cluster is not None else None

    def wait(self, timeout: float | None = None) -> None:
        with _thread_free(self.wrapped_future):
            super().wait(timeout)
        if self._final_state is None and (failure := self._given_up) is not None:
            self._final_state = Failed(message=str(failure), data=failure)

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> Any:
        self.wait(timeout)
        ended_by = self._final_state.data if self._final_state is not None else None
        if raise_on_failure and isinstance(ended_by, BaseException):
            raise ended_by  # here: an event loop, such as Prefect's, cannot pass on every exception
        if self._final_state is None and not self.wrapped_future.done():
            raise TimeoutError(
                f"Task run {self.task_run_id} did not complete within {timeout} seconds"
            )
        return super().result(timeout=timeout, raise_on_failure=raise_on_failure)


class HPCTaskRunner(DaskTaskRunner):  # type: ignore[misc]
    """Runs a flow's Prefect tasks on workers that are batch jobs, on any scheduler.

    For Python tasks by the thousand. Each worker is a job of the three blocks: more of them are
    submitted while tasks wait, and those that have nothing to do leave. Dask, which hands tasks to
    workers, repeats a task whose worker is lost (a node failure, the job's walltime): what must
    not run twice belongs into a job of its own, by `run_job_from_blocks`.

    Workers speak to the flow's process by TLS, with keys made for this run alone, and to Prefect's
    server: both must be reachable from the nodes. A flow whose process was killed starts workers
    anew; the old ones end by themselves within a minute.

    Example:
        ```python
        @flow(task_runner=HPCTaskRunner(
            execution_profile_block_name="exec-worker",
            hpc_profile_block_name="hpc-slurm",
            workers=(0, 16),
        ))
        def scan():
            return [energy.submit(angle) for angle in angles]
        ```
    """

    _client: WorkerClient | None

    def __init__(
        self,
        *,
        execution_profile_block_name: str | ExecutionProfileBlock,
        hpc_profile_block_name: str | HPCProfileBlock,
        command_block_name: str | CommandBlock | None = None,
        work_dir: str | os.PathLike[str] = ".",
        workers: int | tuple[int, int] = (0, 1),
        idle_seconds: float = 60.0,
        host: str = "",
    ) -> None:
        """Define how workers are made. No job is submitted before the first task.

        Args:
            execution_profile_block_name: HOW: the shape of one worker's job. A single-process job
                is one worker with a thread for each core; an MPI job has a worker on each rank.
            hpc_profile_block_name: WHERE.
            command_block_name: names the workers' Python, which must have the flow's packages;
                without it, it is the flow's own (on a shared file system), or what the HPC
                profile's `executables` has under `hpc-worker`.
            work_dir: where the jobs' records are, in `.hpc-prefect`, and the workers' directory.
            workers: the least and the most number of jobs; one number means both.
            idle_seconds: a worker's job ends after so long without work.
            host: the name or address by which compute nodes reach this machine; by default the
                address of its default route. With the laptop's own queue, only connections from
                this machine are accepted.

        Raises:
            ValueError: `workers` or `idle_seconds` is not possible.
        """
        self._terms: dict[str, Any] = {
            "execution_profile_block_name": execution_profile_block_name,
            "hpc_profile_block_name": hpc_profile_block_name,
            "command_block_name": command_block_name,
            "work_dir": work_dir,
            "workers": workers,
            "idle_seconds": idle_seconds,
            "host": host,
        }
        self._blocks = WorkerBlocks(
            command=command_block_name,
            execution=execution_profile_block_name,
            hpc=hpc_profile_block_name,
            work_dir=os.fspath(work_dir),
        )
        minimum, maximum = _bounds(workers)
        if idle_seconds < _LOOK_EVERY:
            raise ValueError(f"idle_seconds is {idle_seconds!r}; it must be 1 or more")
        self._handed_out: weakref.WeakSet[Any] = weakref.WeakSet()
        self._beginning = Lock()
        looks = round(idle_seconds / _LOOK_EVERY)
        scaling = {"minimum": minimum, "maximum": maximum, "interval": f"{_LOOK_EVERY}s"}
        super().__init__(adapt_kwargs=scaling | {"wait_count": looks})

    def duplicate(self) -> HPCTaskRunner:
        """A runner with the same settings that has not begun."""
        return type(self)(**self._terms)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HPCTaskRunner) and self._terms == other._terms

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle only the settings: each task carries its flow, with this runner, to a worker."""
        return partial(type(self), **self._terms), ()

    @property
    def client(self) -> WorkerClient:
        """The client that submits tasks. The first call starts the workers; other threads wait."""
        with self._beginning:
            if self._client is None:
                where = self._scheduler_around() or self._begin_workers()
                client = WorkerClient(where, **self.client_kwargs)
                self._client = self._exit_stack.enter_context(client)
            return self._client

    def submit(
        self,
        task: Task[Any, Any],
        parameters: dict[str, Any],
        wait_for: Iterable[Any] | None = None,
        dependencies: dict[str, set[Any]] | None = None,
    ) -> WorkerFuture[Any]:
        """Submit a task to a worker.

        Raises:
            InvalidJob: at the first task: the workers cannot be made; with every reason.
            WorkersFailed: no more workers are started.
        """
        failure = self._workers.failure if self._workers is not None else None
        if failure is not None:
            raise failure
        future = super().submit(task, parameters, wait_for, dependencies)
        mine: WorkerFuture[Any] = WorkerFuture(
            wrapped_future=future.wrapped_future, task_run_id=future.task_run_id
        )
        mine.cluster = self._workers
        self._handed_out.add(future.wrapped_future)
        return mine

    @property
    def _workers(self) -> WorkerCluster | None:
        cluster = self._cluster
        return cluster if isinstance(cluster, WorkerCluster) else None

    @staticmethod
    def _scheduler_around() -> str:
        """In a task on a worker, the address of its Dask scheduler; else empty."""
        try:
            return str(get_worker().scheduler.address)
        except ValueError:
            return ""

    def _begin_workers(self) -> WorkerCluster:
        """Start the cluster, for the first task. Called in the flow's context."""
        jobs = run_sync(lambda: WorkerJobs.of(self._blocks))
        self._exit_stack.enter_context(quiet())
        host = self._terms["host"] or ("127.0.0.1" if jobs.runs_here else "")
        cluster = WorkerCluster(jobs, host=host, on_failure=self._give_up)
        self._cluster = self._exit_stack.enter_context(cluster)
        cluster.adapt(**self.adapt_kwargs)
        return cluster

    def _give_up(self) -> None:
        """Cancel all waiting tasks, because no worker will run them: so the flow learns why."""
        client = self._client
        if client is not None:
            waiting = [each for each in list(self._handed_out) if not each.done()]
            client.loop.add_callback(client._cancel, waiting, reason="no worker", force=True)


def _lost_with_workers(error: BaseException, last_end: str) -> BaseException:
    """Dask's error in words for people who do not know Dask."""
    if not isinstance(error, KilledWorker):
        return error
    return WorkersFailed(
        f"{error.allowed_failures + 1} workers, one after another, died while they ran this task,"
        " so it is not tried again. It may need more memory than the execution profile asks for"
        " (raise memory_per_node), or end its own process (a crash in a library, os._exit), or need"
        f" a package that the workers' Python does not have. {last_end}"
    )


@contextmanager
def _thread_free(future: Future) -> Iterator[None]:
    """While a task on a worker waits for other tasks, free its thread for another task.

    Otherwise as many such tasks as there are threads would wait for each other for ever.
    """
    if future.done():
        yield
        return
    try:
        secede()
    except (ValueError, KeyError):  # not in a task on a worker, or its thread is free already
        yield
        return
    try:
        yield
    finally:
        rejoin()


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Dask's messages about connections out of the flow's log; its warnings stay.

    If several runs are under way, the last one to end restores the logger's level.
    """
    logger = logging.getLogger("distributed")
    _LEVELS.append(logger.level)
    logger.setLevel(max(logger.level, logging.WARNING))
    try:
        yield
    finally:
        logger.setLevel(_LEVELS.pop())


def _bounds(workers: int | tuple[int, int]) -> tuple[int, int]:
    minimum, maximum = (workers, workers) if isinstance(workers, int) else workers
    if not 0 <= minimum <= maximum or maximum < 1:
        raise ValueError(
            f"workers is {workers!r}; it must be a number, or the least and the most, such as"
            " (0, 16)"
        )
    return minimum, maximum
