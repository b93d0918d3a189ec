"""The one call: where it works, what it returns, and what Prefect shows of it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.client.schemas.objects import Artifact, Log, TaskRun

from hpc_prefect import JobFailed, JobResult, Reason
from hpc_prefect.flow_runs.scopes import root_flow
from hpc_prefect.flow_runs.settings import HPCPrefectSettings

from ..background import settle
from ..flows import jobs
from ..flows.jobs import job, job_sync
from ..flows.seen import (
    artifacts,
    artifacts_with,
    flow_run,
    logs,
    table_on,
    task_runs,
    until,
)

pytestmark = pytest.mark.usefixtures("blocks")

SECRET = "secret-value-4711"


def this_run() -> str:
    found = root_flow()
    assert found is not None
    assert found.flow_run is not None
    return str(found.flow_run.id)


# --- where it works


def sync_function(work_dir: str) -> JobResult:
    return job_sync(work_dir, "sync function in an async flow")


@flow
async def every_way(work_dir: str) -> dict[str, JobResult]:
    """The call in every place from which Prefect's users call things."""
    found = {
        "async flow": await job(work_dir, "async flow"),
        "async task": await jobs.one_job(work_dir, "async task"),
        "sync task": jobs.one_job_sync(work_dir, "sync task"),
        "sync function in an async flow": sync_function(work_dir),
    }
    submitted_tasks = {
        "submitted async task": jobs.one_job.submit(work_dir, "submitted async task"),
        "submitted sync task": jobs.one_job_sync.submit(work_dir, "submitted sync task"),
    }
    gathered = ["gathered one", "gathered other"]
    results = await asyncio.gather(*(job(work_dir, label) for label in gathered))
    found |= dict(zip(gathered, results, strict=True))
    for label, future in submitted_tasks.items():
        found[label] = await asyncio.to_thread(future.result)
    return found


@flow
def sync_flow(work_dir: str) -> dict[str, JobResult]:
    return {
        "sync flow": job_sync(work_dir, "sync flow"),
        "sync task in a sync flow": jobs.one_job_sync(work_dir, "sync task in a sync flow"),
    }


WAYS = (
    "async flow",
    "async task",
    "sync task",
    "sync function in an async flow",
    "submitted async task",
    "submitted sync task",
    "gathered one",
    "gathered other",
    "sync flow",
    "sync task in a sync flow",
    "sync script",
    "async script",
    "thread of a script",
)


@pytest.fixture(scope="module")
def everywhere(
    blocks: None, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, JobResult]]:
    work_dir = tmp_path_factory.mktemp("everywhere")
    found = asyncio.run(every_way(str(work_dir))) | sync_flow(str(work_dir))
    found["sync script"] = job_sync(str(work_dir), "sync script")
    found["async script"] = asyncio.run(job(str(work_dir), "async script"))
    thread = threading.Thread(
        target=lambda: found.update(
            {"thread of a script": job_sync(str(work_dir), "thread of a script")}
        )
    )
    thread.start()
    thread.join()
    return work_dir, found


@pytest.mark.parametrize("way", WAYS)
def test_a_job_runs_once_and_gives_one_kind_of_result(
    way: str, everywhere: tuple[Path, dict[str, JobResult]]
) -> None:
    work_dir, found = everywhere
    assert type(found[way]) is JobResult
    assert found[way].name == way
    assert found[way].state == "succeeded"
    assert (work_dir / "runs").read_text().splitlines().count(way) == 1


# --- what it returns


@pytest.fixture(scope="module")
def shown(blocks: None, tmp_path_factory: pytest.TempPathFactory) -> Shown:
    return asyncio.run(_watch_a_chatty_job(tmp_path_factory.mktemp("shown")))


#: Tells the token's digest, then more lines than anybody reads, and waits for the file `go`.
CHATTY = """
printf %s "$HP_TOKEN" | sha256sum > token.sha256
echo "from the program's stderr" >&2
seq 100000
echo "the hundred thousandth has been said"
while [ ! -e go ]; do sleep 0.05; done
echo "and the last"
touch out.dat
"""


@dataclass
class Shown:
    """One succeeded job: what was seen while it ran, and what is there afterwards."""

    work_dir: Path
    run: str
    result: JobResult
    meanwhile: list[Log]
    command_lines: str
    afterwards: list[Log]
    tasks: list[TaskRun]
    artifacts: list[Artifact]

    @property
    def record(self) -> dict[str, Any]:
        return json.loads(Path(self.result.folder, "record.json").read_text())


