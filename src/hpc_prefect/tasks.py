"""The one call: run a job from three blocks, as a Prefect task run named after the job."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import platform
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import copy_context
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import anyio
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext
from prefect.logging import get_run_logger
from prefect.settings import PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW, temporary_settings

from hpc_prefect.blocks import BlockNames, Blocks, Call, load_blocks, resolve
from hpc_prefect.campaigns import (
    Place,
    absolute_work_dir,
    is_cancelled,
    is_over,
    locate,
    note_outcome,
)
from hpc_prefect.errors import InvalidJob, JobFailed, JobTimedOut
from hpc_prefect.executor.ledger import JobFolder
from hpc_prefect.executor.request import JobRequest
from hpc_prefect.executor.service import Handle, executor
from hpc_prefect.job import folder as names
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.identity import digest
from hpc_prefect.job.spec import Executable, JobSpec
from hpc_prefect.job.state import JobResult
from hpc_prefect.report import show_result
from hpc_prefect.schedulers import scheduler_for
from hpc_prefect.scopes import root_flow
from hpc_prefect.transports.local import LocalTransport

#: How long a cancelled call waits for the scheduler to confirm; below Prefect's own 30 s grace.
CONFIRM = 22.0
#: With more jobs than this at once only their submission and their end are logged.
BURST = 20


async def run_job_from_blocks(
    *,
    command_block_name: str,
    execution_profile_block_name: str,
    hpc_profile_block_name: str,
    work_dir: str | os.PathLike[str],
    script_filename: str,
    user_args: Sequence[object] | None = None,
    job_key: str | None = None,
    inputs: Sequence[str | os.PathLike[str]] = (),
    expected_outputs: Sequence[str | os.PathLike[str]] = (),
    execution_profile_overrides: Mapping[str, Any] | None = None,
    timeout_seconds: float | None = None,
) -> JobResult:
    """Run one HPC job: validate, render the script, submit, poll, return the result.

    The job runs exactly once in its place of the experiment: a flow that is started again after a
    crash takes up the job where it is, or collects its result, and only what failed runs again.

    Args:
        command_block_name: WHAT: the command's identity.
        execution_profile_block_name: HOW: nodes, ranks, threads, memory, walltime.
        hpc_profile_block_name: WHERE: the only argument to change for another machine.
        work_dir: the program's working directory; made if it is not there. The job's records are
            below it, in `.hpc-prefect`.
        script_filename: the job's name, in Prefect and in messages.
        user_args: arguments after the command's default ones; texts, numbers and paths. They reach
            the program byte for byte.
        job_key: identifies the job in its scope in place of what is run (command, executable and
            its set-up, arguments, environment, shape, content of `inputs`); a job of the same key
            is not run again. Walltime, memory, queue and scheduler options are never part of it.
        inputs: files that must be there, relative to `work_dir` or absolute; their content is part
            of the job's identity.
        expected_outputs: files that a success must have written.
        execution_profile_overrides: fields of the execution profile, for this call.
        timeout_seconds: cancel the job when it has not ended after so long, queue included.

    Returns:
        The job's id, state, times, resources and the paths of its script and output.

    Raises:
        InvalidJob: with all problems at once; nothing was submitted.
        JobFailed: the job did not succeed; the message has id, reason, remedy and the end of its
            stderr, the error's `result` everything.
        JobTimedOut: `timeout_seconds` passed (a `JobFailed`, and a `TimeoutError`).
        JobHeld: another living run works on the same job.
    """
    call = Call(
        script_filename=script_filename,
        work_dir=_resolved(work_dir),
        user_args=user_args,
        inputs=inputs,
        expected_outputs=expected_outputs,
        overrides=execution_profile_overrides,
    )
    block_names = BlockNames(
        command_block_name, execution_profile_block_name, hpc_profile_block_name
    )
    job = await _prepare(call, block_names, job_key, timeout_seconds)
    return await _outcome(job)


def run_job_from_blocks_sync(**arguments: Any) -> JobResult:
    """`run_job_from_blocks` for sync flows and tasks and plain scripts; same arguments and errors.

    The same coroutine runs on the executor's loop, with this caller's context, and this thread
    waits for it.
    """
    loop = executor().loop
    done: Future[JobResult] = Future()
    started: list[asyncio.Task[None]] = []

    async def run() -> None:
        try:
            done.set_result(await run_job_from_blocks(**arguments))
        except BaseException as error:  # noqa: BLE001 - it is the waiting caller's
            done.set_exception(error)

    def start() -> None:
        started.append(loop.create_task(run()))

    def cancel() -> None:
        started[0].cancel()

    with _noticing_sigterm():
        copy_context().run(loop.call_soon_threadsafe, start)
        try:
            return done.result()
        except BaseException:
            if not done.done():  # interrupted here: KeyboardInterrupt, TerminationSignal …
                loop.call_soon_threadsafe(cancel)
                _wait_quietly(done)
            raise


def _wait_quietly(done: Future[JobResult]) -> None:
    """Give the cancelled coroutine the time to cancel its job."""
    try:
        done.exception(CONFIRM + 3)
    except BaseException:  # noqa: BLE001 - whatever it is, the caller's own interruption counts
        return


# --- from a call to a job


@dataclass(frozen=True)
class _Job:
    """A valid job in its place; what the task run is given."""

    spec: JobSpec
    request: JobRequest
    on_sigterm: str


class _Opaque:
    """Hides a job from Prefect's search for futures in arguments, which would walk all of it."""

    def __init__(self, job: _Job) -> None:
        self.job = job


