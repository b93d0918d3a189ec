"""The loop around SQD: LUCJ's couplings by differential evolution, with several walkers at once."""

from __future__ import annotations

import asyncio
import os
import pickle
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_prefect.server import Server

from .demo_rig import SQD, finish, result, rows, samplings, start, starts, until

# The example's files find each other as its own folder's modules, as when demo.py is started.
sys.path.insert(0, str(SQD))

import report
from chemistry import Molecule, interactions
from evolution import FEWEST, Population, bounds, initial, select, trials
from ffsim.qiskit import FfsimSampler
from qiskit.primitives import BitArray
from recovery import Estimate
from walkers import NOTHING, Found, Generation, columns, proposed, subspaces, succeeded

# --- differential evolution

SIZES = st.tuples(st.integers(FEWEST, 8), st.integers(1, 6))
SEEDS = st.integers(0, 2**32)
SPREADS = st.floats(0, 1e6)
WEIGHTS = st.floats(0, 2)
SHARES = st.floats(0, 1)


def population(size: tuple[int, int], spread: float, seed: int) -> np.ndarray:
    """Vectors within `spread` of a center that is none of the round numbers."""
    rng = np.random.default_rng(seed)
    return initial(rng.normal(size=size[1]), spread, size[0], rng)


@given(size=SIZES, seed=SEEDS, spread=SPREADS, weight=WEIGHTS, crossover=SHARES)
def test_no_vector_leaves_its_bounds_and_no_parent_is_altered(
    size: tuple[int, int], seed: int, spread: float, weight: float, crossover: float
) -> None:
    parents = population(size, spread, seed)
    low, high = bounds(parents[0], spread)  # the first one is the center
    untouched = parents.copy()

    tried = trials(
        parents,
        (low, high),
        weight=weight,
        crossover=crossover,
        rng=np.random.default_rng(seed),
    )

    assert ((low <= parents) & (parents <= high)).all()
    assert ((low <= tried) & (tried <= high)).all()
    assert tried.shape == parents.shape
    assert np.array_equal(parents, untouched)


@given(size=SIZES, seed=SEEDS, spread=st.floats(0.1, 10))
def test_a_trial_takes_one_parameter_of_its_mutant_at_least_and_without_crossover_at_most(
    size: tuple[int, int], seed: int, spread: float
) -> None:
    parents = population(size, spread, seed)
    rng = np.random.default_rng(seed)
    tried = trials(parents, bounds(parents[0], spread), weight=0.7, crossover=0.0, rng=rng)
    assert ((tried != parents).sum(axis=1) == 1).all()


@given(seed=SEEDS)
def test_with_no_spread_every_walker_stays_where_ccsd_put_it(seed: int) -> None:
    parents = population((5, 3), 0.0, seed)
    tried = trials(
        parents,
        bounds(parents[0], 0.0),
        weight=0.7,
        crossover=0.9,
        rng=np.random.default_rng(seed),
    )
    assert (tried == parents[0]).all()


VALUES = st.lists(st.floats(-200, 200), min_size=5, max_size=5)


@given(before=VALUES, after=VALUES)
def test_selection_is_never_worse_and_a_value_stays_with_its_vector(
    before: list[float], after: list[float]
) -> None:
    parents = Population(vectors=np.arange(5.0)[:, None], values=np.array(before))
    vectors, values = parents.vectors + 10, np.array(after)

    kept = select(parents, vectors, values)

    assert (kept.values <= parents.values).all()
    assert (kept.values <= values).all()
    of_trial = kept.vectors[:, 0] >= 10
    assert np.array_equal(kept.values, np.where(of_trial, values, parents.values))
    assert np.array_equal(kept.vectors[:, 0] % 10, np.arange(5))


def test_the_first_generation_is_taken_as_it_is() -> None:
    vectors, values = np.zeros((4, 2)), np.arange(4.0)
    kept = select(None, vectors, values)
    assert kept.vectors is vectors
    assert kept.values is values


def minimized(generations: int, *, stored_after: int | None = None) -> Population:
    """The square of the distance from (1, 2, 3), made smaller; stored and loaded in between."""
    rng, found = np.random.default_rng(7), None
    for generation in range(generations):
        parameters = {"walkers": 8, "spread": 5.0, "weight": 0.7, "crossover": 0.9}
        vectors = proposed(found, np.zeros(3), parameters, rng)
        values = ((vectors - [1, 2, 3]) ** 2).sum(axis=1)
        found = select(found, vectors, values)
        if generation == stored_after:
            found, rng = pickle.loads(pickle.dumps((found, rng)))
    assert found is not None
    return found