@flow
async def chatty(work_dir: str, shots: int) -> tuple[str, JobResult]:
    result = await job(
        work_dir,
        "chatty",
        CHATTY,
        inputs=["in.txt"],
        expected_outputs=["out.dat"],
        execution_profile_overrides={"memory_per_node": "100M", "environment": {"LEVEL": "3"}},
    )
    return this_run(), result


async def _watch_a_chatty_job(folder: Path) -> Shown:
    (folder / "in.txt").write_text("input")
    running = asyncio.create_task(chatty(str(folder), shots=7))
    (claim,) = await asyncio.to_thread(
        until, lambda: list(folder.glob(".hpc-prefect/*/*/*/claim-1"))
    )
    run = json.loads(claim.read_text())["flow_run"]
    try:
        meanwhile = await asyncio.to_thread(until, lambda: logs(run, "the hundred thousandth"))
        command_lines = _command_lines()
        assert not running.done()
    finally:
        (folder / "go").touch()
        assert (await running)[0] == run
    tasks = await asyncio.to_thread(task_runs, run)
    afterwards = await asyncio.to_thread(
        until, lambda: logs(run) if logs(run, "chatty: succeeded") else []
    )
    return Shown(
        folder, run, (await running)[1], meanwhile, command_lines, afterwards, tasks,
        await asyncio.to_thread(artifacts_with, run, "completed"),
    )  # fmt: skip


def _command_lines() -> str:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().decode(errors="replace"))
        except OSError:  # it ended meanwhile
            continue
    return "\n".join(found)


def test_a_result_tells_id_times_paths_and_resources(shown: Shown) -> None:
    result = shown.result
    assert result.job_id.partition(".")[0].isdecimal()
    assert (result.name, result.attempt, result.exit_code, result.signal) == ("chatty", 1, 0, "")
    assert result.verdict.reason is Reason.SUCCEEDED
    assert not result.collected
    assert result.host == os.uname().nodename
    assert result.queue_seconds is not None
    assert 0 <= result.queue_seconds < 300
    assert result.run_seconds is not None
    assert 0 < result.run_seconds < 300
    assert result.resources_used["cpu_seconds"] >= 0


def test_a_results_paths_are_those_of_script_stdout_and_stderr(shown: Shown) -> None:
    result = shown.result
    assert os.access(result.script_path, os.X_OK)
    lines = Path(result.stdout_path).read_text().splitlines()
    assert len(lines) == 100_002
    assert lines[-1] == "and the last"
    assert Path(result.stderr_path).read_text() == "from the program's stderr\n"


# --- what Prefect shows


def test_a_job_is_a_task_run_named_after_it(shown: Shown) -> None:
    assert [each.name for each in shown.tasks] == ["chatty"]
    assert [each.state_name for each in shown.tasks] == ["Completed"]


def test_output_is_in_the_task_runs_log_while_the_program_runs(shown: Shown) -> None:
    assert {each.task_run_id for each in shown.meanwhile} == {shown.tasks[0].id}
    assert shown.result.stdout_path in shown.meanwhile[0].message


def test_a_chatty_program_makes_few_records_that_say_what_is_left_out(shown: Shown) -> None:
    records = [each for each in shown.afterwards if shown.result.stdout_path in each.message]
    assert 2 <= len(records) <= 20
    assert sum(len(each.message) for each in records) < len(records) * 66_000
    assert any("bytes left out, see" in each.message for each in records)
    assert any(each.message.endswith("and the last") for each in records)


def test_stderr_is_logged_as_a_warning(shown: Shown) -> None:
    (record,) = [each for each in shown.afterwards if "from the program's stderr" in each.message]
    assert (record.level, shown.result.stderr_path in record.message) == (30, True)


@pytest.mark.parametrize("state", ["running as", "succeeded: the program ended with 0"])
def test_a_change_of_state_is_logged_with_the_jobs_name(state: str, shown: Shown) -> None:
    assert [each for each in shown.afterwards if each.message.startswith(f"chatty: {state}")]


def test_the_jobs_id_is_logged_before_the_job_has_ended(shown: Shown) -> None:
    told = [each.message for each in shown.afterwards if shown.result.job_id in each.message]
    assert told[0].startswith(("chatty: submitted as", "chatty: running as", "chatty: queued as"))


