"""The laptop's dialect as pure text: commands out, recorded replies in."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_prefect.job.dialogue import Command, Dialogue, Reply
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.spec import Array, Executable, JobSpec, Resources, Site
from hpc_prefect.job.state import JobState, Observation
from hpc_prefect.schedulers import scheduler_for
from hpc_prefect.schedulers.base import Accepted, NoAnswer, Refused, Ticket, Unclear
from hpc_prefect.schedulers.local.scheduler import LocalScheduler

from .recorded import search

LOCAL = LocalScheduler()
T = TypeVar("T")
TICKET = Ticket(
    tag="htag",
    folder="/w/f",
    script="/w/f/script.sh",
    scheduler_out="/w/f/o",
    scheduler_err="/w/f/e",
)
SPEC = JobSpec(
    name="n",
    command_name="c",
    executable=Executable(path="/bin/true"),
    site=Site(scheduler="local", queue="q", options={"slots": 8, "spool": "/spool"}),
    resources=Resources(num_nodes=2, ranks_per_node=2, threads_per_rank=2, memory_per_node=1024),
    work_dir="/w",
)


def converse(dialogue: Dialogue[T], *replies: Reply) -> tuple[T, list[Command]]:
    """The dialogue's result, and the commands that it ran."""
    commands = [next(dialogue)]
    for reply in replies:
        try:
            commands.append(dialogue.send(reply))
        except StopIteration as stop:
            return stop.value, commands
    raise AssertionError("the dialogue wants more replies")


def options_of(command: Command) -> dict[str, str]:
    words = command.argv[command.argv.index("submit") + 1 : -1]
    return dict(zip(words[::2], words[1::2], strict=True))


def line(**changes: Any) -> str:
    """A line of the engine about a queued job, with changes."""
    entry = {
        "id": "7.h", "name": "htag", "queue": "q", "state": "QUEUED", "end": None,
        "exit_code": None, "signal": None, "by": None, "message": None, "submitted": 100.5,
        "started": None, "ended": None, "max_rss": None, "cpu_seconds": None, "host": "h",
        "reason": "slots: 8 of 8 in use",
    }  # fmt: skip
    return json.dumps(entry | changes) + "\n"


def observed(**changes: Any) -> Observation:
    answer, _ = converse(LOCAL.observe(["7.h"], {}), Reply(0, line(**changes)))
    assert not isinstance(answer, NoAnswer)
    return answer["7.h"]


# --- submitting


def test_a_submission_hands_over_everything_in_one_command() -> None:
    outcome, (command,) = converse(LOCAL.submit(SPEC, TICKET), Reply(0, "7.h\n"))
    assert outcome == Accepted("7.h")
    assert command.argv[-1] == "/w/f/script.sh"
    assert options_of(command) == {
        "--spool": "/spool", "--name": "htag", "--queue": "q", "--slots": "8", "--cpus": "8",
        "--walltime": "300", "--memory": "2048", "--kill-grace": "5.0", "--out": "/w/f/o",
        "--err": "/w/f/e", "--cwd": "/w",
    }  # fmt: skip


def test_what_was_not_asked_for_is_not_handed_over() -> None:
    spec = dataclasses.replace(SPEC, resources=Resources(), site=Site(scheduler="local"))
    _, (command,) = converse(LOCAL.submit(spec, TICKET), Reply(0, "7.h"))
    assert {"--memory", "--spool"}.isdisjoint(options_of(command))
    assert options_of(command)["--queue"] == "local"


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        (Reply(1, "", "engine.py: no\n"), Refused("exit status 1, engine.py: no")),
        (Reply(0, "\n"), Unclear("exit status 0, nothing")),
        (Reply(None, "7.h"), Unclear("no answer in time, 7.h")),
        (Reply(-9, "", ""), Unclear("exit status -9, nothing")),
        (Reply(137, "", "Killed"), Unclear("exit status 137, Killed")),
    ],
)
def test_a_submission_without_a_plain_answer_is_not_taken_for_one(
    reply: Reply, outcome: object
) -> None:
    assert converse(LOCAL.submit(SPEC, TICKET), reply)[0] == outcome


