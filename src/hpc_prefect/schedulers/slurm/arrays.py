"""Arrays in Slurm's answers: the elements that a row is about, and many rows seen as one job.

Seen on Slurm 22.05. All waiting elements of an array are one row with their numbers. An element
that has begun has a row and a raw id of its own; the last one to begin keeps the array's raw id.
The elements that waited when the array was cancelled stay one row: with their numbers after a plain
`scancel`, without numbers after one that also names the array. An element that was cancelled by
itself while it waited is in no row at all, neither of the queue nor of the history.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from hpc_prefect.job.failure import Reason
from hpc_prefect.job.state import JobState, Observation

#: Slurm's own default of `MaxArraySize`.
MAX_ARRAY_SIZE = 1001

#: Numbers of elements as pairs (first, last), in order.
Ranges = tuple[tuple[int, int], ...]

_ELEMENT = re.compile(r"([0-9]+)_([0-9]{1,7})")
_PART = re.compile(r"([0-9]{1,7})(?:-([0-9]{1,7})(?::([0-9]{1,7}))?)?")  # MaxArraySize: 4000001
_AT_ONCE = re.compile(r"%[0-9]+$")
_WAITING = (JobState.QUEUED, JobState.HELD)
#: Causes that an array as a whole can have, if all its rows agree. A failure is none of them.
_OF_THE_WHOLE = (Reason.CANCELLED, Reason.CAN_NEVER_RUN, Reason.DEPENDENCY_NEVER_MET)


def element_id(array_id: str, index: int) -> str:
    return f"{array_id}_{index}"


def array_of(job_id: str) -> str:
    """The id of the array whose element this is; empty for any other id."""
    match = _ELEMENT.fullmatch(job_id)
    return match[1] if match else ""


def indices(text: str) -> Ranges | None:
    """The numbers in `2-9%2`, `1,3,5-7` or `0-10:2`; None when they cannot be read.

    A list that was cut (`1,3,5...`) cannot be read: what it does not show may wait or run.
    """
    found: list[tuple[int, int]] = []
    for part in _AT_ONCE.sub("", text).split(","):
        match = _PART.fullmatch(part)
        if match is None:
            return None
        first, last, step = int(match[1]), int(match[2] or match[1]), int(match[3] or 1)
        if last < first or not step:
            return None
        found += [(first, last)] if step == 1 else [(n, n) for n in range(first, last + 1, step)]
    return _merged(found)


def _merged(ranges: Iterable[tuple[int, int]]) -> Ranges:
    found: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(last, found[-1][1]))
        else:
            found.append((first, last))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class JobRow:
    """A row of an answer.

    Attributes:
        job: the id of the job, or of the array as a whole.
        which: the elements that it is about; None for a plain job, or if it does not tell.
        seen: what it says; its id may be another one.
    """

    job: str
    which: Ranges | None
    seen: Observation

    @property
    def is_one_element(self) -> bool:
        return self.which is not None and len(self.which) == 1 and len(set(self.which[0])) == 1


class Listed:
    """The rows of an answer by the ids that can be asked for."""

    def __init__(self, rows: Iterable[JobRow] = ()) -> None:
        self._rows: dict[str, list[JobRow]] = {}
        self._elements: dict[str, JobRow] = {}
        for row in rows:
            self._rows.setdefault(row.job, []).append(row)
            if row.is_one_element and row.which:
                self._elements[element_id(row.job, row.which[0][0])] = row

    def get(self, job_id: str) -> Observation | None:
        """The state of a job, an array as a whole, or an element; None if it is not listed."""
        element = _ELEMENT.fullmatch(job_id)
        if element is None:
            return _whole(job_id, self._rows[job_id]) if job_id in self._rows else None
        index = int(element[2])
        holding = (row for row in self._rows.get(element[1], []) if _holds(row.which, index))
        row = self._elements.get(job_id) or next(holding, None)
        return replace(row.seen, id=job_id) if row else None

    def of(self, ids: Iterable[str]) -> dict[str, Observation]:
        """The state of each of these that is listed."""
        return {each: seen for each in ids if (seen := self.get(each))}

    def jobs(self) -> list[Observation]:
        """All jobs that are listed, an array being one."""
        return [_whole(job_id, rows) for job_id, rows in self._rows.items()]

    def ended(self) -> Listed:
        """Only the rows about ended jobs and elements."""
        rows = (row for rows in self._rows.values() for row in rows)
        return Listed(row for row in rows if row.seen.state is JobState.ENDED)

    def cancelled_rest(self, array_id: str) -> Observation | None:
        """The row without numbers of the elements that waited when the array was cancelled."""
        for row in self._rows.get(array_id, []):
            if row.which is None and row.seen.cause is Reason.CANCELLED:
                return row.seen
        return None


def _holds(ranges: Ranges | None, index: int) -> bool:
    return any(first <= index <= last for first, last in ranges or ())


def _whole(job_id: str, rows: Sequence[JobRow]) -> Observation:
    """A job, or all rows of an array as one."""
    if len(rows) == 1 and rows[0].which is None:
        return replace(rows[0].seen, id=job_id)
    open_ones = [row for row in rows if row.seen.state is not JobState.ENDED]
    counting = [row.seen for row in open_ones or rows]
    causes = {seen.cause for seen in counting}
    cause = causes.pop() if len(causes) == 1 else None
    return Observation(
        id=job_id,
        state=_state([row.seen.state for row in rows]),
        word=", ".join(sorted({seen.word for seen in counting})),
        cause=cause if cause in _OF_THE_WHOLE else None,
        tag=rows[0].seen.tag,
        message=next((seen.message for seen in counting if seen.message), ""),
        queued_at=min(row.seen.queued_at for row in rows),
        started_at=min((row.seen.started_at for row in rows if row.seen.started_at), default=0.0),
        ended_at=0.0 if open_ones else max(row.seen.ended_at for row in rows),
        left=_merged(pair for row in open_ones for pair in row.which or ()),
    )


def _state(states: Sequence[JobState]) -> JobState:
    """The state of an array whose rows have these states."""
    left = {state for state in states if state is not JobState.ENDED}
    if not left:
        return JobState.ENDED
    if left == {JobState.HELD}:
        return JobState.HELD
    begun = JobState.ENDED in states or not left.issubset(_WAITING)
    return JobState.RUNNING if begun else JobState.QUEUED