async def _prepare(
    call: Call, block_names: BlockNames, job_key: str | None, timeout_seconds: float | None
) -> _Job:
    """Everything before the task run; every problem that can be found is found here, at once."""
    problems = _timeout_problems(timeout_seconds)
    loaded: _Loaded | None = None
    spec: JobSpec | None = None
    secrets: dict[str, str] = {}
    try:
        loaded = await _blocks(block_names, call.subject)
        spec, secrets = resolve(*loaded.blocks, call, machine_cores=os.cpu_count() or 1)
    except InvalidJob as invalid:
        problems = [*invalid.problems, *problems]
    problems += _file_problems(call, spec)
    if problems or spec is None or loaded is None:
        raise InvalidJob(call.subject, problems)
    try:
        Path(call.work_dir).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = f"work_dir {call.work_dir} cannot be made: {error.strerror}"
        raise InvalidJob(call.subject, [problem]) from error
    inputs = await asyncio.to_thread(_input_digests, spec) if spec.inputs else {}
    what = digest(["job_key", job_key] if job_key is not None else [spec.identity(), inputs])
    place = await locate(work_dir=call.work_dir, name="job", digest=what)
    request = JobRequest(
        spec=spec,
        secrets=secrets,
        base=str(place.folder),
        key=place.key,
        claimant=place.claimant,
        poll_interval=loaded.blocks.hpc.poll_interval,
        timeout=timeout_seconds,
        provenance=_provenance(place, loaded.described, inputs),
        is_over=is_over,
    )
    return _Job(spec, request, loaded.blocks.hpc.on_sigterm)


def _timeout_problems(timeout_seconds: object) -> list[str]:
    if timeout_seconds is None or (
        isinstance(timeout_seconds, int | float) and timeout_seconds > 0
    ):
        return []
    return [f"timeout_seconds is {timeout_seconds!r}; it must be more than 0, or None"]


def _resolved(work_dir: Any) -> str:
    """The work_dir as an absolute path; what is no path comes back as it is, to be judged."""
    if work_dir and isinstance(work_dir, str | os.PathLike):
        return absolute_work_dir(work_dir)
    return work_dir  # type: ignore[no-any-return]


@dataclass(frozen=True)
class _Loaded:
    """The three blocks, and how the run record describes them."""

    blocks: Blocks
    described: dict[str, Any]


async def _load(block_names: BlockNames, subject: str) -> _Loaded:
    blocks = await load_blocks(block_names, subject=subject)
    # As JSON mode dumps them: secrets come out as asterisks.
    described = {
        kind: {"name": name, **block.model_dump(mode="json", exclude={"block_type_slug"})}
        for (kind, name), block in zip(block_names._asdict().items(), blocks, strict=True)
    }
    return _Loaded(blocks, described)


_cache: dict[tuple[str, BlockNames, int], asyncio.Task[_Loaded]] = {}


async def _blocks(block_names: BlockNames, subject: str) -> _Loaded:
    """The three blocks, loaded once a flow run: a block that is edited meanwhile counts later."""
    flow = root_flow()
    if flow is None or flow.flow_run is None:
        return await _load(block_names, subject)
    key = (str(flow.flow_run.id), block_names, id(asyncio.get_running_loop()))
    loading = _cache.get(key)
    if loading is None:
        for old in [old for old in _cache if old[0] != key[0] and _cache[old].done()]:
            del _cache[old]
        loading = asyncio.get_running_loop().create_task(_load(block_names, subject))
        _cache[key] = loading
    try:
        return await asyncio.shield(loading)
    except BaseException:
        if loading.done():
            _cache.pop(key, None)
        raise


