"""Slurm's dialect as pure text: what it makes of the answers about jobs.

The recordings are of a real Slurm 22.05. Rows of `squeue` and `sacct` in our own format that no
recording has are made here of the words of its manual.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hpc_prefect.job.dialogue import Reply
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.state import JobState, Observation
from hpc_prefect.schedulers.base import Accepted, NoAnswer, Refused

from .recorded import search
from .slurm_rig import (
    ALONE,
    FOLDER,
    MARK,
    SLURM,
    asked_and_answered,
    converse,
    in_history,
    in_queue,
    past,
    recorded,
    row,
    submission,
    unmarked,
    with_mark,
)

# --- states

STATES = {
    "POWER_UP_NODE": (JobState.QUEUED, None),
    "EXPEDITING": (JobState.QUEUED, None),
    "BOOT_FAIL": (JobState.ENDED, Reason.NODE_FAILURE),
    "CANCELLED": (JobState.ENDED, Reason.CANCELLED),
    "CANCELLED+": (JobState.ENDED, Reason.CANCELLED),
    "CANCELLED by 1001": (JobState.ENDED, Reason.CANCELLED),
    "COMPLETED": (JobState.ENDED, Reason.SUCCEEDED),
    "CONFIGURING": (JobState.QUEUED, None),
    "COMPLETING": (JobState.ENDING, None),
    "DEADLINE": (JobState.ENDED, Reason.WALLTIME),
    "FAILED": (JobState.ENDED, Reason.PROGRAM_FAILED),
    "NODE_FAIL": (JobState.ENDED, Reason.NODE_FAILURE),
    "OUT_OF_MEMORY": (JobState.ENDED, Reason.OUT_OF_MEMORY),
    "PENDING": (JobState.QUEUED, None),
    "PREEMPTED": (JobState.ENDED, Reason.PREEMPTED),
    "RUNNING": (JobState.RUNNING, None),
    "RESV_DEL_HOLD": (JobState.HELD, None),
    "REQUEUE_FED": (JobState.QUEUED, None),
    "REQUEUE_HOLD": (JobState.HELD, None),
    "REQUEUED": (JobState.QUEUED, None),
    "RESIZING": (JobState.RUNNING, None),
    "REVOKED": (JobState.UNKNOWN, None),  # another cluster of a federation has it
    "SIGNALING": (JobState.RUNNING, None),
    "SPECIAL_EXIT": (JobState.HELD, None),
    "STAGE_OUT": (JobState.ENDING, None),
    "STOPPED": (JobState.SUSPENDED, None),
    "SUSPENDED": (JobState.SUSPENDED, None),
    "TIMEOUT": (JobState.ENDED, Reason.WALLTIME),
    "HIBERNATING": (JobState.UNKNOWN, None),
    "FAILED_NOT": (JobState.UNKNOWN, None),
    "": (JobState.UNKNOWN, None),
}


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
        "another cluster of the federation has the job: set slurm.cluster in the profile"
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


# --- observing


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


# --- what users write is never Slurm's word

#: Text in which a row is hidden, or a part of one.
HOSTILE = st.lists(
    st.sampled_from(
        [
            "|",
            "\n",
            "7",
            "8",
            "N/A",
            "COMPLETED",
            "FAILED",
            "0:0",
            "htag",
            row(),
            past(),
            "x",
            ".0",
            "<mark",
        ]
    ).map(lambda text: text.replace(MARK, ""))
    | st.text(max_size=5),
    max_size=20,
).map("".join)


@given(HOSTILE, HOSTILE)
@example("x\n7|7|N/A|COMPLETED|0|1|1|1|n1|None|", "None")
@example("x|\n7|7|N/A|COMPLETED|0|1|1|1|n1|None||\n", "\n7|7|3|COMPLETED|0|1|1|1|n1|None|htag\n")
def test_no_name_or_reason_in_the_queue_is_read_as_a_row(name: str, why: str) -> None:
    before = row(JobID="9", State="PENDING", Name=name, Reason=why)
    after = row(JobID="8", State="PENDING", Name=name, Reason=why)
    answer: Any = converse(SLURM.observe(["9", "7", "8"], ALONE), Reply(0, before + row() + after))[
        0
    ]
    assert set(answer) == {"9", "7", "8"}
    assert (answer["7"].state, answer["7"].tag) == (JobState.RUNNING, "htag")
    assert answer["8"].tag == answer["9"].tag == name


@given(HOSTILE, HOSTILE)
@example("7|COMPLETED|0:0|1|1|1|n1|None|htag|\n", "None")
def test_no_name_or_reason_in_the_history_is_read_as_a_row(name: str, why: str) -> None:
    hostile = past(JobID="8", State="FAILED", JobName=name, Reason=why)
    step = past(JobID="8.0", State="FAILED", JobName=name)
    text = hostile + step + past(State="RUNNING") + hostile
    answer: Any = converse(SLURM.observe(["7", "8"], {}), Reply(0, ""), Reply(0, text))[0]
    assert set(answer) == {"8"}
    assert (answer["8"].word, answer["8"].tag) == ("FAILED", name)


def test_a_running_job_beside_one_with_a_rows_name_is_running_on_a_real_slurm() -> None:
    ids, reply = asked_and_answered("squeue_ours")
    answer: Any = converse(SLURM.observe(ids, ALONE), reply)[0]
    hostile = next(each for each in answer.values() if "\n" in each.tag)
    running = next(each for each in answer.values() if each.tag == "hrun")
    assert f"\n{running.id}|{running.id}|N/A|COMPLETED|0|" in hostile.tag
    assert (running.state, hostile.state) == (JobState.RUNNING, JobState.HELD)


def test_each_question_has_a_mark_of_its_own() -> None:
    one, other = (next(SLURM.observe(["7"], {})).argv for _ in range(2))
    assert one != other


# --- whatever is answered

CODES = st.none() | st.sampled_from([0, 1, 8, 127, 255, -9])
ENDS = {word for word, (state, _) in STATES.items() if state is JobState.ENDED}
WORDS = st.text() | st.sampled_from(["ENDED", "completed", "Failed", "COMPLETEDX", "9" * 5000])
IDS = WORDS | st.sampled_from(["7", "7_3", "7_[0-9%2]", "N/A", "0-9", "3", "1,3...%2"])
ROWS = st.tuples(IDS, IDS, IDS, *(WORDS for _ in range(8)))
FIELDS = ROWS.map("|".join) | st.one_of(
    ROWS.map(lambda values: "|".join(values[:10]) + f"|{MARK}{values[10]}|{MARK}\n"),
    ROWS.map(lambda values: "".join(f"{value}|{MARK}|" for value in values[2:]) + "\n"),
)
REPLIES = st.builds(Reply, CODES, st.text() | FIELDS, st.text())


@given(st.lists(REPLIES, min_size=2, max_size=2), st.sampled_from(["observe", "find"]))
@example([Reply(0, row(State="FAILED", exit_code="9" * 5000))] * 2, "observe")
def test_no_answer_is_beyond_reading_and_garbage_is_no_end(
    replies: list[Reply], question: str
) -> None:
    dialogue = SLURM.observe(["7"], {}) if question == "observe" else search(SLURM, "htag", {})
    command = next(dialogue)
    answer: Any = None
    try:
        for reply in replies:
            command = dialogue.send(with_mark(command, reply))
    except StopIteration as stop:
        answer = stop.value
    for seen in () if isinstance(answer, NoAnswer) else answer.values():
        if isinstance(seen, Observation) and seen.state is JobState.ENDED:
            assert seen.word.split(" ")[0].removesuffix("+") in ENDS


@given(REPLIES)
def test_a_garbled_submission_is_never_taken_for_a_job(reply: Reply) -> None:
    outcome = submission(reply)
    if isinstance(outcome, Accepted):
        assert reply.code == 0
        assert outcome.id.isdecimal()
    if isinstance(outcome, Refused):
        assert "sbatch: " in reply.stderr


# --- finding


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


# --- Slurm's own lines in the job's output


@pytest.mark.parametrize(
    ("name", "reason", "words"),
    [
        ("time", Reason.WALLTIME, "DUE TO TIME LIMIT ***"),
        ("timesrun", Reason.WALLTIME, "DUE TO TIME LIMIT ***"),
        ("preempt", Reason.PREEMPTED, "DUE TO PREEMPTION ***"),
        ("node", Reason.NODE_FAILURE, "DUE TO NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS ***"),
        ("oomcg", Reason.OUT_OF_MEMORY, "killed by the cgroup out-of-memory handler."),
        ("oomcgsrun", Reason.OUT_OF_MEMORY, "srun: error: n1: task 0: Out Of Memory"),
        ("oompoll", Reason.OUT_OF_MEMORY, "slurmstepd-n1: error: Exceeded job memory limit"),
    ],
)
def test_what_slurm_writes_about_an_end_is_read(name: str, reason: Reason, words: str) -> None:
    told = SLURM.read_output((FOLDER / "output" / f"{name}.txt").read_text())
    assert told is not None
    assert told.reason is reason
    assert told.words.endswith(words)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "JOB 7 CANCELLED DUE TO TIME LIMIT",
        "error: Out Of Memory",
        "my slurmstepd: error: DUE TO PREEMPTION",
        "Exceeded job memory limit",
        (FOLDER / "output" / "cancel.txt").read_text(),
    ],
)
def test_what_a_program_writes_is_no_evidence(text: str) -> None:
    assert SLURM.read_output(text) is None


@given(st.text())
def test_any_output_can_be_read(text: str) -> None:
    SLURM.read_output(text)
    SLURM.read_output("slurmstepd: error: " + text)


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
