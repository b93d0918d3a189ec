"""The one judge, of a job whose node failed, or which its scheduler forgot and started again."""

from __future__ import annotations

import dataclasses

import pytest

from hpc_prefect.job.failure import Reason
from hpc_prefect.job.state import Evidence, JobState, tells_second_start

from .judged import PATIENCE, START, judge, reason, record, seen


def test_of_a_job_that_its_scheduler_forgot_and_started_again_only_its_own_record_tells() -> None:
    """The second start left the guard's code; the first may still run, so nothing may run yet."""
    ended = seen(cause=Reason.PROGRAM_FAILED, exit_code=117)
    assert reason(observation=ended, ended_for=PATIENCE.lost - 1) is None
    assert reason(observation=ended, ended_for=PATIENCE.lost) is Reason.LOST
    assert reason(record(), observation=ended) is Reason.SUCCEEDED
    assert reason(record(3), observation=ended) is Reason.PROGRAM_FAILED
    for code in (0, 143):
        noticed = record(code, signals=("TERM",))
        assert reason(noticed, observation=ended) is Reason.NODE_FAILURE, "so it may run again"
    without = {"missing_outputs": ("o",), "observation": ended, "ended_for": 1000.0}
    assert reason(record(), **without, record_for=PATIENCE.outputs - 1) is None
    assert reason(record(), **without, record_for=PATIENCE.outputs) is Reason.OUTPUT_LOST
    own = judge(record(117), observation=ended)
    assert own is not None
    assert own.reason is Reason.PROGRAM_FAILED, "a program may end with that code too"


def test_of_a_job_whose_second_start_could_not_read_the_guard_its_own_record_tells() -> None:
    ended = seen(cause=Reason.PROGRAM_FAILED, exit_code=118)
    without = {"missing_outputs": ("o",), "observation": ended, "ended_for": 1000.0}
    assert reason(record(), **without, record_for=PATIENCE.outputs - 1) is None
    assert reason(record(), **without, record_for=PATIENCE.outputs) is Reason.OUTPUT_LOST
    assert reason(record(time=1061.0), observation=ended, ended_for=10.0) is Reason.SUCCEEDED
    own = record(118)
    assert reason(own, observation=ended, ended_for=10.0) is Reason.PROGRAM_FAILED


def test_a_job_whose_second_start_could_not_use_its_folder_may_still_run() -> None:
    ended = seen(cause=Reason.PROGRAM_FAILED, exit_code=118)
    assert reason(observation=ended, ended_for=PATIENCE.lost - 1) is None
    verdict = judge(observation=ended, ended_for=PATIENCE.lost)
    assert verdict is not None
    assert verdict.reason is Reason.LOST
    assert "started it a second time" in verdict.summary
    again = judge(observation=ended, ended_for=PATIENCE.lost, may_requeue=True)
    assert again is not None
    assert again.reason is Reason.LOST, "the scheduler may have forgotten that it runs"
    unwritten = seen(cause=Reason.PROGRAM_FAILED, exit_code=119)
    assert reason(observation=unwritten, ended_for=PATIENCE.record) is Reason.OUTPUT_LOST


@pytest.mark.parametrize("code", [117, 118])
def test_the_end_of_a_start_that_was_turned_away_is_not_that_of_a_job_that_has_begun(
    code: int,
) -> None:
    of = Evidence(job_id="7.a", walltime=60, starts=(START,), observation=seen(exit_code=code))
    assert tells_second_start(of)
    assert not tells_second_start(dataclasses.replace(of, starts=())), "it never began"
    assert not tells_second_start(dataclasses.replace(of, exits=(record(code),))), "its own code"
    for other in (seen(exit_code=137), seen(JobState.RUNNING, exit_code=code), None):
        assert not tells_second_start(dataclasses.replace(of, observation=other))


# --- its node


def test_a_node_that_outlived_the_program_is_not_why_it_ended() -> None:
    """A killed controller forgets an end, and later says NODE_FAIL of the job that it misses."""
    missed = seen(cause=Reason.NODE_FAILURE, signal="SIGHUP", ended_at=1190.0)
    verdict = judge(record(3), observation=missed, nodes=1)
    assert verdict is not None
    assert (verdict.reason, verdict.exit_code) == (Reason.PROGRAM_FAILED, 3)
    assert verdict.signal == ""


def test_a_node_that_ended_the_program_is_why_it_failed() -> None:
    missed = seen(cause=Reason.NODE_FAILURE)
    assert reason(record(143, signals=("TERM",)), observation=missed, nodes=1) is (
        Reason.NODE_FAILURE
    )
    assert reason(record(1), observation=missed, nodes=2) is Reason.NODE_FAILURE
    assert reason(observation=missed, nodes=1) is Reason.NODE_FAILURE


@pytest.mark.parametrize("ended_at", [0.0, 1009.0, 1010.0, 1039.0], ids="ended at {}".format)
@pytest.mark.parametrize("code", [143, 137, 1])
def test_a_failure_at_the_time_of_its_nodes_is_the_nodes(code: int, ended_at: float) -> None:
    """The program was signalled before the script, which noted no signal; it may have handled it.

    When that was, the scheduler may not tell.
    """
    failed = {"observation": seen(cause=Reason.NODE_FAILURE, ended_at=ended_at), "nodes": 1}
    assert reason(record(code), **failed) is Reason.NODE_FAILURE
    assert reason(record(code, phase="setup"), **failed) is Reason.NODE_FAILURE
    assert reason(record(code, oom=1), **failed) is Reason.OUT_OF_MEMORY
    assert reason(record(), **failed) is Reason.SUCCEEDED


def test_a_failure_well_before_that_of_its_node_is_the_programs() -> None:
    """The controller had forgotten its end."""
    failed = {"observation": seen(cause=Reason.NODE_FAILURE, ended_at=1040.0), "nodes": 1}
    for code in (143, 137, 1):
        assert reason(record(code), **failed) is Reason.PROGRAM_FAILED
    assert reason(record(1, phase="setup"), **failed) is Reason.SETUP_FAILED