def _file_problems(call: Call, spec: JobSpec | None) -> list[str]:
    """What this machine's files say against the job."""
    problems = _work_dir_problems(call.work_dir)
    # What is no list of paths is told by `resolve`.
    inputs = call.inputs if isinstance(call.inputs, Sequence) else ()
    for given in () if problems or isinstance(inputs, str | bytes) else inputs:
        if isinstance(given, str | os.PathLike) and str(given):
            problems += _input_problems(call.work_dir, str(given))
    if spec is not None and scheduler_for(spec.site.scheduler).runs_here:
        problems += _executable_problems(spec.executable)
    return problems


def _input_problems(work_dir: str, given: str) -> list[str]:
    path = os.path.join(work_dir, os.path.expanduser(given))
    if not os.path.isfile(path):
        return [f"input {given!r} is missing: there is no file {path}"]
    if not os.access(path, os.R_OK):
        return [f"input {given!r} cannot be read: {path}"]
    return []


def _work_dir_problems(work_dir: object) -> list[str]:
    if not isinstance(work_dir, str):
        return [f"work_dir must be a path, not {type(work_dir).__name__}"]
    if not work_dir:
        return ["work_dir is empty; give the folder in which the program runs"]
    if "\0" in work_dir:
        return ["work_dir has a NUL byte, which no program can be given"]
    folder = Path(work_dir)
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir():
        return [f"work_dir {folder}: {there} is not a folder"]
    if not os.access(there, os.W_OK | os.X_OK):
        return [f"work_dir {folder} is not writable: you may not write in {there}"]
    return []


def _executable_problems(executable: Executable) -> list[str]:
    """On this machine the program can be looked for now, unless a set-up line may bring it."""
    path = executable.path
    if executable.modules or executable.setup:
        return []
    if "/" not in path:
        searched = os.pathsep.join(
            [*executable.path_prefixes.get("PATH", ()), os.environ.get("PATH", "")]
        )
        if shutil.which(path, path=searched) is None:
            return [f"executable {path!r} is not on PATH"]
    elif not os.path.isfile(path):
        return [f"executable {path} does not exist"]
    elif not os.access(path, os.X_OK):
        return [f"executable {path} may not be executed: chmod +x {path}"]
    return []


def _input_digests(spec: JobSpec) -> dict[str, str]:
    """sha256 of each input file's content."""
    found = {}
    for given in spec.inputs:
        with open(os.path.join(spec.work_dir, os.path.expanduser(given)), "rb") as file:
            found[given] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _provenance(place: Place, blocks: dict[str, Any], inputs: dict[str, str]) -> dict[str, Any]:
    flow = FlowRunContext.get()
    run = flow.flow_run if flow else None
    return {
        "campaign": place.campaign,
        "scope": list(place.scope),
        "n": place.n,
        "digest": place.digest,
        "flow_run": None if run is None else {"id": str(run.id), "name": run.name},
        "parameters": None if run is None else run.parameters,
        "blocks": blocks,
        "inputs_sha256": inputs,
        "host": platform.node(),
    }


# --- the task run


def _run_name(parameters: dict[str, Any]) -> str:
    hidden: _Opaque = parameters["hidden"]
    return hidden.job.spec.name


@task(
    name="hpc-job",
    task_run_name=_run_name,  # type: ignore[arg-type]  # Prefect looks for this argument
    cache_policy=NO_CACHE,  # the ledger decides what ran, not a result file
    persist_result=False,
)
async def _job_task(hidden: _Opaque) -> JobResult:
    job = hidden.job
    listener = _RunLog(job.spec.name, get_run_logger())
    handle = executor().start(replace(job.request, listener=listener))
    with _noticing_sigterm():
        try:
            result = await asyncio.shield(asyncio.wrap_future(handle.result))
        except (asyncio.CancelledError, KeyboardInterrupt):
            await _interrupted(job, handle, listener)
            raise
        finally:
            listener.close()
    note_outcome(result.key, succeeded=result.succeeded)
    if not result.succeeded:
        raise _failure(result)
    return result


async def _outcome(job: _Job) -> JobResult:
    try:
        with _no_warning_outside_of_flows():
            result = await _job_task(_Opaque(job))
    except JobFailed as failed:
        await show_result(failed.result, str(failed))
        raise
    await show_result(result)
    return result


