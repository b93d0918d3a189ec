"""What differs between the jobs of runs, and in their scripts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpc_prefect.job.members import MemberSpec
from hpc_prefect.records.compare import compare, differences
from hpc_prefect.records.compare.text import report
from hpc_prefect.records.compare.values import ABSENT, words
from hpc_prefect.records.fold import Record
from hpc_prefect.records.job_events import members_given

from .built import batch_job, one_row, rows, run, sampler_job

# --- jobs


def test_what_differs_alike_in_many_jobs_is_one_row():
    other = {"path": "/bin/evaluate", "sha256": "f" * 64}
    one = run(jobs=[batch_job(i) for i in range(1, 25)])
    two = run(jobs=[batch_job(i, executable=other) for i in range(1, 25)])

    row = one_row(differences([one, two]), "executables")

    assert (row.what, row.values) == ("executable.sha256", ("e" * 64, "f" * 64))
    assert (row.jobs, row.alike, row.example) == (24, 24, "loop/iter-1/evaluate")
    assert "24 jobs: executable.sha256" in report(compare([one, two]))


def test_jobs_that_differ_otherwise_than_most_are_counted_apart():
    one = run(jobs=[batch_job(i) for i in range(1, 6)])
    two = run(jobs=[batch_job(i, queue="odd" if i == 1 else "long") for i in range(1, 6)])

    row = one_row(differences([one, two]), "resources")

    assert (row.what, row.values, row.jobs, row.alike) == ("queue", ("short", "long"), 5, 4)
    assert row.example == "loop/iter-2/evaluate"


def test_jobs_are_matched_though_the_digests_in_their_scopes_are_of_the_parameters():
    one = run(jobs=[batch_job(1), batch_job(2)])
    two = run(jobs=[batch_job(i, scope=["loop-ffffffff", f"iter-{i}"]) for i in (1, 2, 3)])

    found = differences([one, two])

    assert rows(found, "jobs") == {"batch": (2, 3), "not in every run": (0, 1)}
    assert found.section("jobs").rows[1].example == "loop/iter-3/evaluate"


def test_what_the_members_of_an_array_were_given_is_not_said_to_be_the_same():
    array = run(jobs=[batch_job(1, members=16, arguments=[])])

    found = differences([array, array])

    assert found.likely["arguments"] == "of arrays, what their members share"
    assert "arguments" not in found.same


def array_of(*values: object, environment: Mapping[str, str] | None = None, **more: Any) -> Record:
    """A run with an array, each of whose members has such an argument."""
    each = [
        MemberSpec(
            key=str(i), name=f"scan[{i}]", arguments=("--bond", str(value)),
            environment=dict(environment or {}), work_dir="/w",
        )
        for i, value in enumerate(values)
    ]  # fmt: skip
    given = members_given(each, [more] * len(each) if more else [{}] * len(each), "/w")
    return run(jobs=[batch_job(1, members=len(each), arguments=[], inputs={}, **given)])


def test_the_members_that_were_given_something_else_are_named():
    found = differences([array_of(0.7, 0.8, 0.9), array_of(0.7, 0.81, 0.9)])

    assert rows(found, "arguments") == {"member [1]": ("--bond 0.8", "--bond 0.81")}
    assert "arguments" in differences([array_of(0.7), array_of(0.7)]).same


def test_of_many_differing_members_one_stands_for_all():
    found = differences([array_of(*range(9)), array_of(*range(1, 10))])

    assert rows(found, "arguments") == {"9 members": ("--bond 0", "--bond 1")}


def test_a_member_beyond_those_that_are_listed_differs_too():
    one, two = array_of(*range(200)), array_of(*range(199), -1)

    (row,) = differences([one, two]).section("arguments").rows

    assert row.what == "arguments and environment of all members"


def test_an_array_with_more_members_says_how_many():
    found = rows(differences([array_of(1, 2), array_of(1, 2, 3)]), "arguments")

    assert found == {"members": (2, 3), "member [2]": (ABSENT, "--bond 3")}


def test_the_environment_and_the_inputs_of_members_are_compared():
    found = differences([array_of(1, environment={"A": "1"}), array_of(1, environment={"A": "2"})])
    assert list(rows(found, "arguments")) == ["arguments and environment of all members"]

    found = differences([array_of(1, x="a" * 64), array_of(1, x="b" * 64)])
    assert list(rows(found, "inputs")) == ["inputs of all members"]


def test_the_number_of_an_array_s_submission_is_no_result():
    one, two = array_of(1), array_of(1)
    two.jobs["key-1"]["attempt"] = 2

    assert rows(differences([one, two]), "results") == {}


def test_the_work_dir_of_an_array_is_no_difference_and_no_secret_is_kept():
    def given(place: str) -> dict[str, Any]:
        words = ("--in", f"{place}/in.npz", "--token=hunter2")
        member = MemberSpec(key="k", name="scan[0]", arguments=words, work_dir=place)
        return members_given([member], [{f"{place}/in.npz": "d" * 64}], place)

    assert given("/one") == given("/two/deeper")
    assert "hunter2" not in str(given("/one"))


def test_a_job_that_has_not_ended_differs_in_nothing_but_its_state():
    one = run(jobs=[batch_job(1)])
    two = run(jobs=[batch_job(1)])
    two.jobs["key-1"] = {"kind": "batch", "name": "evaluate", "n": 0, "state": "wanted",
                         "scope": ["loop-0123abcd", "iter-1"]}  # fmt: skip

    found = differences([one, two])

    assert [section.name for section in found.sections if section.rows] == ["results"]
    assert rows(found, "results") == {"state": ("succeeded", "wanted")}


def test_the_runs_own_folders_are_no_differences_of_arguments_and_inputs():
    def side(place: str) -> Record:
        job = batch_job(
            1,
            folder=f"{place}/.hpc-prefect/c/ab/k-1",
            arguments=["--in", f"{place}/in.npz", f"{place}x"],
            inputs={f"{place}/in.npz": {"sha256": "d" * 64}},
        )
        return run(jobs=[job], campaign={"name": "c", "folder": f"{place}/.hpc-prefect/c",
                                         "work_dir": place})  # fmt: skip

    found = differences([side("/scratch/a"), side("/scratch/b")])

    assert rows(found, "arguments") == {"argument 3": ("/scratch/ax", "/scratch/bx")}
    assert "inputs" in found.same


def test_an_input_of_another_content_is_told_by_its_name_and_many_are_one_row():
    many = {f"{i}.npz": {"sha256": "1" * 64} for i in range(9)}
    others = {f"{i}.npz": {"sha256": "2" * 64} for i in range(9)}
    one, two = (
        run(jobs=[batch_job(1)]),
        run(jobs=[batch_job(1, inputs={"in.npz": {"sha256": "0"}})]),
    )

    assert rows(differences([one, two]), "inputs") == {"input in.npz": ("d" * 64, "0")}
    pair = [run(jobs=[batch_job(1, inputs=each)]) for each in (many, others)]
    assert [*rows(differences(pair), "inputs")] == ["9 input files"]


def test_of_quantum_jobs_devices_calibrations_options_seeds_and_circuits_are_compared():
    one = run(jobs=[sampler_job(1)])
    two = run(
        jobs=[
            sampler_job(
                1, device="ibm_fez", calibrated_at="later", shots=2000, seed=2,
                options={"seed": 2, "twirling": {"enable": False}},
                circuits=[{"depth": 44, "size": 90, "two_qubit_gates": 12}],
            )
        ]
    )  # fmt: skip

    found = differences([one, two])

    assert rows(found, "devices") == {"device": ("ibm_torino", "ibm_fez")}
    assert rows(found, "calibration") == {"calibrated_at": ("2026-01-01T00:00:00", "later")}
    assert rows(found, "quantum options") == {
        "shots": (1000, 2000), "options.twirling.enable": (True, False),
    }  # fmt: skip
    assert rows(found, "seeds") == {"seed": (1, 2)}
    assert rows(found, "circuits") == {"circuits.*.depth": (40, 44)}


def test_results_have_the_runs_state_and_that_of_jobs_with_reasons_and_attempts():
    one = run(jobs=[batch_job(1)])
    job = batch_job(1, state="failed", reason="out_of_memory", attempt=3)
    two = run(jobs=[job], state="failed", message="a job failed")

    assert rows(differences([one, two]), "results") == {
        "run.state": ("completed", "failed"),
        "run.message": ("", "a job failed"),
        "state": ("succeeded", "failed"),
        "reason": ("success", "out_of_memory"),
        "times submitted": (1, 3),
    }


def outputs(digest: str, **facts):
    return {"out.npz": {"path": "/x/out.npz", "size": 3, "sha256": digest * 64, **facts}}


def test_outputs_are_compared_and_results_are_the_same_only_where_these_are():
    one, two = (run(jobs=[batch_job(outputs=outputs(each))]) for each in "ab")
    quantum = [run(jobs=[sampler_job(data_sha256=each * 64)]) for each in "ab"]

    same, other = differences([one, one]), differences([one, two])

    assert {"outputs", "results"} <= {*same.same}
    assert rows(other, "outputs") == {"output out.npz": ("a" * 64, "b" * 64)}
    assert "results" not in {*other.same, *other.likely}
    assert rows(differences(quantum), "outputs") == {"data_sha256": ("a" * 64, "b" * 64)}


def test_without_digests_nothing_is_said_to_be_plainly_the_same():
    bare = run(jobs=[batch_job(executable={"path": "/x"}, inputs={"a": {"path": "a"}})])
    sampled = run(
        code={"commit": None},
        jobs=[batch_job(outputs=outputs("a", sampled=True), images=[{"path": "i", "sha256": "1",
              "sampled": True}])],
    )  # fmt: skip

    assert differences([bare, bare]).likely == {
        "executables": "no digest", "inputs": "no digest", "results": "not every output is known",
    }  # fmt: skip
    assert differences([sampled, sampled]).likely == {
        "code": "the flow's file alone", "executables": "digests of samples",
        "outputs": "digests of samples", "results": "digests of samples",
    }  # fmt: skip
    assert "\nthe same as far as is known: executables (no digest)" in report(compare([bare, bare]))


def test_jobs_of_one_name_are_matched_by_what_they_were_given_then_by_their_numbers():
    def side(*arguments):
        return run(jobs=[batch_job(i, scope=[], n=i, arguments=[each])
                         for i, each in enumerate(arguments)])  # fmt: skip

    assert "arguments" in differences([side("1", "2"), side("2", "1")]).same
    found = differences([side("1", "2"), side("1", "2"), side("3", "2")])
    assert rows(found, "arguments") == {"argument 1": ("1", "1", "3")}
    assert not found.section("jobs").rows


def test_two_loops_of_one_name_may_come_in_any_order():
    def side(*order):
        return run(jobs=[batch_job(i, scope=[f"loop-0123abc{i}"]) for i in order])

    assert "arguments" in differences([side(1, 2), side(2, 1)]).same


def test_a_cut_value_is_compared_with_its_digest():
    rest = [f"… 9 letters more, SHA-256 {each * 64}" for each in "ab"]
    sides = [run(parameters={"a": "x" * 2000 + each, "b": [1, each]}) for each in rest]

    assert [*rows(differences(sides), "parameters")] == ["a", "b"]
    assert len({words(side.parameters["a"]) for side in sides}) == 2


def test_jobs_of_a_loop_are_the_same_ones_in_runs_whose_loops_have_other_keys():
    keys = ("0123456789abcdef", "fedcba9876543210")
    found = compare([
        run(name, jobs=[batch_job(scope=[f"converge-{key}", "iter-1"])])
        for name, key in zip("ab", keys, strict=True)
    ])  # fmt: skip

    assert [row.what for each in found.differences.sections for row in each.rows] == []


# --- scripts


def with_scripts(place: Path, program: str, count: int = 3) -> Record:
    """A run whose jobs' scripts have a folder, a key and a word of their own, as real ones."""
    jobs = []
    for i in range(1, count + 1):
        folder = place / f"key-of-{place.name}-{i}-1"
        folder.mkdir(parents=True)
        word = f"{hash((place.name, i)) & (2**128 - 1):032x}"
        (folder / "script.sh").write_text(f"#SBATCH -n 1\ncd {folder}\n_hp_end $? {word}\n")
        (folder / "program.sh").write_text(f"cd {place}\n{program}\n")
        jobs.append(batch_job(i, folder=str(folder), key=f"key-of-{place.name}-{i}",
                              work_dir=str(place), script_sha256=word))  # fmt: skip
    return run(place.name, jobs=jobs)


