"""PBS's arrays: how one is asked for, and what a real OpenPBS told of one and of its subjobs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_prefect.job.dialogue import Reply
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.script import GUARD_CODE
from hpc_prefect.job.spec import Array, JobSpec
from hpc_prefect.job.state import JobState, Observation
from hpc_prefect.schedulers.base import Accepted, NoAnswer, Refused, Unclear
from hpc_prefect.schedulers.pbs import arrays, qstat

from .pbs_rig import DEFAULT, PBS, TABLE, TICKET, spec
from .recorded import converse, recorded

WHOLE = "65[].opbs"


def array(size: int = 5, at_once: int = 0, **options: Any) -> JobSpec:
    return replace(spec(options), array=Array(size=size, at_once=at_once))


def asked(job: JobSpec) -> list[str]:
    lines = PBS.preamble(job, TICKET).directives
    return [line for line in lines if line.startswith(("#PBS -J", "#PBS -r"))]


def told(step: str) -> dict[str, Observation]:
    """What is read in a recorded answer, JSON or text."""
    text = recorded("array", step).stdout
    read = qstat.read_json if text.startswith("{") else qstat.read_text
    return {job_id: arrays.observation(job_id, each) for job_id, each in read(text).items()}


def ask(
    ids: list[str], *replies: Reply, options: Mapping[str, object] = DEFAULT
) -> tuple[Any, list[str]]:
    return converse(PBS.observe(ids, options), *replies)


# --- how one is asked for


def test_an_array_is_one_submission_of_subjobs_that_pbs_may_start_again_in_its_view() -> None:
    assert asked(array(5)) == ["#PBS -J 0-4", "#PBS -r y"]
    assert asked(array(5, at_once=2)) == ["#PBS -J 0-4%2", "#PBS -r y"]
    assert asked(array(5, at_once=5)) == ["#PBS -J 0-4", "#PBS -r y"]
    assert asked(spec()) == ["#PBS -r n"]


def test_its_script_refuses_to_be_started_again_and_learns_its_index() -> None:
    preamble = PBS.preamble(array(), TICKET)
    assert preamble.restarts == "0"
    assert preamble.index == '"$PBS_ARRAY_INDEX"'
    assert preamble.id_expression == '"$PBS_JOBID"'
    plain = PBS.preamble(spec(), TICKET)
    assert (plain.index, plain.restarts) == ("", "")


def test_pbs_makes_no_files_of_an_array_s_own() -> None:
    _, commands = converse(PBS.submit(array(), TICKET), recorded("array", "qsub"))
    assert commands == ["qsub -N htag -o /dev/null -e /dev/null /w/f/s.sh"]


def test_an_array_is_accepted_under_the_id_of_the_whole() -> None:
    accepted, _ = converse(PBS.submit(array(), TICKET), recorded("array", "qsub"))
    assert accepted == Accepted(WHOLE)
    assert PBS.element_id(WHOLE, 7) == "65[7].opbs"
    assert PBS.element_id("65[]", 7) == "65[7]"
    for job_id in (WHOLE, "65[7].opbs"):
        assert PBS.array_of(job_id) == WHOLE
    assert PBS.array_of("65.opbs") == "65.opbs"


def test_an_array_that_is_too_large_for_the_server_is_refused_with_what_to_set() -> None:
    refused, _ = converse(PBS.submit(array(), TICKET), recorded("array", "qsub_huge_range"))
    assert isinstance(refused, Refused)
    assert not refused.full
    assert refused.said == (
        "Array job exceeds server or queue size limit; set pbs.max_array_size of the HPC profile to"
        " what this site takes"
    )


def test_a_range_that_qsub_does_not_know_is_refused_without_its_usage() -> None:
    refused, _ = converse(PBS.submit(array(), TICKET), recorded("array", "qsub_bad_range"))
    assert refused == Refused("illegal -J value")


def test_ids_of_anything_else_are_no_answer_to_a_submission() -> None:
    for text in ("65[3].opbs\n", "65[0-4].opbs\n", "65[].\n", "65.opbs\n"):
        unclear, _ = converse(PBS.submit(array(), TICKET), Reply(0, text))
        assert isinstance(unclear, Unclear)
    unclear, _ = converse(PBS.submit(spec(), TICKET), recorded("array", "qsub"))
    assert isinstance(unclear, Unclear)


def test_the_profile_says_how_large_an_array_may_be() -> None:
    assert PBS.array_limit(DEFAULT) == PBS.array_limit({}) == 10_000
    assert PBS.array_limit({"max_array_size": 0}) == 0
    assert PBS.problems(array(5, max_array_size=5)) == []
    assert PBS.problems(array(5, max_array_size=4)) == [
        "this is an array of 5 jobs, but pbs.max_array_size allows 4: submit smaller arrays, or set"
        " it to what the site's server takes"
    ]


def test_behind_a_site_s_own_table_there_are_no_arrays() -> None:
    assert PBS.array_limit(DEFAULT | TABLE) == 0
    assert PBS.problems(array(5, **TABLE)) == [
        "this is an array, but pbs.status_dialect is 'table', and how such a qstat shows arrays is"
        " not known: submit the jobs one by one"
    ]


# --- which subjobs wait


@given(st.sets(st.integers(0, 200)), st.integers(1, 4))
def test_every_list_of_indices_is_read_as_the_indices_it_names(some: set[int], step: int) -> None:
    """As PBS writes a range: its step stands behind it only where it is of several."""
    parts = []
    for first in sorted(some):
        last = first + step * (first % 3)
        shown = f"{first}-{last}" + (f":{step}" if step > 1 else "")
        parts.append(shown if last > first else str(first))
    named = {n for first in some for n in range(first, first + step * (first % 3) + 1, step)}
    pairs = arrays.read_indices(",".join(parts) or "-")
    assert pairs is not None
    assert {n for first, last in pairs for n in range(first, last + 1)} == named


@given(st.text(alphabet="0123456789-,:% []^x", max_size=12))
def test_what_is_no_list_of_indices_is_told_from_none_that_wait(text: str) -> None:
    pairs = arrays.read_indices(text)
    assert pairs is None or pairs == () or all(first <= last for first, last in pairs)
    assert (pairs == ()) is (text == "-")


# --- the whole


def test_the_whole_tells_which_subjobs_wait_while_others_run() -> None:
    for step in ("running_qstat_f_json_parent", "running_qstat_f_parent"):
        seen = told(step)[WHOLE]
        assert (seen.state, seen.word, seen.tag) == (JobState.RUNNING, "B", "arr")
        assert seen.left == ((4, 4),)
    assert told("step_qstat_f_json")["67[].opbs"].left == ((4, 4), (6, 6), (8, 8))


def test_the_whole_runs_until_its_last_subjob_has_ended() -> None:
    seen = told("running_qstat_xt_f_json_parent_running")[WHOLE]
    assert (seen.state, seen.left) == (JobState.RUNNING, ())


def test_of_a_whole_that_has_ended_nothing_is_told_but_that() -> None:
    """Its Exit_status is 0, although subjobs ended with 4 and with 137."""
    for step in ("finished_qstat_xt_f_json", "finished_qstat_xf_parent"):
        seen = told(step)[WHOLE]
        assert (seen.state, seen.cause, seen.exit_code) == (JobState.ENDED, None, None)
        assert seen.left == ()


@pytest.mark.parametrize(
    ("letter", "state"), [("Q", JobState.QUEUED), ("H", JobState.HELD), ("Z", JobState.UNKNOWN)]
)
def test_a_whole_that_has_not_begun_waits_with_all_its_subjobs(
    letter: str, state: JobState
) -> None:
    record = {"job_state": letter, "array_indices_remaining": "0-4"}
    seen = arrays.observation(WHOLE, record)
    assert (seen.state, seen.left) == (state, ((0, 4),))


def test_indices_that_cannot_be_read_leave_none_of_which_it_is_known_that_they_wait() -> None:
    record = {"job_state": "B", "array_indices_remaining": "0-4,^"}
    assert arrays.observation(WHOLE, record).left == ()


def test_a_status_of_the_whole_is_never_the_end_of_a_job() -> None:
    for status in ("0", "1", "2", "-29", "271"):
        record = {"job_state": "F", "Exit_status": status, "substate": "91", "comment": "x failed"}
        seen = arrays.observation(WHOLE, record)
        assert (seen.cause, seen.exit_code, seen.signal) == (None, None, "")


# --- subjobs


def test_a_subjob_ends_like_a_job_with_a_code_of_its_own() -> None:
    for step in ("running_qstat_xt_f_json_parent_running", "finished_qstat_xt_f_json"):
        found = told(step)
        assert [found[f"65[{n}].opbs"].exit_code for n in range(4)] == [0, 0, 4, 137]
        assert found["65[1].opbs"].cause is Reason.SUCCEEDED
        assert found["65[2].opbs"].cause is Reason.PROGRAM_FAILED
        assert found["65[2].opbs"].host == "opbs"


def test_one_that_runs_is_seen_as_running() -> None:
    seen = told("running_qstat_f_json_subjob1")["65[1].opbs"]
    assert (seen.state, seen.tag, seen.started_at > 0) == (JobState.RUNNING, "arr", True)


def test_one_that_waits_has_neither_the_start_nor_the_status_of_the_whole() -> None:
    """qstat shows both: 'Exit_status = 0' of a subjob in state Q."""
    seen = told("running_qstat_f_subjob4_queued")["65[4].opbs"]
    assert (seen.state, seen.started_at, seen.exit_code) == (JobState.QUEUED, 0.0, None)


def test_one_that_was_deleted_before_its_start_is_no_success_whatever_the_whole_s_status() -> None:
    """Recorded without a status of the whole, whose subjobs all ran yet; so it is put in."""
    assert told("qdel_after_xt_json")["67[4].opbs"].cause is Reason.CANCELLED
    ((_, record),) = qstat.read_text(
        recorded("array", "running_qstat_f_subjob4_queued").stdout
    ).items()
    assert record["Exit_status"] == "0"
    for letter in "XF":
        deleted = record | {"job_state": letter, "comment": "Subjob finished"}
        seen = arrays.observation("65[4].opbs", deleted)
        assert (seen.state, seen.cause, seen.exit_code) == (
            JobState.ENDED,
            Reason.CANCELLED,
            None,
        )
        unknown = arrays.observation("65[4].opbs", deleted, history=False)
        assert (unknown.state, unknown.cause) == (JobState.ENDED, None)


def test_one_that_pbs_ran_again_and_the_script_refused_has_lost_its_node() -> None:
    record = {"job_state": "X", "array_index": "3", "run_count": "2", "stime": "x"}
    again = arrays.observation("65[3].opbs", record | {"Exit_status": str(GUARD_CODE)})
    assert again.cause is Reason.NODE_FAILURE
    other = arrays.observation("65[3].opbs", record | {"Exit_status": "5"})
    assert (other.cause, other.exit_code) == (Reason.PROGRAM_FAILED, 5)
    once = arrays.observation(
        "65[3].opbs", record | {"Exit_status": str(GUARD_CODE), "run_count": "1"}
    )
    assert once.cause is Reason.PROGRAM_FAILED


# --- the questions


def test_jobs_wholes_and_subjobs_are_asked_about_in_one_question() -> None:
    ids = [WHOLE, "65[2].opbs", "65[4].opbs"]
    answer, commands = ask(ids, recorded("array", "finished_qstat_xt_f_json"))
    assert commands == ["qstat -E -x -f -F json " + " ".join(ids)]
    assert list(answer) == ids
    assert [each.exit_code for each in answer.values()] == [None, 4, 0]


def test_without_a_history_a_subjob_that_has_no_record_has_just_ended() -> None:
    options = DEFAULT | {"history_flag": "none"}
    answer, _ = ask(["67[4].opbs"], recorded("array", "qdel_after_xt_json"), options=options)
    assert (answer["67[4].opbs"].state, answer["67[4].opbs"].cause) == (JobState.ENDED, None)


def test_as_text_the_state_of_a_subjob_is_that_of_the_table() -> None:
    options = DEFAULT | {"status_dialect": "text"}
    record = recorded("array", "finished_qstat_xf_subjob2_exit4")
    rows = recorded("array", "finished_qstat_xt")
    answer, commands = ask(["65[2].opbs"], record, rows, options=options)
    assert (answer["65[2].opbs"].cause, answer["65[2].opbs"].exit_code) == (
        Reason.PROGRAM_FAILED,
        4,
    )
    assert commands == ["qstat -E -x -f 65[2].opbs", "qstat -E -x 65[2].opbs"]
    other = Reply(0, rows.stdout.replace(" F ", " R "))
    answer, _ = ask(["65[2].opbs"], record, other, options=options)
    assert isinstance(answer["65[2].opbs"], NoAnswer)


def test_as_text_the_whole_tells_which_subjobs_wait() -> None:
    options = DEFAULT | {"status_dialect": "text"}
    answer, _ = ask(
        [WHOLE],
        recorded("array", "running_qstat_f_parent"),
        recorded("array", "running_qstat_parent"),
        options=options,
    )
    assert (answer[WHOLE].state, answer[WHOLE].left) == (JobState.RUNNING, ((4, 4),))


def test_a_record_that_a_user_may_have_written_tells_no_end_of_a_subjob() -> None:
    text = recorded("array", "running_qstat_f_subjob4_queued").stdout
    forged = text.replace("job_state = Q", "job_state = X").replace(
        "    comment", "no attribute\n    comment"
    )
    rows = recorded("array", "running_qstat_t").stdout.replace(" Q ", " X ")
    options = DEFAULT | {"status_dialect": "text"}
    answer, _ = ask(["65[4].opbs"], Reply(0, forged), Reply(0, rows), options=options)
    seen = answer["65[4].opbs"]
    assert (seen.state, seen.cause) == (JobState.ENDED, None)


def test_an_array_that_is_not_there_is_not_listed() -> None:
    empty = '{"timestamp": 1, "pbs_version": "23.06.06", "pbs_server": "opbs"}'
    unknown = recorded("array", "running_qstat_f_index_out_of_range")
    answer, _ = ask(["65[9].opbs"], Reply(0, empty), unknown)
    assert answer == {}


def test_an_array_is_found_by_its_name_as_one_job() -> None:
    """That qselect lists no subjobs is read in the source of 23.06."""
    found, commands = converse(
        PBS.find(["arr"], DEFAULT),
        Reply(0, f"{WHOLE}\n"),
        recorded("array", "running_qstat_f_json_parent"),
    )
    assert list(found["arr"]) == [WHOLE]
    assert commands == ["qselect -x -N arr", f"qstat -E -x -f -F json {WHOLE}"]


def test_a_whole_and_a_subjob_are_cancelled_by_their_ids() -> None:
    gone = "qdel: Request invalid for state of job 65[4].opbs\n"
    done, commands = converse(
        PBS.cancel({WHOLE: "a", "65[4].opbs": "a"}, DEFAULT), Reply(168, "", gone)
    )
    assert done is None
    assert commands == ["qdel 65[].opbs 65[4].opbs"]
