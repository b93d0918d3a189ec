"""What differs between runs, and what is the same."""

from __future__ import annotations

import argparse
import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpc_prefect.cli.runs_compare import add_compare
from hpc_prefect.errors import ConfigurationError
from hpc_prefect.records.compare import ABSENT, compare, differences
from hpc_prefect.records.compare.text import markdown, report
from hpc_prefect.records.compare.values import apart_at_a_glance, canonical, flat, words

from .built import batch_job, block, rows, run

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)
parameters = st.dictionaries(st.sampled_from(["a", "b", "seed", "c.d", "e"]), values, max_size=4)
records = st.builds(
    run,
    st.sampled_from(["hot-polecat", "cool-cat"]),
    flow=st.sampled_from(["one", "two"]),
    parameters=parameters,
    environment=st.fixed_dictionaries(
        {"packages": st.dictionaries(st.just("numpy"), st.just("2"))}
    ),
    jobs=st.lists(st.integers(1, 4), unique=True).map(lambda all_: list(map(batch_job, all_))),
    measures=st.dictionaries(st.sampled_from(["energy", "x"]), values, max_size=2),
    state=st.sampled_from(["completed", "failed", "running"]),
)


# --- in general


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(records)
def test_a_run_does_not_differ_from_itself(record):
    found = differences([record, record])

    assert not any(section.rows for section in found.sections)
    assert not compare([record, record]).sweep.varying


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(records, min_size=2, max_size=5), st.randoms())
def test_the_order_of_the_runs_only_orders_the_values(runs, random):
    order = random.sample(range(len(runs)), len(runs))
    one, two = differences(runs), differences([runs[i] for i in order])

    assert one.same == two.same
    for section in one.sections:
        shuffled = two.section(section.name)
        for row, other in zip(section.rows, shuffled.rows, strict=True):
            as_there = tuple(row.values[i] for i in order)
            assert replace(row, values=()) == replace(other, values=())
            assert list(map(canonical, as_there)) == list(map(canonical, other.values))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(records, min_size=2, max_size=4))
def test_whatever_runs_have_is_shown_and_is_json_that_every_reader_accepts(runs):
    found = compare(runs)

    def refuse(word):
        raise AssertionError(f"bare {word}")

    back = json.loads(json.dumps(found.as_dict()), parse_constant=refuse)
    assert len(back["runs"]) == len(runs)
    assert report(found, width=80)
    assert all(each.isprintable() or each == "\n" for each in report(found))
    assert markdown(found)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(values, values)
def test_two_paths_are_never_one(one, two):
    assert len(flat({"a.b": one, "a": {"b": two}})) == len(flat({"x": one})) + len(flat({"x": two}))


def test_what_no_run_tells_is_not_said_to_be_the_same():
    found = differences([run(), run()])

    assert "versions" in found.same
    assert not {"executables", "devices", "blocks", "scripts", "jobs"} & {*found.same}


def test_numbers_are_the_same_however_they_are_written_and_truth_is_no_number():
    found = differences([run(parameters={"a": 1, "b": 1}), run(parameters={"a": 1.0, "b": True})])

    assert rows(found, "parameters") == {"b": (1, True)}


# --- flow, parameters, blocks, code, versions


def test_parameters_are_told_by_their_paths_added_removed_or_changed():
    one = run(parameters={"molecule": {"bond": 0.74, "basis": "sto-3g"}, "old": None})
    two = run(parameters={"molecule": {"bond": 0.8, "basis": "sto-3g"}, "new": [1]})

    assert rows(differences([one, two]), "parameters") == {
        "molecule.bond": (0.74, 0.8),
        "new": (ABSENT, [1]),
        "old": (None, ABSENT),
    }


def test_in_json_what_is_absent_is_told_apart_from_none():
    sides = [run(parameters={"a": None}), run(), run(parameters={"a": 1})]

    shown = compare(sides).as_dict()["differences"][0]["rows"][0]

    assert shown == {"what": "a", "values": [None, None, 1], "absent": [1]}


def test_a_block_is_found_by_its_kind_and_name_and_its_changed_fields_are_told():
    one = run(blocks=[block("variable", "stop", tolerance=1e-3), block("variable", "more", a=1)])
    two = run(blocks=[block("variable", "stop", tolerance=1e-4), block("variable", "more", a=1)])

    assert rows(differences([one, two]), "blocks") == {"variable stop: tolerance": (1e-3, 1e-4)}


