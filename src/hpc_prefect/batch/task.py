"""The one call: run a job from three blocks, as a Prefect task run named after the job."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

from prefect import Task, task
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.settings import PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW, temporary_settings
from prefect.states import Failed

from hpc_prefect.batch.placing import HoldsNodes
from hpc_prefect.batch.prepare import Job, JobTerms, prepare, resolved_work_dir
from hpc_prefect.batch.program import rebuilt_since, warning_of
from hpc_prefect.batch.recording import note_end_of, note_never_begun, note_wanted
from hpc_prefect.batch.report import show_failed
from hpc_prefect.blocks import (
    Call,
    CommandBlock,
    ExecutionProfileBlock,
    GivenBlocks,
    HPCProfileBlock,
)
from hpc_prefect.errors import FlowRunCancelled, JobFailed, JobTimedOut
from hpc_prefect.executor.attempt import what_next
from hpc_prefect.executor.request import JobRequest, Listener
from hpc_prefect.executor.service import executor
from hpc_prefect.flow_runs.campaigns.end import note_unfinished
from hpc_prefect.flow_runs.cancellation import (
    cancelled_state,
    raise_if_cancelled,
    run_is_cancelled,
)
from hpc_prefect.flow_runs.run_log import RunLog
from hpc_prefect.flow_runs.scopes import root_flow
from hpc_prefect.flow_runs.sync import run_sync
from hpc_prefect.flow_runs.task_arguments import ONCE_ONLY
from hpc_prefect.flow_runs.uncaught import forget_frames
from hpc_prefect.flow_runs.waiting import outcome_of
from hpc_prefect.job import folder as names
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.result import JobResult
from hpc_prefect.job.retry import RetryPolicy
from hpc_prefect.ledger.job_folder import JobFolder
from hpc_prefect.records.job_folders import record_of
from hpc_prefect.transports.local import LocalTransport


async def run_job_from_blocks(
    *,
    command_block_name: str | CommandBlock,
    execution_profile_block_name: str | ExecutionProfileBlock,
    hpc_profile_block_name: str | HPCProfileBlock,
    work_dir: str | os.PathLike[str],
    script_filename: str,
    user_args: Sequence[object] | None = None,
    job_key: str | None = None,
    inputs: Sequence[str | os.PathLike[str]] = (),
    expected_outputs: Sequence[str | os.PathLike[str]] = (),
    execution_profile_overrides: Mapping[str, Any] | None = None,
    timeout_seconds: float | None = None,
    retries: int = 0,
    retry_policy: RetryPolicy | None = None,
    allocation: HoldsNodes | None = None,
) -> JobResult:
    """Run one HPC job: validate, render the script, submit, poll, return the result.

    The job runs exactly once in its experiment: a flow that is started again after a crash finds
    the running job or its result, and only what failed runs again.

    Each of the three blocks is given by the name under which it is stored, or as the block itself.

    Args:
        command_block_name: WHAT: the command's identity.
        execution_profile_block_name: HOW: nodes, ranks, threads, memory, walltime.
        hpc_profile_block_name: WHERE: the only argument to change for another machine.
        work_dir: the program's working directory; made if it is not there. The job's records are
            below it, in `.hpc-prefect`.
        script_filename: the job's name, in Prefect and in messages.
        user_args: arguments after the command's default ones; texts, numbers and paths. They reach
            the program byte for byte.
        job_key: identifies the job in its scope. Without it what is run identifies it (command,
            executable and its set-up, arguments, environment, shape, content of `inputs`). A job of
            the same identity is not run again. Walltime, memory, queue and scheduler options are
            never part of it.
        inputs: files that must be there, relative to `work_dir` or absolute; their content is part
            of the job's identity.
        expected_outputs: files that a success must have written.
        execution_profile_overrides: fields of the execution profile, for this call.
        timeout_seconds: cancel the job when it has not ended after so long, queue and further
            attempts included.
        retries: how many more attempts to make when one fails for a reason that is worth a retry:
            node failure or preemption (unchanged), out of memory (with more memory), walltime
            exceeded (with more time), within the HPC profile's limits; never after an error of the
            program. Each is a retry of the job's task run in Prefect.
        retry_policy: which reasons are worth a retry, and how much more is asked for.
        allocation: the `allocation(…)` to run in; None for the one around the call, if any.

    Returns:
        The job's id, state, times, resources and the paths of its script and output.

    Raises:
        InvalidJob: with all problems at once; nothing was submitted.
        JobFailed: the job did not succeed; the message has id, reason, remedy and the end of its
            stderr; the error's `result` has everything.
        JobTimedOut: `timeout_seconds` passed (a `JobFailed`, and a `TimeoutError`).
        JobHeld: another living run works on the same job.
    """
    call = Call(
        script_filename=script_filename,
        work_dir=resolved_work_dir(work_dir),
        user_args=user_args,
        inputs=inputs,
        expected_outputs=expected_outputs,
        overrides=execution_profile_overrides,
    )
    given = GivenBlocks(command_block_name, execution_profile_block_name, hpc_profile_block_name)
    terms = JobTerms(timeout_seconds, retries, retry_policy or RetryPolicy(), allocation)
    return await run_call(call, given, job_key, terms)


def run_job_from_blocks_sync(**arguments: Any) -> JobResult:
    """`run_job_from_blocks` for sync flows and tasks and plain scripts; same arguments and errors.

    The same coroutine runs on the executor's loop, with this caller's context, and this thread
    waits for it.
    """
    return run_sync(lambda: run_job_from_blocks(**arguments))


async def run_call(
    call: Call, given: GivenBlocks, job_key: str | None, terms: JobTerms
) -> JobResult:
    """Run one job; all calls for one job end here. Errors as of `run_job_from_blocks`."""
    await raise_if_cancelled()
    hidden: _Opaque | None = None
    try:
        hidden = _Opaque(await prepare(call, given, job_key, terms))
        note_wanted(hidden.job.request)
        with no_warning_outside_of_flows():
            result: JobResult | State[Any] = await _with_retries(hidden)(hidden)
        if hidden.failed is not None:
            raise hidden.failed
        if isinstance(result, State):
            await raise_if_cancelled()
            raise FlowRunCancelled(result.message)
    except BaseException as error:
        if hidden is not None:
            hidden.never_begun(error)
        note_unfinished(None if hidden is None else hidden.job.request.base)
        forget_frames(error)
        raise
    return result


# --- the task run


class _Opaque:
    """Hides a job from Prefect's search for futures in arguments, which would walk all of it.

    Attributes:
        again: whether the last attempt failed and another one is to be made.
        failed: the error of the last attempt.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.again = False
        self.failed: JobFailed | None = None
        self._end_is_told = False
        timeout = job.request.timeout
        self._deadline = None if timeout is None else time.monotonic() + timeout

    def request(self, listener: Listener) -> JobRequest:
        """The request for the executor; a timeout counts from the first attempt on."""
        self.again, self._end_is_told = False, True  # by whoever follows it
        left = None if self._deadline is None else max(0.0, self._deadline - time.monotonic())
        return replace(self.job.request, listener=listener, timeout=left)

    def never_begun(self, error: BaseException) -> None:
        """Tell the record that the call ended so, if its job was not handed over."""
        if not self._end_is_told:
            self._end_is_told = True
            note_never_begun(self.job.request, error)


