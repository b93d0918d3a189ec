"""The product's code in a world in memory: nothing lost, nothing twice, and each seed the same."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from simulation import parts
from simulation.chance import Chance
from simulation.coverage import Coverage
from simulation.place import Place
from simulation.shrink import shrink
from simulation.simulate import simulate, simulate_all
from simulation.story import Story, stories, timeline
from simulation.world import World

ON_CI = os.environ.get("CI") == "true"
TESTS = Path(__file__).parents[1]
SOURCE = TESTS.parent / "src"
#: Seeds of one test; the parts are run beside each other.
SEEDS, PARTS = (2500, 1) if ON_CI else (1200, 1)


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("part", range(PARTS))
def test_in_every_world_nothing_is_lost_and_nothing_runs_twice(part: int) -> None:
    """In a process of its own: in one that has run a thousand tests it takes ten times as long."""
    seeds = ["--seeds", str(SEEDS), "--first", str(1 + part * SEEDS), "--most", "3"]
    done = subprocess.run(
        [sys.executable, "-m", "simulation", *seeds],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(SOURCE), str(TESTS)])},
        capture_output=True,
        text=True,
    )
    print(done.stdout)
    assert done.returncode == 0, f"python -m simulation --seed … --shrink (in tests/): {done}"
    assert f"SIMULATE seeds={SEEDS} " in done.stdout
    assert not ON_CI or "never happened" not in done.stdout


def _trace_of(python: str, seed: int, hash_seed: str, more: str = "") -> str:
    """The last line of a child that simulates one seed."""
    path = os.pathsep.join([str(SOURCE), str(TESTS), more])
    done = subprocess.run(
        [python, "-m", "simulation", "--seed", str(seed)],
        env=os.environ | {"PYTHONPATH": path, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
    )
    return done.stdout.strip().rpartition("\n")[2] or done.stderr


@pytest.mark.parametrize("seed", [3, 25, 40, 20_000_015, 30_000_007, 40_000_019])
def test_a_seed_gives_the_same_trace_in_any_process(seed: int) -> None:
    here = f"TRACE {simulate(seed).trace}"
    assert here == f"TRACE {simulate(seed).trace}"
    assert {_trace_of(sys.executable, seed, hash_seed) for hash_seed in ("0", "7")} == {here}


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])
def test_a_seed_gives_the_same_trace_on_any_python(version: str, tmp_path: Path) -> None:
    python = shutil.which(f"python{version}")
    works = python and subprocess.run([python, "-c", ""], capture_output=True).returncode == 0
    if not python or not works:
        pytest.skip(f"there is no Python {version} here")
    for name in ("hpc_prefect", "prefect"):  # a run record names their versions
        folder = tmp_path / f"{name}-1.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    for seed in (25, 40):
        assert _trace_of(python, seed, "1", str(tmp_path)) == f"TRACE {simulate(seed).trace}"


def test_a_long_run_that_was_killed_goes_on(tmp_path: Path) -> None:
    into = tmp_path / "long"
    told: list[int] = []

    def run() -> str:
        coverage = Coverage()
        tally = parts.run(
            lambda first, size: [*range(first, first + size)],
            range(1, 6),
            1,
            into,
            coverage,
            most_found=1,
            meanwhile=lambda tally: told.append(tally.seeds),
            part_size=3,
        )
        assert coverage.seen["a process is at rest"] > 0
        return re.sub("lives_per_second=.*", "", tally.line())

    whole = run()
    assert told == [3, 5]
    lines = into.read_text().split("\n")
    into.write_text(f"{lines[0]}\n{lines[1][:-9]}")
    assert run() == whole
    assert told == [3, 5, 5]
    assert run() == whole == re.sub("lives_per_second=.*", "", _at_once(range(1, 6)))
    assert told == [3, 5, 5]


def _at_once(seeds: range) -> str:
    return simulate_all(seeds, Coverage()).line()


def test_a_fault_that_is_left_out_changes_nothing_else_that_is_drawn() -> None:
    def draws(only: set[str] | None) -> list[float]:
        chance = Chance(5, only)
        found = []
        for _ in range(50):
            chance.fault("it breaks", 0.5)
            found.append(chance.number("a length"))
        return found

    assert draws(None) == draws(set()) == draws({"it breaks 3"})


@pytest.mark.parametrize("where", ["a thread", "the loop"])
def test_who_goes_round_and_round_while_no_time_passes_is_stuck(where: str) -> None:
    place = Place(World(Chance(1), Coverage()))
    process = place.new_process("restless")

    def look_for_ever() -> None:
        while True:
            process.mount.status("/w/nothing")

    def come_again() -> None:
        process.loop.call_soon(come_again)

    if where == "a thread":
        process.in_thread(look_for_ever)
    else:
        come_again()
    place.world.run(10.0)
    place.close()
    assert [kind for kind, _ in place.world.wrong] == ["stuck"]


def test_a_thread_that_waits_inside_of_many_others_comes_to_its_end() -> None:
    """Seed 2699: no time passed for a command that waited while six others did."""
    place = Place(World(Chance(1), Coverage()))
    process = place.new_process("busy")
    ended: list[float] = []

    def wait() -> None:
        process.pause(20.0)
        ended.append(place.world.now)

    for _ in range(20):
        process.in_thread(wait)
    place.world.run(1000.0)
    place.close()
    assert len(ended) == 20
    assert min(ended) >= 20.0


def test_only_the_faults_that_are_asked_for_happen() -> None:
    faults = simulate(40).faults
    assert len(faults) > 3
    assert simulate(40, only=faults).trace == simulate(40).trace
    assert simulate(40, only=()).faults == []


@pytest.mark.parametrize("path", stories(), ids=lambda path: path.stem)
def test_what_was_found_once_does_not_come_back(path: Path) -> None:
    story = Story.read(path)
    outcome = story.happen()
    assert not outcome.wrong, f"{story.about}\n{timeline(outcome)}"


def test_a_job_is_lost_whatever_became_of_another_one_that_never_began() -> None:
    """Its program ended with the start guard's own code, and its record could not be written."""
    faults = ["a program fails 4", "there is trouble 3", "a submission is made twice 1"]
    outcome = simulate(100_057_770, only=["a program fails 2", *faults], keep=True)
    assert any("is told of a1: lost" in what for _, _, what in outcome.timeline)
    assert not outcome.wrong


def test_a_world_that_goes_wrong_shrinks_to_the_faults_that_it_takes() -> None:
    """With somebody who calls it wrong that a node dies while the file server lags."""

    def wrong(faults: list[str]) -> str:
        nodes = [fault for fault in faults if fault.startswith("a node dies")]
        lags = "the file server lags 1" in faults
        return "watched" if nodes and lags else ""

    seed = next(s for s in range(1, 2000) if wrong(simulate(s).faults))
    outcome = shrink(seed, "watched", judge=lambda outcome: wrong(outcome.faults))
    assert len(outcome.faults) == 2
    told = timeline(outcome)
    assert "fault: a node dies" in told
    assert "fault: the file server lags 1" in told
