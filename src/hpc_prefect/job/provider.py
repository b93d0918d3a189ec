"""The other side of paid work, whoever it is: the questions that are put to it, and its answers."""

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
    """Whether the job exists cannot be told from the answer: it must be looked for by its tag.

    `again`: where it is not found then, the same submission may well succeed.
    """

    said: str
    again: bool = True


Submission = Accepted | Refused | Unclear


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """A question that got no useful answer. It changes nothing of what is known.

    `error`: why asking again would not help; whoever waits is told. None where it may help.
    """

    said: str
    error: Exception | None = None


#: What is told of many jobs: of some of them there may be no useful answer (the queue answers, the
#: history does not). A job that is not in it is not listed.
Answer = dict[str, Observation | NoAnswer]

#: What is told of many names: of each the jobs of that name by their ids, whatever their state
#: (none: there is no such job), or that there was no useful answer about it.
Found = dict[str, dict[str, Observation] | NoAnswer]


class Provider(Protocol):
    """Work is handed over to it, found by its tag, observed and cancelled; collecting what it made
    is the work's own affair.

    All are dialogues: they yield commands and are sent the replies. One that asks by a client
    library yields none, and blocks. A question that failed gives `NoAnswer`, for all jobs or for
    one; a job that a useful answer does not list is simply absent from it. These two and the end of
    a job are three facts.

    Attributes:
        name: as in the profile or block that chooses it.
        patience: how long its silences are borne.
        ids_per_question: how many ids one `observe` may carry, and names one `find`.
        hurry: seconds that must pass between two questions when a job seems to have ended.
    """

    name: str
    patience: Patience
    ids_per_question: int
    hurry: float

    def submit(self, spec: Any, ticket: Any) -> Dialogue[Submission]:
        """Hand the work over."""

    def observe(
        self, ids: Sequence[str], options: Mapping[str, object]
    ) -> Dialogue[Answer | NoAnswer]:
        """Ask about many jobs in queue and history at once."""

    def find(
        self, tags: Sequence[str], options: Mapping[str, object]
    ) -> Dialogue[Found | NoAnswer]:
        """All jobs with these names, in as few commands as for one; the answer has every name."""

    def cancel(
        self, jobs: Mapping[str, str], options: Mapping[str, object]
    ) -> Dialogue[NoAnswer | None]:
        """Ask for the end of jobs, names by ids; that they ended is seen by `observe`.

        A scheduler that gives an id again must be told the name too, and spare what has another.
        """
