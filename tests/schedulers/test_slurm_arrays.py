"""Slurm's dialect: what it makes of the answers about arrays, whole and element by element.

The recordings are of a real Slurm 22.05.
"""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_prefect.job.dialogue import Reply
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.spec import Array
from hpc_prefect.job.state import JobState, Observation
from hpc_prefect.schedulers.base import NoAnswer
from hpc_prefect.schedulers.slurm.arrays import indices

from .slurm_rig import (
    ALONE,
    FOLDER,
    MARK,
    SLURM,
    TICKET,
    converse,
    mark_of,
    past,
    recorded,
    row,
    spec,
)


def answered(name: str) -> Reply:
    """A recorded answer with our mark."""
    argv = json.loads((FOLDER / f"{name}.json").read_text())["argv"]
    reply = recorded(name)
    return Reply(reply.code, reply.stdout.replace(mark_of(argv), MARK))


def observed(ids: list[str], *replies: str, **options: Any) -> dict[str, Any]:
    answer, _ = converse(SLURM.observe(ids, options), *map(answered, replies))
    assert isinstance(answer, dict)
    return answer


# --- lists of elements


@pytest.mark.parametrize(
    ("text", "ranges"),
    [
        ("7", ((7, 7),)),
        ("2-9%2", ((2, 9),)),
        ("1,3,5-7", ((1, 1), (3, 3), (5, 7))),
        ("0-10:2", ((0, 0), (2, 2), (4, 4), (6, 6), (8, 8), (10, 10))),
        ("0-9:1", ((0, 9),)),
        ("4,5,6,8", ((4, 6), (8, 8))),
        *((text, None) for text in ("", "N/A", "1,3...", "42...%7", "5-3", "0-4:0", "-1", "1,")),
        *((text, None) for text in ("1 ,2", "%2", "1%", "1%2%3", "٣", "9" * 5000, "0x1", "1\n")),
    ],
)
def test_a_list_of_elements_is_read_whole_or_not_at_all(text: str, ranges: object) -> None:
    assert indices(text) == ranges


@given(st.lists(st.integers(0, 60), min_size=1), st.sampled_from(["", "%3"]))
def test_any_list_of_numbers_is_read_as_these_numbers(numbers: list[int], at_once: str) -> None:
    ranges = indices(",".join(map(str, numbers)) + at_once)
    assert ranges is not None
    read = [n for first, last in ranges for n in range(first, last + 1)]
    assert read == sorted(set(numbers))
    assert all(after[0] > before[1] + 1 for before, after in pairwise(ranges))


@given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 9))
def test_steps_are_counted_as_slurm_does(first: int, more: int, step: int) -> None:
    ranges = indices(f"{first}-{first + more}:{step}")
    assert ranges is not None
    read = [n for one, last in ranges for n in range(one, last + 1)]
    assert read == list(range(first, first + more + 1, step))


@given(st.text(max_size=20) | st.text("0123456789,-:%[]._", max_size=12))
def test_any_text_is_a_list_of_elements_or_none(text: str) -> None:
    ranges = indices(text)
    assert ranges is None or all(first <= last for first, last in ranges)


# --- submitting


def test_an_array_is_submitted_in_one_go_and_its_elements_share_the_output() -> None:
    command = next(SLURM.submit(spec(array=Array(size=10)), TICKET))
    assert "--open-mode=append" in command.argv
    assert "--open-mode=truncate" in next(SLURM.submit(spec(), TICKET)).argv


@pytest.mark.parametrize(
    ("array", "option"),
    [(Array(size=10), "--array=0-9"), (Array(size=1), "--array=0-0"),
     (Array(size=100, at_once=7), "--array=0-99%7")],
)  # fmt: skip
def test_the_script_says_how_many_elements_there_are(array: Array, option: str) -> None:
    preamble = SLURM.preamble(spec({"requeue": "yes"}, array=array), TICKET)
    assert f"#SBATCH {option}" in preamble.directives
    assert "#SBATCH --no-requeue" in preamble.directives
    assert preamble.index == '"$SLURM_ARRAY_TASK_ID"'
    assert preamble.id_expression == '"${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"'
    assert SLURM.element_id("36", 7) == "36_7"


