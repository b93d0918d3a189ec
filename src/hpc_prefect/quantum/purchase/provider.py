"""A quantum service as a provider, which the executor asks as it asks a scheduler."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from hpc_prefect.errors import QuantumServiceError
from hpc_prefect.job.dialogue import Dialogue
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.provider import (
    Accepted,
    Answer,
    Found,
    NoAnswer,
    Refused,
    Submission,
    Unclear,
)
from hpc_prefect.job.state import JobState, Observation, Patience
from hpc_prefect.quantum import service as words
from hpc_prefect.quantum.purchase.retry import SIGN_INS, first_line, token_refused
from hpc_prefect.quantum.service import Kind, Look, QuantumService
from hpc_prefect.transports.host import host

logger = logging.getLogger("hpc_prefect.quantum")

T = TypeVar("T")

_STATES = {words.QUEUED: JobState.QUEUED, words.RUNNING: JobState.RUNNING}
_CAUSES = {
    words.DONE: Reason.SUCCEEDED,
    words.ERROR: Reason.SERVICE_FAILED,
    words.CANCELLED: Reason.CANCELLED_ELSEWHERE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantumObservation(Observation):
    """What a service says of a job at one moment.

    Attributes:
        facts: JSON values: times, place in the queue, seconds.
    """

    facts: Mapping[str, Any] = field(default_factory=dict)


def observed(job_id: str, look: Look) -> QuantumObservation:
    """The vendor's answer about a job as an observation of the executor."""
    actual = look.facts.get("qpu_seconds")
    return QuantumObservation(
        id=job_id,
        state=JobState.ENDED if look.ended else _STATES.get(look.status, JobState.RUNNING),
        word=look.status,
        cause=_CAUSES.get(look.status),
        message=look.reason,
        used={} if actual is None else {"qpu_seconds": float(actual)},
        facts=look.facts,
    )


@dataclass(frozen=True, slots=True)
class NotPosted(Refused):
    """The vendor's client refused a job, by this error, before it asked the service."""

    error: Exception | None = None


class ServiceProvider:
    """A service that is asked like a scheduler. Its dialogues yield no commands.

    The client's errors become answers: trouble of the network or the server is `NoAnswer`; an error
    that a repetition would not change is passed on to the caller.
    """

    #: A question is about one job.
    ids_per_question = 1
    hurry = 1.0
    #: Seconds after a POST during which a list of jobs may miss the job. For a job that an earlier
    #: run cancelled there is no limit: it may run on and cost, so nothing is bought before it has
    #: ended.
    patience = Patience(find=4.0, confirm_earlier=float("inf"))

    def __init__(self, service: QuantumService) -> None:
        self.service = service
        self.name = service.name
        self.searchable = service.searchable
        self._refused = 0  # how often in a row the token was refused …
        self._refused_at = float("-inf")  # … counted once for questions about many jobs at once

    def submit(self, spec: Any, ticket: object) -> Dialogue[Submission]:
        """Post a job, as the vendor's backend has made it."""
        yield from ()
        service = self.service
        try:
            return Accepted(service.post(spec))
        except Exception as error:  # noqa: BLE001 - whatever the client raises
            said = first_line(error)
            passes = service.kind_of(error) in (Kind.TRANSIENT, Kind.UNAUTHORIZED)
            if passes and service.searchable:
                return Unclear(said)
            if service.is_of_the_client(error):
                return NotPosted(str(error), error=error)
            return Refused(said) if service.was_answered(error) else Unclear(said, again=False)

    def observe(
        self, ids: Sequence[str], options: Mapping[str, object]
    ) -> Dialogue[Answer | NoAnswer]:
        """How each job is."""
        yield from ()
        return {job_id: self._asked(partial(self._look, job_id)) for job_id in ids}

    def _look(self, job_id: str) -> Observation:
        try:
            return observed(job_id, self.service.look(job_id))
        except Exception as error:
            if self.service.kind_of(error) is not Kind.MISSING:
                raise
            raise QuantumServiceError(
                f"the service does not know job {job_id} ({first_line(error)}). Was it deleted,"
                " or is the instance of the credentials another one now? It is not bought again"
                " automatically; if it is lost, move its folder away and run again"
            ) from error

    def find(
        self, tags: Sequence[str], options: Mapping[str, object]
    ) -> Dialogue[Found | NoAnswer]:
        """The jobs with each tag, oldest first."""
        yield from ()
        if not self.service.searchable:
            return NoAnswer("it cannot be searched for jobs by tag")
        return {tag: self._asked(partial(self._tagged, tag)) for tag in tags}

    def _tagged(self, tag: str) -> dict[str, Observation]:
        return {
            job_id: observed(job_id, Look(status=status))
            for job_id, status in self.service.find(tag)
        }

    def cancel(
        self, jobs: Mapping[str, str], options: Mapping[str, object]
    ) -> Dialogue[NoAnswer | None]:
        """Cancel jobs. A refusal is no error: the next observation shows how the job is."""
        yield from ()
        for job_id in jobs:
            said = self._asked(partial(self.service.cancel, job_id))
            if isinstance(said, NoAnswer) and said.error is None:
                return said
            if isinstance(said, NoAnswer):
                logger.warning(
                    "cancelling job %s: %s; its state is asked for next", job_id, said.said
                )
        return None

    def _asked(self, question: Callable[[], T]) -> T | NoAnswer:
        try:
            answer = question()
        except Exception as error:  # noqa: BLE001 - whatever the client raises
            return self._no_answer(error)
        self._refused = 0
        return answer

    def _no_answer(self, error: Exception) -> NoAnswer:
        kind = Kind.MISSING
        if not isinstance(error, QuantumServiceError):
            kind = self.service.kind_of(error)
        if kind is Kind.UNAUTHORIZED:
            now = host().monotonic()
            if now - self._refused_at >= self.hurry:
                self._refused, self._refused_at = self._refused + 1, now
            if self._refused >= SIGN_INS:
                return NoAnswer(first_line(error), token_refused(error))
        passes = kind in (Kind.TRANSIENT, Kind.UNAUTHORIZED)
        return NoAnswer(first_line(error), None if passes else error)


_providers: dict[int, ServiceProvider] = {}
_lock = threading.Lock()


def provider_of(service: QuantumService) -> ServiceProvider:
    """The provider of a service, one for all of its jobs in this process."""
    with _lock:
        known = _providers.get(id(service))
        if known is None or known.service is not service:
            known = _providers[id(service)] = ServiceProvider(service)
        return known
