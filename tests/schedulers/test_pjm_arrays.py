"""PJM's bulk jobs: how one is asked for, and what its rows and those of its sub jobs say.

No real listing of a bulk job was found: these are the manual's, and what its tables have in common.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_prefect.job.dialogue import Reply
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.spec import Array, JobSpec
from hpc_prefect.job.state import JobState, Observation
from hpc_prefect.schedulers.base import Accepted, NoAnswer, Refused
from hpc_prefect.schedulers.pjm import arrays
from hpc_prefect.schedulers.pjm import status as pjstat

from .pjm_rig import ASK, DEFAULT, DOWN, PJM, TAG, TICKET, spec
from .recorded import converse, search

HEAD = "JOB_ID     JOB_NAME   MD ST  LST EC  PC  SN REASON          \n"
OPERANDS = ASK.removesuffix(" --filter")
CLOSED = "[ERR.] PJM 0070 pjsub No execute permission: pjsub-bulk."


def array(size: int = 5, at_once: int = 0, **options: Any) -> JobSpec:
    return replace(spec(options), array=Array(size=size, at_once=at_once))


def line(job_id: str, word: str, codes: str = "0 0 0", model: str = "BU") -> str:
    ec, pc, sn = codes.split()
    cells = (job_id, TAG[:10], model, word, "QUE", ec, pc, sn, "-")
    widths = (10, 10, 2, 3, 3, 3, 3, 2, 16)
    return " ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + "\n"


def table(*lines: str) -> Reply:
    return Reply(0, HEAD + "".join(lines))


def bulk(word: str, *states: str) -> Reply:
    """Bulk job 239, and its sub jobs from 0 on."""
    parts = [line(f"239[{index}]", each) for index, each in enumerate(states)]
    return table(line("239", word, "- - -"), *parts)


def ask(ids: Sequence[str], *replies: Reply) -> tuple[Any, list[str]]:
    return converse(PJM.observe(ids, {}), *replies)


def whole(reply: Reply) -> Observation:
    answer, _ = ask(["239"], reply)
    seen = answer["239"]
    assert isinstance(seen, Observation)
    return seen


# --- how one is asked for


def test_an_array_is_one_bulk_job_without_files_of_its_sub_jobs() -> None:
    reply = Reply(0, "[INFO] PJM 0000 pjsub Job 239 submitted.\n")
    accepted, commands = converse(PJM.submit(array(), TICKET), reply)
    assert accepted == Accepted("239")
    assert commands == [f"pjsub -N {TAG} --bulk --sparam 0-4 -o /dev/null -e /dev/null /w/f/s.sh"]
    assert PJM.element_id("239", 3) == "239[3]"
    assert [PJM.array_of(each) for each in ("239[3]", "239")] == ["239", "239"]


@pytest.mark.parametrize("whole_id", ["239", "239[3]"])
def test_its_script_learns_its_index_and_the_id_that_we_know_it_by(whole_id: str) -> None:
    """Whether PJM_JOBID has the number in it where a sub job runs, the manual does not say."""
    preamble = PJM.preamble(array(), TICKET)
    assert "#PJM --norestart" in preamble.directives
    environment = {"PJM_JOBID": whole_id, "PJM_BULKNUM": "3", "PATH": "/usr/bin:/bin"}
    text = f"printf '%s ' {preamble.id_expression} {preamble.index}"
    told = subprocess.run(["bash", "-c", text], env=environment, capture_output=True, check=True)
    assert told.stdout.decode().split() == [PJM.element_id("239", 3), "3"]
    plain = PJM.preamble(spec(), TICKET)
    assert (plain.id_expression, plain.index) == ('"$PJM_JOBID"', "")


def test_where_bulk_jobs_are_closed_the_refusal_says_what_to_set() -> None:
    refused, _ = converse(PJM.submit(array(), TICKET), Reply(1, "", f"{CLOSED}\n"))
    assert refused == Refused(
        f"{CLOSED}\nThis site does not let you submit bulk jobs: set pjm.max_array_size of the HPC"
        " profile to 0, so that each is a job of its own"
    )


def test_the_profile_says_how_large_an_array_may_be() -> None:
    assert PJM.array_limit(DEFAULT) == PJM.array_limit({}) == 1000
    assert PJM.array_limit({"max_array_size": 0}) == 0
    assert PJM.problems(array(5)) == []
    assert PJM.problems(array(5, max_array_size=4)) == [
        "this is an array of 5 jobs, but pjm.max_array_size allows 4: submit smaller arrays, or set"
        " it to what the site takes (`pjacl` tells it)"
    ]


def test_what_runs_at_once_cannot_be_limited_but_by_smaller_arrays() -> None:
    assert PJM.problems(array(5, at_once=2)) == [
        "at most 2 of the array's 5 jobs are to run at once, but PJM starts as many sub jobs of a"
        " bulk job as there is room for: leave that out, or set pjm.max_array_size to 2, so that"
        " one small array follows another"
    ]
    assert PJM.problems(array(2, at_once=2)) == []


# --- the whole


def test_the_whole_is_asked_for_with_its_sub_jobs_in_one_command() -> None:
    reply = bulk("RUN", "EXT", "RUN", "QUE", "QUE", "RUN")
    answer, commands = ask(["239"], reply)
    assert commands == [f"pjstat -E {ASK} jid=239"]
    assert list(answer) == ["239"]
    assert answer["239"].state is JobState.RUNNING
    assert answer["239"].left == ((1, 4),)


@pytest.mark.parametrize(
    ("word", "parts", "state", "left"),
    [
        ("QUE", ("QUE", "QUE"), JobState.QUEUED, ((0, 1),)),
        ("QUE", ("RNA", "QUE"), JobState.QUEUED, ((0, 1),)),
        ("QUE", ("EXT", "QUE"), JobState.RUNNING, ((1, 1),)),
        # "even a bulk job in the RUNOUT state may have some sub jobs still in the QUEUED …"
        ("RNO", ("EXT", "QUE", "RUN"), JobState.RUNNING, ((1, 2),)),
        ("EXT", ("EXT", "RUN", "CCL"), JobState.RUNNING, ((1, 1),)),
        ("HLD", ("HLD", "HLD"), JobState.HELD, ((0, 1),)),
        ("RUN", ("HLD", "QUE"), JobState.QUEUED, ((0, 1),)),
        ("RUN", ("EXT", "ERR"), JobState.RUNNING, ((1, 1),)),
        ("RUN", ("EXT", "XYZ"), JobState.RUNNING, ((1, 1),)),
        ("RNO", ("EXT", "CCL"), JobState.ENDING, ()),
        ("EXT", ("EXT", "CCL"), JobState.ENDED, ()),
    ],
)
def test_the_state_of_the_whole_is_that_of_its_sub_jobs(
    word: str, parts: tuple[str, ...], state: JobState, left: tuple[tuple[int, int], ...]
) -> None:
    seen = whole(bulk(word, *parts))
    assert (seen.state, seen.left) == (state, left)


@pytest.mark.parametrize(
    ("word", "state"),
    [("RUN", JobState.RUNNING), ("RNO", JobState.RUNNING), ("QUE", JobState.QUEUED)],
)
def test_a_whole_without_rows_of_its_sub_jobs_says_of_none_that_it_is_left(
    word: str, state: JobState
) -> None:
    seen = whole(bulk(word))
    assert (seen.state, seen.left) == (state, ())


def test_what_was_only_just_accepted_has_all_of_its_sub_jobs() -> None:
    seen = whole(bulk("ACC"))
    assert (seen.state, seen.left) == (JobState.QUEUED, ((0, 999_999),))


def test_of_a_whole_that_has_ended_nothing_is_told_but_that() -> None:
    """Its codes are `-`, as the manual's summary row has them."""
    for reply in (bulk("EXT", "EXT", "EXT"), bulk("EXT"), bulk("CCL")):
        answer, commands = ask(["239"], table(), reply)
        assert commands[1] == f"pjstat -H day=30 -E {ASK} jid=239"
        seen = answer["239"]
        assert (seen.state, seen.cause, seen.exit_code) == (JobState.ENDED, None, None)


