"""A quantum service as it really is: its jobs, its list that lags, its moods.

What a process of the product sees of it is in `quantum_client.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpc_prefect.quantum.service import CANCELLED, DONE, ENDS, ERROR, QUEUED, RUNNING

if TYPE_CHECKING:
    from simulation.world import World

#: Seconds by which the list of jobs lags, at most; the product waits for longer than that.
MOST_LAG = 2.5


@dataclass(eq=False)
class QuantumJob:
    """One job of the service.

    Attributes:
        listed_at: since when the list of jobs has it.
        estimate: QPU seconds by the service's own estimate.
        needs: QPU seconds that its circuits take.
        limit: QPU seconds after which the service stops it; None for no limit.
        cost: QPU seconds that were charged.
        told_at: since when the service tells them.
        wished: somebody has asked for its end.
    """

    id: str
    tag: str
    made_at: float
    listed_at: float
    estimate: float
    needs: float
    limit: float | None
    status: str = QUEUED
    reason: str = ""
    began_at: float = 0.0
    ended_at: float = 0.0
    cost: float = 0.0
    told_at: float = 0.0
    wished: bool = False

    @property
    def ended(self) -> bool:
        return self.status in ENDS

    @property
    def number(self) -> int:
        return int(self.id.removeprefix("q"))


class QuantumService:
    """Attributes:
    jobs: all of them by their ids, in the order in which they were made.
    wishes: the work whose end somebody has asked for, by its folder without the attempt.
    weather: kinds of trouble, until when each lasts.
    token_life: seconds for which a sign-in is good.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.jobs: dict[str, QuantumJob] = {}
        self.wishes: set[str] = set()
        self.weather: dict[str, float] = {}
        self.token_life = world.chance.one_of("token life", (60.0, 600.0, 3600.0))

    def has(self, trouble: str) -> bool:
        """Whether there is this trouble now."""
        there = self.world.now < self.weather.get(trouble, -1.0) and not self.world.chance.fair
        if there:
            self.world.coverage.sometimes(f"the quantum service is {trouble}")
        return there

    # --- what it is asked

    def made(self, tag: str, seconds: float, limit: float | None) -> QuantumJob:
        """A new job. `seconds`: of the QPU, as its circuits and shots let expect."""
        world, chance = self.world, self.world.chance
        lag = chance.number("list lags", 0.0, MOST_LAG)
        lags = chance.fault("the list of jobs lags", 0.3)
        needs = round(seconds * chance.number("QPU time", 0.3, 1.0), 3)
        estimate = seconds
        if chance.fault("the service estimates more", 0.05):
            estimate = round(4.0 * seconds, 1)
        job = QuantumJob(
            id=f"q{len(self.jobs) + 1}",
            tag=tag,
            made_at=world.now,
            listed_at=world.now + (lag if lags else 0.0),
            estimate=estimate,
            needs=needs,
            limit=limit,
        )
        self.jobs[job.id] = job
        world.note("service", f"makes {job.id} of {tag}")
        waits = chance.one_of("quantum queue", (0.2, 1.0, 5.0, 30.0, 300.0, 3000.0))
        world.later(waits, lambda: self._start(job))
        if chance.fault("somebody else cancels a quantum job", 0.04):
            world.later(chance.number("cancelled there", 0.1, 40.0), lambda: self._cancelled(job))
        return job

    def listed(self, tags: Sequence[str]) -> list[QuantumJob]:
        """Those with one of these tags that the list has, the oldest first."""
        found = [job for job in self.jobs.values() if job.tag in tags]
        there = [job for job in found if job.listed_at <= self.world.now]
        if len(there) < len(found):
            self.world.coverage.sometimes("a list of quantum jobs is late")
        return there

    def cancel(self, job: QuantumJob) -> bool:
        """Take the wish in, and fulfil it or not; False when it is too late."""
        world, chance = self.world, self.world.chance
        if job.ended:
            return False
        job.wished = True
        world.coverage.sometimes(f"a quantum job is cancelled while {job.status.lower()}")
        delay = chance.one_of("cancelling takes", (0.0, 0.5, 5.0, 60.0))
        if chance.fault("a cancellation is accepted and forgotten", 0.15):
            world.coverage.sometimes("a cancellation is accepted and forgotten")
            return True
        world.later(delay, lambda: self._cancelled(job))
        return True

    # --- what becomes of a job

    def _start(self, job: QuantumJob) -> None:
        if job.ended:
            return
        job.status, job.began_at = RUNNING, self.world.now
        self.world.note("service", f"runs {job.id}")
        fails = self.world.chance.fault("a quantum job fails", 0.1)
        # It is on the QPU for some of this time, and is prepared and read out in the rest.
        self.world.later(2.0 * job.needs, lambda: self._end(job, fails=fails))

    def _end(self, job: QuantumJob, *, fails: bool) -> None:
        if job.ended:
            return
        if job.limit is not None and job.needs > job.limit:
            job.cost, job.reason = job.limit, "ran too long"
            fails = True
        else:
            job.cost, job.reason = job.needs, "the trap was empty" if fails else ""
        self._over(job, ERROR if fails else DONE)

    def _cancelled(self, job: QuantumJob) -> None:
        if job.ended:
            return
        if not job.wished:
            self.world.coverage.sometimes("somebody else cancels a quantum job")
        if job.status == RUNNING:
            job.cost = round(min(job.needs, 0.5 * (self.world.now - job.began_at)), 3)
        self._over(job, CANCELLED)

    def _over(self, job: QuantumJob, status: str) -> None:
        job.status, job.ended_at = status, self.world.now
        late = self.world.chance.number("its figure is late", 1.0, 30.0)
        is_late = self.world.chance.fault("the QPU seconds are told late", 0.1)
        job.told_at = self.world.now + (late if is_late else 0.0)
        self.world.coverage.sometimes(f"a quantum job ends as {status}")
        self.world.note("service", f"ends {job.id}: {status}, {job.cost:g} QPU seconds")