def test_the_run_has_one_page_that_tells_of_its_jobs(shown: Shown) -> None:
    (page,) = [each for each in shown.artifacts if each.key == "run-chatty"]
    (row,) = table_on(page, "Jobs")
    assert row["job"] == "chatty"
    assert row["id"] == shown.result.job_id
    assert (row["result"], row["exit code"], row["times submitted"]) == ("succeeded", "0", "1")
    assert str(page.description).startswith("completed; 1 job: 1 succeeded; ")
    assert shown.result.folder.endswith(row["folder"])
    assert f"hpc-prefect runs show {shown.run}" in str(page.data)


# --- where a result comes from


def test_the_run_record_holds_the_resolved_job(shown: Shown) -> None:
    spec = shown.record["job"]
    assert spec["arguments"] == ["-c", CHATTY, "sh", "chatty"]
    assert spec["resources"]["memory_per_node"] == 100 * 2**20
    assert spec["environment"] == {"LEVEL": "3"}
    assert spec["secret_names"] == ["HP_TOKEN"]
    assert spec["work_dir"] == str(shown.work_dir)


def test_the_run_record_holds_parameters_blocks_versions_and_digests(shown: Shown) -> None:
    record = shown.record
    assert record["parameters"] == {"work_dir": str(shown.work_dir), "shots": 7}
    assert record["flow_run"]["id"] == shown.run
    assert record["blocks"]["command"]["name"] == "cmd-sh"
    assert record["blocks"]["command"]["executable_key"] == "sh"
    assert record["blocks"]["execution"]["profile_name"] == "sh"
    assert record["blocks"]["hpc"]["executables"] == {"sh": "/bin/sh"}
    assert set(record["blocks"]["hpc"]["secret_environment"]) <= {"*"}
    assert {"hpc-prefect", "prefect", "python"} <= set(record["versions"])
    script = Path(shown.result.script_path).read_bytes()
    assert record["script_sha256"] == hashlib.sha256(script).hexdigest()
    assert record["inputs_sha256"] == {"in.txt": hashlib.sha256(b"input").hexdigest()}
    assert record["result"]["job_id"] == shown.result.job_id


# --- secrets


def test_a_secret_reaches_the_program(shown: Shown) -> None:
    told = (shown.work_dir / "token.sha256").read_text()
    assert told.split()[0] == hashlib.sha256(SECRET.encode()).hexdigest()


def test_a_secret_is_in_no_file_after_the_start(shown: Shown) -> None:
    files = [path for path in shown.work_dir.rglob("*") if path.is_file()]
    assert len(files) > 8
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []


@pytest.mark.parametrize(
    "what",
    [
        lambda shown: shown.command_lines,
        lambda shown: "".join(each.message for each in shown.afterwards),
        lambda shown: "".join(each.model_dump_json() for each in shown.artifacts),
        lambda shown: "".join(each.model_dump_json() for each in shown.tasks),
        lambda shown: flow_run(shown.run).model_dump_json(),
    ],
    ids=["command lines", "log", "artifacts", "task runs", "flow run"],
)
def test_a_secret_is_nowhere_else(what: Callable[[Shown], str], shown: Shown) -> None:
    assert len(what(shown)) > 100
    assert SECRET not in what(shown)


# --- a job that fails

FAIL = 'echo "$1 is about to fail" >&2; seq 1 12 >&2; exit 3'


@dataclass
class Failed:
    run: str
    error: JobFailed
    tasks: list[TaskRun]
    artifacts: list[Artifact]


@pytest.fixture(scope="module")
def failed(blocks: None, tmp_path_factory: pytest.TempPathFactory) -> Failed:
    work_dir = str(tmp_path_factory.mktemp("failed"))
    run = ""

    @flow
    async def failing() -> None:
        nonlocal run
        run = this_run()
        await job(work_dir, "good")
        await job(work_dir, "bad", FAIL)

    with pytest.raises(JobFailed) as caught:
        asyncio.run(failing())
    shown = artifacts_with(run, "failed; ", "bad: program failed")
    return Failed(run, caught.value, task_runs(run, count=2), shown)


def test_a_failed_jobs_error_names_id_reason_remedy_and_the_end_of_stderr(failed: Failed) -> None:
    result = failed.error.result
    assert str(failed.error) == "\n".join(
        [
            f"job bad ({result.job_id}, attempt 1): program failed: ended with exit code 3",
            "the scheduler said: EXITED",
            f"what to do: {result.verdict.remedy}",
            f"the end of {result.stderr_path}:",
            *(f"  {n}" for n in range(3, 13)),
            f"everything about it is in {result.folder}",
        ]
    )