def test_a_job_that_is_no_array_has_nothing_of_one() -> None:
    preamble = SLURM.preamble(spec(), TICKET)
    assert (preamble.index, preamble.id_expression) == ("", '"$SLURM_JOB_ID"')
    assert not [line for line in preamble.directives if "array" in line]


def test_the_profile_says_how_large_an_array_may_be() -> None:
    assert SLURM.array_limit({}) == 1001
    assert SLURM.array_limit(spec().site.options) == 1001
    assert [SLURM.array_limit({"max_array_size": n}) for n in (0, 20000)] == [0, 20000]


# --- an array as a whole

HELD, STEPS, MIXED, NEVER = "32307051", "32307052", "32307053", "32307054"


def test_arrays_are_seen_as_a_whole_with_what_is_left_of_them() -> None:
    seen = observed([HELD, STEPS, MIXED, NEVER], "squeue_arrays")
    assert {each: (one.state, one.cause, one.left) for each, one in seen.items()} == {
        HELD: (JobState.HELD, None, ((0, 9),)),
        STEPS: (
            JobState.HELD,
            None,
            (*((n, n) for n in (0, 2, 4, 6, 8, 10, 100)), (102, 105)),
        ),
        MIXED: (JobState.RUNNING, None, ((3, 6), (8, 9))),
        NEVER: (JobState.QUEUED, Reason.CAN_NEVER_RUN, ((0, 3),)),
    }
    assert (seen[MIXED].tag, seen[MIXED].word) == ("hmixed", "PENDING, RUNNING")
    assert (seen[MIXED].started_at, seen[MIXED].ended_at) == (1795988802.0, 0.0)


def test_an_array_of_which_nothing_is_left_has_ended_and_not_failed() -> None:
    seen = observed(["32307063"], "squeue_arrays_ended")["32307063"]
    assert (seen.state, seen.cause, seen.left) == (JobState.ENDED, None, ())
    assert (seen.exit_code, seen.signal, seen.ended_at) == (None, "", 1795988822.0)


def test_an_array_that_was_cancelled_has_ended() -> None:
    seen = observed([MIXED, "32307060"], "squeue_arrays_cancelled")
    assert [(one.state, one.left) for one in seen.values()] == [(JobState.ENDED, ())] * 2
    assert (seen[MIXED].cause, seen["32307060"].cause) == (None, Reason.CANCELLED)


def test_an_array_with_an_element_that_was_requeued_is_not_over() -> None:
    seen = observed(["32307064"], "squeue_array_requeued")["32307064"]
    assert (seen.state, seen.left) == (JobState.RUNNING, ((0, 2),))


def element(index: str, **changes: str) -> str:
    raw = {"JobID": str(900 + int(index))} if index.isdecimal() else {"JobID": "36"}
    return row(**(raw | {"ArrayJobID": "36", "ArrayTaskID": index} | changes))


@pytest.mark.parametrize(
    ("rows", "state", "left"),
    [
        (element("0-9%2", State="PENDING"), JobState.QUEUED, ((0, 9),)),
        (element("2-9", State="PENDING") + element("1", State="FAILED"), JobState.RUNNING,
         ((2, 9),)),
        (element("2-9", State="PENDING", Reason="JobHeldUser") + element("1", State="FAILED"),
         JobState.HELD, ((2, 9),)),
        (element("2-9", State="PENDING", Reason="None,JobHeldUser"), JobState.QUEUED, ((2, 9),)),
        (element("2", State="COMPLETING") + element("1", State="FAILED"), JobState.RUNNING,
         ((2, 2),)),
        (element("2", State="SUSPENDED") + element("3-4", State="PENDING"), JobState.RUNNING,
         ((2, 4),)),
        (element("2", State="HIBERNATING") + element("1", State="FAILED"), JobState.RUNNING,
         ((2, 2),)),
        (element("1", State="FAILED") + element("2", State="FAILED"), JobState.ENDED, ()),
    ],
)  # fmt: skip
def test_the_state_of_an_array_is_that_of_what_is_left(
    rows: str, state: JobState, left: object
) -> None:
    answer, _ = converse(SLURM.observe(["36"], ALONE), Reply(0, rows))
    seen: Any = answer["36"]  # type: ignore[index]
    assert (seen.state, seen.left, seen.cause) == (state, left, None)