def test_scripts_that_differ_in_nothing_but_what_is_their_own_are_the_same(tmp_path):
    found = differences([with_scripts(tmp_path / name, "mpiexec evaluate") for name in "ab"])

    assert "scripts" in found.same


def test_scripts_are_shown_as_a_diff_of_the_first_pair_with_how_many_are_alike(tmp_path):
    one = with_scripts(tmp_path / "a", "mpiexec -n 2 evaluate")
    two = with_scripts(tmp_path / "b", "mpiexec -n 4 evaluate")
    last = Path(two.jobs["key-of-b-3"]["folder"])
    (last / "program.sh").write_text("something else\n")

    section = differences([one, two]).section("scripts")

    (row,) = section.rows
    assert (row.jobs, row.alike, row.example) == (3, 2, "loop/iter-1/evaluate")
    assert row.values == ("script 1", "script 2")
    (diff,) = section.diffs
    assert diff.title == "program.sh of loop/iter-1/evaluate"
    assert diff.lines[-2:] == ("-mpiexec -n 2 evaluate", "+mpiexec -n 4 evaluate")


def test_scripts_that_are_gone_are_not_said_to_be_the_same():
    found = differences([run(jobs=[batch_job(1)]), run(jobs=[batch_job(1)])])

    assert "scripts" not in found.same
    assert found.section("scripts").notes == (
        "the scripts of 1 jobs cannot be read here, so they were not compared",
    )