def test_the_only_block_of_its_kind_is_compared_though_it_is_another_one():
    one = run(blocks=[block("hpc-profile", "lumi", queue="small", nodes=2)])
    two = run(blocks=[block("hpc-profile", "fugaku", queue="large", nodes=2)])

    assert rows(differences([one, two]), "blocks") == {
        "hpc-profile: name": ("lumi", "fugaku"),
        "hpc-profile: queue": ("small", "large"),
    }


def test_a_block_that_changed_while_a_run_went_on_is_told():
    stop = block("variable", "stop", "1", tolerance=1e-3)
    one, two = run(blocks=[stop]), run(blocks=[stop, block("variable", "stop", "2", tolerance=1)])

    assert rows(differences([one, two]), "blocks") == {
        "variable stop (version 2)": (ABSENT, "given")
    }


def test_versions_code_flow_and_host_have_sections_of_their_own():
    one = run(environment={"packages": {"numpy": "2.1", "old": "1"}})
    two = run(
        flow="other",
        code={"commit": "2" * 40},
        environment={"packages": {"numpy": "2.2"}, "python": "3.12.1", "host": "login2", "pid": 8},
    )

    found = differences([one, two])

    assert rows(found, "versions") == {
        "numpy": ("2.1", "2.2"), "old": ("1", ABSENT), "python": ("3.11.7", "3.12.1"),
    }  # fmt: skip
    assert rows(found, "host") == {"host": ("login1", "login2")}
    assert rows(found, "code") == {"commit": ("1" * 40, "2" * 40)}
    assert {*rows(found, "flow")} == {"flow", "entrypoint"}
    assert found.same == ("results",)


# --- code as a diff


def git(folder: Path, *words_: str) -> str:
    own = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", "-C", str(folder), *own, *words_], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def versions(tmp_path) -> tuple[Path, list[str]]:
    """A repository with a flow, and its two commits."""
    git(tmp_path, "init", "-q")
    commits = []
    for factor in (1, 2):
        (tmp_path / "flow.py").write_text(f"def f(x):\n    return x * {factor}\n")
        (tmp_path / "helper.py").write_text(f"A = {factor}\n")
        git(tmp_path, "add", ".")
        git(tmp_path, "commit", "-q", "-m", str(factor))
        commits.append(git(tmp_path, "rev-parse", "HEAD"))
    return tmp_path / "flow.py", commits


def test_code_of_two_commits_is_shown_as_a_diff_and_other_changed_files_are_named(versions):
    file, (old, new) = versions
    one = run(code={"file": str(file), "sha256": "1" * 64, "commit": old})
    two = run(code={"file": str(file), "sha256": "2" * 64, "commit": new})

    section = differences([one, two]).section("code")

    (diff,) = section.diffs
    assert "-    return x * 1" in diff.lines
    assert "+    return x * 2" in diff.lines
    assert section.notes == (f"{old[:12]}..{new[:12]} changes 1 more files: helper.py",)


def test_a_long_diff_is_cut_and_says_by_how_much(versions):
    file, (old, new) = versions
    sides = [run(code={"file": str(file), "sha256": c * 8, "commit": c}) for c in (old, new)]

    (whole,) = differences(sides, lines=None).section("code").diffs
    (cut,) = differences(sides, lines=4).section("code").diffs

    assert cut.lines == whole.lines[:4]
    assert cut.cut == len(whole.lines) - 4 > 0
    assert whole.cut == 0
    assert f"… {cut.cut} more lines" in report(compare(sides, lines=4))


def test_a_commit_that_is_no_commit_is_never_a_word_of_gits(versions, tmp_path):
    file, (old, _) = versions
    evil = f"--output={tmp_path}/written"
    sides = [run(code={"file": str(file), "sha256": c * 2, "commit": c}) for c in (old, evil)]

    section = differences(sides).section("code")

    assert not (tmp_path / "written").exists()
    assert section.notes == (
        "the files differ; how, cannot be shown, because neither their commits nor a stored diff"
        " can be read here",
    )


