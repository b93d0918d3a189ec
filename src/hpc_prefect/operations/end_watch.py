"""Watches for the end of a cancelled job that this process does not claim, by its scheduler."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hpc_prefect.job.state import JobState, Observation
from hpc_prefect.schedulers.base import NoAnswer

#: Seconds between two looks into the folders, from the first to the longest.
SOON, LATER = 0.1, 5.0


class EndWatch:
    """A cancelled job, as the executor's connection watches it (`Watched`).

    Attributes:
        verdict: set when nothing of the job runs any more, by whoever learns that.
        accepted: the scheduler has accepted the cancellation.
        unlisted: a question that was asked after that had an answer, which does not list the job.
        silence: what to report if the end was not seen in time.
    """

    def __init__(
        self,
        scheduler: str,
        job_id: str,
        tag: str,
        verdict: asyncio.Future[None],
        on_end: Callable[[EndWatch, Observation], None],
    ) -> None:
        """`on_end` is called when the scheduler says that the job has ended."""
        self.job_id, self.tag, self.verdict = job_id, tag, verdict
        self.poll_interval = LATER
        self.next_look = 0.0
        self.wants_answer = True
        self.accepted = False
        self.unlisted = False
        self.silence = ""
        self._scheduler, self._on_end = scheduler, on_end
        self._accepted_at = float("inf")

    def cancel_answered(self, said: NoAnswer | None) -> None:
        """The scheduler has answered the cancellation: None if it accepted it."""
        self.accepted = said is None
        if self.accepted:
            self._accepted_at = asyncio.get_running_loop().time()
        if said is not None:
            self.silence = f"{self._scheduler} did not accept the cancellation ({said.said})"

    def look(self, now: float) -> None:
        """Nothing to do: whoever waits reads the job's folder, in a thread."""
        self.next_look = float("inf")

    def answered(self, now: float, seen: Observation | None, asked: float) -> None:
        name = self._scheduler
        if seen is None or (seen.tag and seen.tag != self.tag):
            self.silence = f"{name} no longer lists {self.job_id}, and its end was not seen"
            self.unlisted = asked >= self._accepted_at
        elif seen.state is JobState.ENDED:
            self._on_end(self, seen)
        elif self.accepted:
            self.silence = (
                f"{name} was asked to cancel it, and lists it as {seen.word or seen.state}"
            )

    def heartbeat(self) -> None:
        """Nothing to do: there is no claim to renew."""

    def broken(self, error: BaseException) -> None:
        self.silence = f"{self._scheduler} gave no answer ({error})"
