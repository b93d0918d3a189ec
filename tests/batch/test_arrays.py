"""Many jobs in one call: what a flow sees, and what is left when it fails or is killed."""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from prefect import flow

from hpc_prefect import (
    InvalidJob,
    JobsFailed,
    Member,
    Reason,
    campaign,
    run_jobs_from_blocks,
    run_jobs_from_blocks_sync,
)
from hpc_prefect.batch.arrays.results import JobResults
from hpc_prefect.records.fold import Record

from ..flows.jobs import COUNT, NAMES, runs
from ..flows.recorded import record_of, records
from ..flows.seen import artifacts_with, ended, logs, process, task_runs, until

pytestmark = pytest.mark.usefixtures("blocks")


def members(labels: Sequence[str], script: str = COUNT, **more: Any) -> list[Member]:
    return [Member(user_args=[script, "sh", label], **more) for label in labels]


async def array(work_dir: str | Path, given: Sequence[Member], **more: Any) -> JobResults:
    arguments = {**NAMES, "work_dir": str(work_dir), "script_filename": "scan", **more}
    return await run_jobs_from_blocks(members=given, **arguments)


@flow
async def named(name: str, work_dir: str, given: list[Member]) -> JobResults:
    """An array in a named campaign: each run of this flow goes on with it."""
    with campaign(name):
        return await array(work_dir, given)


async def test_results_come_in_the_order_of_the_members(tmp_path: Path) -> None:
    given = members(["c", "a", "b"], 'echo "$1"; ' + COUNT)
    results = await array(tmp_path, given)
    assert [Path(each.stdout_path).read_text() for each in results] == ["c\n", "a\n", "b\n"]
    assert [result.name for result in results] == ["scan[0]", "scan[1]", "scan[2]"]
    assert (len(results), len(results.failed), results.summary) == (
        3, 0, "scan: 3 jobs, 3 succeeded",
    )  # fmt: skip
    assert results == pickle.loads(pickle.dumps(results))
    assert isinstance(results[:2], JobResults)


async def test_members_have_their_own_folder_environment_and_secrets_of_the_profile(
    tmp_path: Path,
) -> None:
    script = 'echo "$1 $MINE $HP_TOKEN $(pwd)"'
    given = [
        Member(user_args=[script, "sh", i], work_dir=f"d{i}", environment={"MINE": f"m {i}"})
        for i in range(2)
    ]
    results = await array(tmp_path, given, pack=2)
    assert [Path(each.stdout_path).read_text() for each in results] == [
        f"{i} m {i} secret-value-4711 {tmp_path}/d{i}\n" for i in range(2)
    ]
    kept = [p for p in tmp_path.rglob("*") if p.is_file() and b"secret-value" in p.read_bytes()]
    assert {path.name for path in kept} <= {Path(each.stdout_path).name for each in results}


async def test_what_failed_is_named_with_the_end_of_its_stderr_and_runs_again_alone(
    tmp_path: Path,
) -> None:
    (tmp_path / "fail-b").touch()
    with pytest.raises(JobsFailed) as failed:
        await named("one", str(tmp_path), members(["a", "b", "c"]))
    text = str(failed.value)
    assert "1 of 3 jobs of array scan did not succeed: 1 program failed" in text
    assert "scan[1]" in text
    assert "label b was told to fail" in text
    assert [each.state for each in failed.value.results] == ["succeeded", "failed", "succeeded"]
    assert failed.value.results.failed[0].verdict.reason is Reason.PROGRAM_FAILED
    assert pickle.loads(pickle.dumps(failed.value)).results == failed.value.results

    again = await named("one", str(tmp_path), members(["a", "b", "c", "d"]))
    assert [each.collected for each in again] == [True, False, True, False]
    assert sorted(runs(tmp_path)) == ["a", "b", "b", "c", "d"]


async def test_failures_can_be_returned(tmp_path: Path) -> None:
    (tmp_path / "fail-b").touch()
    results = await array(tmp_path, members(["a", "b"]), on_failure="return")
    assert [each.state for each in results] == ["succeeded", "failed"]
    with pytest.raises(JobsFailed, match="1 of 2"):
        results.raise_for_failures()


async def test_all_problems_are_told_at_once_and_nothing_is_submitted(tmp_path: Path) -> None:
    given = [
        Member(user_args=[COUNT, "sh", "ok"]),
        Member(user_args=[COUNT, True], inputs=["nowhere"]),
        Member(environment={"A=B": "x"}, job_key="k"),
        Member(job_key="k", work_dir=3),  # type: ignore[arg-type]
        "no member",
    ]
    with pytest.raises(InvalidJob) as invalid:
        await array(tmp_path, given, pack=0, at_once=True, retries=-1)  # type: ignore[arg-type]
    told = "\n".join(invalid.value.problems)
    for words in (
        "pack is 0", "at_once is True", "retries is -1", "members[1]: user_args[1]: must be text",
        "members[1]: input 'nowhere' is missing", "members[2]: environment", "members[2]: job_key",
        "members[3]: work_dir is 3", "members[4]: is a str; give a Member",
    ):  # fmt: skip
        assert words in told, told
    assert "members[0]" not in told
    assert runs(tmp_path) == []
    with pytest.raises(InvalidJob, match="write raise or return"):
        await array(tmp_path, [], on_failure="ignore")


