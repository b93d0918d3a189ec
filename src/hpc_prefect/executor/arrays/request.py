"""What a caller hands over: what the members share, and the members."""

from __future__ import annotations

from dataclasses import dataclass

from hpc_prefect.executor.request import JobRequest
from hpc_prefect.job.members import MemberSpec


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
    """

    members: tuple[MemberSpec, ...]
    per_element: int = 1
    at_once: int = 0
    retries: int = 0
