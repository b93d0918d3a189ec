"""Attempts after a failure: retries of the job's task run, each with a reason and what it gets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prefect import flow

from hpc_prefect import InvalidJob, JobFailed, Reason, RetryPolicy
from hpc_prefect.flow_runs.scopes import root_flow

from ..flows.jobs import job, runs
from ..flows.seen import HERE, artifacts_with, ids, logs, process, table_on, task_runs, until

pytestmark = pytest.mark.usefixtures("blocks")

#: Counts its run, then needs more time than its first attempt has: on a busy machine that one may
#: end before it has counted.
SLOW = 'echo "$1" >> runs; sleep 2\n'
LITTLE_TIME = {
    "script": SLOW,
    "execution_profile_overrides": {"walltime": "00:00:01"},
    "retry_policy": RetryPolicy(walltime_factor=30),
}


@flow
async def one(work_dir: str, **more: Any) -> tuple[str, dict[str, Any]]:
    run = root_flow()
    assert run is not None
    assert run.flow_run is not None
    try:
        result = await job(work_dir, "slow", **more)
    except JobFailed as failed:
        return str(run.flow_run.id), failed.result.as_dict() | {"message": str(failed)}
    return str(run.flow_run.id), result.as_dict()


async def test_a_job_that_needs_more_time_gets_it_as_a_retry_of_its_task_run(
    tmp_path: Path,
) -> None:
    run_id, result = await one(str(tmp_path), retries=1, **LITTLE_TIME)
    assert (result["state"], result["attempt"]) == ("succeeded", 2)
    assert runs(tmp_path) in (["slow"], ["slow", "slow"])
    assert len(ids(tmp_path)) == 2
    (task_run,) = task_runs(run_id)
    assert (task_run.run_count, task_run.state_type) == (2, "COMPLETED")
    record = json.loads(Path(result["folder"], "record.json").read_text())
    assert record["job"]["resources"]["walltime"] == 30
    said = "\n".join(each.message for each in until(lambda: _with_end(run_id)))
    assert "walltime exceeded" in said
    assert "another attempt: walltime 00:00:01 → 00:00:30" in said
    assert "Retry 1/1 will start" in said
    assert "slow: attempt 2: walltime 00:00:01 → 00:00:30" in said


def _with_end(run_id: str) -> list[Any]:
    found = logs(run_id)
    return found if any("attempt 2" in each.message for each in found) else []


async def test_each_attempt_is_on_the_page_and_a_failed_one_has_its_own(tmp_path: Path) -> None:
    run_id, _ = await one(str(tmp_path), retries=1, **LITTLE_TIME)
    pages = artifacts_with(run_id, "completed", "slow: ")
    (page,) = [each for each in pages if (each.key or "").startswith("run-")]
    assert [(row["times submitted"], row["result"]) for row in table_on(page, "Jobs")] == [
        ("1", "walltime exceeded"),
        ("2", "succeeded"),
    ]
    assert sum((each.key or "").startswith("failed-") for each in pages) == 1


async def test_a_program_error_is_not_repeated(tmp_path: Path) -> None:
    run_id, result = await one(str(tmp_path), script='echo "$1" >> runs; exit 3', retries=3)
    assert (result["state"], result["attempt"]) == ("failed", 1)
    assert runs(tmp_path) == ["slow"]
    assert "another attempt: none: a job is not run again by itself" in result["message"]
    (task_run,) = task_runs(run_id)
    assert (task_run.run_count, task_run.state_type) == (1, "FAILED")


async def test_a_job_at_the_profiles_limit_is_not_repeated(tmp_path: Path, limited: str) -> None:
    _, result = await one(str(tmp_path), hpc_profile_block_name=limited, retries=3, **LITTLE_TIME)
    assert (result["verdict"]["reason"], result["attempt"]) == (Reason.WALLTIME, 1)
    assert "which is the longest that this HPC profile allows" in result["message"]


async def test_a_timeout_counts_from_the_first_attempt(tmp_path: Path) -> None:
    more = LITTLE_TIME | {"script": "sleep 300", "retry_policy": RetryPolicy(walltime_factor=200)}
    # Time enough for the first attempt to end and the second one to begin.
    _, result = await one(str(tmp_path), retries=5, timeout_seconds=25, **more)
    assert (result["verdict"]["reason"], result["attempt"]) == (Reason.TIMED_OUT, 2)


async def test_an_attempt_that_a_killed_run_left_is_followed_with_what_it_got(
    tmp_path: Path,
) -> None:
    """The raised walltime is in the ledger, so another process goes on from there."""
    folder = str(tmp_path)
    with process("retried", folder) as killed:
        until(lambda: len(ids(tmp_path)) == 2 or killed.poll() is not None)
        killed.kill()
    (tmp_path / "go").touch()
    with process("retried", folder) as again:
        out, _ = again.communicate(timeout=120)
        assert again.returncode == 0, out
    assert len(ids(tmp_path)) == 2
    assert runs(tmp_path) in (["slow"], ["slow", "slow"])


@pytest.mark.parametrize("retries", [-1, 1.5, True, "2"])
async def test_a_number_of_retries_that_is_none_is_refused(tmp_path: Path, retries: Any) -> None:
    with pytest.raises(InvalidJob) as caught:
        await job(str(tmp_path), "slow", retries=retries)
    assert caught.value.problems == (
        f"retries is {retries!r}; it must be a whole number, 0 or more",
    )
    assert runs(tmp_path) == []


def test_prefects_default_retries_do_not_run_a_failing_program_again(tmp_path: Path) -> None:
    failed = subprocess.run(  # it reads the setting when it is imported
        [sys.executable, str(HERE), "failing", str(tmp_path)],
        env=os.environ | {"PREFECT_TASKS_DEFAULT_RETRIES": "2"},
        text=True, stdout=-1, stderr=subprocess.STDOUT, timeout=120, check=False,
    )  # fmt: skip
    assert failed.returncode == 1, failed.stdout
    assert runs(tmp_path) == ["fails"]
