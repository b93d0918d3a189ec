"""PBS's dialect: a site's own table, the search by name, cancelling, and the job's own output."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_prefect.job.dialogue import Reply
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.state import JobState, Observation
from hpc_prefect.schedulers.base import NoAnswer

from .pbs_rig import (
    EMPTY_HISTORY,
    EMPTY_QUEUE,
    NOT_THERE,
    PBS,
    TABLE,
    table,
)
from .recorded import converse, recorded, search

# --- a site's own table


def test_a_sites_table_is_asked_for_queue_history_and_records() -> None:
    record = recorded("end_walltime_exceeded", "finished_qstat_xf")
    options = TABLE | {"status_options": ["-ll"]}
    answer, commands = converse(
        PBS.observe(["41.opbs", "42.opbs", "43.opbs"], options),
        table("41 htag RUNNING p q 10/08 18:55:33"),
        table("42 hother FINISH p q 10/08 18:55:33"),
        NOT_THERE,
        Reply(0, "Stop time: never\n" + record.stdout),
    )
    assert commands == [
        "qstat -ll",
        "qstat -ll -H",
        "qstat -ll -H 43.opbs",
        "qstat -H -f 42.opbs",
    ]
    assert isinstance(answer, dict)
    assert answer["41.opbs"] == Observation(id="41.opbs", state=JobState.RUNNING, word="RUNNING")
    assert answer["42.opbs"].cause is Reason.WALLTIME  # type: ignore[union-attr]
    assert "43.opbs" not in answer


def test_a_table_is_enough_where_the_site_prints_no_records() -> None:
    rows = table("42 htag FINISH p q -- 0")
    for reply in (Reply(1, "", "qstat: no"), Reply(0, "nothing"), Reply(0, ""), Reply(None)):
        answer, _ = converse(PBS.observe(["42.opbs"], TABLE), EMPTY_QUEUE, rows, reply)
        assert answer == {"42.opbs": Observation(id="42.opbs", state=JobState.ENDED, word="FINISH")}


def test_a_job_that_neither_table_lists_is_absent() -> None:
    replies = (EMPTY_QUEUE, EMPTY_HISTORY, NOT_THERE)
    assert converse(PBS.observe(["42.opbs"], TABLE), *replies)[0] == {}


def test_a_job_that_ended_before_what_the_history_lists_is_asked_for_by_its_id() -> None:
    """A site's history lists three days and a hundred rows, and takes ids."""
    answer, commands = converse(
        PBS.observe(["42.opbs"], TABLE),
        EMPTY_QUEUE,
        table("99 hother FINISH p q --"),
        table("42 htag FINISH p q --"),
        recorded("end_walltime_exceeded", "finished_qstat_xf"),
    )
    assert commands[2] == "qstat -H 42.opbs"
    assert isinstance(answer, dict)
    assert answer["42.opbs"].cause is Reason.WALLTIME  # type: ignore[union-attr]


def test_while_the_history_does_not_answer_by_id_a_job_is_not_absent() -> None:
    down = Reply(255, "", "cannot connect")
    answer, _ = converse(PBS.observe(["42.opbs"], TABLE), EMPTY_QUEUE, EMPTY_HISTORY, down)
    assert answer == {"42.opbs": NoAnswer(down.said)}


def test_a_table_without_history_is_one_question() -> None:
    options = {"status_dialect": "table", "history_flag": "none"}
    answer, commands = converse(PBS.observe(["42.opbs"], options), EMPTY_QUEUE)
    assert (answer, commands) == ({}, ["qstat"])


