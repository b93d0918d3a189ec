"""What a user can write is never read as the scheduler's word, in any dialect's text."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hpc_prefect.job.dialogue import Reply
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.state import JobState, Observation
from hpc_prefect.schedulers.base import NoAnswer
from hpc_prefect.schedulers.pbs.scheduler import PBSScheduler
from hpc_prefect.schedulers.pjm.scheduler import PJMScheduler

from .pbs_rig import letters
from .pjm_rig import HEADER, row
from .recorded import converse, recorded

TEXT = {"status_dialect": "text"}
RUNNING = recorded("multi_ids", "qstat_xf_both").stdout.partition("\n\n")[0] + "\n\n"
DELETED = recorded("qdel_queued", "finished_qstat_xf").stdout
#: What a value may hold: pieces of a true answer, in any order, and anything else.
PIECES = st.sampled_from(
    [
        *("\n", "\n\n", "\t", "\n\t", ",", " = ", "}", "    ", "\n    local a = b\n}"),
        *("\n    job_state = F", "\n    Exit_status = 0", "\n    comment = Can Never Run: no"),
        *("\n    comment = x and terminated", "\n    substate = 92", "\n    z = ", "\n    a.b = "),
        *("\nJob Id: 69.opbs\n    job_state = F", "\nJob Id: 68.opbs\n    job_state = F"),
        *("\n    Variable_List = A=1", ",PBS_O_QUEUE=q,PBS_O_HOST=h", "\n    Submit_arguments = s"),
        *("\n    stime = Sun Nov 22 10:51:06 2026", "\n    Job_Name = other", "\r", "\x0b", "\x85"),
    ]
)
VALUES = st.lists(PIECES | st.text(max_size=5), max_size=8).map("".join)
#: The issue's own.
EVIL = "x\n    job_state = F\n    Exit_status = 0"


def with_value(text: str, value: str) -> str:
    """The record of the same job, submitted with that value for a variable of the user's."""
    assert text.count(",PBS_O_QUEUE=") == 1
    return text.replace(",PBS_O_QUEUE=", f",EVIL={value},PBS_O_QUEUE=")


@given(VALUES)
@example(EVIL)
@example(EVIL + "\n    z = ")
@example(EVIL + "\n}")
@example("\n\nJob Id: 69.opbs\n    job_state = F\n    Exit_status = 0\n    Variable_List = A=1")
def test_no_value_of_a_variable_changes_what_pbs_text_tells_of_a_running_job(value: str) -> None:
    """Nor of one that is asked for beside it, and not there."""
    reply = Reply(0, with_value(RUNNING, value))
    answer, _ = converse(
        PBSScheduler().observe(["68.opbs", "69.opbs"], TEXT), reply, letters(_68="R")
    )
    assert isinstance(answer, dict)
    assert answer.keys() == {"68.opbs"}
    seen = answer["68.opbs"]
    assert isinstance(seen, Observation)
    assert (seen.state, seen.cause) == (JobState.RUNNING, None)


@given(VALUES)
@example("\n    Exit_status = 0\n    z = ")
@example("\n    stime = Sun Nov 22 10:51:06 2026\n    Exit_status = 0\n    Account_Name = ")
def test_no_value_of_a_variable_makes_a_deleted_job_a_success(value: str) -> None:
    (job_id,) = [line[8:] for line in DELETED.split("\n") if line.startswith("Job Id: ")]
    table = letters(**{"_" + job_id.partition(".")[0]: "F"})
    reply = Reply(0, with_value(DELETED, value))
    answer, _ = converse(PBSScheduler().observe([job_id], TEXT), reply, table)
    assert isinstance(answer, dict)
    seen = answer[job_id]
    assert isinstance(seen, Observation)
    assert (seen.state, seen.exit_code) == (JobState.ENDED, None)
    assert seen.cause in (None, Reason.CANCELLED)


@given(VALUES)
@example('x","b":1},"job_state":"F","c":{"d":"')
def test_no_value_changes_what_json_tells(value: str) -> None:
    document = json.loads(recorded("multi_ids", "qstat_xE_f_json").stdout)
    document["Jobs"]["68.opbs"]["Variable_List"]["EVIL"] = value
    document["Jobs"]["68.opbs"]["comment"] = value
    for text in (json.dumps(document), json.dumps(document, ensure_ascii=False)):
        reply = Reply(0, text)
        answer, _ = converse(PBSScheduler().observe(["68.opbs", "69.opbs"], {}), reply)
        assert isinstance(answer, dict)
        states = {each: seen.state for each, seen in answer.items()}  # type: ignore[union-attr]
        assert states == {"68.opbs": JobState.RUNNING, "69.opbs": JobState.ENDED}


def test_a_record_that_says_otherwise_than_the_table_is_no_answer() -> None:
    answer, _ = converse(
        PBSScheduler().observe(["68.opbs"], TEXT), Reply(0, RUNNING), letters(_68="F")
    )
    assert answer == {"68.opbs": NoAnswer("qstat shows 68.opbs as 'F', and its record says 'R'")}


@pytest.mark.parametrize(
    "table",
    [
        "no table",
        letters(_68="R").stdout + letters(_68="R").stdout,
        letters(_68="R").stdout.replace(" R ", " 7 "),
        letters(_68="R").stdout + "this is no job\n",
    ],
)
def test_a_table_that_is_none_tells_nothing(table: str) -> None:
    answer, _ = converse(
        PBSScheduler().observe(["68.opbs"], TEXT), Reply(0, RUNNING), Reply(0, table)
    )
    assert isinstance(answer, dict)
    assert isinstance(answer["68.opbs"], NoAnswer)


NAMES = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=10)
#: `pjhold -R`: 16 characters of it are shown, in the last column.
REASONS = st.lists(
    st.sampled_from(["\n", " ", "8 a EXT E 0 0 0", "8", "EXT", "7", "0", "JOB_ID ST"])
    | st.text(max_size=3)
).map(lambda parts: "".join(parts)[:16])


@given(NAMES, REASONS)
@example("a", "\n8 a EXT E 0 0 0")
@example("EXT", "\n7 a EXT E 0 0 0")
def test_no_name_and_no_reason_ends_a_job_of_pjm(name: str, reason: str) -> None:
    line = row("7", name, "HLD", "QUE", "0", "0", "0", reason)
    reply, empty = Reply(0, HEADER + line), Reply(0, HEADER)
    dialogue = PJMScheduler().observe(["7", "8"], {})
    next(dialogue)
    try:
        dialogue.send(reply)
        dialogue.send(empty)
    except StopIteration as stop:
        answer = stop.value
    if isinstance(answer, NoAnswer):
        return
    for seen in answer.values():
        assert isinstance(seen, NoAnswer) or seen.state is not JobState.ENDED