async def test_what_no_schema_has_read_is_told_too(tmp_path: Path) -> None:
    given: list[Any] = [
        Member(job_key=["k"]),  # type: ignore[arg-type]
        Member(environment={3: "x"}),  # type: ignore[dict-item]
        Member(environment={"_HP_MEMBER": "x"}),
        Member(work_dir="a\0b"),
        Member(work_dir=b"bytes"),  # type: ignore[arg-type]
        Member(work_dir="half \ud83d"),
        Member(job_key="half \ud83d"),
        Member(user_args=["\0"]),
        Member(user_args="text"),
        Member(environment=[("A", "x")]),  # type: ignore[arg-type]
        None,
    ]
    with pytest.raises(InvalidJob) as invalid:
        await array(tmp_path, given)
    told = "\n".join(invalid.value.problems)
    for position in range(len(given)):
        assert f"members[{position}]: " in told, told
    assert not list(tmp_path.iterdir())


async def test_all_work_dirs_that_cannot_be_made_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    given = [Member(user_args=["true"], work_dir=f"file/{name}") for name in ("a", "b")]
    with pytest.raises(InvalidJob) as invalid:
        await array(tmp_path, given)
    told = "\n".join(invalid.value.problems)
    assert "file/a cannot be made" in told
    assert "file/b cannot be made" in told


ODD = ["", " ", "a b", "$HOME", "`id`", "$(id)", "'", "''", '"', "\\", "*", "line\nline\n",
       "esac ;;", "esac\n;;\n*) exit 0", "a\r", "\t", "-n", "--", "é\udcff", "\x01\x7f", "{words}",
       "%s %d", "}", ")", "x" * 100_000]  # fmt: skip


@pytest.mark.parametrize("pack", [1, 3])
async def test_what_a_member_is_given_arrives_byte_for_byte(tmp_path: Path, pack: int) -> None:
    """Arguments, a variable and the folder it runs in, all of them as odd as they may be."""
    script = 'printf "%s|" "$@" > args; printf "%s" "$MINE" > mine'
    folders = ["new\nline\n", "esac ;;", "é\udcff'\"$HOME"]
    given = [
        Member(user_args=[script, "sh", *ODD], work_dir=folder, environment={"MINE": value})
        for folder, value in zip(folders, ["a\nb\n", "'\udcff\"", "esac\n;;"], strict=True)
    ]
    results = await array(tmp_path, given, pack=pack)
    assert [each.state for each in results] == ["succeeded"] * 3
    for member in given:
        folder = tmp_path / str(member.work_dir)
        assert (folder / "args").read_bytes() == os.fsencode("".join(f"{x}|" for x in ODD))
        assert (folder / "mine").read_bytes() == os.fsencode(member.environment["MINE"])
    again = await array(tmp_path, given, pack=pack)
    assert len(again) == 3


async def test_of_very_many_bad_members_the_first_are_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidJob) as invalid:
        await array(tmp_path, [Member(user_args=[None])] * 50)
    assert len(invalid.value.problems) == 21
    assert invalid.value.problems[-1] == "… and 30 more members have problems"


async def test_no_members_are_no_submission(tmp_path: Path) -> None:
    assert len(await array(tmp_path, [])) == 0
    assert not list(tmp_path.glob(".hpc-prefect/*/*/*/journal.jsonl"))


async def test_equal_members_are_as_many_jobs_and_found_again(tmp_path: Path) -> None:
    for _ in range(2):
        results = await named("equal", str(tmp_path), members(["x", "x", "x"]))
        assert [each.state for each in results] == ["succeeded"] * 3
    assert runs(tmp_path) == ["x"] * 3


async def test_a_key_stands_for_what_a_member_runs(tmp_path: Path) -> None:
    for label in ("first", "second"):
        given = [Member(user_args=[COUNT, "sh", label], job_key="the one")]
        await named("keyed", str(tmp_path), given)
    assert runs(tmp_path) == ["first"]


async def test_another_content_of_an_input_is_another_member(tmp_path: Path) -> None:
    for content in ("one", "two", "two"):
        (tmp_path / "in").write_text(content)
        await named("inputs", str(tmp_path), members(["x"], inputs=["in"]))
    assert runs(tmp_path) == ["x", "x"]


def test_the_sync_form_is_the_same(tmp_path: Path) -> None:
    results = run_jobs_from_blocks_sync(
        **NAMES, work_dir=str(tmp_path), script_filename="scan", members=members(["a"])
    )
    assert [each.state for each in results] == ["succeeded"]