def _run_name(parameters: dict[str, Any]) -> str:
    hidden: _Opaque = parameters["hidden"]
    return hidden.job.spec.name


@task(
    name="hpc-job",
    task_run_name=_run_name,  # type: ignore[arg-type]  # Prefect looks for this argument
    **ONCE_ONLY,
)
async def _job_task(hidden: _Opaque) -> JobResult | State[Any]:
    if await run_is_cancelled():
        state = cancelled_state()
        hidden.never_begun(FlowRunCancelled(state.message))
        return state
    job = hidden.job
    listener = RunLog(job.spec.name, get_run_logger())
    handle = executor().start(request := hidden.request(listener))
    note_end_of(handle.result, request)
    result = await outcome_of(handle, listener, job.on_sigterm)
    if isinstance(result, State):
        return result
    if result.collected:
        await _tell_rebuilt(result, job.request, listener)
    if result.succeeded:
        return result
    failed = await _failed_attempt(hidden, result)
    page = show_failed(result, str(failed))
    if hidden.again:
        raise failed  # Prefect then makes the next attempt
    # A state with a short message: Prefect would log an error with all its text and its own
    # traceback.
    hidden.failed = failed
    name = "TimedOut" if isinstance(failed, JobTimedOut) else "Failed"
    shown = f"; it is shown at {page}" if page else ""
    message = f"{_which(result)}: everything about it is in {result.folder}{shown}"
    return Failed(name=name, message=message)


