"""Many runs: settings, their repeats, means and spreads."""

from __future__ import annotations

import math
import statistics
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_prefect.records.compare import compare, sweep
from hpc_prefect.records.compare.sweep import is_seed
from hpc_prefect.records.compare.text import report, rounded

from .built import batch_job, block, run, sampler_job

numbers = st.floats(allow_nan=False, allow_infinity=False, width=32)


def energies(*values, **more):
    """Runs of one setting that have measured these."""
    return [run(f"run-{i}", measures={"energy": each}, **more) for i, each in enumerate(values)]


def only(found):
    (setting,) = found.settings
    return setting


@given(st.lists(numbers, min_size=2, max_size=6))
def test_several_runs_of_one_setting_have_mean_spread_and_standard_error(values):
    spread = only(sweep(energies(*values))).measures["energy"]

    assert spread.n == len(values)
    assert spread.mean == pytest.approx(statistics.mean(values), abs=1e-300)
    assert spread.deviation == pytest.approx(statistics.stdev(values), abs=1e-300)
    assert spread.error == pytest.approx(spread.deviation / math.sqrt(spread.n), abs=1e-300)


@given(numbers)
def test_one_run_has_no_spread(value):
    spread = only(sweep(energies(value))).measures["energy"]

    assert (spread.n, spread.mean, spread.deviation, spread.error) == (1, value, None, None)


@given(
    st.lists(st.tuples(st.sampled_from([0.5, 1, 1.0, "x", None]), numbers), min_size=1, max_size=8),
    st.randoms(),
)
def test_the_order_of_the_runs_does_not_change_the_table(pairs, random):
    def table(found):
        return [(one["values"], one["measures"]) for one in found.as_dict()["settings"]]

    runs = [run(f"r{i}", parameters={"a": a}, measures={"e": e}) for i, (a, e) in enumerate(pairs)]
    shuffled = random.sample(runs, len(runs))

    assert table(sweep(runs)) == table(sweep(shuffled))


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=12))
def test_every_run_is_in_one_setting_with_those_of_the_same_parameters(pairs):
    runs = [run(f"r{i}", parameters={"m": {"a": a}, "b": b}) for i, (a, b) in enumerate(pairs)]

    settings = sweep(runs).settings

    assert sorted(i for one in settings for i in one.runs) == list(range(len(runs)))
    assert len(settings) == len(set(pairs))
    assert all(len({pairs[i] for i in one.runs}) == 1 for one in settings)


def test_nan_none_and_text_are_in_no_mean_and_are_counted():
    spread = only(sweep(energies(1.0, 3.0, math.nan, None, "high", True, math.inf))).measures[
        "energy"
    ]

    assert (spread.n, spread.mean, spread.left_out) == (2, 2.0, 5)


def test_a_measure_of_words_has_no_mean():
    same, various = (
        only(sweep(energies(*each))).measures["energy"]
        for each in (["low", "low"], ["low", "high"])
    )

    assert (same.text, same.mean, same.n) == ("low", None, 0)
    assert various.text == "various"


def test_runs_that_have_not_completed_are_in_no_mean():
    runs = [*energies(1.0, 2.0), run("bad", measures={"energy": 99.0}, state="failed")]

    setting = only(sweep(runs))

    assert (setting.measures["energy"].n, setting.measures["energy"].mean) == (2, 1.5)
    assert setting.unfinished == ("failed",)
    alone = only(sweep(runs[2:])).measures["energy"]
    assert (alone.mean, alone.provisional) == (None, 99.0)


def test_runs_that_differ_in_a_seed_alone_are_repeats():
    runs = [
        run(f"{bond}-{seed}", parameters={"bond": bond, "aer": {"random_state": seed}})
        for bond, seed in product((0.7, 0.8), (1, 2, 3))
    ]

    found = sweep(runs)

    assert [one.values for one in found.settings] == [(0.7,), (0.8,)]
    assert [len(one.runs) for one in found.settings] == [3, 3]
    assert found.of_repeats == ("aer.random_state",)


def test_a_seed_that_is_asked_for_is_a_parameter():
    runs = [run(str(seed), parameters={"seed": seed}) for seed in (1, 2)]

    assert len(sweep(runs).settings) == 1
    assert [one.values for one in sweep(runs, against="seed").settings] == [(1,), (2,)]


