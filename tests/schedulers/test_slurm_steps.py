"""What Slurm says of the steps of a job, which `srun` makes: of a worker killed for memory."""

from __future__ import annotations

from typing import Any

import pytest

from hpc_prefect.job.dialogue import Reply
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.state import Observation

from .slurm_rig import (
    ALONE,
    SLURM,
    asked_and_answered,
    converse,
    past,
    recorded,
    row,
)

STEP = {"JobID": "7.0", "JobName": "diag", "State": "OUT_OF_MEMORY", "ExitCode": "0:125"}
FAILED = {"State": "FAILED", "exit_code": "256"}


def failed_with(*steps: dict[str, str]) -> Observation:
    """A job that failed with 1, and steps of it in the history."""
    text = past(State="FAILED", ExitCode="1:0") + past(JobID="7.batch", State="FAILED")
    text += "".join(past(**step) for step in steps)
    answer: Any = converse(SLURM.observe(["7"], {}), Reply(0, row(**FAILED)), Reply(0, text))[0]
    found: Observation = answer["7"]
    return found


def test_a_step_that_was_out_of_memory_is_why_its_job_failed() -> None:
    seen = failed_with(STEP)
    assert (seen.cause, seen.final) == (Reason.OUT_OF_MEMORY, True)
    assert seen.message == "Slurm says OUT_OF_MEMORY of its step 7.0"


def test_so_it_is_when_only_the_history_knows_the_job_any_more() -> None:
    text = past(State="FAILED", ExitCode="1:0") + past(**STEP)
    answer: Any = converse(SLURM.observe(["7"], {}), Reply(0, ""), Reply(0, text))[0]
    assert (answer["7"].cause, answer["7"].word) == (Reason.OUT_OF_MEMORY, "FAILED")


def test_a_real_slurm_says_it_of_a_step_alone() -> None:
    ids, reply = asked_and_answered("sacct_ours")
    answer: Any = converse(SLURM.observe(ids, {}), Reply(0, ""), reply)[0]
    causes = {each.tag: each.cause for each in answer.values()}
    assert causes["hoom"] is Reason.OUT_OF_MEMORY
    assert causes["hthree"] is Reason.PROGRAM_FAILED


@pytest.mark.parametrize(
    "steps",
    [
        [],
        [STEP | {"State": "FAILED"}],
        [STEP | {"State": "COMPLETED"}],
        [STEP, STEP | {"JobID": "7.1", "State": "FAILED", "End": "121"}],
        [STEP | {"JobID": "7.extern"}],
        [STEP | {"JobID": "8.0"}],
    ],
    ids=str,
)
def test_another_end_of_the_last_step_leaves_the_failure_as_it_is(
    steps: list[dict[str, str]],
) -> None:
    seen = failed_with(*steps)
    assert (seen.cause, seen.exit_code, seen.final) == (Reason.PROGRAM_FAILED, 1, True)


def test_a_failure_is_not_final_before_the_history_has_it() -> None:
    for late in ("", past(State="RUNNING"), past(JobName="hother", State="FAILED")):
        answer: Any = converse(SLURM.observe(["7"], {}), Reply(0, row(**FAILED)), Reply(0, late))[0]
        assert (answer["7"].cause, answer["7"].final) == (Reason.PROGRAM_FAILED, False)


@pytest.mark.parametrize("name", ["light_sacct", "dbd_down_sacct"])
def test_a_failure_is_final_where_the_history_cannot_tell_more(name: str) -> None:
    replies = (Reply(0, row(**FAILED)), recorded(name))
    answer: Any = converse(SLURM.observe(["7"], {}), *replies)[0]
    assert (answer["7"].cause, answer["7"].final) == (Reason.PROGRAM_FAILED, True)
    alone: Any = converse(SLURM.observe(["7"], ALONE), replies[0])[0]
    assert alone["7"].final


def test_the_history_is_not_asked_about_a_success_or_a_signal() -> None:
    for changes in ({"State": "COMPLETED"}, {"State": "FAILED", "exit_code": "9"}):
        converse(SLURM.observe(["7"], {}), Reply(0, row(**changes)))
