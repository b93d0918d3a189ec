"""Slurm's dialect: which state and which end of ours each word of Slurm's is.

The rows of `squeue` and `sacct` are made here of the words of Slurm's manual.
"""

from __future__ import annotations

import pytest

from hpc_prefect.job.failure import Reason
from hpc_prefect.job.state import JobState, Observation

from .slurm_rig import (
    STATES,
    in_history,
    in_queue,
)


@pytest.mark.parametrize("word", STATES)
def test_each_state_of_the_manual_has_one_of_ours(word: str) -> None:
    seen = in_queue(State=word)
    assert (seen.word, seen.state, seen.cause) == (word, *STATES[word])


@pytest.mark.parametrize(
    ("reason", "state", "cause"),
    [
        ("JobHeldUser", JobState.HELD, None),
        ("JobHeldAdmin", JobState.HELD, None),
        ("JobHoldMaxRequeue", JobState.HELD, None),
        ("launch failed requeued held", JobState.HELD, None),
        ("ReservationDeleted", JobState.HELD, None),
        ("Resources", JobState.QUEUED, None),
        ("Priority", JobState.QUEUED, None),
        ("Dependency", JobState.QUEUED, None),
        ("BeginTime", JobState.QUEUED, None),
        ("QOSMaxJobsPerUserLimit", JobState.QUEUED, None),
        ("QOSMaxCpuPerUserLimit", JobState.QUEUED, None),
        ("AssocGrpCpuLimit", JobState.QUEUED, None),
        ("ReqNodeNotAvail, UnavailableNodes:n[1-4]", JobState.QUEUED, None),
        ("PartitionTimeLimit", JobState.QUEUED, Reason.CAN_NEVER_RUN),
        ("PartitionNodeLimit", JobState.QUEUED, Reason.CAN_NEVER_RUN),
        ("PartitionConfig", JobState.QUEUED, Reason.CAN_NEVER_RUN),
        ("BadConstraints", JobState.QUEUED, Reason.CAN_NEVER_RUN),
        ("AccountNotAllowed", JobState.QUEUED, Reason.CAN_NEVER_RUN),
        ("QOSNotAllowed", JobState.QUEUED, Reason.CAN_NEVER_RUN),
        ("InvalidAccount", JobState.QUEUED, Reason.CAN_NEVER_RUN),
        ("InvalidQOS", JobState.QUEUED, Reason.CAN_NEVER_RUN),
        ("QOSMaxCpuPerJobLimit", JobState.QUEUED, Reason.CAN_NEVER_RUN),
        ("AssocMaxWallDurationPerJobLimit", JobState.QUEUED, Reason.CAN_NEVER_RUN),
        ("QOSMinCpuNotSatisfied", JobState.QUEUED, Reason.CAN_NEVER_RUN),
        ("DependencyNeverSatisfied", JobState.QUEUED, Reason.DEPENDENCY_NEVER_MET),
    ],
)
def test_a_waiting_job_says_why(reason: str, state: JobState, cause: Reason | None) -> None:
    seen = in_queue(State="PENDING", Reason=reason)
    assert (seen.state, seen.cause, seen.message) == (state, cause, reason)


def test_a_running_job_can_run_whatever_its_reason_was() -> None:
    assert in_queue(Reason="PartitionTimeLimit").cause is None


def test_a_reason_may_hold_the_separator() -> None:
    assert in_queue(State="PENDING", Reason="a|b|").message == "a|b|"


def test_a_job_that_another_cluster_has_says_what_to_do() -> None:
    assert in_queue(State="REVOKED").message == (
        "another cluster of the federation has the job: name it in slurm.cluster of the HPC profile"
    )


def test_no_reason_is_none() -> None:
    assert in_queue(Reason="None").message == in_queue(Reason="(null)").message == ""


# --- ends


@pytest.mark.parametrize(
    ("status", "code", "signal", "cause"),
    [
        ("768", 3, "", Reason.PROGRAM_FAILED),
        ("32512", 127, "", Reason.PROGRAM_FAILED),
        ("35072", 137, "", Reason.PROGRAM_FAILED),
        ("65280", 255, "", Reason.PROGRAM_FAILED),
        ("9", None, "SIGKILL", Reason.PROGRAM_FAILED),
        ("139", None, "SIGSEGV", Reason.PROGRAM_FAILED),  # 11 and a core file
        ("4021", None, "", Reason.SETUP_FAILED),
        ("nonsense", 0, "", Reason.PROGRAM_FAILED),
    ],
)
def test_the_queue_has_an_exit_status_as_of_wait(
    status: str, code: int | None, signal: str, cause: Reason
) -> None:
    seen = in_queue(State="FAILED", exit_code=status)
    assert (seen.exit_code, seen.signal, seen.cause) == (code, signal, cause)


@pytest.mark.parametrize(
    ("status", "code", "signal", "cause"),
    [
        ("3:0", 3, "", Reason.PROGRAM_FAILED),
        ("9:0", 9, "", Reason.PROGRAM_FAILED),  # of 137: the history has it no better
        ("0:9", None, "SIGKILL", Reason.PROGRAM_FAILED),
        ("0:53", None, "", Reason.SETUP_FAILED),
        ("", 0, "", Reason.PROGRAM_FAILED),
    ],
)
def test_the_history_has_code_and_signal(
    status: str, code: int | None, signal: str, cause: Reason
) -> None:
    seen = in_history(State="FAILED", ExitCode=status)
    assert (seen.exit_code, seen.signal, seen.cause) == (code, signal, cause)


def test_an_end_by_slurm_has_no_exit_code() -> None:
    assert in_queue(State="TIMEOUT", exit_code="0").exit_code is None
    assert in_history(State="OUT_OF_MEMORY", ExitCode="0:125").exit_code is None


def test_a_success_has_code_0_and_its_times() -> None:
    assert in_history() == Observation(
        id="7", state=JobState.ENDED, word="COMPLETED", cause=Reason.SUCCEEDED, tag="htag",
        exit_code=0, host="n1", queued_at=100.0, started_at=110.0, ended_at=120.0,
    )  # fmt: skip


def test_a_job_that_could_not_be_started_says_what_to_look_at() -> None:
    assert in_queue(State="FAILED", exit_code="4021", Reason="JobLaunchFailure").message == (
        "Slurm could not start the script on the node (FAILED 0:53): the job folder or work_dir is"
        " not there, or cannot be written"
    )


def test_a_cancelled_job_says_by_whom_where_slurm_does() -> None:
    assert in_history(State="CANCELLED by 1001").message == "CANCELLED by 1001"
    assert in_queue(State="CANCELLED", Reason="JobHeldUser").message == ""


def test_a_job_that_slurm_gave_up_could_never_run() -> None:
    never = in_queue(State="FAILED", exit_code="1", Reason="BadConstraints")
    assert (never.state, never.cause) == (JobState.ENDED, Reason.CAN_NEVER_RUN)
    given_up = in_queue(State="CANCELLED", Reason="DependencyNeverSatisfied")
    assert (given_up.state, given_up.cause) == (JobState.ENDED, Reason.DEPENDENCY_NEVER_MET)


def test_a_waiting_job_has_not_started_although_slurm_knows_when_it_may() -> None:
    seen = in_queue(State="PENDING", BatchHost="n/a")
    assert (seen.queued_at, seen.started_at, seen.ended_at, seen.host) == (100.0, 0.0, 0.0, "")