def test_a_table_that_fails_or_is_empty_tells_nothing() -> None:
    assert converse(PBS.observe(["42.opbs"], TABLE), Reply(0, ""))[0] == NoAnswer(
        "an answer of qstat cannot be used: it is not a table with the columns JOB_ID, JOB_NAME and"
        " STATUS: ''"
    )
    assert converse(PBS.observe(["42.opbs"], TABLE), Reply(None))[0] == NoAnswer(
        "no answer in time, nothing"
    )
    refused = converse(PBS.observe(["42.opbs"], TABLE), Reply(2, "", "qstat: -ll?\nusage: x"))[0]
    assert isinstance(refused, NoAnswer)
    assert refused.said.startswith("exit status 2, qstat: -ll?; this site's command does not know")
    answer, _ = converse(
        PBS.observe(["41.opbs", "42.opbs"], TABLE), table("41 htag RUNNING p q -- 0"), Reply(1)
    )
    assert isinstance(answer, dict)
    assert answer["42.opbs"] == NoAnswer("exit status 1, nothing")


# --- finding by name


def test_a_job_is_found_by_its_whole_name() -> None:
    answer, commands = converse(
        search(PBS, "htag", {}),
        Reply(0, "29.opbs\n"),
        recorded("end_exit0", "finished_qstat_xf_json"),
    )
    assert commands == ["qselect -x -N htag", "qstat -E -x -f -F json 29.opbs"]
    assert isinstance(answer, dict)
    assert answer["29.opbs"].queued_at == 1795344666.0


OWN_LIST = """
opbs:
                                                                  Req'd  Req'd   Elap
Job ID                         Username        Queue           Jobname         SessID   NDS  TSK
------------------------------ --------------- --------------- --------------- -------- ---- -----
29.opbs                        hpcuser         workq           {}  --         1     1
30.opbs                        hpcuser         workq           other           --         1     1
"""
SIX = [f"h{letter * 14}" for letter in "abcdef"]
ME = Reply(0, "hpcuser\n")


def test_of_many_names_only_those_that_the_users_list_shows_are_asked_for() -> None:
    answer, commands = converse(
        PBS.find(SIX, {}),
        ME,
        Reply(0, OWN_LIST.format(SIX[2])),
        Reply(0, "29.opbs\n"),
        recorded("end_exit0", "finished_qstat_xf_json"),
    )
    assert commands == [
        "id -un",
        "qstat -x -w -u hpcuser",
        f"qselect -x -N {SIX[2]}",
        "qstat -E -x -f -F json 29.opbs",
    ]
    assert isinstance(answer, dict)
    assert {tag: list(jobs) for tag, jobs in answer.items()} == {  # type: ignore[arg-type]
        tag: ["29.opbs"] if tag == SIX[2] else [] for tag in SIX
    }


def test_many_names_that_no_job_has_are_two_commands() -> None:
    for nothing in ("", OWN_LIST.format("hello          ")):
        answer, commands = converse(PBS.find(SIX, {}), ME, Reply(0, nothing))
        assert (answer, len(commands)) == ({tag: {} for tag in SIX}, 2)


def test_a_server_that_is_down_is_asked_once_for_many_names() -> None:
    down = recorded("server_down", "qstat_f")
    answer, commands = converse(PBS.find(SIX, {}), ME, down)
    assert (answer, len(commands)) == (NoAnswer(down.said), 2)


@pytest.mark.parametrize(
    "reply",
    [
        Reply(2, "", "qstat: invalid option -- 'w'\nusage: qstat"),
        Reply(0, OWN_LIST.format(SIX[0])[:-10]),
        Reply(0, OWN_LIST.replace("Jobname        ", "Name           ")),
        Reply(0, OWN_LIST.replace("--------------- --------------- --------", "---------- ---")),
        Reply(0, "what is this"),
        Reply(0, OWN_LIST + "what is this\n"),
    ],
)
def test_where_the_users_list_cannot_be_read_every_name_is_asked_for(reply: Reply) -> None:
    answer, commands = converse(PBS.find(SIX[:2], {}), ME, reply, Reply(0), Reply(0))
    assert commands[2:] == [f"qselect -x -N {tag}" for tag in SIX[:2]]
    assert answer == {SIX[0]: {}, SIX[1]: {}}


def test_a_history_of_ended_jobs_only_is_looked_through_beside_the_queue() -> None:
    _, commands = converse(search(PBS, "htag", {"history_flag": "-H"}), Reply(0), Reply(0))
    assert commands == ["qselect -N htag", "qselect -H -N htag"]


