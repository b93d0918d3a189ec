"""PJM's dialect: what it makes of printed answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_prefect.job.dialogue import Reply
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.folder import SCHEDULER_STATISTICS
from hpc_prefect.job.state import JobState, Observation
from hpc_prefect.ledger.job_folder import JobFolder
from hpc_prefect.schedulers.base import Accepted, NoAnswer, Refused, Submission, Told, Unclear
from hpc_prefect.transports.local import LocalTransport

from .pjm_rig import (
    ASK,
    DOWN,
    NONE,
    PJM,
    TAG,
    TICKET,
    listed,
    spec,
    table,
)
from .recorded import converse, search
from .test_pjstat import HEADER, STATISTICS, printed

# --- submitting


def submitted(reply: Reply, **changes: Any) -> Submission:
    return converse(PJM.submit(spec(**changes), TICKET), reply)[0]


def test_a_job_is_handed_over_with_its_name_and_its_files_from_where_it_runs() -> None:
    job = spec({"command_options": ["--no-check-directory"]}, work_dir="/vol0004/a b")
    command = next(PJM.submit(job, TICKET))
    assert command.argv == (
        *("pjsub", "-N", TAG, "-o", "/w/f/o", "-e", "/w/f/e"),
        *("-s", "--spath", "/w/f/scheduler.stats"),
        *("--no-check-directory", "/w/f/s.sh"),
    )
    assert (command.cwd, len(TAG) <= 63) == ("/vol0004/a b", True)
    assert PJM.problems(job) == []


@pytest.mark.parametrize(
    "text",
    [
        "[INFO] PJM 0000 pjsub Job 167661 submitted.\n",
        "[INFO.] PJM 0000 pjsub Job 167661 submitted.\n",
        "Welcome\n[INFO] PJM 0000 pjsub Job 167661 submitted.\n",
    ],
)
def test_the_id_is_read_from_pjsubs_sentence(text: str) -> None:
    assert submitted(Reply(0, text)) == Accepted("167661")


@pytest.mark.parametrize(
    "said",
    [
        "[ERR.] PJM 0054 pjsub node=1 is less than the lower limit (385).",
        "[ERR.] PJM 0057 pjsub node=32 is greater than the upper limit (24).",
        "[ERR] PJM 0058 pjsub rscgrp=nix does not exist.",
        "[ERR.] PJM 0059 pjsub rscunit=x is disabled.",
        "[ERR.] PJM 0069 pjsub rscgrp in -L option is not specified.",
        "[ERR.] PJM 0070 pjsub No execute permission: pjsub.",
        "[ERR.] PJM 0071 pjsub Group not authorized to submit a job: group(59999)",
        "[ERR.] PJM 0079 pjsub Computing resources shortage occurred.[group] (ACC->QUE)",
        "[ERR.] PJM 0045 pjsub path isn't on the global file system.",
    ],
)
def test_a_refusal_is_told_in_pjms_words(said: str) -> None:
    assert submitted(Reply(1, "", f"{said}\n")) == Refused(said)


def test_the_hint_at_the_help_is_left_out() -> None:
    said = "[ERR.] PJM 0001 pjsub Unknown option or no option argument: --x."
    reply = Reply(1, "", f"{said}\nTry `pjsub --help` for more information.\n")
    assert submitted(reply) == Refused(said)


def test_too_many_accepted_jobs_are_a_full_queue() -> None:
    said = "[ERR.] PJM 0072 pjsub Job exceeded the accept limit: ru-accept."
    assert submitted(Reply(1, "", said)) == Refused(said, full=True)


@pytest.mark.parametrize(
    "reply",
    [
        Reply(1, "", "[ERR.] PJM 0090 pjsub PJM daemon is not present.\n"),
        Reply(1, "", "[ERR.] PJM 0091 pjsub Internal error: code=1.\n"),
        Reply(1, "", "[ERR.] PJM 0068 pjsub System configuration has been changed.\n"),
        Reply(1, "", "[ERR.] PJM 0072 pjsub x\n[ERR.] PJM 0091 pjsub Internal error: y.\n"),
        Reply(1, "", "[ERR.] PJM 0057 pjsub x\n[ERR.] PJM 0099 pjsub y\n"),
        Reply(1, "", "[ERR.] PJM 0007 pjsub Staging option error (3).\n"),
        Reply(0, "", "[ERR.] PJM 0057 pjsub node=32 is greater than the upper limit (24).\n"),
        Reply(1, "[INFO] PJM 0000 pjsub Job 7 submitted.\n", "[ERR.] PJM 0057 pjsub x\n"),
        Reply(1, "[INFO] PJM 0000 pjsub Job 7 submitted.\n"),
        Reply(0, "[INFO] PJM 0000 pjsub Job 7_0 submitted.\n"),
        Reply(
            0, "[INFO] PJM 0000 pjsub Job 7 submitted.\n[INFO] PJM 0000 pjsub Job 8 submitted.\n"
        ),
        Reply(None, "", "[ERR.] PJM 0057 pjsub x\n"),
        Reply(0, "7\n"),
        Reply(127, "", "pjsub: command not found"),
        Reply(0),
        Reply(1),
    ],
)
def test_any_other_answer_leaves_open_whether_the_job_exists(reply: Reply) -> None:
    assert submitted(reply) == Unclear(reply.said)


@given(
    st.integers(0, 3) | st.none(), st.text("[ERINFO.] PJM0579pjsub Job7submitted\n", max_size=80)
)
def test_garbage_is_never_a_refusal_and_never_an_id(code: int | None, text: str) -> None:
    assert isinstance(submitted(Reply(code, text, text)), Unclear | Refused)
    if "[ERR" not in text:
        assert submitted(Reply(code, text, text)) == Unclear(Reply(code, text, text).said)


# --- asking


def test_queue_and_history_are_asked_in_one_round() -> None:
    answer, commands = converse(
        PJM.observe(["1", "2", "3"], {}),
        table(listed("1", "RUN")),
        table(listed("2", "EXT", codes="3 0 0")),
    )
    assert commands == [
        f"pjstat -E {ASK} jid=1+2+3",
        f"pjstat -H day=30 -E {ASK} jid=2+3",
    ]
    assert isinstance(answer, dict)
    assert answer["1"] == Observation(id="1", state=JobState.RUNNING, word="RUN")
    ended = answer["2"]
    assert isinstance(ended, Observation)
    assert (ended.cause, ended.exit_code) == (Reason.PROGRAM_FAILED, 3)
    assert "3" not in answer


def test_when_the_queue_lists_all_the_history_is_not_asked() -> None:
    answer, commands = converse(PJM.observe(["1"], {}), table(listed("1", "QUE")))
    assert isinstance(answer, dict)
    assert (list(answer), len(commands)) == (["1"], 1)


def test_the_real_listings_of_fugaku_answer_a_question() -> None:
    answer, commands = converse(
        PJM.observe(["6291500", "49047939"], {"history_days": 3}),
        Reply(0, printed("fugaku_queue")),
        Reply(0, printed("fugaku_history")),
    )
    assert commands[1].startswith("pjstat -H day=3 ")
    assert isinstance(answer, dict)
    late = answer["49047939"]
    assert isinstance(late, Observation)
    assert late.cause is Reason.WALLTIME
    assert set(answer) == {"6291500", "49047939"}


def test_jobs_that_were_not_asked_for_are_not_in_the_answer() -> None:
    assert converse(PJM.observe(["1"], {}), table(listed("11", "RUN")), NONE)[0] == {}


@pytest.mark.parametrize(
    "reply",
    [
        DOWN,
        Reply(1, "", "[ERR.] PJM 0291 pjstat Internal error: code=99 detail=110.\n"),
        Reply(1, "", "[ERR.] PJM 0211 pjstat Invalid jobid: r1.\n"),
        Reply(1, HEADER, ""),
        Reply(0, HEADER, "[ERR.] PJM 0290 pjstat PJM daemon is not present.\n"),
        Reply(0, "[ERR.] PJM 0290 pjstat PJM daemon is not present.\n"),
        Reply(None, HEADER),
    ],
)
def test_a_question_that_failed_is_no_answer(reply: Reply) -> None:
    assert converse(PJM.observe(["1"], {}), reply)[0] == NoAnswer(reply.said)
    assert converse(search(PJM, TAG, {}), reply)[0] == NoAnswer(reply.said)
    assert converse(search(PJM, TAG, {}), NONE, reply)[0] == NoAnswer(reply.said)
    answer, _ = converse(PJM.observe(["1", "2"], {}), table(listed("1", "RUN")), reply)
    assert isinstance(answer, dict)
    assert isinstance(answer["1"], Observation)
    assert answer["2"] == NoAnswer(reply.said)


def test_an_answer_that_is_no_table_is_no_answer() -> None:
    assert converse(PJM.observe(["1"], {}), Reply(0, "hello\n"))[0] == NoAnswer(
        "an answer of pjstat cannot be used: it is not a table with the columns JOB_ID and ST:"
        " 'hello\\n'"
    )


@given(st.integers(0, 2) | st.none(), st.text("JOB_ID ST\n7 EXTCL0-x[R.", max_size=60))
def test_garbage_is_never_a_success(code: int | None, text: str) -> None:
    dialogue = PJM.observe(["7"], {})
    next(dialogue)
    answer: Any = None
    try:
        for _ in range(3):
            dialogue.send(Reply(code, text))
    except StopIteration as stop:
        answer = stop.value
    assert answer is not None
    for each in {} if isinstance(answer, NoAnswer) else answer.values():
        assert isinstance(each, NoAnswer) or each.cause is not Reason.SUCCEEDED


# --- finding by name


def test_a_job_is_found_by_its_whole_name_though_the_column_cuts_it() -> None:
    answer, commands = converse(search(PJM, TAG, {}), table(listed("7", "QUE")))
    assert commands == [f"pjstat {ASK} jnam={TAG}"]
    assert answer == {"7": Observation(id="7", state=JobState.QUEUED, word="QUE")}


def test_a_job_that_has_ended_meanwhile_is_found_in_the_history() -> None:
    answer, commands = converse(search(PJM, TAG, {}), NONE, table(listed("7", "EXT")))
    assert commands[1] == f"pjstat -H day=30 {ASK} jnam={TAG}"
    assert isinstance(answer, dict)
    assert list(answer) == ["7"]


def test_many_names_are_looked_for_in_one_question_and_the_rest_of_them_in_another() -> None:
    tags = [TAG, "hnone", "hended00000000"]
    answer, commands = converse(
        PJM.find(tags, {}), table(listed("7", "QUE")), table(listed("8", "EXT", tags[2]))
    )
    assert [command.split("jnam=")[1] for command in commands] == [
        "+".join(tags),
        "+".join(tags[1:]),
    ]
    assert isinstance(answer, dict)
    ids = {tag: list(jobs) for tag, jobs in answer.items()}  # type: ignore[arg-type]
    assert ids == {TAG: ["7"], "hnone": [], tags[2]: ["8"]}


def test_a_cut_name_that_two_of_ours_have_tells_of_neither() -> None:
    tags = [TAG, TAG[:12] + "xyz"]
    answer, _ = converse(PJM.find(tags, {}), table(listed("7", "QUE", TAG[:10])))
    assert isinstance(answer, dict)
    assert all(isinstance(answer[tag], NoAnswer) for tag in tags)


def test_two_jobs_of_one_name_are_both_found() -> None:
    answer, _ = converse(search(PJM, TAG, {}), table(listed("7", "QUE"), listed("8", "RUN")))
    assert isinstance(answer, dict)
    assert list(answer) == ["7", "8"]


def test_no_job_of_that_name_is_an_answer_of_queue_and_history() -> None:
    assert converse(search(PJM, TAG, {}), NONE, NONE)[0] == {}


def test_a_command_that_does_not_know_the_filter_answers_nothing() -> None:
    for other in ("other", ""):
        answer, _ = converse(search(PJM, TAG, {}), table(listed("7", "RUN", other)))
        assert answer == NoAnswer(
            f"pjstat --filter jnam={TAG} also lists jobs of other names, or names that cannot be"
            " read; this site's command does not seem to know that filter"
        )


# --- cancelling


def test_jobs_are_cancelled_in_one_command_that_is_only_taken_in() -> None:
    reply = Reply(
        0, "[INFO] PJM 0100 pjdel Accepted job 1.\n[INFO] PJM 0100 pjdel Accepted job 2.\n"
    )
    assert converse(PJM.cancel({"1": TAG, "2": "hother"}, {}), reply) == (None, ["pjdel 1 2"])


@pytest.mark.parametrize(
    "reply",
    [
        Reply(1, "", "[ERR.] PJM 0112 pjdel Job 1 does not exist.\n"),
        Reply(
            1, "", "[ERR.] PJM 0113 pjdel Job 1 is not in the state that pjdel can be accepted.\n"
        ),
        Reply(0, "[INFO] PJM 0119 pjdel Already accepted job 1.\n"),
        Reply(
            1,
            "[INFO] PJM 0100 pjdel Accepted job 2.\n",
            "[ERR.] PJM 0112 pjdel Job 1 does not exist.\n",
        ),
    ],
)
def test_a_job_that_is_over_need_not_be_cancelled(reply: Reply) -> None:
    assert converse(PJM.cancel({"1": TAG}, {}), reply)[0] is None


@pytest.mark.parametrize(
    "reply",
    [
        Reply(1, "", "[ERR.] PJM 0190 pjdel PJM daemon is not present.\n"),
        Reply(1, "", "[ERR.] PJM 0112 pjdel x\n[ERR.] PJM 0171 pjdel No permission: 2.\n"),
        Reply(0, "", "[ERR.] PJM 0191 pjdel Internal error: x.\n"),
        Reply(None, "", "[ERR.] PJM 0112 pjdel Job 1 does not exist.\n"),
        Reply(1),
    ],
)
def test_a_cancellation_that_pjm_did_not_take_in_is_told(reply: Reply) -> None:
    assert converse(PJM.cancel({"1": TAG}, {}), reply)[0] == NoAnswer(reply.said)


# --- the job's own output


def test_the_statistics_in_the_job_folder_are_read_with_the_output(tmp_path: Path) -> None:
    folder = JobFolder(LocalTransport(), str(tmp_path))
    assert PJM.read_output(folder.scheduler_words()) is None
    many = "".join(f" ITEM {number:<20}: -\n" for number in range(500))  # more than a tail
    text = STATISTICS.format(ec=0, pc=20, reason="-") + many
    (tmp_path / SCHEDULER_STATISTICS).write_text(text)
    assert PJM.read_output(folder.scheduler_words()) == Told(
        Reason.NODE_FAILURE, "PJM code 20, a node went down"
    )