def _no_warning_outside_of_flows() -> AbstractContextManager[object]:
    """Prefect keeps the logs of flow runs only, and elsewhere warns at each line that it does."""
    if root_flow() is not None:
        return nullcontext()
    return temporary_settings({PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW: "ignore"})


async def _interrupted(job: _Job, handle: Handle, listener: _RunLog) -> None:
    """The call was cancelled: cancel the job with it, unless this process was only told to go.

    SIGTERM is how machines say that a login node goes down; the job runs on and the next start
    takes it up. When Prefect's run is being cancelled, SIGTERM is how that reaches us.
    """
    with anyio.CancelScope(shield=True):
        if _Sigterm.seen and job.on_sigterm == "leave" and not await _run_is_cancelled():
            listener.state("this process was told to end; the job is left running")
            return
        handle.cancel("user")
        with anyio.move_on_after(CONFIRM):
            await asyncio.wait([asyncio.wrap_future(handle.result)])


async def _run_is_cancelled() -> bool:
    flow = root_flow()
    if flow is None or flow.flow_run is None:
        return False
    return await asyncio.to_thread(is_cancelled, str(flow.flow_run.id))


def _failure(result: JobResult) -> JobFailed:
    kind = JobTimedOut if result.verdict.reason is Reason.TIMED_OUT else JobFailed
    return kind(describe(result), result)


def describe(result: JobResult) -> str:
    """A failed job in words: what, which, what was said, what to do, and the end of its stderr."""
    verdict = result.verdict
    which = f"job {result.name} ({result.job_id or 'not submitted'}, attempt {result.attempt})"
    parts = [f"{which}: {verdict.reason}: {verdict.summary}"]
    if verdict.said and verdict.said not in verdict.summary:
        parts.append(f"the scheduler said: {verdict.said}")
    parts.append(f"what to do: {verdict.remedy}")
    folder = JobFolder(LocalTransport(), result.folder)
    for name in (names.STDERR, names.SCHEDULER_ERR):
        tail = folder.tail(name)
        if tail:
            lines = "\n".join(f"  {line}" for line in tail.splitlines()[-10:])
            parts.append(f"the end of {folder.file(name)}:\n{lines}")
    parts.append(f"everything about it is in {result.folder}")
    return "\n".join(parts)


# --- what is told while it runs


class _RunLog:
    """A `Listener` that writes to the task run's log in Prefect."""

    _active = 0

    def __init__(self, name: str, log: logging.Logger | logging.LoggerAdapter[Any]) -> None:
        self.name = name
        self.log = log
        # The executor's thread has no flow run to be found out of: what is kept is decided here.
        self.kept = {"send_to_api": root_flow() is not None}
        type(self)._active += 1

    def close(self) -> None:
        type(self)._active -= 1

    def state(self, text: str) -> None:
        if self._active > BURST and text.startswith(("running", "queued")):
            return
        self.log.info("%s: %s", self.name, text, extra=self.kept)

    def output(self, stream: str, text: str, path: str) -> None:
        level = logging.WARNING if stream == names.STDERR else logging.INFO
        text = f"{self.name} {stream} ({path}):\n{text}"
        self.log.log(level, "%s", text, extra=self.kept)


# --- SIGTERM


class _Sigterm:
    """Whether this process received SIGTERM, however deep in other handlers that is hidden."""

    seen = False
    users = 0


class _Noting:
    """A handler of SIGTERM that notes it and then does what was done before."""

    def __init__(self, before: Callable[[int, FrameType | None], Any]) -> None:
        self.before = before

    def __call__(self, number: int, frame: FrameType | None) -> None:
        _Sigterm.seen = True
        self.before(number, frame)


@contextmanager
def _noticing_sigterm() -> Iterator[None]:
    """Note SIGTERM before Prefect's handler turns it into a cancellation like any other.

    Only the main thread may look after signals, and only where somebody handles SIGTERM at all:
    otherwise the process is gone at once, and the job runs on. Jobs at once share one handler,
    which the last of them takes away.
    """
    before = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    if not isinstance(before, _Noting):
        signal.signal(signal.SIGTERM, _Noting(before))
    _Sigterm.users += 1
    try:
        yield
    finally:
        _Sigterm.users -= 1
        now = signal.getsignal(signal.SIGTERM)
        if not _Sigterm.users and isinstance(now, _Noting):
            signal.signal(signal.SIGTERM, now.before)