def test_many_names_are_looked_for_in_one_reading_of_a_sites_tables() -> None:
    rows = table(f"29 {TAG[:10]} QUEUED p q --", f"30 {SIX[0]} QUEUED p q --")
    more = named().stdout + named(SIX[0]).stdout.replace("29.opbs", "30.opbs")
    answer, commands = converse(PBS.find([TAG, *SIX], TABLE), rows, Reply(0, more), EMPTY_HISTORY)
    assert commands == ["qstat", "qstat -f 29 30", "qstat -H"]
    assert isinstance(answer, dict)
    assert {tag: list(jobs) for tag, jobs in answer.items() if jobs} == {  # type: ignore[arg-type]
        TAG: ["29.opbs"],
        SIX[0]: ["30.opbs"],
    }


def test_no_job_of_that_name_is_an_answer_of_one_command() -> None:
    assert converse(search(PBS, "htag", {}), Reply(0, ""))[0] == {}


def test_a_search_that_failed_is_no_answer() -> None:
    down = recorded("server_down", "qselect")
    assert converse(search(PBS, "htag", {}), down)[0] == NoAnswer(down.said)
    for qstat in (recorded("server_down", "qstat_f_json"), Reply(None)):
        assert converse(search(PBS, "htag", {}), Reply(0, "1.s\n"), qstat)[0] == NoAnswer(
            qstat.said
        )
    refused = Reply(2, "", "qselect: invalid option -- 'x'\nusage: qselect")
    answer = converse(search(PBS, "htag", {}), refused)[0]
    assert isinstance(answer, NoAnswer)
    assert "see pbs.one_connection (-E), pbs.history_flag (-x, -H)" in answer.said


def test_a_job_that_was_found_but_cannot_be_told_of_makes_the_search_fail() -> None:
    options = {"one_connection": False, "status_dialect": "text"}
    answer, _ = converse(search(PBS, "htag", options), Reply(0, "1.s\n"), Reply(0, ""))
    assert answer == NoAnswer("exit status 0, nothing")


def test_a_job_that_was_found_and_left_the_list_meanwhile_was_there() -> None:
    answer, _ = converse(
        search(PBS, "htag", {}),
        Reply(0, "888888.opbs\n"),
        recorded("unknown_id", "x_x_f_json"),
        recorded("unknown_id", "x_f"),
    )
    unknown = Observation(id="888888.opbs", state=JobState.UNKNOWN, tag="htag")
    assert answer == {"888888.opbs": unknown}


TAG = "hq7k2m9x1abcdef"


def named(tag: str = TAG) -> Reply:
    found = recorded("end_exit0", "finished_qstat_xf")
    return Reply(0, found.stdout.replace("end_exit0.sh", tag, 1))


def test_in_a_table_that_cuts_names_the_full_record_tells_name_and_id() -> None:
    answer, commands = converse(
        search(PBS, TAG, TABLE),
        table("29 hq7k2m9x1a QUEUED p q --", "30 other QUEUED p q --"),
        named(),
        EMPTY_HISTORY,
    )
    assert commands == ["qstat", "qstat -f 29", "qstat -H"]
    assert isinstance(answer, dict)
    assert list(answer) == ["29.opbs"]


def test_another_job_whose_name_begins_like_the_tag_is_not_ours() -> None:
    rows = table(f"29 {TAG[:10]} FINISH p q --")
    answer, _ = converse(search(PBS, TAG, TABLE), EMPTY_QUEUE, rows, named(TAG[:10] + "zzz"))
    assert answer == {}