def test_the_minimum_of_a_parabola_is_found() -> None:
    found = minimized(120)
    assert found.values.max() < 1e-6
    assert found.vectors == pytest.approx(np.tile([1, 2, 3], (8, 1)), abs=1e-3)


def test_a_run_that_is_stored_between_two_generations_goes_on_to_the_same_bits() -> None:
    whole, resumed = minimized(10), minimized(10, stored_after=4)
    assert whole.vectors.tobytes() == resumed.vectors.tobytes()
    assert whole.values.tobytes() == resumed.values.tobytes()


def test_three_walkers_are_too_few() -> None:
    with pytest.raises(ValueError, match="at least 4 walkers, not 3"):
        initial(np.zeros(2), 1.0, 3, np.random.default_rng(1))


# --- the couplings of the circuit


@pytest.fixture(scope="module")
def molecule() -> Molecule:
    """No molecule at all, but an ansatz of the right shape: 8 orbitals, 16 qubits."""
    rng = np.random.default_rng(1)
    norb = 8
    rotation = np.linalg.qr(rng.normal(size=(norb, norb)))[0].astype(complex)
    made = Molecule(
        h1=np.zeros((norb, norb)),
        eri=np.zeros((norb,) * 4),
        core=0.0,
        e_hf=-1.0,
        e_ccsd=-1.9,
        e_exact=-2.0,
        jastrow=np.zeros((1, 2, norb, norb)),
        rotations=rotation[None],
        last_rotation=np.eye(norb, dtype=complex),
    )
    return made.with_couplings(rng.normal(size=sum(map(len, interactions(norb)))))


def counts(molecule: Molecule) -> dict[str, int]:
    sampler = FfsimSampler(default_shots=200, seed=1)
    found: dict[str, int] = sampler.run([molecule.circuit()]).result()[0].data.meas.get_counts()
    return found


def test_couplings_are_read_as_they_were_written(molecule: Molecule) -> None:
    vector = np.linspace(-1, 1, len(molecule.couplings))
    assert np.array_equal(molecule.with_couplings(vector).couplings, vector)


def test_a_molecule_with_its_own_couplings_has_the_same_circuit(molecule: Molecule) -> None:
    same = molecule.with_couplings(molecule.couplings)
    assert same.jastrow.tobytes() == molecule.jastrow.tobytes()
    assert counts(same) == counts(molecule)


def test_other_couplings_are_another_circuit(molecule: Molecule) -> None:
    assert counts(molecule.with_couplings(molecule.couplings + 0.5)) != counts(molecule)


# --- a generation

PARAMETERS: dict[str, Any] = {
    "bit_flip_rate": 0.1,
    "batches": 2,
    "samples_per_batch": 20,
    "max_strings": 30,
}


@pytest.fixture(scope="module")
def samples() -> BitArray:
    return BitArray.from_bool_array(np.random.default_rng(1).random((2000, 16)) < 0.5)


def test_a_walker_is_also_judged_without_what_is_carried_over(samples: BitArray) -> None:
    kept = np.array([0b11111, 0b11111000])
    best = Estimate(energy=-1.0, occupancies=np.full((2, 8), 5 / 8), carryover=kept)
    own, batches = subspaces(samples, best, PARAMETERS, np.random.default_rng(5))
    nothing_kept = replace(best, carryover=NOTHING.carryover)
    _, alone = subspaces(samples, nothing_kept, PARAMETERS, np.random.default_rng(5))

    assert (own, len(batches)) == (2, 4)
    # The same samples in both: the walker's own batches do not depend on what is carried over.
    assert [batch.tobytes() for batch in batches[:2]] == [batch.tobytes() for batch in alone]
    for without, with_them in zip(batches[:2], batches[2:], strict=True):
        assert np.isin(kept, with_them).all()
        assert set(with_them) <= set(without) | set(kept)


def test_in_the_first_generation_there_is_nothing_to_carry_over(samples: BitArray) -> None:
    own, batches = subspaces(samples, NOTHING, PARAMETERS, np.random.default_rng(5))
    assert own == len(batches) == 2


