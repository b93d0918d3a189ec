"""Random kills over many jobs: nothing is lost, nothing runs twice. `make chaos` runs all of it.

    python chaos.py [--seed 7] [--jobs 500] [--kills 200] [--places local,pbs,pjm]

Groups of ten jobs, of which two are the same in all, are driven by processes that are killed with
SIGKILL at random instants, half of them with the commands they are running, and started again
until all is done. After each kill the record of their run is read. Meanwhile the rehearsed
schedulers have weather: replies get lost, jobs show late, later than they are looked for, and
questions fail. The programs count their own runs.

What happens depends on the machine too: a seed gives the same kills, not the same run.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import places
from lives import TEN, Driver, jobs_of, of_record, of_whole_record, program, runs

#: In force for a moment, one after another.
WEATHER = (
    *(("dies-after-submit", "late"), ("error-after-submit", "late"), ("dies-after-submit",)),
    *(("late",), ("unlisted",), ("query-fails",), ("down",)),
)
#: A tag is looked for shorter than a job may be late: so the start guard is put to the test.
PATIENCE = {"find": 0.7, "record": 10.0, "absent": 10.0, "lost": 20.0}
AT_ONCE = 3  # groups at one place
MOST_LIVES = 60


@dataclass
class Figures:
    """What came of it.

    Attributes:
        twofold: errors that named two jobs of one attempt.
        untold: results that a run's record lacked after a kill, or at its end.
    """

    jobs: int = 0
    kills: int = 0
    lost: int = 0
    twice: int = 0
    wrong: int = 0
    untold: int = 0
    errors: int = 0
    twofold: int = 0
    notes: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def good(self) -> bool:
        return not (self.lost or self.twice or self.wrong or self.untold)

    def line(self, seed: int, seconds: float) -> str:
        return (
            f"CHAOS seed={seed} jobs={self.jobs} kills={self.kills} lost={self.lost}"
            f" twice={self.twice} wrong={self.wrong} untold={self.untold}"
            f" errors={self.errors} twofold={self.twofold}"
            f" seconds={seconds:.0f}"
        )


class Group:
    """Ten jobs at one place."""

    def __init__(self, driver: Driver, folder: Path, dice: random.Random, figures: Figures) -> None:
        self.driver, self.folder, self.dice, self.figures = driver, folder, dice, figures
        folder.mkdir(parents=True)
        program(folder, seconds=round(dice.uniform(0.05, 1.0), 2))
        self.jobs = jobs_of(folder, TEN)

    def live(self, kills: int) -> int:
        """Lives until all is done: the first ones are killed; how many were."""
        killed = 0
        said: dict[str, Any] = {}
        for _ in range(MOST_LIVES):
            lag = round(self.dice.uniform(0.0, 1.0), 2)
            life = self.driver.begin(self.folder, self.jobs, lag=lag)
            late = killed < kills and not life.wait(3.0 * self.dice.random() ** 2)
            if late and life.kill(commands=self.dice.random() < 0.5):
                killed += 1
                missing = of_record(self.folder)
                with self.figures.lock:
                    self.figures.kills += 1
                    self.figures.untold += len(missing)
                    self.figures.notes += [f"{self.folder}: {each}" for each in missing]
                continue
            life.wait()
            said = life.said
            if "results" in said:
                break
            with self.figures.lock:
                self.figures.errors += 1
            self._answer(said["error"])
        self._count(said)
        return killed

    def _answer(self, error: str) -> None:
        """Start again, as every error says; two jobs under one name are left to the start guard.

        A person who ends one of them may end the one that has started meanwhile.
        """
        assert "start again" in error, error
        with self.figures.lock:
            self.figures.twofold += "Cancel all but one" in error
        time.sleep(0.2)

    def _count(self, said: dict[str, Any]) -> None:
        ran, expected = runs(self.folder), Counter(TEN)
        results = said.get("results", [])
        wrong = []
        for label, result in zip(TEN, results, strict=False):
            text = Path(result["stdout_path"]).read_text()
            if (result["state"], text) != ("succeeded", f"result of {label}\n"):
                wrong.append(f"{result['folder']}: {result['verdict']}, {text!r}")
        missing = of_whole_record(self.folder, TEN)
        with self.figures.lock:
            self.figures.untold += len(missing)
            self.figures.notes += [f"{self.folder}: {each}" for each in missing]
            self.figures.jobs += len(TEN)
            self.figures.twice += (ran - expected).total()
            self.figures.lost += (expected - ran).total()
            self.figures.wrong += len(wrong) + len(TEN) - len(results)
            self.figures.notes += wrong
            if ran != expected or not results:
                self.figures.notes.append(f"{self.folder}: {dict(ran)}, {list(said)}")


@contextlib.contextmanager
def weather(faults: Path | None, dice: random.Random) -> Iterator[None]:
    """Faults come and go inside."""
    over = threading.Event()

    def come_and_go() -> None:
        while faults and not over.wait(dice.uniform(0.1, 1.0)):
            files = [faults / name for name in dice.choice(WEATHER)]
            for file in files:
                file.touch()
            over.wait(dice.uniform(0.2, 3.0))
            for file in files:
                file.unlink()

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def at_place(
    driver: Driver, folder: Path, dice: random.Random, goal: tuple[int, int], figures: Figures
) -> None:
    """Groups at one place until so many jobs are done and so many kills were made there."""
    jobs, kills = goal
    own = Figures()

    def worker(mine: random.Random) -> None:
        while True:
            with own.lock:
                if own.jobs >= jobs and own.kills >= kills:
                    return
                own.jobs += len(TEN)
                number = own.jobs // len(TEN)
            # A group is killed more often than needed on the average: some end before.
            each = 1 + round(2 * kills * len(TEN) / jobs)
            group = Group(driver, folder / f"group-{number}", mine, figures)
            killed = group.live(each)
            with own.lock:
                own.kills += killed

    seeds = [random.Random(dice.random()) for _ in range(AT_ONCE + 1)]
    with weather(driver.place.faults, seeds.pop()), ThreadPoolExecutor(AT_ONCE) as pool:
        for done in [pool.submit(worker, seed) for seed in seeds]:
            done.result()


def chaos(
    found: dict[str, places.Place], home: Path, *, seed: int, jobs: int, kills: int
) -> Figures:
    """All of it, at these places at once."""
    figures, dice = Figures(), random.Random(seed)
    share = (-(-jobs // len(found)), -(-kills // len(found)))
    drivers = {
        name: Driver(replace(place, patience=dict(place.patience) | PATIENCE))
        if place.scheduler != "local"
        else Driver(place)
        for name, place in found.items()
    }
    try:
        with ThreadPoolExecutor(len(found)) as pool:
            going = [
                pool.submit(
                    at_place, driver, home / name, random.Random(dice.random()), share, figures
                )
                for name, driver in drivers.items()
            ]
            for done in going:
                done.result()
    finally:
        for driver in drivers.values():
            driver.close()
            driver.place.end()
    return figures


def make(names: list[str], home: Path) -> dict[str, places.Place]:
    """The places of these names; `slurm` is the one that SLURM_CONF leads to."""
    makers = {"local": places.local, "pbs": places.in_pbs, "pjm": places.in_pjm}
    found = {}
    for name in names:
        (home / f"at-{name}").mkdir()
        if name == "slurm":
            found[name] = places.in_slurm({"SLURM_CONF": os.environ["SLURM_CONF"]})
        else:
            found[name] = makers[name](home / f"at-{name}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=int(os.environ.get("SEED") or 7))
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--places", default="local,pbs,pjm")
    asked = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        home = Path(folder)
        found = make(asked.places.split(","), home)
        figures = chaos(found, home, seed=asked.seed, jobs=asked.jobs, kills=asked.kills)
    for note in figures.notes:
        print(note)
    print(figures.line(asked.seed, time.monotonic() - begun))
    return 0 if figures.good else 1


if __name__ == "__main__":
    sys.exit(main())
