"""Notes the batch jobs of a run in its record."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future
from functools import partial

from hpc_prefect.errors import JobHeld
from hpc_prefect.executor.request import JobRequest
from hpc_prefect.flow_runs.recording import end_by, note_blocks, note_event, noting
from hpc_prefect.job.result import JobResult
from hpc_prefect.records.job_events import batch_wanted
from hpc_prefect.records.job_folders import batch_end, may_run
from hpc_prefect.records.write.writer import Event

#: The names of the blocks in a record, by the call's arguments.
_KINDS = {"command": "command", "execution": "execution-profile", "hpc": "hpc-profile"}


def note_wanted(request: JobRequest) -> None:
    """Note that a call has asked for this job."""
    blocks = request.provenance.get("blocks") or {}
    given = note_blocks({_KINDS[kind]: block for kind, block in blocks.items()})
    note_event("job", **batch_wanted(request, given))


def note_end_of(work: Future[JobResult], request: JobRequest) -> None:
    """Note how an attempt ended, whenever it does: the caller may be gone by then."""
    later = noting()
    work.add_done_callback(lambda done: later(partial(_end, done, request)))


def _end(done: Future[JobResult], request: JobRequest) -> Iterable[Event]:
    if done.cancelled():
        return
    error = done.exception()
    if error is None:
        yield "job-ended", batch_end(done.result())
    elif isinstance(error, JobHeld) or not may_run(request):  # not ours, or there is none
        yield "job-ended", _named(request) | end_by(error)


def note_never_begun(request: JobRequest, error: BaseException) -> None:
    """Note that the call ended before its job was handed to the executor."""
    note_event("job-ended", **_named(request), **end_by(error))


def _named(request: JobRequest) -> dict[str, object]:
    wanted = batch_wanted(request)
    return {name: wanted[name] for name in ("key", "kind", "name", "folder")}