def found(fitness: list[float], energies: list[float], uniform: float) -> dict[Any, Found]:
    pairs = enumerate(zip(fitness, energies, strict=True))
    lucj = {("lucj", i): Found(f, Estimate(energy=e, dimension=i)) for i, (f, e) in pairs}
    baseline = Found(uniform, Estimate(energy=uniform, dimension=9))
    return lucj | {("uniform", i): baseline for i in range(len(fitness))}


NEW = Generation(population=None, replaced=0, best={"lucj": NOTHING, "uniform": NOTHING})


def test_the_best_estimate_of_each_kind_is_kept_whatever_the_next_generation_finds() -> None:
    vectors = np.zeros((2, 3))
    first = succeeded(NEW, vectors, found([-1.0, -1.1], [-1.0, -1.2], -0.5))
    second = succeeded(first, vectors, found([-1.05, -1.05], [-1.1, -1.1], -0.9))

    assert first.best["lucj"].energy == second.best["lucj"].energy == -1.2
    assert second.best["lucj"].dimension == 1
    assert second.best["uniform"].energy == -0.9
    assert (first.replaced, second.replaced) == (2, 1)


def test_selection_is_by_a_walkers_own_samples() -> None:
    first = succeeded(NEW, np.zeros((2, 3)), found([-1.0, -1.0], [-1.0, -1.0], 0.0))
    # The second walker's energy is lower by what was carried over alone.
    second = succeeded(first, np.ones((2, 3)), found([-1.1, -0.9], [-1.1, -1.5], 0.0))

    assert second.population is not None
    assert second.population.vectors[:, 0].tolist() == [1, 0]
    assert second.population.values.tolist() == [-1.1, -1.0]


def test_a_row_has_best_spread_dimensions_and_baseline(molecule: Molecule) -> None:
    generation = succeeded(NEW, np.zeros((2, 3)), found([-1.998, -1.99], [-1.999, -1.99], -1.995))
    row = columns(generation, molecule)
    assert row["energy"] == -1.999
    assert row["error_mha"] == pytest.approx(1)
    assert row["best_walker_error_mha"] == pytest.approx(2)
    assert row["spread_mha"] == pytest.approx(8)
    assert row["uniform_error_mha"] == pytest.approx(5)
    assert (row["replaced"], row["dimension"], row["uniform_dimension"]) == (2, 0, 9)

    header, line = report.generations([row | {"iteration": 1}]).splitlines()
    assert len(header) == len(line)
    assert line.split()[:4] == ["1", "-1.999000", "1.000", "0"]


async def walker(key: str, ended: list[str], failure: Exception | None = None) -> Any:
    await asyncio.sleep(0)
    if failure is not None:
        raise failure
    await asyncio.sleep(0)
    ended.append(key)
    return key


async def test_a_failing_walker_interrupts_no_other_and_is_named() -> None:
    optimize = await asyncio.to_thread(__import__, "optimize")  # Prefect is slow to import
    ended: list[str] = []
    walkers = {
        ("lucj", 0): walker("a", ended),
        ("lucj", 1): walker("b", ended, ValueError("no electrons\nat all")),
        ("uniform", 0): walker("c", ended),
    }

    with pytest.raises(ExceptionGroup) as raised:
        await optimize.all_of(walkers, 4)

    assert ended == ["a", "c"]
    assert "generation 4: 1 of 3 walkers failed" in str(raised.value)
    assert "\nlucj walker 1: no electrons" in str(raised.value)
    assert "at all" not in str(raised.value)
    assert [type(each) for each in raised.value.exceptions] == [ValueError]


async def test_a_cancelled_generation_cancels_its_walkers() -> None:
    optimize = await asyncio.to_thread(__import__, "optimize")
    begun, ends = asyncio.Event(), []

    async def waits() -> Any:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise

    generation = asyncio.create_task(optimize.all_of({("lucj", 0): waits()}, 1))
    await begun.wait()
    generation.cancel()
    with pytest.raises(asyncio.CancelledError):
        await generation
    assert ends == ["cancelled"]


# --- the flow, on the laptop's profile

#: A small case, with one rank a job, and with a program that can be made to fail or to wait.
SMALLER = {
    'command_name = "diag"\nranks_per_node = 2': 'command_name = "diag"\nranks_per_node = 1',
    "hpc-profile.hpc-local]": "hpc-profile.hpc-local]\nlocal = { slots = 2 }",
    '"${HERE}/diagonalize.py"': '"${HERE}/told"',
    "walkers = 6 ": "walkers = 4 ",
    "shots = 2000": "shots = 1000",
}
#: Fails, or waits, where a file in the work_dir is named after its question, without the digest.
TOLD = """#!/bin/sh
name=${1%-*}
if rm "fail-$name" 2> /dev/null; then echo "$name was told to fail" >&2; exit 3; fi
while [ -e "hold-$name" ]; do sleep 0.05; done
"""