def test_a_plain_job_is_what_it_was() -> None:
    reply = table(line("7", "EXT", "3 0 0", "NM"))
    answer, _ = ask(["7"], table(), reply)
    assert (answer["7"].cause, answer["7"].exit_code) == (Reason.PROGRAM_FAILED, 3)


@given(st.lists(st.sampled_from(["QUE", "RUN", "EXT", "CCL", "RNO", "HLD", "XYZ"]), min_size=1))
def test_every_sub_job_that_has_not_ended_is_left_and_no_other(states: list[str]) -> None:
    rows = pjstat.read_table(bulk("RUN", *states).stdout)
    seen = arrays.observations(rows, {"239"})["239"]
    left = [n for first, last in seen.left for n in range(first, last + 1)]
    assert left == [n for n, word in enumerate(states) if word not in ("EXT", "CCL")]
    assert seen.state is not JobState.ENDED


# --- sub jobs


def test_sub_jobs_come_with_their_whole_and_are_not_asked_for_again() -> None:
    reply = table(
        line("239", "RUN", "- - -"),
        line("239[0]", "EXT", "3 0 0"),
        line("239[1]", "EXT", "0 11 24"),
        line("239[2]", "RUN"),
    )
    answer, commands = ask(["239", "239[1]", "239[0]"], reply)
    assert len(commands) == 1
    assert sorted(answer) == ["239", "239[0]", "239[1]"]
    assert (answer["239[0]"].cause, answer["239[0]"].exit_code) == (Reason.PROGRAM_FAILED, 3)
    assert answer["239[1]"].cause is Reason.WALLTIME


