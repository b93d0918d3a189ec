"""Many jobs in one call, as one Prefect task run."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from prefect import task
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Failed

from hpc_prefect.batch.arrays.member import Member
from hpc_prefect.batch.arrays.prepare import ArrayCall, PreparedArray, prepare_array
from hpc_prefect.batch.arrays.progress import ArrayProgress
from hpc_prefect.batch.arrays.results import JobResults
from hpc_prefect.batch.placing import HoldsNodes
from hpc_prefect.batch.prepare import JobTerms, resolved_work_dir
from hpc_prefect.batch.recording import note_never_begun, note_wanted
from hpc_prefect.batch.task import no_warning_outside_of_flows
from hpc_prefect.blocks import (
    Call,
    CommandBlock,
    ExecutionProfileBlock,
    GivenBlocks,
    HPCProfileBlock,
)
from hpc_prefect.errors import FlowRunCancelled, InvalidJob
from hpc_prefect.executor.arrays.run import ArrayRun
from hpc_prefect.executor.service import executor
from hpc_prefect.flow_runs.campaigns.end import note_finished, note_unfinished
from hpc_prefect.flow_runs.cancellation import (
    cancelled_state,
    raise_if_cancelled,
    run_is_cancelled,
)
from hpc_prefect.flow_runs.run_log import RunLog
from hpc_prefect.flow_runs.sync import run_sync
from hpc_prefect.flow_runs.task_arguments import ONCE_ONLY
from hpc_prefect.flow_runs.uncaught import forget_frames
from hpc_prefect.flow_runs.waiting import outcome_of
from hpc_prefect.job.retry import RetryPolicy


async def run_jobs_from_blocks(
    *,
    command_block_name: str | CommandBlock,
    execution_profile_block_name: str | ExecutionProfileBlock,
    hpc_profile_block_name: str | HPCProfileBlock,
    work_dir: str | os.PathLike[str],
    script_filename: str,
    members: Sequence[Member],
    pack: int = 1,
    at_once: int | None = None,
    on_failure: Literal["raise", "return"] = "raise",
    job_key: str | None = None,
    execution_profile_overrides: Mapping[str, Any] | None = None,
    timeout_seconds: float | None = None,
    retries: int = 0,
    retry_policy: RetryPolicy | None = None,
    allocation: HoldsNodes | None = None,
) -> JobResults:
    """Run many jobs of one shape: as arrays, in as few submissions as the scheduler allows.

    Each member runs exactly once in its place of the experiment, as a job of `run_job_from_blocks`
    does. A call that is made again, after a crash, a failure or with more members, submits those
    that are missing or failed, takes up those under way and collects those that succeeded.

    Two calls that may run at the same time in one scope of the flow need different
    `script_filename`s, or each a `job_key`.

    Args:
        command_block_name: as of `run_job_from_blocks`; so are the next five.
        execution_profile_block_name: HOW, of each member.
        hpc_profile_block_name: WHERE. If the site has no arrays, members are submitted as single
            jobs, each of `pack` members.
        work_dir: of the members that have none of their own.
        script_filename: the array's name.
        execution_profile_overrides: fields of the execution profile, for this call.
        members: what differs from job to job.
        pack: members that an element of the array runs, one after another. The profile's walltime
            is that of an element. A member that fails takes down no other.
        at_once: elements that may run at the same time; None for as many as there is room for.
        on_failure: `raise` when some did not succeed, once all have ended; or `return` the results
            of all.
        job_key: identifies the array in its scope, instead of what its members share.
        timeout_seconds: cancel the members that have not ended after so long.
        retries: how many more times each member is submitted when it fails for a reason that is
            worth a retry, with more memory or walltime where that was missing; see
            `run_job_from_blocks`.
        retry_policy: which reasons are worth a retry, and how much more is asked for.
        allocation: the `allocation(…)` to run in; None for the one around the call, if any.

    Returns:
        The results in the order of the members.

    Raises:
        InvalidJob: with all problems of blocks, call and members at once; nothing was submitted.
        JobsFailed: some did not succeed; its `results` has all.
        JobHeld: another living run works on the same array.
    """
    shared = Call(
        script_filename=script_filename,
        work_dir=resolved_work_dir(work_dir),
        overrides=execution_profile_overrides,
    )
    if on_failure not in ("raise", "return"):
        raise InvalidJob(shared.subject, [f"on_failure is {on_failure!r}; write raise or return"])
    call = ArrayCall(shared=shared, members=members, pack=pack, at_once=at_once, array_key=job_key)
    given = GivenBlocks(command_block_name, execution_profile_block_name, hpc_profile_block_name)
    terms = JobTerms(timeout_seconds, retries, retry_policy or RetryPolicy(), allocation)
    await raise_if_cancelled()
    place = None
    try:
        array = await prepare_array(call, given, terms)
        if not array.request.members:
            return JobResults(array.request.spec.name, ())
        place = array.request.base
        note_wanted(array.request)
        results = await _outcome(array)
        if results.failed:
            note_unfinished(place)
        else:
            note_finished(place)
        if on_failure == "raise":
            results.raise_for_failures()
    except BaseException as error:
        note_unfinished(place)
        forget_frames(error)
        raise
    return results


def run_jobs_from_blocks_sync(**arguments: Any) -> JobResults:
    """`run_jobs_from_blocks` for sync flows and tasks and plain scripts; same arguments, errors."""
    return run_sync(lambda: run_jobs_from_blocks(**arguments))


class _Opaque:
    """Hides an array from Prefect's search for futures in arguments, which would walk all of it.

    Attributes:
        handed_over: whether the executor has it.
        results: once all members have ended.
    """

    def __init__(self, array: PreparedArray) -> None:
        self.array = array
        self.handed_over = False
        self.results: JobResults | None = None
        timeout = array.request.timeout
        self._deadline = None if timeout is None else time.monotonic() + timeout

    def seconds_left(self) -> float | None:
        """A timeout counts from the call on."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())


