"""A held allocation as a flow sees it: what runs in it, what is said, what is left of a kill."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.states import Cancelling

from hpc_prefect import InvalidJob, allocation
from hpc_prefect.blocks import ExecutionProfileBlock
from hpc_prefect.cli import main
from hpc_prefect.errors import SchedulerError
from hpc_prefect.operations.find import list_jobs

from ..flows import allocated
from ..flows.allocated import HERE, SHAPE, everywhere, fails, in_sync
from ..flows.jobs import runs
from ..flows.recorded import record_of
from ..flows.seen import ended, logs, process, run_of, until

PROGRAM = Path(allocated.__file__)


@pytest.fixture(autouse=True)
def shapes(blocks: None) -> None:
    # It names no command: what is held is resources alone.
    shape = ExecutionProfileBlock(profile_name="alloc", ranks_per_node=2, walltime="00:20:00")
    shape.save(SHAPE, overwrite=True, _sync=True)
    minute = ExecutionProfileBlock(profile_name="minute", command_name="sh", walltime="00:01:00")
    minute.save("exec-minute", overwrite=True, _sync=True)


def allocations(work_dir: Path) -> list[Any]:
    return [job for job in list_jobs(work_dir) if job.name == "allocation"]


def inside(ids: list[str], work_dir: Path) -> list[bool]:
    """Whether each of these jobs ran in the allocation."""
    (held,) = allocations(work_dir)
    prefix = held.key[:8]
    return [each.startswith(f"{prefix}.") for each in ids]


async def test_calls_of_the_flow_of_tasks_and_of_threads_run_in_it(tmp_path: Path) -> None:
    ids = await everywhere(str(tmp_path))
    assert inside(ids, tmp_path) == [True, True, True, True, False]
    assert sorted(runs(tmp_path)) == ["after", "flow", "task", "thread", "told"]
    (held,) = allocations(tmp_path)
    assert held.result.succeeded


async def test_calls_of_threads_and_loops_that_were_given_it_run_in_it(tmp_path: Path) -> None:
    ids = await allocated.handed_over(str(tmp_path))
    assert inside(ids, tmp_path) == [True, True, True, False, True]


def test_a_sync_flow_holds_one_with_a_plain_with(tmp_path: Path) -> None:
    assert inside(in_sync(str(tmp_path)), tmp_path) == [True, False]


@pytest.mark.parametrize("pack", [1, 3])
async def test_the_members_of_an_array_run_in_it(tmp_path: Path, pack: int) -> None:
    assert await allocated.an_array(str(tmp_path), pack) == ["succeeded"] * 6
    assert sorted(runs(tmp_path)) == [f"m{k}" for k in range(6)]
    submissions = [job for job in list_jobs(tmp_path) if job.name == "scan"]
    assert len(submissions) == 6 // pack
    assert all(inside([job.job_id for job in submissions], tmp_path))


async def test_what_does_not_fit_runs_outside_and_the_log_says_why(tmp_path: Path) -> None:
    state = await allocated.another_profile(str(tmp_path), return_state=True)
    assert inside([await state.result()], tmp_path) == [False]
    run_id = state.state_details.flow_run_id
    (said,) = until(lambda: logs(run_id, "outside of the allocation"))
    assert "walltime" in said.message


async def test_what_was_held_and_used_is_in_log_and_record(tmp_path: Path) -> None:
    state = await allocated.loop(str(tmp_path), 2, return_state=True)
    await state.result()
    run_id = state.state_details.flow_run_id
    assert until(lambda: logs(run_id, "node-hours, used"))
    record = record_of(tmp_path)
    (held,) = [job for job in record.jobs.values() if job["name"] == "allocation"]
    steps = [job for job in record.jobs.values() if job["name"] != "allocation"]
    assert held["node_hours"] >= held["used_node_hours"] >= 0
    assert all(job["in_allocation"] and job["node_hours"] == 0 for job in steps)
    assert record.totals.costs["node_hours"] == pytest.approx(held["node_hours"])
    assert "node_hours" not in record.totals.unknown


async def test_an_error_of_the_flow_ends_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="own"):
        await fails(str(tmp_path))
    (held,) = allocations(tmp_path)
    assert held.is_over
    # The flow has cancelled a call and not waited for it: its end may be judged a moment later.
    await asyncio.to_thread(until, lambda: all(job.is_over for job in list_jobs(tmp_path)))


def test_a_killed_flow_started_again_goes_on_in_the_same_allocation(tmp_path: Path) -> None:
    with process("loop", str(tmp_path), file=PROGRAM) as first:
        until(lambda: runs(tmp_path))
        first.send_signal(signal.SIGKILL)
    (tmp_path / "go").touch()
    with process("loop", str(tmp_path), file=PROGRAM) as again:
        said = ended(again)
    (line,) = [line for line in said.splitlines() if line.startswith("IDS ")]
    assert all(inside(line.split()[1:], tmp_path))
    assert runs(tmp_path) == ["s0", "s1", "s2"]


def test_sigterm_leaves_the_allocation_and_its_job_to_the_next_start(tmp_path: Path) -> None:
    with process("loop", str(tmp_path), file=PROGRAM) as first:
        until(lambda: runs(tmp_path))
        first.send_signal(signal.SIGTERM)
        first.communicate(timeout=120)
    (held,) = allocations(tmp_path)
    assert not held.is_over
    (tmp_path / "go").touch()
    with process("loop", str(tmp_path), file=PROGRAM) as again:
        ended(again)
    assert runs(tmp_path) == ["s0", "s1", "s2"]
    assert len(allocations(tmp_path)) == 1


def test_a_run_that_is_cancelled_in_prefect_ends_it(tmp_path: Path) -> None:
    with process("loop", str(tmp_path), file=PROGRAM) as started:
        until(lambda: runs(tmp_path))
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(UUID(run_of(tmp_path)), Cancelling(), force=False)
        started.communicate(timeout=120)
    ends = {job.name: job.is_over for job in list_jobs(tmp_path)}
    assert ends == {"allocation": True, "s0": True}
    assert runs(tmp_path) == ["s0"]


def test_ctrl_c_ends_it(tmp_path: Path) -> None:
    with process("loop", str(tmp_path), file=PROGRAM) as started:
        until(lambda: runs(tmp_path))
        started.send_signal(signal.SIGINT)
        started.communicate(timeout=120)
    assert {job.name: job.is_over for job in list_jobs(tmp_path)} == {
        "allocation": True,
        "s0": True,
    }


def test_the_command_line_lists_it_and_ends_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with process("loop", str(tmp_path), file=PROGRAM):
        until(lambda: runs(tmp_path))
        main(["jobs", "--work-dir", str(tmp_path), "--json"])
        listed = json.loads(capsys.readouterr().out)
        names = {job["name"]: job["scheduler"] for job in listed}
        assert names == {"allocation": "local", "s0": "allocation-local"}
        assert main(["jobs", "cancel", "allocation", "--work-dir", str(tmp_path)]) == 0
        until(lambda: all(job.is_over for job in list_jobs(tmp_path)))
    ends = {job.name: job.result.verdict.reason for job in list_jobs(tmp_path)}
    assert ends["s0"].value == "allocation_ended"


def test_a_job_whose_allocation_was_cancelled_is_tried_again_without_it(tmp_path: Path) -> None:
    with process("retried", str(tmp_path), file=PROGRAM) as started:
        until(lambda: runs(tmp_path))
        assert main(["jobs", "cancel", "allocation", "--work-dir", str(tmp_path)]) == 0
        (tmp_path / "go").touch()
        said = ended(started)
    (line,) = [line for line in said.splitlines() if line.startswith("IDS ")]
    assert inside(line.split()[1:], tmp_path) == [False]
    assert runs(tmp_path) == ["again", "again"]


async def test_a_profile_that_is_not_there_is_told_before_anything_is_submitted(
    tmp_path: Path,
) -> None:
    with pytest.raises(InvalidJob, match="exec-nowhere"):
        async with allocation(
            execution_profile_block_name="exec-nowhere",
            hpc_profile_block_name=HERE,
            work_dir=tmp_path,
        ):
            raise AssertionError("it was entered")


def test_a_timeout_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidJob, match="orphan_timeout"):
        allocation(
            execution_profile_block_name=SHAPE,
            hpc_profile_block_name=HERE,
            work_dir=tmp_path,
            orphan_timeout=5,
        )


async def test_outside_of_its_block_it_takes_no_job(tmp_path: Path) -> None:
    nodes = allocated.held(str(tmp_path))
    with pytest.raises(SchedulerError, match="inside its"):
        await allocated.job(str(tmp_path), "early", allocation=nodes)