def test_what_one_run_had_not_committed_is_shown_as_it_is(tmp_path):
    (tmp_path / "code.diff").write_text("-x = 1\n+x = 2\n")
    one = run(code={"sha256": "1" * 64})
    two = run("cool-cat", folder=str(tmp_path), code={"sha256": "2" * 64, "dirty": True,
              "diff_sha256": "d" * 64})  # fmt: skip

    (diff,) = differences([one, two]).section("code").diffs

    assert diff.title == "not committed in cool-cat"
    assert diff.lines == ("-x = 1", "+x = 2")


def test_of_two_kept_diffs_what_differs_is_shown(tmp_path):
    sides = []
    for number in (1, 2):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "code.diff").write_text(f"same\n+x = {number}\n")
        folder = str(tmp_path / str(number))
        sides.append(run(folder=folder, code={"sha256": f"{number}", "diff_sha256": f"{number}"}))

    (diff,) = differences(sides).section("code").diffs

    assert diff.lines[-3:] == (" same", "-+x = 1", "-+x = 2".replace("-", "+", 1))


# --- what nobody should have written


def nested(levels: int, inside):
    for _ in range(levels):
        inside = {"a": [inside]}
    return inside


@pytest.mark.parametrize(
    "value", [nested(300, 1), nested(450, {}), 10**400, float("nan"), "9" * 5000]
)
@pytest.mark.parametrize("where", ["parameters", "measures"])
def test_no_value_ends_a_comparison(where, value):
    sides = [run(**{where: {"x": value, "y": i}}) for i in range(4)]

    for some in (sides, sides[:2]):
        found = compare(some)
        assert report(found)
        assert markdown(found)
        assert json.dumps(found.as_dict(), allow_nan=False)


def test_what_is_nested_too_deep_is_said_to_be_compared_in_part():
    found = differences([run(parameters=nested(300, i)) for i in (1, 2)])

    assert found.likely["parameters"] == "nested too deep"
    assert found.section("parameters").notes == (
        "parameters are nested too deep to be compared as a whole",
    )


@pytest.mark.parametrize(
    "facts",
    [
        {"scope": 5}, {"n": "x"}, {"inputs": 5}, {"outputs": [5]}, {"executable": 5},
        {"images": {"a": 5}}, {"arguments": "x"}, {"options": 5}, {"circuits": 5},
        {"folder": ["x"]}, {"name": "9" * 5000}, {"asked": nested(300, 1)},
        {"options": nested(300, 1)},
    ],
)  # fmt: skip
def test_a_job_of_any_shape_is_compared(facts):
    sides = [run(jobs=[batch_job(), {**batch_job(2), **facts, "state": each}]) for each in "ab"]

    assert "state" in rows(differences(sides), "results")
    assert report(compare(sides))


def test_a_section_that_cannot_be_compared_says_so_and_is_not_the_same():
    sides = [run(), run()]
    sides[1].code = 5

    found = differences(sides)

    assert "code" not in found.same
    assert found.section("code").notes[0].startswith("code could not be compared: ")
    assert "versions" in found.same


# --- for people


def test_few_runs_begin_with_what_differs_and_what_is_the_same_is_one_line():
    one = run(parameters={"bond": 0.74}, measures={"energy": -1.5})
    two = run("cool-cat", parameters={"bond": 0.8}, measures={"energy": -1.25})

    shown = report(compare([one, two]))

    assert shown.index("parameters") < shown.index("the same: ") < shown.index("measures")
    assert "the same: flow, code, versions, host\n" in shown
    assert "energy        -1.5         -1.25     +0.25" in shown


def test_loops_are_shown_iteration_by_iteration_with_the_middle_of_long_ones_left_out():
    loop = {"sqd": [{"energy": -1.0 - i, "energy_error": 0.5, "fixed": 1} for i in range(50)]}

    shown = report(compare([run(iterations=loop), run("b", iterations={"sqd": loop["sqd"][:2]})]))

    assert "loop sqd: energy\n" in shown
    assert "2          -2 ± 0.5     -2 ± 0.5" in shown
    assert "50         -50 ± 0.5    -\n" in shown
    assert "38 iterations in the middle are not shown" in shown
    assert "loop sqd: fixed" not in shown


def test_of_many_runs_a_difference_is_told_by_how_many_have_what():
    runs = [run(f"run-{i}", code={"sha256": ("b" if i == 3 else "a") * 64}) for i in range(9)]

    shown = report(compare(runs))

    assert shown.startswith("9 runs, 1 setting\n")
    assert "aaaaaaaaaaaa in 8 runs; bbbbbbbbbbbb in run-3" in shown