def test_a_job_wider_than_the_machine_is_refused_in_a_sentence() -> None:
    assert LOCAL.problems(SPEC) == []
    narrow = dataclasses.replace(SPEC, site=Site(scheduler="local", options={"slots": 4}))
    assert LOCAL.problems(narrow) == [
        "2 nodes × 4 cores = 8 cores, but this machine has 4 slots; ask for less, or set"
        " local.slots in the HPC profile"
    ]


def test_the_script_learns_its_id_from_the_engine() -> None:
    preamble = LOCAL.preamble(SPEC, TICKET)
    assert (preamble.directives, preamble.id_expression) == ((), '"$HPC_LOCAL_JOBID"')


# --- observing


def test_many_jobs_are_asked_about_in_one_command() -> None:
    answer, (command,) = converse(
        LOCAL.observe(["7.h", "8.h"], {"spool": "/s"}), Reply(0, line() + line(id="8.h"))
    )
    assert command.argv[-5:] == ("jobs", "--spool", "/s", "7.h", "8.h")
    assert isinstance(answer, dict)
    assert set(answer) == {"7.h", "8.h"}


def test_a_job_that_the_answer_does_not_list_is_absent_from_it() -> None:
    assert converse(LOCAL.observe(["7.h", "9.h"], {}), Reply(0, line()))[0].keys() == {"7.h"}
    assert converse(LOCAL.observe(["7.h"], {}), Reply(0, ""))[0] == {}


def test_a_waiting_job_says_what_it_waits_for() -> None:
    assert observed() == Observation(
        id="7.h", state=JobState.QUEUED, word="QUEUED", tag="htag", host="h", queued_at=100.5,
        message="slots: 8 of 8 in use",
    )  # fmt: skip


def test_a_running_job_says_since_when() -> None:
    running = observed(state="RUNNING", started=101.0, reason=None)
    assert (running.state, running.started_at, running.cause) == (JobState.RUNNING, 101.0, None)


ENDS = {
    "EXITED": None,
    "SIGNALED": Reason.PROGRAM_FAILED,
    "TIMEOUT": Reason.WALLTIME,
    "OUT_OF_MEMORY": Reason.OUT_OF_MEMORY,
    "CANCELLED": Reason.CANCELLED,
    "NODE_FAIL": Reason.NODE_FAILURE,
    "LAUNCH_FAILED": Reason.SETUP_FAILED,
    "VANISHED": Reason.PROGRAM_FAILED,  # a word of a later version is no success
}


@pytest.mark.parametrize("end", ENDS)
def test_each_word_for_an_end_has_its_cause(end: str) -> None:
    ended = observed(
        state="ENDED", end=end, exit_code=3, message="m", ended=102.0, max_rss=5, cpu_seconds=0.5
    )
    assert (ended.state, ended.word, ended.cause) == (JobState.ENDED, end, ENDS[end])
    assert (ended.exit_code, ended.message, ended.ended_at) == (3, "m", 102.0)
    assert ended.used == {"max_rss": 5.0, "cpu_seconds": 0.5}


def test_a_cancelled_job_says_who_asked() -> None:
    assert (
        observed(state="ENDED", end="CANCELLED", by="u@h 1", message="").message
        == "cancelled by u@h 1"
    )


def test_a_state_that_is_not_known_is_unknown_and_no_end() -> None:
    strange = observed(state="HIBERNATING")
    assert (strange.state, strange.word, strange.cause) == (JobState.UNKNOWN, "HIBERNATING", None)


@pytest.mark.parametrize("text", ["line\u2028one", "line\x85one", "a\x0bb\x1cc"])
def test_a_message_may_hold_any_character(text: str) -> None:
    # JSON escapes only what is below 0x20.
    raw = json.dumps(json.loads(line(message=text)), ensure_ascii=False)
    answer, _ = converse(LOCAL.observe(["7.h"], {}), Reply(0, raw + "\n"))
    assert isinstance(answer, dict)
    assert answer["7.h"].message == text