def test_a_failed_job_is_a_failed_result_too(failed: Failed) -> None:
    result = failed.error.result
    assert (result.state, result.exit_code, result.signal) == ("failed", 3, "")
    assert not failed.error.retryable


def test_a_failed_job_fails_its_task_run_and_its_flow_run(failed: Failed) -> None:
    assert {each.name: each.state_name for each in failed.tasks} == {
        "good": "Completed",
        "bad": "Failed",
    }
    state = flow_run(failed.run).state
    assert state is not None
    assert state.name == "Failed"
    assert failed.error.result.job_id in (state.message or "")


def test_a_failed_jobs_task_run_says_so_in_short_lines_that_lead_on(failed: Failed) -> None:
    (task_run,) = [each for each in failed.tasks if each.name == "bad"]
    told = until(
        lambda: [
            each.message
            for each in logs(failed.run)
            if each.task_run_id == task_run.id and each.level >= logging.ERROR
        ]
    )
    assert len(told) <= 2  # Prefect's own two records
    assert all(failed.error.result.folder in each for each in told)
    (page,) = [each for each in failed.artifacts if (each.key or "").startswith("failed-")]
    assert all(f"/artifacts/key/{page.key}" in each for each in told)
    assert not any("Traceback" in each or "what to do" in each for each in told)


def test_a_failed_job_has_a_page_of_its_own(failed: Failed) -> None:
    key = f"failed-bad-{failed.error.result.tag[:6]}"
    (page,) = [each for each in failed.artifacts if each.key == key]
    assert str(failed.error) in str(page.data)


def test_the_last_page_has_all_jobs_of_a_failed_run_and_what_failed_first(failed: Failed) -> None:
    (page,) = [each for each in failed.artifacts if each.key == "run-failing"]
    rows = table_on(page, "Jobs")
    assert [(row["job"], row["result"], row["exit code"]) for row in rows] == [
        ("bad", "program failed", "3"),
        ("good", "succeeded", "0"),
    ]
    assert f"hpc-prefect resume {failed.run}" in str(page.data)


# --- further promises


async def test_the_setting_turns_all_artifacts_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_INTEGRATIONS_HPC_PREFECT_ARTIFACTS", "false")
    run = ""

    @flow
    async def failing() -> None:
        nonlocal run
        run = this_run()
        await job(str(tmp_path), "good")
        await job(str(tmp_path), "bad", FAIL)

    with pytest.raises(JobFailed):
        await failing()
    await asyncio.to_thread(settle)
    assert [each.key for each in artifacts(run) if each.key] == []


async def test_the_work_dir_is_made_and_is_where_the_program_runs(tmp_path: Path) -> None:
    result = await job(str(tmp_path / "a b" / "c"), "here", "pwd")
    assert Path(result.stdout_path).read_text() == f"{tmp_path}/a b/c\n"


async def test_a_success_without_its_expected_output_is_no_success(tmp_path: Path) -> None:
    with pytest.raises(JobFailed, match=r"output lost: .*missing\.dat") as caught:
        await job(str(tmp_path), "x", expected_outputs=["missing.dat"])
    assert caught.value.result.verdict.reason is Reason.OUTPUT_LOST


async def test_an_old_file_is_no_expected_output(tmp_path: Path) -> None:
    (tmp_path / "old.dat").touch()
    os.utime(tmp_path / "old.dat", (1, 1))
    with pytest.raises(JobFailed, match="output lost"):
        await job(str(tmp_path), "x", expected_outputs=["old.dat"])


async def test_arguments_of_all_kinds_reach_the_program(tmp_path: Path) -> None:
    arguments = ['printf "%s|" "$@"', "sh", "a 'b' $HOME `id`", Path("/x y"), 3, 0.5, ""]
    result = await job(str(tmp_path), "arguments", user_args=arguments)
    assert Path(result.stdout_path).read_text() == "a 'b' $HOME `id`|/x y|3|0.5||"


def test_artifacts_are_on_by_default() -> None:
    assert HPCPrefectSettings().artifacts


async def test_overrides_of_one_call_leave_the_profile_as_it_is(tmp_path: Path) -> None:
    first = await job(
        str(tmp_path), "x", 'echo "$OMP_NUM_THREADS"',
        execution_profile_overrides={"threads_per_rank": 2},
    )  # fmt: skip
    second = await job(str(tmp_path), "x", 'echo "$OMP_NUM_THREADS"')
    assert [Path(each.stdout_path).read_text() for each in (first, second)] == ["2\n", "1\n"]