@pytest.mark.parametrize(
    "name", ["seed", "a.seed", "seeds", "sampler_seed", "rng-seed", "random_state"]
)
def test_seeds_are_known_by_their_names(name):
    assert is_seed(name)
    assert not is_seed(name, against=name)


@pytest.mark.parametrize(
    "name",
    [
        "seeding",
        "linseed",
        "seed.count",
        "basis",
        "n_seeds",
        "num_seed",
        "seed_determinants",
        "a.n_seed",
    ],
)
def test_other_names_are_no_seeds(name):
    assert not is_seed(name)


def test_another_variable_is_another_setting():
    runs = [run(str(t), blocks=[block("variable", "stop", tolerance=t)]) for t in (1e-2, 1e-3)]

    found = sweep(runs)

    assert [(each.name, each.origin) for each in found.columns] == [
        ("variable stop: tolerance", "block")
    ]
    assert [one.values for one in found.settings] == [(1e-3,), (1e-2,)]


def test_repeats_with_another_executable_or_code_are_said_to_be_mixed():
    other = {"path": "/bin/evaluate", "sha256": "f" * 64}
    runs = [run("a", jobs=[batch_job(1)]), run("b", jobs=[batch_job(1, executable=other)])]

    assert only(sweep(runs)).mixed == ("executables",)
    assert only(sweep([run(), run(code={"sha256": "b" * 64})])).mixed == ("code",)
    assert only(sweep([run(), run()])).mixed == ()


@pytest.mark.parametrize(
    ("regard", "job", "other"),
    [
        ("quantum options", sampler_job(), sampler_job(shots=10)),
        ("quantum options", sampler_job(), sampler_job(options={"twirling": {"enable": False}})),
        ("devices", sampler_job(), sampler_job(device="ibm_fez")),
        ("arguments", batch_job(), batch_job(arguments=["--in", "2.npz"])),
        ("inputs", batch_job(), batch_job(inputs={"in.npz": {"sha256": "0" * 64}})),
    ],
)
def test_repeats_whose_jobs_were_given_something_else_are_said_to_be_mixed(regard, job, other):
    assert only(sweep([run("a", jobs=[job]), run("b", jobs=[other])])).mixed == (regard,)


def test_repeats_with_other_scripts_are_mixed_but_not_where_their_seeds_alone_differ(tmp_path):
    def side(name, text):
        (tmp_path / name).mkdir()
        (tmp_path / name / "program.sh").write_text(text)
        arguments = text.split()[1:]
        return run(name, jobs=[batch_job(folder=str(tmp_path / name), arguments=arguments)])

    one, two = side("a", "evaluate --seed 1"), side("b", "evaluate --seed 22")
    other = side("c", "evaluate --seeds 3 --seed 1")

    assert only(sweep([one, two])).mixed == ()
    assert only(sweep([one, other])).mixed == ("scripts", "arguments")
    assert "* these runs also differ in scripts, arguments" in report(compare([one, other]))


def test_repeats_whose_parameters_are_not_compared_as_a_whole_are_mixed():
    deep = 1
    for _ in range(100):
        deep = [deep]

    found = only(sweep([run(parameters={"a": deep}), run(parameters={"a": deep})]))

    assert found.mixed == ("parameters, maybe (nested too deep)",)


def test_a_cost_of_which_a_part_is_unknown_is_marked_and_in_no_mean():
    partly = run("a", jobs=[batch_job(1), batch_job(2, node_hours=None)])
    whole = [run(name, jobs=[batch_job(1)]) for name in "bc"]

    assert only(sweep([partly, *whole])).measures["node_hours"].n == 2
    assert compare([partly, *whole]).as_dict()["known_in_part"] == {"node_hours": [0]}
    shown = report(compare([partly, whole[0]]))
    (line,) = [line for line in shown.splitlines() if line.startswith("node_hours")]
    assert line.split() == ["node_hours", "0.5+", "0.5", "-"]
    assert "a cost with + is incomplete, and left out of means" in shown


def test_costs_are_beside_measures_and_a_measure_of_that_name_wins():
    first = run(jobs=[batch_job(1), batch_job(2)], measures={"energy": -1, "node_hours": 7})

    found = only(sweep([first])).measures

    assert list(found) == ["energy", "node_hours", "queue_seconds", "run_seconds", "wall_seconds"]
    assert [found[name].mean for name in ("node_hours", "run_seconds")] == [7.0, 20.0]


