"""Slurm's dialect: how a job is cancelled."""

from __future__ import annotations

import pytest

from hpc_prefect.job.dialogue import Dialogue, Reply
from hpc_prefect.schedulers.base import NoAnswer
from hpc_prefect.schedulers.slurm.scheduler import SlurmScheduler

#: scancel with a name, of a job that has ended: Slurm 22.05.
GONE = "scancel: error: Kill job error on job id 7: Invalid job id specified\n"


def cancel(jobs: dict[str, str], *replies: Reply) -> tuple[NoAnswer | None, list[tuple[str, ...]]]:
    """The dialogue's result, and the commands that it ran."""
    dialogue: Dialogue[NoAnswer | None] = SlurmScheduler().cancel(jobs, {})
    commands = [next(dialogue).argv]
    for reply in replies:
        try:
            commands.append(dialogue.send(reply).argv)
        except StopIteration as stop:
            return stop.value, commands
    raise AssertionError("the dialogue wants more replies")


def test_a_job_is_cancelled_only_under_its_own_name() -> None:
    said, commands = cancel({"7": "hone", "8": "htwo"}, Reply(0), Reply(0))
    assert said is None
    assert commands == [("scancel", "--name=hone", "7"), ("scancel", "--name=htwo", "8")]


def test_a_job_that_is_gone_needs_no_cancelling() -> None:
    assert cancel({"7": "hone"}, Reply(1, stderr=GONE))[0] is None


@pytest.mark.parametrize("reply", [Reply(None), Reply(1, stderr="scancel: error: no contact")])
def test_a_controller_that_does_not_listen_is_no_answer(reply: Reply) -> None:
    said, _ = cancel({"7": "hone", "8": "htwo"}, reply, Reply(0))
    assert said == NoAnswer(reply.said)
