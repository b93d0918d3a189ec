"""Slurm's dialect: jobs are found by their names, in the cluster of the profile."""

from __future__ import annotations

from hpc_prefect.job.dialogue import Reply
from hpc_prefect.schedulers.base import NoAnswer

from .recorded import search
from .slurm_rig import (
    ALONE,
    SLURM,
    converse,
    past,
    recorded,
    row,
)


def test_a_job_is_looked_for_by_its_name_in_the_queue_first() -> None:
    answer, commands = converse(search(SLURM, "htag", {}), Reply(0, row()))
    assert isinstance(answer, dict)
    assert answer["7"].tag == "htag"
    assert commands[0].endswith(" --name=htag")


def test_and_then_in_a_month_of_history() -> None:
    dialogue = search(SLURM, "htag", {})
    answer, commands = converse(dialogue, Reply(0, ""), Reply(0, past()))
    assert isinstance(answer, dict)
    assert set(answer) == {"7"}
    assert commands[1].endswith(" --name=htag --starttime=now-30days")


def test_many_names_are_looked_for_in_one_question_and_the_rest_of_them_in_another() -> None:
    answer, commands = converse(SLURM.find(["htag", "hnone"], {}), Reply(0, row()), Reply(0, ""))
    assert [command.split("--name=")[1] for command in commands] == [
        "htag,hnone",
        "hnone --starttime=now-30days",
    ]
    assert isinstance(answer, dict)
    assert (list(answer["htag"]), answer["hnone"]) == (["7"], {})  # type: ignore[arg-type]


def test_without_accounting_a_job_is_looked_for_in_the_queue_alone() -> None:
    assert converse(search(SLURM, "htag", ALONE), Reply(0, ""))[0] == {}


def test_a_job_that_cannot_be_looked_for_in_the_history_may_be_there() -> None:
    down = recorded("dbd_down_sacct")
    assert converse(search(SLURM, "htag", {}), Reply(0, ""), down)[0] == NoAnswer(down.said)


# --- several clusters


def test_every_command_is_about_the_profiles_cluster() -> None:
    there = {"cluster": "b"}
    _, asked = converse(SLURM.observe(["7", "8"], there), Reply(0, ""), Reply(0, ""))
    _, searched = converse(search(SLURM, "htag", there), Reply(0, ""), Reply(0, ""))
    _, cancelled = converse(SLURM.cancel({"7": "htag"}, there), Reply(0, row()), Reply(0))
    commands = [*asked, *searched, *cancelled]
    assert [each.split()[:2] for each in commands] == [
        *([name, "--clusters=b"] for name in ("squeue", "sacct") * 2 + ("squeue", "scancel")),
    ]


def test_a_cluster_that_is_not_known_is_no_answer() -> None:
    unknown = Reply(1, stderr="squeue: error: No cluster 'b' known by database.\n")
    assert converse(SLURM.observe(["7"], {"cluster": "b"}), unknown)[0] == NoAnswer(unknown.said)