async def test_in_prefect_it_is_one_task_run_with_a_page_and_a_record(tmp_path: Path) -> None:
    (tmp_path / "fail-b").touch()

    kept: list[JobsFailed] = []

    @flow
    async def experiment(work_dir: str) -> None:
        try:
            await array(work_dir, members(["a", "b", "c"]))
        except JobsFailed as failed:
            kept.append(failed)
            raise

    state = await experiment(str(tmp_path), return_state=True)
    run_id = state.state_details.flow_run_id
    assert run_id is not None
    [run] = task_runs(run_id)
    assert run.name == "scan (3 jobs)"
    assert run.state_name == "Failed"
    told = until(lambda: logs(run_id, "label b was told to fail"))
    assert any("scan[1]" in each.message for each in told)
    [page] = [
        each
        for each in artifacts_with(run_id, "3 of 3 ended, 1 failed")
        if each.key == "array-scan"
    ]
    assert "| members | 3 |" in str(page.data)
    assert "| - program failed | 1 |" in str(page.data)

    record = record_of(tmp_path)
    jobs = record.as_dict()["jobs"]
    assert [(job["name"], job["state"], job["members"], job["ends"]) for job in jobs] == [
        ("scan", "failed", 3, {"succeeded": 2, "program_failed": 1})
    ]
    assert record.totals.jobs == {"succeeded": 2, "failed": 1}
    assert jobs[0]["member_arguments"]["count"] == 3
    assert jobs[0]["node_hours"] == pytest.approx(
        sum(result.node_hours or 0.0 for result in kept[0].results)
    )


def test_a_flow_that_is_interrupted_cancels_its_members(tmp_path: Path) -> None:
    with process("sweep", str(tmp_path), "3") as started:
        until(lambda: len(runs(tmp_path)) == 3 or started.poll() is not None)
        started.send_signal(signal.SIGINT)
        started.wait(timeout=200)
    assert not (tmp_path / "ended").exists()
    (tmp_path / "go").touch()
    with process("sweep", str(tmp_path), "3") as started:
        ended(started)
    assert len(runs(tmp_path)) == 6


def test_a_flow_that_is_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    with process("sweep", str(tmp_path), "3") as started:
        until(lambda: len(runs(tmp_path)) == 3 or started.poll() is not None)
        started.kill()
        started.wait()
    (tmp_path / "go").touch()
    with process("sweep", str(tmp_path), "3") as started:
        ended(started)
    assert sorted(runs(tmp_path)) == ["m0", "m1", "m2"]


async def test_results_are_a_table(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    results = await array(tmp_path, members(["a", "b"]))
    frame = results.to_frame()
    assert list(frame["name"]) == ["scan[0]", "scan[1]"]
    assert list(frame["reason"]) == ["succeeded"] * 2


async def test_what_is_collected_is_told_as_that_and_an_empty_call_as_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await named("kept", str(tmp_path), members(["a", "b"]))
    assert "scan: 2 jobs, 2 succeeded" in caplog.messages
    await named("kept", str(tmp_path), members(["a", "b"]))
    assert "scan: 2 jobs, 2 succeeded (2 of these by an earlier run)" in caplog.messages
    await named("kept", str(tmp_path), [])
    found = until(lambda: len(ended_records(tmp_path)) == 3 and ended_records(tmp_path))
    first, second, third = (record.as_dict() for record in found)
    (ran,), (collected,) = first["jobs"], second["jobs"]
    assert (ran["state"], ran["collected"]) == ("succeeded", False)
    assert (collected["state"], collected["collected"]) == ("succeeded", True)
    assert collected["run_seconds"] == pytest.approx(ran["run_seconds"])
    assert third["jobs"] == []
    assert (found[0].totals.jobs, found[0].totals.reused) == ({"succeeded": 2}, 0)
    assert (found[1].totals.jobs, found[1].totals.reused) == ({"succeeded": 2}, 2)


def ended_records(work_dir: Path) -> list[Record]:
    return [record for record in records(work_dir) if record.state != "running"]


async def test_a_run_that_was_killed_is_not_given_what_an_earlier_one_had_done(
    tmp_path: Path,
) -> None:
    await named("cut", str(tmp_path), members(["a"]))
    await named("cut", str(tmp_path), members(["a", "b"]))
    _, second = until(lambda: len(ended_records(tmp_path)) == 2 and ended_records(tmp_path))
    events = Path(second.folder, "events.jsonl")
    lines = events.read_text().splitlines(keepends=True)
    events.write_text("".join(line for line in lines if '"event":"job-ended"' not in line))

    again = next(each for each in records(tmp_path) if each.id == second.id)

    assert (again.totals.jobs, again.totals.reused) == ({"succeeded": 1}, 0)
