"""Whether a failed job is worth another attempt, and with what more it should be made."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from hpc_prefect.job.failure import Reason, Verdict
from hpc_prefect.job.spec import JobSpec, Resources, write_memory, write_walltime

#: The machine failed, not the job: it is run again as it is.
_AGAIN = (*(Reason.NODE_FAILURE, Reason.PREEMPTED, Reason.NEVER_STARTED, Reason.ALLOCATION_ENDED),)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """What another attempt of a job gets, by the reason for which the last one failed.

    After a node failure or a preemption the job is made again as it is. A program error is never
    repeated by itself: the same program would fail again, at the same cost.

    Attributes:
        memory_factor: after "out of memory" the next attempt gets the memory of the last one times
            this; 1 for no attempt.
        walltime_factor: the same for the time after "walltime exceeded".
        reasons: the reasons after which there is another attempt at all.
    """

    memory_factor: float = 2.0
    walltime_factor: float = 2.0
    reasons: frozenset[Reason] = frozenset((*_AGAIN, Reason.OUT_OF_MEMORY, Reason.WALLTIME))

    def __post_init__(self) -> None:
        for name in ("memory_factor", "walltime_factor"):
            if not 1 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be 1 or more")
        object.__setattr__(self, "reasons", frozenset(Reason(each) for each in self.reasons))


@dataclass(frozen=True, slots=True)
class NextAttempt:
    """The resources of another attempt, or why there is none; `words` says it to a person."""

    resources: Resources | None
    words: str


def next_attempt(policy: RetryPolicy, spec: JobSpec, last: Resources, why: Verdict) -> NextAttempt:
    """What the attempt after one with the resources `last` gets, within the profile's limits.

    Never less than what `spec` asks for now: a person may have raised that meanwhile.
    """
    if why.reason not in policy.reasons:
        return NextAttempt(None, f"none: a job is not run again by itself after “{why.reason}”")
    if why.reason is Reason.OUT_OF_MEMORY:
        return _more_memory(policy, spec, last)
    if why.reason is Reason.WALLTIME:
        return _more_time(policy, spec, last)
    return NextAttempt(_at_least(spec, last), f"with the same resources, after “{why.reason}”")


def _more_memory(policy: RetryPolicy, spec: JobSpec, last: Resources) -> NextAttempt:
    most = spec.site.memory_per_node
    if not last.memory_per_node:
        text = "none: it ran out of memory, and memory_per_node, which could be raised, is not set"
        return NextAttempt(None, text)
    wanted = max(int(last.memory_per_node * policy.memory_factor), spec.resources.memory_per_node)
    wanted = min(wanted, most) if most else wanted
    if wanted <= last.memory_per_node:
        had = f"none: it ran out of memory with {write_memory(last.memory_per_node)}"
        return _none(had, most == wanted and "which is all that a node of this HPC profile has")
    more = dataclasses.replace(_at_least(spec, last), memory_per_node=wanted)
    return NextAttempt(more, f"memory {_from_to(last.memory_per_node, wanted, write_memory)}")


def _more_time(policy: RetryPolicy, spec: JobSpec, last: Resources) -> NextAttempt:
    most = spec.site.max_walltime
    wanted = max(int(last.walltime * policy.walltime_factor), spec.resources.walltime)
    wanted = min(wanted, most) if most else wanted
    if wanted <= last.walltime:
        had = f"none: it exceeded a walltime of {write_walltime(last.walltime)}"
        return _none(had, most == wanted and "which is the longest that this HPC profile allows")
    more = dataclasses.replace(_at_least(spec, last), walltime=wanted)
    return NextAttempt(more, f"walltime {_from_to(last.walltime, wanted, write_walltime)}")


def _none(had: str, limit: str | Literal[False]) -> NextAttempt:
    return NextAttempt(None, f"{had}, {limit or 'and the retry policy gives it no more'}")


def _at_least(spec: JobSpec, last: Resources) -> Resources:
    """What the job asks for now, or had in its last attempt, whichever is more."""
    asked = spec.resources
    return dataclasses.replace(
        asked,
        memory_per_node=max(asked.memory_per_node, last.memory_per_node),
        walltime=max(asked.walltime, last.walltime),
    )


def _from_to(last: int, wanted: int, write: Callable[[int], str]) -> str:
    return f"{write(last)} → {write(wanted)}"