def _run_name(parameters: dict[str, Any]) -> str:
    hidden: _Opaque = parameters["hidden"]
    request = hidden.array.request
    return f"{request.spec.name} ({len(request.members)} jobs)"


@task(
    name="hpc-jobs",
    task_run_name=_run_name,  # type: ignore[arg-type]  # Prefect looks for this argument
    **ONCE_ONLY,
)
async def _array_task(hidden: _Opaque) -> State[Any] | None:
    if await run_is_cancelled():
        return cancelled_state()
    request = hidden.array.request
    listener = RunLog(request.spec.name, get_run_logger())
    progress = ArrayProgress(request, listener)
    request = replace(request, listener=listener, follower=progress, timeout=hidden.seconds_left())
    hidden.handed_over = True
    handle = executor().start(request, ArrayRun)
    try:
        found = await outcome_of(handle, listener, hidden.array.on_sigterm)
    finally:
        progress.close()
    if isinstance(found, State):
        return found
    results = hidden.results = JobResults(request.spec.name, found)
    if not results.failed:
        collected = sum(result.collected for result in results)
        listener.state(
            results.counts + (f" ({collected} of these by an earlier run)" if collected else "")
        )
        return None
    # A state with a short message: Prefect would log an error with all its text and its own
    # traceback.
    return Failed(message=f"{results.summary}; everything about them is in {request.base}-…")


async def _outcome(array: PreparedArray) -> JobResults:
    hidden = _Opaque(array)
    try:
        with no_warning_outside_of_flows():
            ended: State[Any] | None = await _array_task(hidden)
    except BaseException as error:
        if not hidden.handed_over:
            note_never_begun(array.request, error)
        raise
    if hidden.results is not None:
        return hidden.results
    cancelled = FlowRunCancelled(ended.message if ended is not None else None)
    if not hidden.handed_over:
        note_never_begun(array.request, cancelled)
    await raise_if_cancelled()
    raise cancelled