def test_sub_jobs_alone_are_asked_for_by_their_own_ids() -> None:
    queued, ended = table(line("239[1]", "RUN")), table(line("239[7]", "CCL", "1 1 9"))
    answer, commands = ask(["239[1]", "239[7]"], queued, ended)
    assert commands == [
        f"pjstat -E {OPERANDS} 239[1] 239[7]",
        f"pjstat -H day=30 -E {OPERANDS} 239[7]",
    ]
    assert answer["239[1]"].state is JobState.RUNNING
    assert answer["239[7]"].cause is Reason.CANCELLED


def test_a_wide_id_moves_its_row_and_is_still_read() -> None:
    reply = table(line("1234567[1234]", "EXT", "0 0 0"), line("1234567[2]", "RUN"))
    answer, _ = ask(["1234567[1234]", "1234567[2]"], reply)
    assert answer["1234567[1234]"].cause is Reason.SUCCEEDED
    assert answer["1234567[2]"].state is JobState.RUNNING


def test_a_list_without_sub_jobs_has_them_asked_for_in_queue_and_history() -> None:
    """Of a command that does not know -E with a filter, say."""
    answer, commands = ask(
        ["239", "239[1]"], bulk("RUN"), table(), table(line("239[1]", "EXT", "0 0 0"))
    )
    assert commands == [
        f"pjstat -E {ASK} jid=239",
        f"pjstat -E {OPERANDS} 239[1]",
        f"pjstat -H day=30 -E {OPERANDS} 239[1]",
    ]
    assert answer["239"].left == ()
    assert answer["239[1]"].cause is Reason.SUCCEEDED


def test_a_question_that_fails_leaves_the_others_answered() -> None:
    answer, _ = ask(["239", "239[1]", "7"], bulk("RUN"), DOWN, table())
    assert answer["239"].state is JobState.RUNNING
    assert isinstance(answer["239[1]"], NoAnswer)
    assert "7" not in answer
    nothing, _ = ask(["239", "239[1]"], DOWN, DOWN)
    assert isinstance(nothing, NoAnswer)


# --- by name, and the end


def test_a_bulk_job_is_found_by_its_name_as_one_job() -> None:
    for reply in (bulk("RUN"), bulk("RUN", "RUN", "QUE")):  # its sub jobs have the same name
        found, commands = converse(search(PJM, TAG, {}), reply)
        assert list(found) == ["239"]
        assert commands == [f"pjstat {ASK} jnam={TAG}"]


def test_a_whole_and_a_sub_job_are_cancelled_by_their_ids() -> None:
    accepted = "[INFO] PJM 0100 pjdel Accepted job 239.\n"
    gone = "[ERR.] PJM 0113 pjdel Job 239[1] is not in the state that pjdel can be accepted.\n"
    done, commands = converse(PJM.cancel({"239": TAG, "239[1]": TAG}, {}), Reply(1, accepted, gone))
    assert done is None
    assert commands == ["pjdel 239 239[1]"]


def test_an_answer_with_the_sub_jobs_of_a_hundred_large_bulk_jobs_is_read() -> None:
    # As many as one question may be about; work for each pair of rows would not end in time.
    ids = [str(number) for number in range(20_000, 20_100)]
    rows = [
        row
        for job_id in ids
        for row in (
            line(job_id, "RUN", "- - -"),
            *(line(f"{job_id}[{n}]", "EXT" if n < 900 else "QUE") for n in range(1000)),
        )
    ]
    answer, _ = ask(ids, table(*rows))
    assert {each.left for each in answer.values()} == {((900, 999),)}