def test_without_a_record_only_whole_names_and_ids_are_believed() -> None:
    whole = table(f"29.opbs {TAG} QUEUED p q --")
    answer, _ = converse(search(PBS, TAG, TABLE), whole, Reply(1), EMPTY_HISTORY)
    assert isinstance(answer, dict)
    assert list(answer) == ["29.opbs"]
    for row in (f"29 {TAG} QUEUED p q --", f"29.opbs {TAG[:10]} QUEUED p q --"):
        answer, _ = converse(search(PBS, TAG, TABLE), table(row), Reply(0, "?"))
        job, name = row.split()[:2]
        assert answer == NoAnswer(
            f"qstat lists job {job} as {name!r}, which may be {TAG!r} cut short, and shows no full"
            " record of it. Look at this job; set pbs.status_options of the HPC profile so that"
            " qstat shows whole names and ids"
        )


def test_a_table_without_our_job_is_searched_in_queue_and_history() -> None:
    answer, commands = converse(search(PBS, TAG, TABLE), EMPTY_QUEUE, EMPTY_HISTORY)
    assert (answer, commands) == ({}, ["qstat", "qstat -H"])
    assert isinstance(converse(search(PBS, TAG, TABLE), EMPTY_QUEUE, Reply(0, ""))[0], NoAnswer)


# --- cancelling


def test_jobs_are_cancelled_in_one_command() -> None:
    said, commands = converse(PBS.cancel({"1.s": "htag", "2.s": "hother"}, {}), Reply(0))
    assert (said, commands) == (None, ["qdel 1.s 2.s"])


@pytest.mark.parametrize(
    "reply",
    [
        recorded("qdel_running", "qdel_again_finished"),
        recorded("unknown_id", "x_qdel"),
        Reply(35, "", "qdel: Job has finished 1.s\nqdel: Unknown Job Id 2.s\n"),
        Reply(168, "", "qdel: Request invalid for state of job 1.s\n"),
        Reply(221, "", "qdel: Delete already in progress 1.s\n"),
    ],
)
def test_a_job_that_is_over_need_not_be_cancelled(reply: Reply) -> None:
    assert converse(PBS.cancel({"1.s": "htag"}, {}), reply)[0] is None


@pytest.mark.parametrize(
    "reply",
    [
        recorded("server_down", "qdel"),
        recorded("unknown_id", "x_qdel_foo"),
        Reply(None, "", "qdel: Unknown Job Id 1.s"),
        Reply(159, "", "qdel: Unknown Job Id 1.s\nqdel: Unauthorized Request  2.s\n"),
        Reply(1, "", ""),
    ],
)
def test_a_cancellation_that_pbs_did_not_take_in_is_told(reply: Reply) -> None:
    assert converse(PBS.cancel({"1.s": "htag"}, {}), reply)[0] == NoAnswer(reply.said)


# --- the job's own output


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("=>> PBS: job killed: walltime 10 exceeded limit 5", Reason.WALLTIME),
        ("=>> PBS: job killed: mem 1348968kb exceeded limit 102400kb", Reason.OUT_OF_MEMORY),
        ("=>> PBS: job killed: vmem 2kb exceeded limit 1kb", Reason.OUT_OF_MEMORY),
        ("=>> PBS: job killed: node 1 (n2) requested job die, code 15009", Reason.NODE_FAILURE),
        (
            "Cgroup mem limit exceeded: Killed process 1234 (a.out) in /jobs/1.s",
            Reason.OUT_OF_MEMORY,
        ),
    ],
)
def test_pbs_own_words_in_the_output_tell_the_reason(line: str, reason: Reason) -> None:
    told = PBS.read_output(f"some output\n{line}\nmore\n")
    assert told is not None
    assert (told.reason, told.words) == (reason, line)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Killed",
        "he said: =>> PBS: job killed: walltime 10 exceeded limit 5",
        "=>> PBS: job killed: cput 10 exceeded limit 5",
        "=>> PBS: job killed: ",
        "Cgroup mem limit exceeded: ",
    ],
)
def test_other_output_tells_nothing(text: str) -> None:
    assert PBS.read_output(text) is None


@given(st.text("=>> PBS: job killed: memwalltime\n", max_size=80))
def test_any_output_can_be_read(text: str) -> None:
    PBS.read_output(text)
