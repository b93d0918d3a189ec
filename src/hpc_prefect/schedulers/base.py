"""The interface of a scheduler's dialect. Pure: text in, text out; no clock, process or file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from hpc_prefect.job.dialogue import Dialogue
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.provider import (
    Accepted,
    Answer,
    Found,
    NoAnswer,
    Provider,
    Refused,
    Submission,
    Unclear,
)
from hpc_prefect.job.script import Preamble
from hpc_prefect.job.spec import JobSpec
from hpc_prefect.job.state import Observation

__all__ = [
    "Accepted",
    "Answer",
    "Found",
    "NoAnswer",
    "Refused",
    "Scheduler",
    "Submission",
    "Ticket",
    "Told",
    "Unclear",
    "by_name",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """What a submission needs besides the script: paths and the job's name."""

    tag: str
    folder: str
    script: str
    scheduler_out: str
    scheduler_err: str


@dataclass(frozen=True, slots=True)
class Told:
    """What the scheduler's own output says about a job's end, beside its exact words."""

    reason: Reason
    words: str


class Scheduler(Provider, Protocol):
    """One scheduler's dialect: a provider whose dialogues yield commands.

    An array (`spec.array`) is one job: `submit` gives the id of the whole, and `observe`, `find`
    and `cancel` take it as any other id. The whole has ended when none of its elements is left. An
    element has an id of its own (`element_id`), which its script sees (`Preamble.id_expression`);
    `observe` and `cancel` take it too. For a whole, `observe` asks the queue alone, without listing
    each element; for elements, it asks queue and history, as for other jobs.

    Attributes:
        runs_here: the job runs on this very machine, so its executables can be checked now.
        throttles_arrays: it keeps to `Array.at_once`. If not, no array gets more elements than may
            run at once.
    """

    runs_here: bool
    throttles_arrays: bool

    def problems(self, spec: JobSpec) -> list[str]:
        """A sentence for each part of the job that it cannot honour; no part is ignored."""

    def environment_problems(self, spec: JobSpec, environment: Mapping[str, str]) -> list[str]:
        """A sentence for each of the flow's environment variables that its commands would obey. The
        commands are run without these variables.

        A job depends on its profiles only, not on the shell from which it is submitted.
        """

    def array_limit(self, options: Mapping[str, object]) -> int:
        """How many elements one array may have; 0 or 1 if there are no arrays."""

    def element_id(self, array_id: str, index: int) -> str:
        """The id of an array's element."""

    def array_of(self, element_id: str) -> str:
        """The id of the array of which this is an element."""

    def preamble(self, spec: JobSpec, ticket: Ticket) -> Preamble:
        """Directives for the script, and how the script learns its id."""

    def submit(self, spec: JobSpec, ticket: Ticket) -> Dialogue[Submission]:
        """Submit the script."""

    def read_output(self, text: str) -> Told | None:
        """What the scheduler wrote into the job's output about its end, if anything.

        `text` is the end of the scheduler's files and of the program's stderr, into which launchers
        of the scheduler write. It is asked only about jobs that did not end well.
        """


def by_name(tags: Sequence[str], seen: Iterable[Observation]) -> Found:
    """The jobs that an answer lists, by the names that were asked for."""
    found: dict[str, dict[str, Observation]] = {tag: {} for tag in tags}
    for each in seen:
        if each.tag in found:
            found[each.tag][each.id] = each
    return {**found}