def test_a_list_that_was_cut_is_no_answer() -> None:
    """What it does not show may wait."""
    cut = element("0,2,4,6,8,10,12...%7", State="PENDING")
    answer, _ = converse(SLURM.observe(["36", "7"], {}), Reply(0, cut + row()))
    assert answer == NoAnswer(
        "squeue lists elements '0,2,4,6,8,10,12...%7' of array 36: cannot be read"
    )


def test_an_array_that_the_queue_does_not_list_is_asked_about_in_the_history() -> None:
    gone = recorded("squeue_one_unknown")
    answer, commands = converse(
        SLURM.observe(["32307063"], {}), gone, answered("sacct_array_ended")
    )
    seen: Any = answer["32307063"]  # type: ignore[index]
    assert (seen.state, seen.cause, seen.left, len(commands)) == (JobState.ENDED, None, (), 2)


@pytest.mark.parametrize("job_id", ["36_1", "36_[1-9%2]"])
def test_a_history_that_lists_an_element_as_waiting_tells_no_end_of_the_array(job_id: str) -> None:
    rows = past(JobID="36_0") + past(JobID=job_id, State="PENDING")
    answer, _ = converse(SLURM.observe(["36"], {}), recorded("squeue_one_unknown"), Reply(0, rows))
    assert answer == {}


# --- elements


def test_elements_are_told_each_with_its_own_end() -> None:
    ids = [f"{MIXED}_{n}" for n in (0, 1, 2, 3, 5, 6)]
    seen = observed([*ids, f"{HELD}_4"], "squeue_array_elements", accounting=False)
    assert {each: (one.state, one.cause) for each, one in seen.items()} == {
        f"{MIXED}_0": (JobState.ENDED, Reason.SUCCEEDED),
        f"{MIXED}_1": (JobState.ENDED, Reason.PROGRAM_FAILED),
        f"{MIXED}_2": (JobState.ENDED, Reason.PROGRAM_FAILED),
        f"{MIXED}_3": (JobState.RUNNING, None),
        f"{MIXED}_5": (JobState.QUEUED, None),
        f"{MIXED}_6": (JobState.QUEUED, None),
        f"{HELD}_4": (JobState.HELD, None),
    }
    assert {each: one.id for each, one in seen.items()} == {each: each for each in seen}
    assert (seen[f"{MIXED}_1"].exit_code, seen[f"{MIXED}_2"].signal) == (1, "SIGKILL")
    assert (seen[f"{MIXED}_3"].host, seen[f"{MIXED}_3"].left) == ("n1", ())


def test_jobs_arrays_and_elements_are_asked_about_in_one_question() -> None:
    rows = row() + element("0-3", State="PENDING") + element("4")
    answer, commands = converse(SLURM.observe(["7", "36", "36_2", "36_4"], {}), Reply(0, rows))
    assert isinstance(answer, dict)
    states = {each: one.state for each, one in answer.items()}  # type: ignore[union-attr]
    assert states == {
        "7": JobState.RUNNING,
        "36": JobState.RUNNING,
        "36_2": JobState.QUEUED,
        "36_4": JobState.RUNNING,
    }
    assert len(commands) == 1
    # On a real Slurm 22.05, named beside its array, an element hides the others that wait.
    assert commands[0].endswith(" --jobs=7,36")


def test_the_raw_id_of_an_element_is_no_job_of_ours() -> None:
    rows = row(JobID="7", ArrayJobID="36", ArrayTaskID="3")
    assert converse(SLURM.observe(["7"], ALONE), Reply(0, rows))[0] == {}


def test_elements_that_the_queue_forgot_are_told_by_the_history() -> None:
    ids = [f"{MIXED}_{n}" for n in (0, 1, 2)]
    answer, commands = converse(
        SLURM.observe(ids, {}), Reply(0, ""), answered("sacct_array_elements")
    )
    assert isinstance(answer, dict)
    told = [(one.cause, one.exit_code, one.signal) for one in answer.values()]  # type: ignore[union-attr]
    assert told == [
        (Reason.SUCCEEDED, 0, ""),
        (Reason.PROGRAM_FAILED, 1, ""),
        (Reason.PROGRAM_FAILED, None, "SIGKILL"),
    ]
    assert commands[1].endswith(f" --jobs={','.join(ids)}")


