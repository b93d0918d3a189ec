"""What the executor asks of a scheduler or a quantum service, and what they answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from hpc_prefect.job.dialogue import Dialogue
from hpc_prefect.job.state import Observation, Patience


@dataclass(frozen=True, slots=True)
class Accepted:
    """The scheduler took the job under this id."""

    id: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The scheduler did not take the job, for sure. `full`: only because too many are waiting."""

    said: str
    full: bool = False


@dataclass(frozen=True, slots=True)
class Unclear:
    """The answer leaves open whether the job exists: it must be looked for by its tag.

    `again`: if it is not found, the same submission may well succeed.
    """

    said: str
    again: bool = True


Submission = Accepted | Refused | Unclear


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """A question that got no useful answer. It changes nothing of what is known.

    `error`: why asking again would not help; it is raised to the caller. None where it may help.
    """

    said: str
    error: Exception | None = None


#: What is told of many jobs, by their ids. Some may have no useful answer (the queue answered, the
#: history did not). A job whose id is missing here is not listed.
Answer = dict[str, Observation | NoAnswer]

#: For each name, all jobs of that name by their ids, whatever their state (none: there is no such
#: job), or that there was no useful answer about it.
Found = dict[str, dict[str, Observation] | NoAnswer]


class Provider(Protocol):
    """A scheduler or quantum service: jobs are submitted to it, found by tag, observed and
    cancelled. It does not collect their results.

    The methods are dialogues: they yield commands and are sent the replies. One that uses a client
    library yields none, and blocks. A question that failed gives `NoAnswer`, for all jobs or for
    one; a job that a useful answer does not list is absent from it. Neither of them means that a
    job has ended.

    Attributes:
        name: as in the profile or block that chooses it.
        patience: how long to wait when it tells nothing.
        ids_per_question: how many ids one `observe` may carry, and names one `find`.
        searchable: whether `find` can find a job at all.
        hurry: seconds that must pass between two questions when a job seems to have ended.
    """

    name: str
    patience: Patience
    ids_per_question: int
    searchable: bool
    hurry: float

    def submit(self, spec: Any, ticket: Any) -> Dialogue[Submission]:
        """Submit a job."""

    def observe(
        self, ids: Sequence[str], options: Mapping[str, object]
    ) -> Dialogue[Answer | NoAnswer]:
        """Ask about many jobs in queue and history at once."""

    def find(
        self, tags: Sequence[str], options: Mapping[str, object]
    ) -> Dialogue[Found | NoAnswer]:
        """All jobs with these names, in few commands for many names; the answer has every name."""

    def cancel(
        self, jobs: Mapping[str, str], options: Mapping[str, object]
    ) -> Dialogue[NoAnswer | None]:
        """Ask for the end of jobs (their names by their ids); `observe` shows that they ended.

        If a scheduler gives an id again, a job of that id with another name must be spared.
        """
