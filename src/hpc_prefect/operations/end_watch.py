"""What an end that was asked for from outside is watched with: the scheduler's word on one job."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hpc_prefect.job.state import JobState, Observation
from hpc_prefect.schedulers.base import NoAnswer

#: Seconds between two looks into the folders, from the first to the longest.
SOON, LATER = 0.1, 5.0


class EndWatch:
    """One job of which nothing is claimed; a `Watched` of the executor's.

    Attributes:
        verdict: set when nothing of it runs any more, by whoever learns that.
        heard: the scheduler has taken the cancellation in.
        silence: what is not known, for the one who waited in vain.
    """

    def __init__(
        self,
        scheduler: str,
        job_id: str,
        tag: str,
        verdict: asyncio.Future[None],
        on_end: Callable[[EndWatch, Observation], None],
    ) -> None:
        """`on_end` is told when the scheduler says that it has ended."""
        self.job_id, self.tag, self.verdict = job_id, tag, verdict
        self.poll_interval = LATER
        self.next_look = 0.0
        self.wants_answer = True
        self.heard = False
        self.silence = ""
        self._scheduler, self._on_end = scheduler, on_end

    def told(self, said: NoAnswer | None) -> None:
        """The scheduler has been asked for the end."""
        self.heard = said is None
        if said is not None:
            self.silence = f"{self._scheduler} did not accept the cancellation ({said.said})"

    def look(self, now: float) -> None:
        """Its folder is read by whoever waits, in a thread."""
        self.next_look = float("inf")

    def answered(self, now: float, seen: Observation | None) -> None:
        name = self._scheduler
        if seen is None or (seen.tag and seen.tag != self.tag):
            self.silence = f"{name} no longer lists {self.job_id}, and its end was not seen"
        elif seen.state is JobState.ENDED:
            self._on_end(self, seen)
        elif self.heard:
            self.silence = (
                f"{name} was asked to cancel it, and lists it as {seen.word or seen.state}"
            )

    def heartbeat(self) -> None:
        """There is no claim to renew."""

    def broken(self, error: BaseException) -> None:
        self.silence = f"{self._scheduler} gave no answer ({error})"