async def _tell_rebuilt(result: JobResult, request: JobRequest, listener: RunLog) -> None:
    """Warn of a result that another build of the program made."""
    record = await asyncio.to_thread(record_of, result.folder)
    if difference := rebuilt_since(record, request.provenance):
        listener.state(warning_of(result, difference), warning=True)


async def _failed_attempt(hidden: _Opaque, result: JobResult) -> JobFailed:
    """The error of an attempt; it says what the next attempt is, if there is one."""
    if hidden.job.retries == 0:
        return _failure(result)
    folder = JobFolder(LocalTransport(), result.folder)
    step = await asyncio.to_thread(what_next, hidden.job.request, folder)
    hidden.again = step.resources is not None
    return _failure(result, f"another attempt: {step.words}")


def _with_retries(hidden: _Opaque) -> Task[[_Opaque], Coroutine[Any, Any, Any]]:
    """The task, with a retry for each reason worth it, as often as the call allows."""
    if hidden.job.retries == 0:
        return _job_task

    def worth_it(*_: object) -> bool:
        return hidden.again

    return _job_task.with_options(retries=hidden.job.retries, retry_condition_fn=worth_it)


def no_warning_outside_of_flows() -> AbstractContextManager[object]:
    """Silence Prefect's warning at each line that is logged outside of a flow run."""
    if root_flow() is not None:
        return nullcontext()
    return temporary_settings({PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW: "ignore"})


def _failure(result: JobResult, next_words: str = "") -> JobFailed:
    kind = JobTimedOut if result.verdict.reason is Reason.TIMED_OUT else JobFailed
    return kind(describe(result, next_words), result)


def _which(result: JobResult) -> str:
    which = f"job {result.name} ({result.job_id or 'not submitted'}, attempt {result.attempt})"
    return f"{which}: {result.verdict.reason}: {result.verdict.summary}"


def describe(result: JobResult, next_words: str = "") -> str:
    """A failed job in words: which, why, what the scheduler said, what to do, the end of stderr."""
    verdict = result.verdict
    parts = [_which(result)]
    if verdict.said and verdict.said not in verdict.summary:
        parts.append(f"the scheduler said: {verdict.said}")
    parts.append(f"what to do: {verdict.remedy}")
    parts += [next_words] if next_words else []
    for path in (result.stderr_path, f"{result.folder}/{names.SCHEDULER_ERR}"):
        if tail := tail_of(path):
            lines = "\n".join(f"  {line}" for line in tail.splitlines()[-10:])
            parts.append(f"the end of {path}:\n{lines}")
    parts.append(f"everything about it is in {result.folder}")
    return "\n".join(parts)


def tail_of(path: str) -> str:
    """The last lines of a file in a job's folder; empty where there are none."""
    folder, _, name = path.rpartition("/")
    return JobFolder(LocalTransport(), folder).tail(name)
