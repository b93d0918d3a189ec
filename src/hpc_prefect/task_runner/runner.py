"""`HPCTaskRunner`: a flow's tasks on workers that are batch jobs of the three blocks."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from typing import Any, TypeVar

from prefect.client.schemas.objects import State
from prefect.states import Failed
from prefect.tasks import Task
from prefect_dask.task_runners import DaskTaskRunner, PrefectDaskFuture

from hpc_prefect.blocks import CommandBlock, ExecutionProfileBlock, HPCProfileBlock
from hpc_prefect.flow_runs.sync import run_sync
from hpc_prefect.task_runner.cluster import WorkerCluster
from hpc_prefect.task_runner.jobs import WorkerBlocks, WorkerJobs

R = TypeVar("R")

#: Seconds between two looks at how many workers there should be.
_LOOK_EVERY = 1.0


class WorkerFuture(PrefectDaskFuture[R]):  # type: ignore[misc]
    """A task on a worker; its result, or why no worker will ever run it."""

    cluster: WorkerCluster | None = None
    _final_state: State[Any] | None

    @property
    def _given_up(self) -> BaseException | None:
        """Why the task was cancelled before it was run; None when it was not."""
        cancelled = self.wrapped_future.cancelled()
        return self.cluster.failure if cancelled and self.cluster is not None else None

    def wait(self, timeout: float | None = None) -> None:
        super().wait(timeout)
        if self._final_state is None and (failure := self._given_up) is not None:
            self._final_state = Failed(message=str(failure), data=failure)

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> Any:
        try:
            return super().result(timeout=timeout, raise_on_failure=raise_on_failure)
        except CancelledError:
            if (failure := self._given_up) is not None:
                raise failure from None
            raise


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
        """Say how workers are made; nothing is submitted before the first task is.

        Args:
            execution_profile_block_name: HOW: the shape of one worker's job. A single-process job
                is one worker with a thread a core; an MPI job is one on each rank.
            hpc_profile_block_name: WHERE.
            command_block_name: names the workers' Python, which must have the flow's packages;
                without it, it is the flow's own (on a shared file system), or what the HPC
                profile's `executables` has under `hpc-worker`.
            work_dir: where the jobs' records are, in `.hpc-prefect`, and the workers' directory.
            workers: how many jobs at least and at most; one number for always so many.
            idle_seconds: after how long without work a worker's job is ended.
            host: the name or address of this machine that compute nodes reach; empty: what Dask
                finds. On the laptop's own queue nothing but this machine is listened to.

        Raises:
            ValueError: `workers` or `idle_seconds` make no sense.
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
        looks = round(idle_seconds / _LOOK_EVERY)
        scaling = {"minimum": minimum, "maximum": maximum, "interval": f"{_LOOK_EVERY}s"}
        super().__init__(
            cluster_class=self._start_workers, adapt_kwargs=scaling | {"wait_count": looks}
        )

    def duplicate(self) -> HPCTaskRunner:
        """A runner of the same settings that has not begun."""
        return type(self)(**self._terms)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HPCTaskRunner) and self._terms == other._terms

    __hash__ = None  # type: ignore[assignment]

    def submit(
        self,
        task: Task[Any, Any],
        parameters: dict[str, Any],
        wait_for: Iterable[Any] | None = None,
        dependencies: dict[str, set[Any]] | None = None,
    ) -> WorkerFuture[Any]:
        """Hand a task to a worker.

        Raises:
            InvalidJob: of the first task: the workers cannot be made, with every reason.
            WorkersFailed: no worker comes any more.
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

    def _start_workers(self) -> WorkerCluster:
        """The cluster, when the first task asks for it; called in the flow's context."""
        jobs = run_sync(lambda: WorkerJobs.of(self._blocks))
        self._exit_stack.enter_context(_quiet())
        host = self._terms["host"] or ("127.0.0.1" if jobs.runs_here else "")
        return WorkerCluster(jobs, host=host, on_failure=self._give_up)

    def _give_up(self) -> None:
        """Nobody will run what waits: end it, so that the flow learns why."""
        client = self._client
        if client is not None:
            waiting = [each for each in list(self._handed_out) if not each.done()]
            client.loop.add_callback(client._cancel, waiting, reason="no worker", force=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what Dask has to say of each connection out of the flow's log; its warnings stay."""
    logger = logging.getLogger("distributed")
    before = logger.level
    logger.setLevel(max(before, logging.WARNING))
    try:
        yield
    finally:
        logger.setLevel(before)


def _bounds(workers: int | tuple[int, int]) -> tuple[int, int]:
    minimum, maximum = (workers, workers) if isinstance(workers, int) else workers
    if not 0 <= minimum <= maximum or maximum < 1:
        raise ValueError(
            f"workers is {workers!r}; it must be a number, or the least and the most, such as"
            " (0, 16)"
        )
    return minimum, maximum