def clone(folder: Path, *, generations: int) -> Path:
    """The example as a user has it who changed some numbers in blocks.toml."""
    example = folder / "sqd_n2"
    shutil.copytree(SQD, example, ignore=shutil.ignore_patterns("__pycache__"))
    text = (SQD / "blocks.toml").read_text(encoding="utf-8")
    for old, new in (SMALLER | {"max_iterations = 6": f"max_iterations = {generations}"}).items():
        assert text.count(old) == 1, f"blocks.toml has {old!r} {text.count(old)} times"
        text = text.replace(old, new)
    (example / "blocks.toml").write_text(text, encoding="utf-8")
    (example / "told").write_text(f'{TOLD}exec "{example}/diagonalize.py" "$@"\n')
    (example / "told").chmod(0o755)
    return example


def answers(work_dir: Path, of: str = "*") -> set[str]:
    return {path.name for path in work_dir.glob(f"{of}.answer.npz")}


def computed(work_dir: Path) -> list[dict[str, Any]]:
    """The rows without their times."""
    return [
        {name: cell for name, cell in row.items() if name not in ("seconds", "time")}
        for row in rows(work_dir)
    ]


@pytest.mark.timeout(900)
@pytest.mark.slow
def test_a_failed_walker_loses_no_other_and_only_it_runs_again(
    own_server: Server, tmp_path: Path
) -> None:
    example = clone(tmp_path, generations=1)
    work_dir = tmp_path / "work"
    work_dir.mkdir()
    (work_dir / "fail-lucj-1-2").touch()

    failing = start(work_dir, own_server, "--optimize", example=example)
    out, _ = failing.communicate(timeout=600)
    kept, sampled = answers(work_dir), samplings(work_dir)

    assert failing.returncode != 0
    assert "generation 1: 1 of 8 walkers failed" in out
    assert "lucj walker 2: job diag-lucj-1-2 (" in out
    assert "lucj-1-2 was told to fail" in out  # the end of the program's stderr
    assert (len(kept), len(sampled), len(starts(work_dir))) == (7, 8, 8)

    out = finish(start(work_dir, own_server, "--optimize", example=example))

    assert result(out).startswith("RESULT energy=-109.0")
    assert len(answers(work_dir)) == 8
    assert len(starts(work_dir)) == 9  # the eight, and the one that failed again
    assert samplings(work_dir) == sampled


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_killed_optimization_goes_on_to_the_same_bits_and_repeats_nothing(
    own_server: Server, tmp_path: Path
) -> None:
    example = clone(tmp_path, generations=3)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()

    expected = finish(start(whole, own_server, "--optimize", example=example))

    # Killed as generation 2 begins: one job runs, and keeps running; others wait.
    held = broken / "hold-lucj-2-1"
    held.touch()
    demo = start(broken, own_server, "--optimize", example=example)
    until(lambda: len(starts(broken)) > 8, demo)
    os.kill(demo.pid, signal.SIGKILL)
    demo.communicate()
    first_killed = samplings(broken)
    # Killed in its midst: some walkers are done, one is not.
    demo = start(broken, own_server, "--optimize", example=example)
    until(lambda: len(answers(broken, "*-2-*")) >= 3, demo)
    os.kill(demo.pid, signal.SIGKILL)
    demo.communicate()
    assert len(rows(broken)) == 1
    assert not answers(broken, "lucj-2-1-*")
    done, then_killed = answers(broken), samplings(broken)
    held.unlink()
    out = finish(start(broken, own_server, "--optimize", example=example))

    assert "This run went on at iteration 2 of an earlier one." in out
    assert result(out) == result(expected)
    assert computed(broken) == computed(whole)
    # The names are digests of the questions: every walker's determinants were the same.
    assert answers(broken) == answers(whole)
    assert len(answers(whole)) == len(starts(whole)) == len(samplings(whole)) == 24
    assert len(starts(broken)) == len(samplings(broken)) == 24
    assert done <= answers(broken)
    assert first_killed.items() <= then_killed.items() <= samplings(broken).items()
