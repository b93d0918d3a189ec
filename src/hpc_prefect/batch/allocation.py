"""An allocation held for a block of a flow: one wait in the queue for all jobs inside."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Iterable
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from functools import partial
from typing import Any, Self, TypeVar

from prefect.exceptions import MissingContextError
from prefect.logging import get_logger, get_run_logger
from prefect.types import SecretDict

from hpc_prefect.batch.placing import calls_in
from hpc_prefect.batch.prepare import (
    blocks_of_run,
    file_problems,
    provenance_of,
    request_facts,
    resolved_work_dir,
)
from hpc_prefect.blocks import (
    Call,
    CommandBlock,
    ExecutionProfileBlock,
    GivenBlocks,
    HPCProfileBlock,
    resolve,
)
from hpc_prefect.errors import InvalidJob, SchedulerError
from hpc_prefect.executor.allocation import AllocationTerms, AllocationUse, HeldAllocation
from hpc_prefect.executor.request import JobRequest, Placing
from hpc_prefect.executor.service import executor
from hpc_prefect.flow_runs.campaigns import locate
from hpc_prefect.flow_runs.cancellation import interrupted, raise_if_cancelled
from hpc_prefect.flow_runs.recording import note_blocks, noting
from hpc_prefect.flow_runs.run_log import RunLog
from hpc_prefect.flow_runs.signals import noticing_sigterm
from hpc_prefect.flow_runs.sync import run_sync
from hpc_prefect.job.identity import digest
from hpc_prefect.job.result import JobResult
from hpc_prefect.job.spec import JobSpec, Site
from hpc_prefect.ledger.claim import TOUCH_EVERY
from hpc_prefect.records.job_events import batch_wanted
from hpc_prefect.records.job_folders import batch_end
from hpc_prefect.records.write.writer import Event
from hpc_prefect.transports.local import LocalTransport

T = TypeVar("T")

NAME = "allocation"
#: Empties the fields of an HPC profile, or of its GPU side, that are for programs.
_BARE: dict[str, Any] = {
    "launcher": "",
    "modules": [],
    "setup": [],
    "teardown": [],
    "executables": {},
    "environment": {},
}
_KEY = "hpc-prefect-agent"
#: A living holder renews its claim every half minute; one that is late by several of these is gone.
_LEAST_ORPHAN_TIMEOUT = 4 * TOUCH_EVERY


def allocation(
    *,
    execution_profile_block_name: str | ExecutionProfileBlock,
    hpc_profile_block_name: str | HPCProfileBlock,
    work_dir: str | os.PathLike[str],
    idle_timeout: float = 600,
    orphan_timeout: float = 600,
    renew: bool = False,
) -> Allocation:
    """Hold nodes while a block of a flow runs: its jobs wait in the queue once.

        async with allocation(
            execution_profile_block_name="exec-alloc",
            hpc_profile_block_name="hpc-slurm",
            work_dir="./work",
        ) as nodes:
            for step in range(20):
                await run_job_from_blocks(...)

    In a sync flow or script it is `with allocation(…)`. One batch job of the execution profile's
    shape and walltime is submitted. Jobs inside, of the same HPC profile and resource class, are
    handed to it and run in it side by side as they fit; a job that does not fit is submitted
    normally, which the log says. A flow that is started again takes up its allocation and the jobs
    in it.

    Args:
        execution_profile_block_name: what is held: nodes, `ranks_per_node` × `threads_per_rank`
            cores on each, memory, GPUs, walltime.
        hpc_profile_block_name: where.
        work_dir: on the file system that its nodes share; records are below it.
        idle_timeout: seconds after which it ends when it has nothing to do.
        orphan_timeout: seconds after which it ends when its flow's process is gone; jobs that run
            are ended then. At least 120.
        renew: submit another allocation when this one has no time left for the next job, so that
            the loop goes on in it.

    Raises (when the block is entered):
        InvalidJob: with all problems of the blocks; nothing was submitted.
        JobHeld: another flow holds it.
        SchedulerError: the scheduler refused it, or it ended before it began.
    """
    problems = [
        f"{name} is {value!r}; it must be a number of seconds, {least:g} or more"
        for name, value, least in (
            ("idle_timeout", idle_timeout, 1),
            ("orphan_timeout", orphan_timeout, _LEAST_ORPHAN_TIMEOUT),
        )
        if not isinstance(value, int | float) or isinstance(value, bool) or not value >= least
    ]
    if problems:
        raise InvalidJob(NAME, problems)
    terms = AllocationTerms(
        idle_timeout=int(idle_timeout), orphan_timeout=int(orphan_timeout), renew=bool(renew)
    )
    # The command does not matter, since the job starts our agent; profiles are loaded with one.
    agent = CommandBlock(command_name=NAME, executable_key=_KEY)
    given = GivenBlocks(agent, execution_profile_block_name, hpc_profile_block_name)
    return Allocation(given, resolved_work_dir(work_dir), terms)


class Allocation:
    """Nodes that are held, as `allocation` gives them; also the argument `allocation=` of calls.

    Attributes:
        use: once it is closed, the node-hours that it `held` and `used`; `idle` are the others.
    """

    def __init__(self, given: GivenBlocks, work_dir: str, terms: AllocationTerms) -> None:
        self._given = given
        self._work_dir = work_dir
        self._terms = terms
        self._holder: HeldAllocation | None = None
        self._profile = ""
        self._closing = _Closing()
        self._open = ExitStack()
        self._on_sigterm = "leave"
        self._log: RunLog | None = None
        self.use = AllocationUse()

    def placing(self, hpc: str | HPCProfileBlock) -> Placing:
        """The placing of jobs of this HPC profile."""
        if self._holder is None:
            raise SchedulerError("the allocation is not held: use it inside its `with` block only")
        return _Inside(self._holder, hpc == self._given.hpc, self._profile)

    def calls_inside(self) -> AbstractContextManager[object]:
        """A context whose calls are made in the allocation.

        For code in a thread that was started without the context of the block that holds it. A call
        raises `SchedulerError` when the allocation is not held.
        """
        return calls_in(self)

    async def __aenter__(self) -> Self:
        await self._enter()
        self._open.enter_context(calls_in(self))
        return self

    def __enter__(self) -> Self:
        run_sync(self._enter)
        self._open.enter_context(calls_in(self))
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._open.close()
        await self._leave(kind)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._open.close()
        run_sync(partial(self._leave, kind))

    async def _enter(self) -> None:
        await raise_if_cancelled()
        request, described_blocks = await self._prepare()
        self._log = RunLog(NAME, _log())
        request = replace(request, listener=self._log)
        holder = HeldAllocation(request, self._terms, executor(), LocalTransport())
        holder.on_term = _Recorded(described_blocks, holder)
        self._closing.holder = self._holder = holder
        try:
            ended = await _on_executor(holder.open())
        except BaseException:
            await _on_executor(holder.close(now=True))
            self._holder = None
            raise
        if ended is not None:
            self._holder = None
            raise SchedulerError(
                f"the allocation ended before it could be used: {ended.verdict.reason}:"
                f" {ended.verdict.summary}. What to do: {ended.verdict.remedy}"
            )

    async def _leave(self, kind: type[BaseException] | None) -> None:
        """Close it; but when only this process ends, leave it to the next start of the flow."""
        holder = self._holder
        if holder is None or self._log is None:
            return
        ordinary = kind is None or issubclass(kind, Exception)
        try:
            if not ordinary and await interrupted(self._closing, self._on_sigterm):
                await _on_executor(_leaving(holder))
                self._log.state(
                    "this process received SIGTERM; the allocation is left running for its"
                    " orphan_timeout"
                )
                return
            if ordinary:
                with noticing_sigterm():
                    self._closing.begin(now=kind is not None)
                    await asyncio.wrap_future(self._closing.result)
            self.use = holder.use
            self._log.state(str(self.use))
        finally:
            self._holder = None
            self._log.close()

    # --- its batch job

    async def _prepare(self) -> tuple[JobRequest, dict[str, Any]]:
        (_, execution, hpc), described = await blocks_of_run(self._given, NAME)
        told = {kind: described[kind] for kind in ("execution", "hpc")}
        self._profile = told["hpc"]["name"]
        self._on_sigterm = hpc.on_sigterm
        spec = self._spec(execution, hpc)
        await asyncio.to_thread(os.makedirs, self._work_dir, exist_ok=True)
        # By the blocks' names alone: with a raised walltime it is still the same allocation.
        what = digest([NAME, *(block["name"] for block in told.values())])
        place = await locate(work_dir=self._work_dir, name=NAME, digest=what)
        request = JobRequest(
            spec=spec,
            provenance=provenance_of(place, told, {}),
            **request_facts(place, hpc),
        )
        return request, told

    def _spec(self, execution: ExecutionProfileBlock, hpc: HPCProfileBlock) -> JobSpec:
        """The batch job. It starts our agent, so the site's set-up for programs is not in it.

        Raises:
            InvalidJob: with all problems.
        """
        call = Call(script_filename=NAME, work_dir=self._work_dir)
        # The profile's command does not matter: here the profile says how much is held.
        command = CommandBlock(command_name=NAME, executable_key=_KEY)
        # The jobs inside may have several ranks, but the agent is started once.
        shape = execution.model_copy(
            update={"command_name": NAME, "launch": "mpi", "environment": {}}
        )
        place = hpc.model_copy(
            update=_BARE
            | {
                "executables": {_KEY: "/bin/bash"},
                "launcher": "{command}",
                "gpu": hpc.gpu.model_copy(update=_BARE),
                "login_shell": False,
                "secret_environment": SecretDict({}),
                "qrmi": {},
                "qrmi_api_keys": SecretDict({}),
            }
        )
        spec, _ = resolve(command, shape, place, call, machine_cores=os.cpu_count() or 1)
        if problems := file_problems(call, spec):
            raise InvalidJob(call.subject, problems)
        options = dict(spec.site.options)
        if "requeue" in options:  # a second start would find jobs that the first has begun
            options["requeue"] = "no"
        return replace(spec, site=replace(spec.site, options=options))


class _Inside:
    """A `Placing` for the jobs of one HPC profile."""

    def __init__(self, holder: HeldAllocation, same_profile: bool, profile: str) -> None:
        self._holder = holder
        self._same_profile = same_profile
        self._profile = profile

    async def site_for(self, spec: JobSpec) -> Site | None:
        side = self._holder.resource_class
        if not self._same_profile:
            self._holder.warn_outside(
                spec, f"the allocation is of the HPC profile {self._profile!r}"
            )
        elif spec.resources.resource_class != side:
            self._holder.warn_outside(spec, f"the allocation is of the resource class {side!r}")
        else:
            return await self._holder.site_for(spec)
        return None

    def came_back(self, site: Site) -> None:
        self._holder.came_back(site)


class _Closing:
    """The closing of an allocation, which a run waits for, or which the run's end begins."""

    def __init__(self) -> None:
        self.holder: HeldAllocation | None = None
        self.result: Future[Any] = Future()
        self._begun = False

    def cancel(self, by: str = "user") -> None:
        self.begin(now=True)

    def begin(self, *, now: bool) -> None:
        """Close it, from any thread; a second call does nothing."""
        if self._begun or self.holder is None:
            return
        self._begun = True
        ending = asyncio.run_coroutine_threadsafe(self.holder.close(now=now), executor().loop)
        ending.add_done_callback(self._ended)

    def _ended(self, ending: Future[AllocationUse]) -> None:
        if error := ending.exception():
            self.result.set_exception(error)
        else:
            self.result.set_result(ending.result())


