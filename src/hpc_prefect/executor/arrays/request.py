"""What a caller hands over: what the members share, and the members."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from hpc_prefect.executor.request import JobRequest
from hpc_prefect.job.members import MemberSpec
from hpc_prefect.job.result import JobResult


class Counts(NamedTuple):
    """Of an array's members: how many wait, run and have ended, and how many of those failed."""

    waiting: int = 0
    running: int = 0
    ended: int = 0
    failed: int = 0


class ArrayListener(Protocol):
    """Receives the events of an array's members, on the executor's thread; must not block."""

    def begun(self, counts: Callable[[], Counts]) -> None:
        """The array is under way; `counts` may be called from now on, by any thread."""

    def ended(self, results: Collection[JobResult]) -> None:
        """Members have ended, with the results that they now have."""

    def submission_ended(self, whole: JobResult, members: int) -> None:
        """All members of one submission have ended; `whole` is it as a job.

        Of one that an earlier call made, with `collected`, and the run time and number of those
        members that are used.
        """


class Nobody:
    """An `ArrayListener` that nobody listens to."""

    def begun(self, counts: Callable[[], Counts]) -> None: ...

    def ended(self, results: Collection[JobResult]) -> None: ...

    def submission_ended(self, whole: JobResult, members: int) -> None: ...


@dataclass(frozen=True, kw_only=True)
class ArrayRequest(JobRequest):
    """All that the executor must know to run the members of an array.

    `spec` is what they share; `timeout` counts for all of them together.

    Attributes:
        members: each with a key of its own.
        per_element: how many members an element runs, one after another.
        at_once: elements that may run at the same time; 0: no limit.
        retries: how many more times a member is submitted when it failed for a reason that `retry`
            finds worth it.
        follower: who is told of the members; `listener` is told of the submissions.
    """

    members: tuple[MemberSpec, ...]
    per_element: int = 1
    at_once: int = 0
    retries: int = 0
    follower: ArrayListener = field(default_factory=Nobody)
