"""The jobs that run a flow's workers: ordinary jobs, made from the same three blocks.

They are not part of the experiment: each start of the flow submits its own, and a later start takes
none of them up. A worker whose flow is gone ends by itself.
"""

from __future__ import annotations

import asyncio
import os
import sys
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextvars import Context, copy_context
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from prefect.logging import get_run_logger
from prefect.settings import get_current_settings

from hpc_prefect.batch.prepare import Job, JobTerms, prepare, resolved_work_dir
from hpc_prefect.batch.recording import note_end_of, note_wanted
from hpc_prefect.blocks import (
    Call,
    CommandBlock,
    ExecutionProfileBlock,
    GivenBlocks,
    HPCProfileBlock,
    load_blocks,
)
from hpc_prefect.errors import FlowRunCancelled, InvalidJob
from hpc_prefect.executor.service import Handle, executor
from hpc_prefect.flow_runs.cancellation import RunCancelled, cancellable, raise_if_cancelled
from hpc_prefect.flow_runs.run_log import RunLog
from hpc_prefect.flow_runs.watch import MESSAGE
from hpc_prefect.job.result import JobResult
from hpc_prefect.job.retry import RetryPolicy
from hpc_prefect.schedulers import scheduler_for

#: The key in a profile's `executables` for the workers' Python, if no command block names it.
WORKER = "hpc-worker"
_NO_SERVER = (
    "workers report the states of their tasks to a Prefect server, and none is configured: set"
    " PREFECT_API_URL, or start a server with: hpc-prefect server start --use"
)
#: Seconds before its job's walltime at which a worker leaves, so that its results can be copied.
_LEAVE_BEFORE = 60
#: Seconds for which a worker waits for a flow that it cannot reach.
_PATIENCE = 60


@dataclass(frozen=True, kw_only=True)
class WorkerBlocks:
    """The blocks from which workers are made, and their work_dir.

    Attributes:
        command: names the workers' Python; None: see `WORKER`, else the flow's own.
    """

    command: str | CommandBlock | None
    execution: str | ExecutionProfileBlock
    hpc: str | HPCProfileBlock
    work_dir: str

    async def load(self) -> GivenBlocks:
        """The three blocks, loaded.

        Raises:
            InvalidJob: with all that is wrong with them.
        """
        own_python = CommandBlock(command_name=WORKER, executable_key=WORKER)
        named = GivenBlocks(self.command or own_python, self.execution, self.hpc)
        command, execution, hpc = await load_blocks(named, subject="the workers")
        if not execution.command_name:  # a profile that holds only resources
            execution = execution.model_copy(update={"command_name": command.command_name})
        if self.command is None:
            command = own_python.model_copy(update={"command_name": execution.command_name})
            here = {WORKER: sys.executable} | hpc.executables
            hpc = hpc.model_copy(update={"executables": here})
        return GivenBlocks(command, execution, hpc)


