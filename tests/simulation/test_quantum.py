"""The product's purchases at a quantum service in memory: each bought once, within the budget."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from simulation.simulate import simulate
from simulation.story import timeline

ON_CI = os.environ.get("CI") == "true"
TESTS = Path(__file__).parents[1]
SOURCE = TESTS.parent / "src"
SEEDS = 400 if ON_CI else 60


def _run(*words: str, hash_seed: str = "0") -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(SOURCE), str(TESTS)])
    return subprocess.run(
        [sys.executable, "-m", "simulation", *words],
        env=os.environ | {"PYTHONPATH": path, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
    )


@pytest.mark.timeout(600)
def test_in_every_world_each_job_is_bought_once_and_within_the_budget() -> None:
    done = _run("--quantum", "--seeds", str(SEEDS), "--most", "3")
    assert done.returncode == 0, f"python -m simulation --seed … --shrink (in tests/): {done}"
    assert f"SIMULATE seeds={SEEDS} " in done.stdout


def test_without_a_fault_every_job_comes_to_its_result_or_is_too_dear() -> None:
    for seed in range(4, 104, 10):
        outcome = simulate(seed, only=(), keep=True)
        assert not outcome.wrong, timeline(outcome)
        told = [what for _, _, what in outcome.timeline if what.startswith("is told of")]
        assert len(told) >= outcome.jobs
        assert all("succeeded" in each or "over budget" in each for each in told), told


@pytest.mark.parametrize("seed", [4, 34])
def test_a_seed_of_quantum_jobs_gives_the_same_trace_in_any_process(seed: int) -> None:
    lasts = {
        _run("--seed", str(seed), hash_seed=h).stdout.strip().rpartition("\n")[2] for h in "07"
    }
    assert lasts == {f"TRACE {simulate(seed).trace}"}
