"""Slurm's dialect: what users write is never Slurm's word, whatever is answered."""

from __future__ import annotations

from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from hpc_prefect.job.dialogue import Reply
from hpc_prefect.job.state import JobState, Observation
from hpc_prefect.schedulers.base import Accepted, NoAnswer, Refused

from .recorded import search
from .slurm_rig import (
    ALONE,
    MARK,
    SLURM,
    STATES,
    asked_and_answered,
    converse,
    past,
    row,
    submission,
    with_mark,
)

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