@pytest.mark.parametrize(
    "reply",
    [
        Reply(1, line(), "the spool cannot be read"),
        Reply(None, line()),
        Reply(0, "Traceback"),
        Reply(0, line() + line()[:40]),
        Reply(0, "[]\n"),
        Reply(0, '{"id": "7.h"}\n'),
        Reply(0, line(exit_code="three")),
        Reply(0, line(submitted=10**400)),
        Reply(0, line(started={"at": 1})),
        Reply(0, line(state=[])),
        Reply(0, line(left=[1])),
        Reply(0, line(left=[["a", "b"]])),
        Reply(0, "[" * 100_000),
    ],
    ids=lambda reply: reply.said[-24:],
)
def test_an_answer_that_makes_no_sense_is_no_answer(reply: Reply) -> None:
    for dialogue in (LOCAL.observe(["7.h"], {}), search(LOCAL, "htag", {})):
        assert isinstance(converse(dialogue, reply)[0], NoAnswer)


@given(
    st.text()
    | st.dictionaries(
        st.sampled_from(
            ["id", "state", "end", "exit_code", "signal", "submitted", "host", "name", "message"]
        ),
        st.none() | st.integers() | st.text() | st.lists(st.integers()) | st.floats(),
    ).map(lambda changes: line(**changes))
)
def test_any_text_is_an_answer_or_none(text: str) -> None:
    answer, _ = converse(LOCAL.observe(["7.h"], {}), Reply(0, text))
    if not isinstance(answer, NoAnswer):
        for key, seen in answer.items():
            assert key == seen.id
            assert isinstance(seen.exit_code, int | None)
            assert all(
                isinstance(text, str) for text in (seen.tag, seen.signal, seen.host, seen.word)
            )


def test_a_job_is_found_by_its_tag() -> None:
    answer, (command,) = converse(search(LOCAL, "htag", {}), Reply(0, line()))
    assert command.argv[-2:] == ("find", "htag")
    assert isinstance(answer, dict)
    assert answer["7.h"].tag == "htag"


# --- arrays


@pytest.mark.parametrize(
    ("array", "words"),
    [(Array(size=7), ["7"]), (Array(size=7, at_once=2), ["7", "--at-once", "2"])],
)
def test_an_array_is_submitted_in_one_command(array: Array, words: list[str]) -> None:
    spec = dataclasses.replace(SPEC, array=array)
    _, (command,) = converse(LOCAL.submit(spec, TICKET), Reply(0, "7.h\n"))
    given = command.argv[command.argv.index("--array") + 1 :]
    assert list(given[: len(words)]) == words
    assert ("--at-once" in command.argv) is (array.at_once > 0)


def test_the_script_of_an_array_learns_its_number_too() -> None:
    preamble = LOCAL.preamble(dataclasses.replace(SPEC, array=Array(size=2)), TICKET)
    assert preamble.index == '"$HPC_LOCAL_ARRAY_INDEX"'
    assert preamble.id_expression == '"$HPC_LOCAL_JOBID"'
    assert LOCAL.preamble(SPEC, TICKET).index == ""
    assert LOCAL.element_id("7.h", 3) == "7.h_3"


def test_the_profile_says_how_large_an_array_may_be() -> None:
    assert [LOCAL.array_limit(options) for options in ({}, {"max_array_size": 0})] == [10000, 0]


def test_what_is_left_of_an_array_is_told() -> None:
    seen = observed(state="RUNNING", started=101.0, left=[[0, 0], [3, 9]])
    assert (seen.state, seen.left) == (JobState.RUNNING, ((0, 0), (3, 9)))


@pytest.mark.parametrize("end", ENDS)
def test_an_array_as_a_whole_is_cancelled_or_has_just_ended(end: str) -> None:
    seen = observed(state="ENDED", end=end, ended=102.0, left=[])
    cancelled = Reason.CANCELLED if end == "CANCELLED" else None
    assert (seen.state, seen.cause, seen.left) == (JobState.ENDED, cancelled, ())


# --- cancelling, and the register


def test_jobs_are_cancelled_in_one_command() -> None:
    answer, (command,) = converse(
        LOCAL.cancel({"7.h": "a", "8.h": "b"}, {}), Reply(0, "cancelled 7.h\n")
    )
    assert answer is None
    assert command.argv[-3:] == ("cancel", "7.h", "8.h")
    assert converse(LOCAL.cancel({"7.h": "a"}, {}), Reply(None))[0] == NoAnswer(
        "no answer in time, nothing"
    )


def test_the_local_scheduler_is_registered_under_its_name() -> None:
    assert scheduler_for("local").name == "local"
    with pytest.raises(KeyError):
        scheduler_for("nope")
