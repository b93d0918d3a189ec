"""Slurm's dialect: what is asked about jobs, and what is read in the answers.

The recordings are of a real Slurm 22.05. Rows of `squeue` and `sacct` in our own format that no
recording has are made here of the words of its manual.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from hpc_prefect.job.dialogue import Reply
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.state import JobState, Observation
from hpc_prefect.schedulers.base import NoAnswer

from .recorded import search
from .slurm_rig import (
    ALONE,
    FOLDER,
    MARK,
    SLURM,
    asked_and_answered,
    converse,
    past,
    recorded,
    row,
    unmarked,
)


def test_what_a_real_queue_lists_is_read() -> None:
    ids, reply = asked_and_answered("squeue_ours")
    answer, _ = converse(SLURM.observe(ids, ALONE), reply)
    assert isinstance(answer, dict)
    seen = {each.tag: each for each in answer.values() if isinstance(each, Observation)}
    seen.pop(next(tag for tag in seen if "\n" in tag))
    assert {tag: (each.state, each.cause) for tag, each in seen.items()} == {
        "hok": (JobState.ENDED, Reason.SUCCEEDED),
        "hthree": (JobState.ENDED, Reason.PROGRAM_FAILED),
        "hkill": (JobState.ENDED, Reason.PROGRAM_FAILED),
        "hcode137": (JobState.ENDED, Reason.PROGRAM_FAILED),
        "hnodir": (JobState.ENDED, Reason.SETUP_FAILED),
        "hcancel": (JobState.ENDED, Reason.CANCELLED),
        "hcancelrun": (JobState.ENDED, Reason.CANCELLED),
        "hheld": (JobState.HELD, None),
        "hbegin": (JobState.QUEUED, None),
        "hrun": (JobState.RUNNING, None),
        "hoom": (JobState.ENDED, Reason.PROGRAM_FAILED),
    }
    assert (seen["hthree"].exit_code, seen["hcode137"].exit_code) == (3, 137)
    assert (seen["hkill"].signal, seen["hrun"].host) == ("SIGKILL", "n1")
    assert seen["hok"].ended_at == 1795988794.0


def rearranged(name: str, order: tuple[int, ...], form: Any) -> tuple[list[str], Reply]:
    """Ids and reply of a recording with other columns, in ours; times are of no matter there."""
    rows = [[*line.split("|"), "N/A"] for line in recorded(name).stdout.splitlines()]
    names = ("JobID", "Name", "State", "exit_code", "", "", "", "BatchHost", "Reason")
    if form is past:
        names = ("JobID", "JobName", "State", "ExitCode", "", "", "", "NodeList", "Reason")
    text = "".join(
        form(**{name: each[n] for name, n in zip(names, order, strict=True) if name})
        for each in rows
    )
    return [each[0] for each in rows], Reply(0, text)


def told(answer: Any, *ids: str) -> list[tuple[Reason | None, int | None, str]]:
    return [(answer[each].cause, answer[each].exit_code, answer[each].signal) for each in ids]


def test_the_recorded_words_of_the_queue_are_read() -> None:
    #        JobID, Name, State, exit_code, three times, BatchHost, Reason
    ids, reply = rearranged("squeue_O", (0, 0, 2, 4, 9, 9, 9, 9, 3), row)
    answer, _ = converse(SLURM.observe(ids, ALONE), reply)
    assert told(answer, "4", "16", "18", "20", "21") == [
        (Reason.SUCCEEDED, 0, ""),
        (Reason.PROGRAM_FAILED, 3, ""),
        (Reason.PROGRAM_FAILED, None, "SIGKILL"),
        (Reason.PROGRAM_FAILED, 127, ""),
        (Reason.PROGRAM_FAILED, 255, ""),
    ]
    assert [
        each[0] for each in told(answer, "14", "9", "7", "8", "33", "34", "35", "31", "27")
    ] == [
        *(Reason.SETUP_FAILED, Reason.CAN_NEVER_RUN, Reason.CAN_NEVER_RUN, Reason.CAN_NEVER_RUN),
        *(Reason.DEPENDENCY_NEVER_MET, Reason.DEPENDENCY_NEVER_MET, None, None, None),
    ]
    assert answer["31"].state is JobState.HELD  # type: ignore[index, union-attr]


def test_the_recorded_words_of_the_history_are_read() -> None:
    #        JobID, JobName, State, ExitCode, three times, NodeList, Reason
    ids, reply = rearranged("sacct_final_X", (0, 1, 2, 3, 6, 6, 7, 9, 5), past)
    answer, _ = converse(SLURM.observe(ids, {}), Reply(0, ""), reply)
    assert told(answer, "4", "16", "17", "24", "26", "29") == [
        (Reason.SUCCEEDED, 0, ""),
        (Reason.PROGRAM_FAILED, 3, ""),
        (Reason.PROGRAM_FAILED, None, "SIGSEGV"),
        (Reason.WALLTIME, None, ""),
        (Reason.CANCELLED, None, ""),
        (Reason.NODE_FAILURE, None, ""),
    ]
    assert {"7", "31", "33"}.isdisjoint(answer)  # PENDING
    assert answer["26"].host == ""  # type: ignore[index, union-attr]


def test_all_jobs_are_asked_about_in_one_question_and_with_times_in_seconds() -> None:
    command = next(SLURM.observe(["7", "8"], {}))
    fields = "JobID:|,ArrayJobID:|,ArrayTaskID:|"
    fields += ",State:|,exit_code:|,SubmitTime:|,StartTime:|,EndTime:|,BatchHost:|"
    fields += f",Reason:|{MARK},Name:|{MARK}"
    assert unmarked(command.argv) == [
        *("squeue", "--noheader", "--states=all", f"--Format={fields}", "--jobs=7,8"),
    ]
    assert command.environment == {"SLURM_TIME_FORMAT": "%s", "SLURM_BITSTR_LEN": "0"}


def test_the_questions_are_those_that_were_recorded() -> None:
    for name, options in (("squeue_ours", {}), ("squeue_ours_cluster", {"cluster": "tests"})):
        argv = json.loads((FOLDER / f"{name}.json").read_text())["argv"]
        ids = argv[-1].removeprefix("--jobs=").split(",")
        assert unmarked(next(SLURM.observe(ids, options)).argv) == unmarked(argv)


def test_a_queue_that_lists_all_leaves_the_history_alone() -> None:
    answer, commands = converse(SLURM.observe(["7", "8"], {}), Reply(0, row() + row(JobID="8")))
    assert isinstance(answer, dict)
    assert (set(answer), len(commands)) == ({"7", "8"}, 1)


def test_the_history_is_asked_about_what_the_queue_does_not_list_and_no_more() -> None:
    dialogue = SLURM.observe(["7", "8", "9"], {})
    answer, commands = converse(dialogue, Reply(0, row()), Reply(0, past(JobID="8")))
    assert isinstance(answer, dict)
    assert set(answer) == {"7", "8"}
    assert commands[1] == (
        f"sacct --noheader --parsable --delimiter=|{MARK}|"
        " --format=JobID,State,ExitCode,Submit,Start,End,NodeList,Reason,JobName --jobs=8,9"
    )


def test_one_unknown_id_is_an_error_to_squeue_and_absent_to_us() -> None:
    gone = recorded("squeue_one_unknown")
    assert converse(SLURM.observe(["7"], {}), gone, recorded("sacct_unknown"))[0] == {}
    assert converse(SLURM.observe(["7"], ALONE), gone)[0] == {}
    assert converse(SLURM.observe(["7", "8"], ALONE), recorded("squeue_all_unknown"))[0] == {}


def test_without_accounting_the_queue_is_all_that_is_asked() -> None:
    answer, commands = converse(SLURM.observe(["7", "8"], ALONE), Reply(0, row()))
    assert isinstance(answer, dict)
    assert (set(answer), len(commands)) == ({"7"}, 1)


def test_a_history_that_nobody_keeps_is_no_failure() -> None:
    answer, _ = converse(SLURM.observe(["7", "8"], {}), Reply(0, row()), recorded("light_sacct"))
    assert isinstance(answer, dict)
    assert set(answer) == {"7"}


def test_while_the_history_does_not_answer_only_its_jobs_have_no_answer() -> None:
    down = recorded("dbd_down_sacct")
    answer, _ = converse(SLURM.observe(["7", "8", "9"], {}), Reply(0, row()), down)
    assert isinstance(answer, dict)
    assert isinstance(answer["7"], Observation)
    assert answer["8"] == answer["9"] == NoAnswer(down.said)


@pytest.mark.parametrize("word", ["RUNNING", "PENDING", "COMPLETING", "HIBERNATING", ""])
def test_what_the_history_does_not_list_as_ended_is_left_out(word: str) -> None:
    gone = recorded("squeue_one_unknown")
    assert converse(SLURM.observe(["7"], {}), gone, Reply(0, past(State=word)))[0] == {}


@pytest.mark.parametrize(
    "reply",
    [recorded("ctld_down_squeue"), recorded("ctld_hung_squeue"), Reply(None, "7|RUN"), Reply(1)],
    ids=lambda reply: reply.said[:70],
)
def test_a_queue_that_does_not_answer_is_no_answer(reply: Reply) -> None:
    assert converse(SLURM.observe(["7"], {}), reply)[0] == NoAnswer(reply.said)
    assert converse(search(SLURM, "htag", {}), reply)[0] == NoAnswer(reply.said)


def test_lines_that_are_no_rows_are_passed_over() -> None:
    noise = "slurm: welcome\n\n7|htag\n"
    answer, _ = converse(SLURM.observe(["7"], ALONE), Reply(0, noise + row()))
    assert isinstance(answer, dict)
    assert set(answer) == {"7"}
    answer, _ = converse(
        SLURM.observe(["7"], {}), recorded("squeue_one_unknown"), Reply(0, noise + past())
    )
    assert isinstance(answer, dict)
    assert set(answer) == {"7"}


@pytest.mark.parametrize("length", [12, -1, -20, -40])
def test_an_answer_that_is_cut_off_is_no_answer(length: int) -> None:
    """A job whose row is not whole would look as if nobody listed it."""
    whole, cut = row(), row(JobID="8").rstrip("\n")[:length]
    listed, _ = converse(SLURM.find(["htag"], ALONE), Reply(0, whole + cut))
    assert isinstance(listed, NoAnswer)
    assert "cut off" in listed.said


@pytest.mark.parametrize("length", [12, -1, -20, -40])
def test_a_history_that_is_cut_off_is_no_answer(length: int) -> None:
    gone, cut = recorded("squeue_one_unknown"), past(JobID="8").rstrip("\n")[:length]
    answer, _ = converse(SLURM.observe(["8"], {}), gone, Reply(0, past() + cut))
    assert isinstance(answer, dict)
    assert isinstance(answer["8"], NoAnswer)