class WorkerJobs:
    """Submits the jobs of one flow's workers, in the context of the flow.

    Attributes:
        sample: a prepared job, like each of them.
    """

    def __init__(
        self, blocks: WorkerBlocks, loaded: GivenBlocks, sample: Job, context: Context
    ) -> None:
        self._blocks = blocks
        self._loaded = loaded
        self._context = context
        self._log = get_run_logger()
        self._api = get_current_settings().api.url or ""
        self.sample = sample
        self.secrets: dict[str, str] = {}

    @classmethod
    async def of(cls, blocks: WorkerBlocks) -> WorkerJobs:
        """Load and check the blocks; nothing is submitted.

        Raises:
            InvalidJob: with every problem of blocks, program and site.
        """
        loaded = await blocks.load()
        if not get_current_settings().api.url:
            raise InvalidJob("the workers", [_NO_SERVER])
        sample = await _prepared(blocks, loaded, WORKER, [])
        return cls(blocks, loaded, sample, copy_context())

    @property
    def runs_here(self) -> bool:
        """Whether the jobs run on this very machine."""
        return scheduler_for(self.sample.spec.site.scheduler).runs_here

    @property
    def ranks(self) -> int:
        """The number of workers of an MPI job, one on each rank; 0 for a single-process job."""
        resources = self.sample.spec.resources
        return resources.ranks if resources.launch == "mpi" else 0

    def start(
        self, name: str, scheduler: str, handed_over: Callable[[Handle[JobResult]], None]
    ) -> Future[JobResult]:
        """Start the job of one more worker, on the executor's loop and in the flow's context.

        Args:
            name: the worker's.
            scheduler: the address of Dask's scheduler.
            handed_over: called with the job's handle, on that loop.

        Returns:
            How the job ended; or, as its exception, why there is none: `InvalidJob`,
            `FlowRunCancelled`, or that the job could not be followed to its end.
        """
        life = self._carry_out(name, scheduler, handed_over)
        begin = partial(asyncio.run_coroutine_threadsafe, life, executor().loop)
        return self._context.copy().run(begin)

    async def _carry_out(
        self, name: str, scheduler: str, handed_over: Callable[[Handle[JobResult]], None]
    ) -> JobResult:
        await raise_if_cancelled()
        arguments = worker_arguments(self.sample, name, scheduler, self._api)
        job = await _prepared(self._blocks, self._loaded, name, arguments)
        listener = WorkerLog(name, self._log)
        request = with_secrets(replace(job.request, listener=listener), self.secrets)
        note_wanted(request)
        handle = executor().start(request)
        note_end_of(handle.result, request)
        handed_over(handle)
        try:
            with cancellable(handle) as call:
                result: JobResult = await call.outcome()
                return result
        except RunCancelled:
            raise FlowRunCancelled(MESSAGE) from None
        finally:
            listener.close()

    def warn(self, text: str) -> None:
        """A warning in the flow run's log."""
        self._context.copy().run(partial(self._log.warning, "%s", text))


class WorkerLog(RunLog):
    """Logs the states of a worker's job, without its output: Prefect has what tasks log."""

    def output(self, stream: str, text: str, path: str) -> None:
        pass


async def _prepared(
    blocks: WorkerBlocks, loaded: GivenBlocks, name: str, arguments: list[str]
) -> Job:
    """A job with an identity of its own, so that no later start takes it up."""
    work_dir = resolved_work_dir(blocks.work_dir)
    call = Call(script_filename=name, work_dir=work_dir, user_args=arguments)
    terms = JobTerms(timeout_seconds=None, retries=0, policy=RetryPolicy())
    return await prepare(call, loaded, f"{WORKER} {uuid.uuid4()}", terms)


def worker_arguments(job: Job, name: str, scheduler: str, api: str) -> list[str]:
    """The arguments of Python in a worker's job."""
    resources = job.spec.resources
    ranks = resources.ranks_per_node if resources.launch == "mpi" else 1
    threads = resources.threads_per_rank if resources.launch == "mpi" else resources.cores_per_node
    arguments = ["-m", "hpc_prefect.task_runner.worker", scheduler, "--name", name, "--api", api]
    arguments += ["--threads", str(threads), "--patience", str(_PATIENCE)]
    if resources.memory_per_node:
        arguments += ["--memory", str(resources.memory_per_node // ranks)]
    if resources.launch == "mpi":
        arguments += ["--ranks"]
    for folder in own_modules(sys.path):
        arguments += ["--path", folder]
    # A short job is one of a test, or of a user who knows that its tasks are shorter still.
    leave = resources.walltime - min(_LEAVE_BEFORE, resources.walltime // 4)
    return [*arguments, "--lifetime", str(leave)]


def own_modules(path: list[str]) -> list[str]:
    """The folders in `path` that are not part of the Python installation.

    The first is the folder of the program that was started: tasks are often in another file there.
    """
    known = tuple(os.path.join(place, "") for place in {sys.prefix, sys.base_prefix})
    # Dask's scheduler adds its scratch folder, but workers have their own.
    folders = [os.path.abspath(each) for each in path if "dask-scratch-space" not in each]
    return [each for each in folders if os.path.isdir(each) and not each.startswith(known)]


def with_secrets(request: Any, secrets: Mapping[str, str]) -> Any:
    """The request with further secret variables in the job's environment."""
    held = request.secrets | dict(secrets)
    spec = replace(request.spec, secret_names=tuple(sorted(held)))
    return replace(request, spec=spec, secrets=held)
