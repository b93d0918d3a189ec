"""A flow whose calls are alike: which of them is which must be the same in each of its starts.

They are made in several places beside each other, in an order that no start repeats. The product's
numbers and keys (`job/numbers.py`, `job/identity.py`) say which job each call means.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from hpc_prefect.errors import HpcPrefectError
from hpc_prefect.executor.service import Handle
from hpc_prefect.job.identity import Path, Step, job_key, spread
from hpc_prefect.job.numbers import Entry
from hpc_prefect.job.result import JobResult
from simulation import mix
from simulation.ground import CAMPAIGN
from simulation.life import Life, Wanted

if TYPE_CHECKING:
    from simulation.chance import Chance
    from simulation.place import Place
    from simulation.process import Process

_key = cache(job_key)
_spread = cache(spread)
_SCOPE, _TASK = Step("scope", "scope"), Step("task", "task", "task", "")
#: From the flow to a run that numbers its calls, and from there to these.
_WAYS: tuple[tuple[Path, Path], ...] = (((), (_SCOPE,)), ((_TASK,), ()), ((_TASK,), (_SCOPE,)))


@dataclass(frozen=True)
class Branch:
    """Calls that are made one after another in one place.

    Attributes:
        run: the way from the flow to the task run that makes them; empty without one.
        scopes: the way from there to the place.
        calls: what each of them does.
        times: so many task runs, which nothing tells apart, do it beside each other.
    """

    run: Path
    scopes: Path
    calls: tuple[str, ...]
    times: int

    @property
    def path(self) -> Path:
        return (*self.run, *self.scopes)

    def identities(self, campaign: str) -> Iterator[str]:
        """The keys of all of its calls, of which each start must give each to one call."""
        for what in sorted(set(self.calls)):
            for n in range(self.times * self.calls.count(what)):
                yield _key(campaign, self.path, what, n)


@dataclass
class _Start:
    """What one process of the flow has made of its calls.

    Attributes:
        root: what numbers the calls of its flow run.
        asked: those whose results are waited for, by their keys.
        callers: who makes each call, by its key; `keys`: the other way round.
    """

    root: Entry = field(default_factory=Entry)
    asked: dict[str, Future[JobResult]] = field(default_factory=dict)
    callers: dict[str, tuple[int, ...]] = field(default_factory=dict)
    keys: dict[tuple[int, ...], str] = field(default_factory=dict)


class BranchLife(Life):
    """A flow that makes equal calls in several places."""

    def __init__(self, place: Place, number: int, branches: list[Branch], starts: int) -> None:
        self._campaign = f"campaign {number}"
        self.branches = branches
        keys = [key for branch in branches for key in branch.identities(self._campaign)]
        self._known = {key: _wanted(place, key) for key in keys}
        self._begun: dict[int, _Start] = {}
        self._orders: set[tuple[str, ...]] = set()
        super().__init__(place, number, [*self._known.values()], starts)

    def hand_over(self, job: Wanted, process: Process, run: str) -> Handle[JobResult]:
        """Its result comes when the call that has its key is made, and has ended."""
        if process.number not in self._begun:
            self._begun[process.number] = _Start()
            process.loop.call_soon(partial(self._begin, process, run))
        result: Future[JobResult] = Future()
        self._begun[process.number].asked[job.key] = result
        return Handle(result, process.executor, job.base)

    def _begin(self, process: Process, run: str) -> None:
        """Make all calls, each branch in a task of its own."""
        start, chance = self._begun[process.number], self.world.chance
        for index, branch in enumerate(self.branches):
            every = len(branch.calls)
            for time in range(branch.times):
                entry = Entry(start.root, branch.run) if branch.run else start.root
                fails_after = chance.below("calls before it fails", every + 1)
                attempts = [every]
                if branch.run and chance.fault("a task run fails and is run again", 0.1):
                    self.world.coverage.sometimes("a task run makes its calls again")
                    attempts = [fails_after, every]
                carried = self._carried_out(process, run, entry, (index, time), attempts)
                process.loop.create_task(carried)

    async def _carried_out(
        self, process: Process, run: str, entry: Entry, who: tuple[int, int], attempts: list[int]
    ) -> None:
        """A branch: in each attempt so many of its calls."""
        for attempt, calls in enumerate(attempts, start=1):
            if self.branches[who[0]].run:
                entry.begin(attempt)
            for index in range(calls):
                await asyncio.sleep(self.world.chance.number("between calls", 0.0, 3.0))
                job = self._identified(process, entry, (*who, index))
                if job is not None:
                    await self._made(process, run, job, for_good=attempt == len(attempts))

    def _identified(
        self, process: Process, entry: Entry, caller: tuple[int, int, int]
    ) -> Wanted | None:
        """Which job a call means; None when it is none of this flow's, which must not be."""
        start, branch = self._begun[process.number], self.branches[caller[0]]
        what = branch.calls[caller[2]]
        key = _key(self._campaign, branch.path, what, entry.next_number((branch.path, what)))
        fail, call = self.world.fail, f"call {caller} ({what})"
        if key not in self._known:
            fail("twice", f"{call} is numbered as no start should: {key} is run for it once more")
            return None
        if (other := start.callers.setdefault(key, caller)) != caller:
            fail("false", f"{call} gets the result of call {other}: both are {key}")
        if (before := start.keys.setdefault(caller, key)) != key:
            fail("twice", f"{call} was {before} before its task run was run again, and is {key}")
        if len(start.callers) == len(self._known):
            self._orders.add(tuple(start.callers))
            if len(self._orders) > 1:
                self.world.coverage.sometimes("starts make the same calls in another order")
        return self._known[key]

    async def _made(self, process: Process, run: str, job: Wanted, *, for_good: bool) -> None:
        """A call, to its end; of a task run that is going to fail its user sees nothing."""
        asked = self._begun[process.number].asked.get(job.key)
        if asked is None:  # they gave it up; it keeps its number
            return
        with process.at_work():
            handle = process.executor.start(self._request(job, process, run))
        try:
            result = await asyncio.wrap_future(handle.result)
        except (HpcPrefectError, asyncio.CancelledError) as error:
            if for_good:
                asked.set_exception(error)
            return
        if for_good:
            asked.set_result(result)
        elif not process.dead:
            self._judge(job, result)

    def _judge(self, job: Wanted, result: Any) -> Any:
        if result.key != job.key:
            self.world.fail("false", f"the call of {job.key} gets the result of {result.key}")
        return super()._judge(job, result)

    def died(self, process: Process) -> None:
        self._begun.pop(process.number, None)
        super().died(process)


def _wanted(place: Place, key: str) -> Wanted:
    return dataclasses.replace(place.wanted(key), base=f"{CAMPAIGN}/{_spread(key)}/{key}")


def branch_lives(place: Place) -> list[BranchLife]:
    """One flow with two or three places in which it makes calls."""
    chance = place.world.chance
    branches = [_branch(chance, name) for name in "abc"[: 2 + (chance.below("places", 5) == 0)]]
    return [BranchLife(place, 1, branches, mix.starts(chance))]


def _branch(chance: Chance, name: str) -> Branch:
    run, scopes = chance.one_of("way to a place", _WAYS)
    calls = chance.one_of("calls of a place", (*[("md",)] * 4, ("md", "md"), ("md", "relax")))
    times = 1 + (bool(run) and chance.below("equal task runs", 4) == 0)
    return Branch(_named(run, name), _named(scopes, name), calls, times)


def _named(way: Path, name: str) -> Path:
    return tuple(step._replace(name=f"{step.kind} {name}") for step in way)
