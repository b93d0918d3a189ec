"""What is done with a flow's jobs by their folders alone, and what the flow makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc_prefect.operations import attach, cancel_jobs, list_jobs
from hpc_prefect.operations.format import details

from ..flows.jobs import HERE, runs
from ..flows.seen import process, until

pytestmark = pytest.mark.usefixtures("blocks")


async def test_a_flow_whose_job_is_cancelled_by_its_folder_ends_as_cancelled_on_purpose(
    tmp_path: Path,
) -> None:
    with process("alone", str(tmp_path)) as flow:
        until(lambda: runs(tmp_path) == ["wait"])
        (job,) = list_jobs(tmp_path)
        (done,) = cancel_jobs([job])
        output, _ = flow.communicate(timeout=120)
    assert done.confirmed
    assert flow.returncode == 1
    assert f"job wait ({job.job_id}, attempt 1): cancelled: cancelled by " in output
    assert "by someone else" not in output
    (job,) = list_jobs(tmp_path)
    assert (job.status.state, job.status.reason) == ("cancelled", "cancelled")


async def test_a_flow_that_was_killed_finds_the_result_of_the_command_that_attached(
    tmp_path: Path,
) -> None:
    with process("alone", str(tmp_path)) as flow:
        until(lambda: runs(tmp_path) == ["wait"])
        flow.kill()
        flow.wait()
    (job,) = list_jobs(tmp_path)
    assert job.status.state == "unknown"
    assert job.flow_run
    assert f"profile     {HERE}" in details(job)
    (tmp_path / "go").touch()
    result = attach(job)
    assert result.succeeded
    assert job.provenance["parameters"] == {"work_dir": str(tmp_path)}
    with process("alone", str(tmp_path)) as flow:
        output, _ = flow.communicate(timeout=120)
    assert flow.returncode == 0, output
    assert f"already done as {job.job_id} in attempt 1: its result is used" in output
    assert runs(tmp_path) == ["wait"]
