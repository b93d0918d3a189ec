"""One seed, and many seeds."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Collection, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field

from simulation import leaks
from simulation.chance import Chance
from simulation.coverage import Coverage
from simulation.ground import Ground
from simulation.mix import is_quantum, rare
from simulation.oracles import KINDS
from simulation.place import Place
from simulation.world import World

#: A level at which nothing is logged.
_UNHEARD = logging.CRITICAL + 1
#: Seconds after which no flow is started any more but in fair weather.
_FOUL = 4000.0


@dataclass
class Outcome:
    """What one seed came to.

    Attributes:
        wrong: what must not have happened, by its kind and in a sentence.
        trace: the digest of all that happened.
        faults: those that were drawn.
    """

    seed: int
    wrong: list[tuple[str, str]]
    trace: str
    faults: list[str]
    lives: int
    jobs: int
    steps: int
    kills: int
    timeline: list[tuple[float, str, str]] = field(default_factory=list)
    facts: dict[str, object] = field(default_factory=dict)


def simulate(
    seed: int,
    coverage: Coverage | None = None,
    *,
    only: Collection[str] | None = None,
    keep: bool = False,
) -> Outcome:
    """All lives of a seed, from their first start until each has its results.

    Args:
        only: the faults that happen, by their names; None: those that the seed draws.
        keep: keep the timeline, for a person.
    """
    with _unheard():
        return _simulate(seed, coverage or Coverage(), only, keep)


@contextmanager
def _unheard() -> Generator[None]:
    """The product says nothing meanwhile; afterwards its loggers are as they were."""
    logger = logging.getLogger("hpc_prefect")
    before = logger.level
    if before == _UNHEARD:  # for all of many seeds: a change makes each logger think anew
        yield
        return
    logger.setLevel(_UNHEARD)
    try:
        yield
    finally:
        logger.setLevel(before)


def _simulate(seed: int, coverage: Coverage, only: Collection[str] | None, keep: bool) -> Outcome:
    threads = leaks.threads()
    chance = Chance(seed, only, rare=rare(seed))
    world = World(chance, coverage, keep=keep)
    place = place_of(world)
    for life in place.lives:
        world.later(chance.number("first start", 0.0, 10.0), life.start)
    world.run(_FOUL)
    chance.fair = True
    for life in place.lives:
        if not (life.over or world.over):
            world.later(1000.0, life.start)
            while not (life.over or world.over):
                world.run(world.now + 1000.0)
    if not world.over:
        place.judgements.journals(place.files)
    for machine in place.machines:
        for process in list(machine.living.values()):
            process.die("at the end of the world")
    if not world.over:
        place.come_to_rest()
    if not world.over:
        begun = sorted(each.name for each in leaks.threads() - threads)
        for leak in (*place.leaks(), *begun):
            world.fail("leak", leak)
    place.close()
    return Outcome(
        seed,
        world.wrong,
        world.trace,
        chance.happened,
        len(place.lives),
        sum(len(life.wanted) for life in place.lives),
        world.steps,
        place.deaths,
        world.timeline,
        place.facts(),
    )


def place_of(world: World) -> Ground:
    """What kind of world a seed's is: one in ten has a quantum service, and no scheduler."""
    if not is_quantum(world.chance.seed):
        return Place(world)
    from simulation.quantum_place import QuantumPlace  # with Qiskit, which takes its time

    return QuantumPlace(world)


@dataclass
class Tally:
    """What many seeds came to.

    Attributes:
        found: the outcomes in which something was wrong.
        seconds: of CPU.
    """

    seeds: int = 0
    lives: int = 0
    jobs: int = 0
    steps: int = 0
    kills: int = 0
    seconds: float = 0.0
    found: list[Outcome] = field(default_factory=list)

    def line(self) -> str:
        """The last line of a run."""
        wrong = dict.fromkeys(KINDS, 0)
        for outcome in self.found:
            wrong[outcome.wrong[0][0]] += 1
        counts = " ".join(f"{kind}={count}" for kind, count in wrong.items())
        rate = self.lives / self.seconds if self.seconds else 0.0
        return (
            f"SIMULATE seeds={self.seeds} lives={self.lives} jobs={self.jobs} steps={self.steps}"
            f" kills={self.kills} {counts} lives_per_second={rate:.0f}"
        )


def simulate_all(
    seeds: Iterable[int],
    coverage: Coverage,
    *,
    most_found: int = 10,
    meanwhile: Callable[[Tally], None] = lambda tally: None,
) -> Tally:
    """Seed after seed, until so many have found something; `meanwhile` is told now and then."""
    with _unheard():
        return _simulate_all(seeds, coverage, most_found, meanwhile)


def _simulate_all(
    seeds: Iterable[int], coverage: Coverage, most_found: int, meanwhile: Callable[[Tally], None]
) -> Tally:
    tally, begin = Tally(), time.process_time()  # other work on the machine must not count
    gc.disable()  # a dead process's tasks are circles: cleared up now and then
    try:
        for number, seed in enumerate(seeds):
            outcome = simulate(seed, coverage)
            tally.seeds += 1
            tally.lives += outcome.lives
            tally.jobs += outcome.jobs
            tally.steps += outcome.steps
            tally.kills += outcome.kills
            if outcome.wrong:
                tally.found.append(outcome)
                if len(tally.found) >= most_found:
                    break
            if number % 50 == 49:
                gc.collect()
            if number == 49:  # what is imported by now stays: looking through it took a sixth
                gc.freeze()
            if number % 1000 == 999:
                tally.seconds = time.process_time() - begin
                meanwhile(tally)
    finally:
        gc.unfreeze()
        gc.enable()
        tally.seconds = time.process_time() - begin
    return tally