class _Recorded:
    """Notes in the run's record an allocation's batch jobs, and how far they were used."""

    def __init__(self, blocks: dict[str, Any], holder: HeldAllocation) -> None:
        self._told = note_blocks(
            {"execution-profile": blocks["execution"], "hpc-profile": blocks["hpc"]}
        )
        self._later = noting()  # of the run around; terms begin on a thread that has none

    def begun(self, request: JobRequest) -> None:
        self._later(lambda: [("job", batch_wanted(request, self._told))])

    def ended(self, result: JobResult, use: AllocationUse) -> None:
        self._later(partial(_end, result, use))


def _end(result: JobResult, use: AllocationUse) -> Iterable[Event]:
    yield "job-ended", batch_end(result) | {"node_hours": use.held, "used_node_hours": use.used}


async def _leaving(holder: HeldAllocation) -> None:
    holder.leave()


async def _on_executor(work: Awaitable[T]) -> T:
    """Await something on the executor's loop; it goes on when the caller is cancelled."""
    loop = executor().loop
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, loop))  # type: ignore[arg-type]


def _log() -> logging.Logger | logging.LoggerAdapter[Any]:
    try:
        return get_run_logger()
    except MissingContextError:
        return get_logger("hpc_prefect.allocation")  # one that Prefect shows, in a script too
