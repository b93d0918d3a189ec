"""A job's state by its folder and its scheduler; nothing is guessed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hpc_prefect.job import folder as names
from hpc_prefect.job.folder import ExitRecord
from hpc_prefect.job.state import JobState, Observation
from hpc_prefect.ledger.job_folder import JobFolder
from hpc_prefect.schedulers.base import NoAnswer
from hpc_prefect.transports.host import host

if TYPE_CHECKING:
    from hpc_prefect.operations.snapshot import JobSnapshot

#: States besides those of `JobResult` and `JobState`.
WAITING = "waiting"  # its process is alive and has not submitted it yet
NOT_SUBMITTED = "not submitted"
SUBMITTED = "submitted"  # accepted by the scheduler, and not seen since
UNREADABLE = "unreadable"
STATES = (
    *(WAITING, NOT_SUBMITTED, SUBMITTED, *map(str, JobState)),
    *("succeeded", "failed", "cancelled", "lost", UNREADABLE),
)


@dataclass(frozen=True, slots=True)
class JobStatus:
    """A job's state, the reason, and when it was known (seconds since 1970, 0 if unknown)."""

    state: str
    reason: str = ""
    known_at: float = 0.0


def status_of(job: JobSnapshot, *, closed: bool) -> JobStatus:
    """A job's status without asking its scheduler."""
    if job.result is not None:
        verdicts = [entry for entry in job.events if entry.get("event") == "verdict"]
        at = time_of(verdicts[-1]) if verdicts else 0.0
        return JobStatus(job.result.state, str(job.result.verdict.reason), at)
    if ended := [entry for entry in job.events if entry.get("event") == "ended"]:
        said = str(ended[-1].get("said", ""))
        return JobStatus(JobState.ENDED, said + _NO_VERDICT, time_of(ended[-1]))
    last = _last_seen(job)
    requeued = last.state in _QUEUED and job.exit is not None and last.known_at > job.exit.time
    if job.exit is not None and not requeued:
        return JobStatus(JobState.ENDED, _record_words(job.exit) + _NO_VERDICT, job.exit.time)
    alive = job.holder is not None and job.holder.alive
    wished = f"its cancellation was requested ({job.ledger.cancel})" if job.ledger.cancel else ""
    if not job.ids:
        return _without_id(job, wished, alive=alive, closed=closed)
    if last.state == JobState.ENDED:
        return replace(last, reason=last.reason + _NO_VERDICT)
    if alive:
        return replace(last, reason=wished)
    # That may be out of date: no process has looked since.
    words = f"last known: {last.state}; {NO_LONGER_WATCHED}"
    return JobStatus(JobState.UNKNOWN, _joined(words, wished), last.known_at)


_NO_VERDICT = "; no verdict yet"
NO_LONGER_WATCHED = "its process is dead"


def _without_id(job: JobSnapshot, wished: str, *, alive: bool, closed: bool) -> JobStatus:
    at = job.holder.touched if job.holder else 0.0
    if closed:
        return JobStatus(NOT_SUBMITTED, "it can no longer start; no verdict yet", at)
    if job.ledger.intended:
        words = "it is not known whether it was submitted"
        return JobStatus(JobState.UNKNOWN, _joined(words, wished), at)
    if alive:
        return JobStatus(WAITING, wished, at)
    return JobStatus(NOT_SUBMITTED, NO_LONGER_WATCHED, at)


def _last_seen(job: JobSnapshot) -> JobStatus:
    """The newest sign of a job that has not ended, with its time."""
    seen = [entry for entry in job.events if entry.get("event") == "observed"]
    state, at, word = SUBMITTED, job.ledger.submitted_at, ""
    if seen:
        state, at = str(seen[-1].get("state") or JobState.UNKNOWN), time_of(seen[-1])
        word = str(seen[-1].get("word", ""))
    if state == JobState.ENDED and len(job.ids) > 1:
        # That is the end of the journal's job, which the start guard has turned away.
        state, at = JobState.UNKNOWN, job.ledger.submitted_at
    if state == JobState.ENDED:
        return JobStatus(state, f"the scheduler said {word}", at)
    # Its own record, unless it has been put back into the queue.
    if job.start is not None and (state not in _QUEUED or job.start.time > at):
        return JobStatus(JobState.RUNNING, "", max(job.start.time, at, _wrote_at(job.folder)))
    return JobStatus(state, "", at)


_QUEUED = (JobState.QUEUED, JobState.HELD)


def _wrote_at(folder: JobFolder) -> float:
    """When the program last wrote output."""
    streams = [folder.transport.status(folder.file(n)) for n in (names.STDOUT, names.STDERR)]
    return max((status.modified for status in streams if status), default=0.0)


def status_told(job: JobSnapshot, answer: Observation | NoAnswer | None) -> JobStatus:
    """The status with the scheduler's present answer; None if that does not list the job."""
    known = job.status
    scheduler = job.spec.site.scheduler if job.spec else "the scheduler"
    if isinstance(answer, NoAnswer):
        words = f"{scheduler} gave no answer ({answer.said})"
        return replace(known, reason=_joined(known.reason, words))
    if job.is_over:
        return known
    if answer is None or (answer.tag and job.tag and answer.tag != job.tag):
        if known.state == JobState.ENDED:
            return known
        words = f"{scheduler} does not list it; last known: {known.state}"
        return JobStatus(JobState.UNKNOWN, words, known.known_at)
    if known.state == JobState.ENDED and answer.state not in (JobState.ENDED, *_QUEUED):
        return known  # its own record is newer than the scheduler's list
    reason = answer.message
    if answer.state in (JobState.ENDED, JobState.UNKNOWN):
        said = answer.cause or answer.message
        reason = f"{scheduler} says {answer.word}{f' ({said})' if said else ''}"
    if answer.state is JobState.ENDED:
        reason += _NO_VERDICT
    wished = f"its cancellation was requested ({job.ledger.cancel})" if job.ledger.cancel else ""
    return JobStatus(answer.state, _joined(reason, wished), host().time())


def _record_words(record: ExitRecord) -> str:
    if record.phase == "missing":
        return "the executable was not there"
    signals = f" after {', '.join(f'SIG{name}' for name in record.signals)}"
    what = {"setup": "its set-up", "untold": "its shell"}.get(record.phase, "its program")
    return f"{what} ended with {record.code}{signals if record.signals else ''}"


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


def time_of(entry: dict[str, Any]) -> float:
    """The time of an entry (seconds since 1970), 0 if unknown."""
    value = entry.get("time")
    return float(value) if isinstance(value, int | float) and abs(value) < 1e12 else 0.0