def test_text_of_others_does_nothing_to_a_terminal_and_nothing_to_markdown():
    sides = [run(parameters={"a\x1b[2J": f"<b>|{i}\x1b"}) for i in "xy"]

    assert "\x1b" not in report(compare(sides))
    assert "\\<b\\>\\|x" in markdown(compare(sides))


def test_names_flows_states_and_loops_do_nothing_to_a_terminal_either():
    evil = "\x1b[2J\x1b]0;pwn\x07"
    sides = [run(f"{evil}{i}", id=evil, flow=evil, state=f"x{evil}", measures={evil: i},
                 iterations={evil: [{evil: i}, {evil: 2}]}) for i in range(4)]  # fmt: skip

    for some in (sides, sides[:2]):
        shown = report(compare(some)) + markdown(compare(some))
        assert all(each.isprintable() or each == "\n" for each in shown)


def test_two_loops_of_one_name_have_curves_of_their_own():
    loops = {"scf": [{"e": 1}, {"e": 2}], "scf (2)": [{"e": 5}, {"e": 6}]}

    shown = report(compare([run(iterations=loops), run(iterations=loops)]))

    assert "loop scf: e\n" in shown
    assert "loop scf (2): e\n" in shown


def test_a_diff_with_a_fence_in_it_does_not_end_markdowns(tmp_path):
    (tmp_path / "code.diff").write_text("+````\n+x\n")
    two = run(folder=str(tmp_path), code={"sha256": "2" * 64, "diff_sha256": "d" * 64})

    assert "\n`````diff\n+````\n+x\n`````" in markdown(compare([run(), two]))


def test_long_paths_are_told_apart_by_where_they_differ():
    long = [f"/scratch/ada/molecules/{x}/geometry.xyz" for x in ("bent", "stretched")]

    assert apart_at_a_glance(long) == ["…/bent/…", "…/stretched/…"]
    assert len(words("x" * 500)) == 60


# --- the command


def written(folder: Path, name: str, bond: float) -> str:
    """A record's folder, as a run leaves it."""
    place = folder / ".hpc-prefect" / "c" / "runs" / f"0000-{name}"
    place.mkdir(parents=True, mode=0o700)
    began = {
        "time": 1.0, "event": "began", "parameters": {"bond": bond}, "code": {}, "environment": {},
        "run": {"id": f"0000-{name}", "name": name, "kind": "flow", "flow": "f"},
    }  # fmt: skip
    events = [
        began,
        {"time": 2.0, "event": "measures", "values": {"energy": -bond}},
        {"time": 3.0, "event": "ended", "state": "completed", "message": ""},
    ]
    (place / "events.jsonl").write_text("".join(json.dumps(each) + "\n" for each in events))
    return str(place)


def command(*words_: str) -> int:
    parser = argparse.ArgumentParser()
    add_compare(parser.add_subparsers())
    arguments = parser.parse_args(["compare", *words_])
    status: int = arguments.run(arguments)
    return status


def test_the_command_compares_runs_that_are_named_by_their_folders(tmp_path, capsys):
    runs = [written(tmp_path, name, bond) for name, bond in (("a", 0.7), ("b", 0.8))]

    assert command(*runs, "--plot", str(tmp_path / "x.svg"), "--measure", "energy") == 0

    said = capsys.readouterr()
    assert "bond  0.7  0.8" in said.out
    assert f"the plot is in {tmp_path}/x.svg" in said.err
    assert (tmp_path / "x.svg").read_text().startswith("<?xml")


def test_the_command_prints_json_and_refuses_what_is_not_there(tmp_path, capsys):
    runs = [written(tmp_path, name, bond) for name, bond in (("a", 0.7), ("b", 0.8))]

    assert command(*runs, "--json") == 0
    told = capsys.readouterr().out
    assert told.isascii()
    assert json.loads(told)["figures"]["energy"] == [-0.7, -0.8]
    with pytest.raises(
        ConfigurationError, match="no run has a measure or cost 'enegry'; there are"
    ):
        command(*runs, "--measure", "enegry")
    with pytest.raises(SystemExit):
        command(*runs, "--plot", "x.gif")
    with pytest.raises(SystemExit):
        command(runs[0])
