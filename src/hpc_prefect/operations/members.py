"""The members of an array's submission, by their files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from hpc_prefect.errors import UnknownJob
from hpc_prefect.job import folder as names
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.members import SHARD
from hpc_prefect.job.state import JobState
from hpc_prefect.ledger.array_folder import ArrayFolder
from hpc_prefect.ledger.job_folder import CLOSED, JobFolder
from hpc_prefect.operations.status import SUBMITTED


class MemberCounts(NamedTuple):
    """How many members a submission has, and how many of them began, succeeded and failed."""

    all: int = 0
    began: int = 0
    succeeded: int = 0
    failed: int = 0

    @property
    def words(self) -> str:
        """`998 of 1000 ended, 2 failed`."""
        ended = f"{self.succeeded + self.failed} of {self.all} ended"
        return f"{ended}, {self.failed} failed" if self.failed else ended


@dataclass(frozen=True, slots=True)
class MemberState:
    """A member: its number in the submission, its name, and its state.

    Attributes:
        state: `submitted` (it has not begun), `running`, `ended` (without a verdict yet),
            `succeeded` or `failed`; why it failed is the `reason`.
        job_id: its scheduler's id; empty if it is not known.
    """

    index: int
    name: str
    state: str
    reason: str
    reason_code: str
    job_id: str
    stdout: str
    stderr: str

    def as_dict(self) -> dict[str, Any]:
        """JSON values only."""
        return {name: getattr(self, name) for name in self.__slots__}


def count_members(folder: ArrayFolder) -> tuple[MemberCounts, int | None]:
    """The counts of a submission's members, and one that began first; None if none has begun."""
    asked = len(folder.asked())
    began = folder.began(range(-(-asked // SHARD)))
    ends = [str(entry.get("reason")) for entry in _ends(folder).values()]
    succeeded = ends.count(Reason.SUCCEEDED.value)
    counts = MemberCounts(asked, len(began), succeeded, len(ends) - succeeded)
    return counts, min(began, default=None)


def read_members(folder: JobFolder) -> list[MemberState]:
    """All members of a submission, in their order.

    Raises:
        KeyError, TypeError, ValueError: their list cannot be read.
    """
    array = ArrayFolder(folder.transport, folder.path)
    asked, ends = array.asked(), _ends(array)
    began = array.began(range(-(-len(asked) // SHARD)))
    return [
        _member(array, index, each.member.name, ends.get(index), index in began)
        for index, each in enumerate(asked)
    ]


def begun_as(folder: JobFolder, indices: Iterable[int] | None = None) -> set[str]:
    """Ids of the elements that have begun these members, of those without a verdict.

    By the members' own records, one file each: NFS shows these at once. None: of all members.

    Raises:
        TransportError: a record cannot be read.
        KeyError, TypeError, ValueError: the list of members cannot be read.
    """
    array = ArrayFolder(folder.transport, folder.path)
    ended = _ends(array)
    found: set[str] = set()
    for index in range(len(array.asked())) if indices is None else indices:
        if index not in ended:
            record = array.transport.read(array.member(index).file(names.START))
            found |= {start.id for start in names.read_starts(record)}
    return found


def member_named(members: Sequence[MemberState], number: str) -> MemberState:
    """The member with this number in its name: `17` for `scan[17]`.

    Raises:
        UnknownJob: there is none.
    """
    for member in members:
        if member.name.endswith(f"[{number}]"):
            return member
    raise UnknownJob(
        f"no member [{number}] is in this submission, which has {members[0].name} to"
        f" {members[-1].name}"
    )


def _ends(folder: ArrayFolder) -> dict[int, dict[str, Any]]:
    """The newest record of each member that has ended."""
    lines = names.read_entries(folder.ended_text())
    return {each["i"]: each for each in lines if isinstance(each.get("i"), int)}


def _member(
    array: ArrayFolder, index: int, name: str, end: dict[str, Any] | None, has_begun: bool
) -> MemberState:
    folder = array.member(index)
    state, reason, code, job_id = str(SUBMITTED), "", "", ""
    if end is not None:
        code = str(end.get("reason", ""))
        job_id = str(end.get("job_id", ""))
        state = "succeeded" if code == Reason.SUCCEEDED.value else "failed"
        reason = f"{code.replace('_', ' ')}: {end.get('summary', '')}" if state == "failed" else ""
    elif has_begun:
        guard = folder.guard()
        closed = guard == CLOSED  # it was cancelled before it began, or its end is about to be told
        state = str(JobState.ENDED if closed else JobState.RUNNING)
        job_id, reason = ("", "it cannot begin any more") if closed else (guard, "")
    paths = [folder.file(stream) for stream in (names.STDOUT, names.STDERR)]
    return MemberState(index, name, state, reason, code, job_id, *paths)
