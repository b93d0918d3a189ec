"""Slurm's dialect: how jobs are cancelled.

On a real Slurm 22.05 `scancel --name=NAME 36_8`, about an element that waits, ended all elements of
the array that were waiting.
"""

from __future__ import annotations

import pytest

from hpc_prefect.job.dialogue import Reply
from hpc_prefect.schedulers.base import NoAnswer

from .slurm_rig import SLURM, converse, recorded, row


def test_jobs_are_cancelled_at_once_and_each_only_under_its_own_name() -> None:
    queue = Reply(0, row(Name="hone") + row(JobID="8", Name="hother") + row(JobID="9", Name="hnew"))
    jobs = {"7": "hone", "8": "htwo", "9": "hnew"}
    said, commands = converse(SLURM.cancel(jobs, {}), queue, Reply(0))
    assert said is None
    assert commands[0].endswith(" --jobs=7,8,9")
    assert commands[1:] == ["scancel 7 9"]


@pytest.mark.parametrize(
    "queue",
    [recorded("squeue_one_unknown"), Reply(0, row(Name="hanother"))],
)
def test_a_job_that_is_gone_or_anothers_needs_no_cancelling(queue: Reply) -> None:
    said, commands = converse(SLURM.cancel({"7": "htag"}, {}), queue)
    assert (said, len(commands)) == (None, 1)


def test_an_array_is_cancelled_as_a_whole_or_element_by_element() -> None:
    array = {"ArrayJobID": "36", "Name": "harr"}
    queue = Reply(0, row(JobID="36", ArrayTaskID="2-9%2", State="PENDING", **array))
    assert converse(SLURM.cancel({"36": "harr"}, {}), queue, Reply(0))[1][1] == "scancel 36"
    running = row(JobID="40", ArrayTaskID="1", **array)
    ended = row(JobID="41", ArrayTaskID="0", State="FAILED", **array)
    waiting = row(JobID="36", ArrayTaskID="7-8", State="PENDING", **array)
    jobs = dict.fromkeys(("36_0", "36_1", "36_5", "36_7", "36_8"), "harr")
    _, commands = converse(SLURM.cancel(jobs, {}), Reply(0, running + ended + waiting), Reply(0))
    assert commands[1] == "scancel 36_0 36_1 36_7 36_8"


def test_a_controller_that_does_not_listen_is_no_answer() -> None:
    for reply in (Reply(None), recorded("ctld_down_scancel")):
        said, _ = converse(SLURM.cancel({"7": "htag"}, {}), Reply(0, row()), reply)
        assert said == NoAnswer(reply.said)
    down = recorded("ctld_down_squeue")
    assert converse(SLURM.cancel({"7": "htag"}, {}), down)[0] == NoAnswer(down.said)