def test_an_element_whose_step_the_kernel_killed_is_out_of_memory() -> None:
    failed = Reply(0, element("3", State="FAILED", exit_code="256"))
    history = past(JobID="36_3", State="FAILED", ExitCode="1:0") + past(
        JobID="36_3.0", State="OUT_OF_MEMORY", JobName="p"
    )
    answer, _ = converse(SLURM.observe(["36_3"], {}), failed, Reply(0, history))
    seen: Any = answer["36_3"]  # type: ignore[index]
    assert (seen.cause, seen.exit_code) == (Reason.OUT_OF_MEMORY, 1)
    assert seen.message == "Slurm says OUT_OF_MEMORY of its step 36_3.0"


# --- elements that were cancelled while they waited


def test_an_element_that_was_cancelled_with_its_array_is_told_so() -> None:
    """After a plain scancel Slurm lists it; after one with a name it lists it nowhere."""
    plain, named = f"{MIXED}_5", "32307060_5"
    answer, commands = converse(
        SLURM.observe([plain, named], {}),
        answered("squeue_array_element_cancelled_with_all"),
        Reply(0, ""),
        answered("squeue_arrays_cancelled_rest"),
    )
    assert isinstance(answer, dict)
    for each in (plain, named):
        seen = answer[each]
        assert isinstance(seen, Observation)
        assert (seen.id, seen.state, seen.cause) == (each, JobState.ENDED, Reason.CANCELLED)
        assert seen.started_at == 0.0 or each == plain
    assert commands[2].endswith(" --jobs=32307060")
    assert " --states=CANCELLED " in commands[2]


def test_and_when_the_queue_has_forgotten_it() -> None:
    ids = [f"{MIXED}_5", "32307060_5"]
    answer, commands = converse(
        SLURM.observe(ids, {}),
        *(Reply(0, ""), Reply(0, ""), Reply(0, "")),
        answered("sacct_arrays_cancelled_rest"),
    )
    assert isinstance(answer, dict)
    assert [one.cause for one in answer.values()] == [Reason.CANCELLED] * 2  # type: ignore[union-attr]
    assert commands[3].endswith(f"JobName --allocations --state=CANCELLED --jobs={MIXED},32307060")


def test_an_element_that_is_nowhere_is_absent_while_others_wait() -> None:
    """It was cancelled by itself, or it is something that we do not know: nothing is made up."""
    empty = [Reply(0, "")] * 4
    assert converse(SLURM.observe(["36_5"], {}), *empty)[0] == {}
    assert converse(SLURM.observe(["36_5"], ALONE), *empty[:2])[0] == {}


def test_while_nobody_tells_of_the_rest_there_is_no_answer_about_its_elements() -> None:
    down, dbd = recorded("ctld_down_squeue"), recorded("dbd_down_sacct")
    ids = ["7", "36_5"]
    answer, _ = converse(SLURM.observe(ids, {}), Reply(0, row()), Reply(0, ""), down)
    assert answer["36_5"] == NoAnswer(down.said)  # type: ignore[index]
    answer, _ = converse(SLURM.observe(ids, {}), Reply(0, row()), Reply(0, ""), Reply(0, ""), dbd)
    assert answer["36_5"] == NoAnswer(dbd.said)  # type: ignore[index]
    assert isinstance(answer["7"], Observation)  # type: ignore[index]


# --- finding


def test_an_array_is_found_as_one_job() -> None:
    tags = ["hheld", "hmixed", "hgone"]
    answer, _ = converse(SLURM.find(tags, ALONE), answered("squeue_arrays"))
    assert isinstance(answer, dict)
    assert {tag: list(found) for tag, found in answer.items()} == {  # type: ignore[arg-type]
        "hheld": [HELD],
        "hmixed": [MIXED],
        "hgone": [],
    }


def test_also_in_the_history_whatever_its_elements_are() -> None:
    tags = ["hended", "hmixed", "hnamed"]
    answer, _ = converse(SLURM.find(tags, {}), Reply(0, ""), answered("sacct_arrays_by_name"))
    assert isinstance(answer, dict)
    assert {tag: list(found) for tag, found in answer.items()} == {  # type: ignore[arg-type]
        "hended": ["32307063"],
        "hmixed": [MIXED],
        "hnamed": ["32307060"],
    }