def test_a_loops_frame_is_no_measure_but_how_many_iterations_it_took_is():
    loop = {"sqd": [{"energy": -1.0, "change": None, "seconds": 1.5, "time": "x"}] * 3}

    found = only(sweep([run(iterations=loop)])).measures

    assert {*found} == {"energy", "iteration", "wall_seconds"}
    assert found["iteration"].mean == 3


# --- for people


def test_the_table_has_a_line_a_setting_and_says_what_its_figures_are():
    runs = [
        run(f"{bond}-{seed}", parameters={"bond": bond, "seed": seed},
            measures={"energy": -bond - 0.01 * seed, "reference": -2.0})
        for bond, seed in product((0.7, 0.8), (1, 2, 3))
    ]  # fmt: skip

    shown = report(compare([*runs, run("single", parameters={"bond": 2, "seed": 1},
                                       measures={"energy": -2.5, "reference": -2.0})]))  # fmt: skip

    lines = shown.splitlines()
    assert lines[0] == "7 runs, 3 settings"
    assert lines[1].split() == ["bond", "runs", "energy"]
    assert lines[2].split() == ["0.7", "3", "runs", "-0.720", "±", "0.010", "(3)"]
    assert lines[4].split() == ["2", "single", "-2.5"]
    assert "the same in all: reference -2, wall_seconds 60" in shown
    assert "runs that differ in seed alone are repeats of one setting" in shown
    assert "mean ± standard deviation of the sample (number of runs)" in shown


def test_a_narrow_terminal_leaves_costs_out_before_measures_and_says_so():
    runs = [
        run(f"r{i}", parameters={"a": i}, measures={"energy": i / 7}, seconds=i + 0.5,
            jobs=[batch_job(1, run_seconds=i / 3, queue_seconds=i / 3)])
        for i in range(1, 6)
    ]  # fmt: skip

    shown = report(compare(runs), width=40)

    assert "energy" in shown.splitlines()[1]
    assert "wall_seconds" not in shown.splitlines()[1]
    assert "no room for" in shown
    assert max(map(len, shown.splitlines()[:7])) <= 40


@pytest.mark.parametrize(
    ("value", "error", "shown"),
    [
        (-1.13728, 0.00123, "-1.1373 ± 0.0012"),
        (1234.5, 210.0, "1234.5 ± 2.1e+02"),
        (5.0, 0.0, "5 ± 0"),
        (0.4, 0.57, "0.40 ± 0.57"),
        (1e-20, 1e-21, "1e-20 ± 1e-21"),
    ],
)
def test_a_mean_has_as_many_digits_as_its_spread_allows(value, error, shown):
    assert rounded(value, error) == shown


def test_labels_are_what_differs_and_names_only_where_that_does_not_tell_runs_apart():
    runs = [run("a", parameters={"bond": 1}), run("b", parameters={"bond": 2}),
            run("c", parameters={"bond": 2})]  # fmt: skip

    assert compare(runs).labels == ("bond=1", "bond=2, b", "bond=2, c")
    assert compare([run("a"), run("b")]).labels == ("a", "b")
    assert len({*compare([run("a", id="1"), run("a", id="2")]).labels}) == 2


def test_runs_that_differ_in_the_folder_of_their_jobs_alone_are_repeats_of_one_setting():
    def at(i, shots, energy):
        return run(
            f"r{i}",
            parameters={"work_dir": f"runs/{i}", "shots": shots, "other": f"/data/{i % 2}"},
            environment={"cwd": "/home/ada"},
            campaign={"folder": f"/home/ada/runs/{i}/c", "work_dir": f"/home/ada/runs/{i}/jobs"},
            measures={"energy": energy},
        )

    found = compare([at(0, 100, -1.0), at(2, 100, -3.0), at(4, 200, -4.0), at(6, 200, -4.5)])

    assert [each.name for each in found.sweep.columns] == ["shots"]
    assert found.sweep.of_repeats == ("work_dir",)
    assert [one.measures["energy"].n for one in found.sweep.settings] == [2, 2]
    assert "runs that differ in work_dir alone are repeats of one setting" in report(found)
    # What is a path, but no folder of the jobs, was chosen.
    apart = compare([at(0, 100, -1.0), at(1, 100, -3.0), at(3, 200, -4.0), at(4, 200, -4.5)])
    assert [each.name for each in apart.sweep.columns] == ["other", "shots"]
