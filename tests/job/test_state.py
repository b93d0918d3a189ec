"""The one judge."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_prefect.job.failure import Reason, Verdict
from hpc_prefect.job.folder import ExitRecord, StartRecord
from hpc_prefect.job.state import (
    Evidence,
    JobState,
    Observation,
    decide,
)

from .judged import PATIENCE, START, judge, reason, record, seen

# --- success


def test_a_clean_record_with_all_outputs_is_a_success_at_once() -> None:
    assert judge(record()) == Verdict(
        reason=Reason.SUCCEEDED, summary="the program ended with 0", exit_code=0
    )


@pytest.mark.parametrize(
    "blemish",
    [{"signals": ("TERM",)}, {"oom": 1}, {"time": 1061.0}, {"code": 3}, {"phase": "setup"}],
    ids=str,
)
def test_a_record_with_any_blemish_waits_for_the_schedulers_word(blemish: dict[str, Any]) -> None:
    blemished = dataclasses.replace(record(), **blemish)
    assert reason(blemished) is None
    assert reason(blemished, observation=seen(JobState.RUNNING)) is None


@pytest.mark.parametrize("fact", [{"cancel": "user"}, {"missing_outputs": ("o",)}], ids=str)
def test_a_clean_record_waits_when_something_else_speaks_against_it(fact: dict[str, Any]) -> None:
    assert reason(record(), **fact) is None


def test_a_blemish_that_the_scheduler_does_not_confirm_is_a_success() -> None:
    assert (
        reason(record(signals=("TERM",)), observation=seen(cause=Reason.SUCCEEDED))
        is Reason.SUCCEEDED
    )
    assert reason(record(), cancel="user", observation=seen(exit_code=0)) is Reason.SUCCEEDED


# --- where the scheduler may start the job again by itself


def test_a_clean_record_of_a_job_that_may_be_requeued_waits_for_the_schedulers_word() -> None:
    for state in (JobState.RUNNING, JobState.ENDING, JobState.QUEUED, JobState.HELD):
        assert reason(record(), may_requeue=True, observation=seen(state)) is None
    ended = seen(cause=Reason.SUCCEEDED, exit_code=0)
    assert reason(record(), may_requeue=True, observation=ended) is Reason.SUCCEEDED
    assert reason(record(), may_requeue=True) is None


def test_of_a_job_that_was_requeued_only_the_record_of_its_last_start_counts() -> None:
    again = dataclasses.replace(START, token="t2")
    facts = {"starts": (START, again), "may_requeue": True}
    ended = seen(cause=Reason.PROGRAM_FAILED, exit_code=3)
    assert reason(record(), **facts, observation=seen(JobState.RUNNING)) is None
    failed = record(3, token="t2")
    assert reason(record(), failed, **facts, observation=ended) is Reason.PROGRAM_FAILED


def test_a_clean_record_tells_alone_once_the_scheduler_does_not_know_the_job_any_more() -> None:
    gone = {"may_requeue": True, "record_for": 1000.0}
    assert reason(record(), **gone, absent_for=PATIENCE.absent) is Reason.SUCCEEDED
    assert reason(record(), **gone, silent_for=1000.0) is Reason.SUCCEEDED
    queued = seen(JobState.QUEUED)
    assert reason(record(), **gone, observation=queued) is None, "it runs again"


# --- a program that never began, or whose code nobody told


@pytest.mark.parametrize(
    "facts", [{"exit_code": 0}, {"exit_code": 9}, {"signal": "SIGKILL"}], ids=str
)
def test_a_job_that_ends_without_a_start_is_no_programs_failure(facts: dict[str, Any]) -> None:
    """Such as one whose login profile exits, where the scheduler begins with a login shell."""
    ended = seen(cause=Reason.PROGRAM_FAILED if facts.get("exit_code") else None, **facts)
    assert judge(starts=(), observation=ended, ended_for=1.0) is None
    verdict = judge(starts=(), observation=ended, ended_for=PATIENCE.record)
    assert verdict is not None
    assert verdict.reason is Reason.SETUP_FAILED
    assert "never began: look for a login profile that exits" in verdict.summary


@pytest.mark.parametrize("code", [0, 3])
def test_a_program_whose_code_was_not_told_is_no_success(code: int) -> None:
    verdict = judge(record(code, phase="untold"), observation=seen(exit_code=code or 1))
    assert verdict is not None
    assert verdict.reason is Reason.SETUP_FAILED
    assert "before it noted how the program ended" in verdict.summary


def test_what_stands_in_the_place_of_a_record_is_told() -> None:
    facts = {"spoiled": "exit is a FIFO", "ended_for": PATIENCE.record}
    for code in (0, 119):
        verdict = judge(observation=seen(exit_code=code), **facts)
        assert verdict is not None
        assert verdict.reason is Reason.OUTPUT_LOST
        assert verdict.summary.endswith(": exit is a FIFO")


# --- the scheduler's word

WHY = [r for r in Reason if r not in (Reason.SUCCEEDED, Reason.PROGRAM_FAILED)]


@pytest.mark.parametrize(
    "cause", [r for r in WHY if r not in (Reason.CANCELLED, Reason.CANCELLED_ELSEWHERE)]
)
def test_the_schedulers_word_decides_why_and_the_record_with_which_code(cause: Reason) -> None:
    verdict = judge(
        record(143, signals=("TERM",)), observation=seen(cause=cause, message="said so")
    )
    assert verdict is not None
    assert (verdict.reason, verdict.exit_code, verdict.signal) == (cause, 143, "SIGTERM")
    assert (verdict.summary, verdict.said) == ("said so", "W said so")
    without = judge(observation=seen(cause=cause, exit_code=9, signal="SIGX"))
    assert without is not None
    assert (without.reason, without.exit_code, without.signal) == (cause, 9, "SIGX")
    assert without.summary == "the scheduler says W"


@pytest.mark.parametrize("cause", [Reason.CANCELLED, Reason.CANCELLED_ELSEWHERE])
@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("", Reason.CANCELLED_ELSEWHERE),
        ("user", Reason.CANCELLED),
        ("timeout", Reason.TIMED_OUT),
    ],
)
def test_a_cancellation_is_told_by_who_asked_for_it(
    cause: Reason, by: str, expected: Reason
) -> None:
    assert reason(observation=seen(cause=cause), cancel=by) is expected
    assert reason(record(143), observation=seen(cause=cause), cancel=by) is expected


@pytest.mark.parametrize("cause", [Reason.CAN_NEVER_RUN, Reason.DEPENDENCY_NEVER_MET])
def test_a_job_that_can_never_run_is_told_while_it_waits(cause: Reason) -> None:
    verdict = judge(starts=(), observation=seen(JobState.QUEUED, cause=cause, message="Resources"))
    assert verdict is not None
    assert (verdict.reason, verdict.summary) == (cause, "the scheduler says: Resources")


@pytest.mark.parametrize(
    ("observation", "summary"),
    [
        (seen(exit_code=3), "the scheduler reports exit code 3"),
        (seen(signal="SIGKILL"), "the scheduler reports signal SIGKILL"),
        (seen(cause=Reason.PROGRAM_FAILED), "the scheduler reports W"),
    ],
    ids=str,
)
@pytest.mark.parametrize("exits", [(), (record(signals=("TERM",)),)], ids=["silent", "signalled"])
def test_an_end_that_the_scheduler_calls_bad_is_no_success(
    observation: Observation, summary: str, exits: tuple[ExitRecord, ...]
) -> None:
    verdict = judge(*exits, observation=observation, ended_for=PATIENCE.record)
    assert verdict is not None
    assert (verdict.reason, verdict.summary) == (Reason.PROGRAM_FAILED, summary)


def test_an_end_without_a_record_waits_for_it_and_is_then_no_success() -> None:
    plain = seen(cause=Reason.SUCCEEDED, exit_code=0)
    assert reason(observation=plain) is None
    assert reason(observation=plain, ended_for=PATIENCE.record - 1) is None
    assert reason(observation=plain, ended_for=PATIENCE.record) is Reason.OUTPUT_LOST


def test_missing_outputs_are_waited_for_and_then_named() -> None:
    facts = {"observation": seen(exit_code=0), "missing_outputs": ("a.npz", "b")}
    assert reason(record(), record_for=PATIENCE.outputs - 1, **facts) is None
    verdict = judge(record(), record_for=PATIENCE.outputs, **facts)
    assert verdict is not None
    assert verdict.reason is Reason.OUTPUT_LOST
    assert verdict.summary == "the program ended with 0 but did not write a.npz, b"


def test_a_duplicate_is_told_by_its_code_without_a_start_of_its_own() -> None:
    other = StartRecord(token="t1", id="6.a")
    ended = {"observation": seen(exit_code=117), "ended_for": PATIENCE.record}
    verdict = judge(record(), starts=(other,), **ended)
    assert verdict is not None
    assert verdict.reason is Reason.DUPLICATE
    assert "another job of the same attempt has the job folder" in verdict.summary
    assert reason(record(117), **ended) is Reason.PROGRAM_FAILED


def test_a_folder_that_the_node_cannot_write_is_told_by_its_code() -> None:
    verdict = judge(starts=(), observation=seen(exit_code=118), ended_for=PATIENCE.record)
    assert verdict is not None
    assert verdict.reason is Reason.FOLDER_NOT_WRITABLE
    assert verdict.summary.startswith("its script could not use the job folder on the node")


def test_a_failure_of_which_the_scheduler_may_tell_more_is_waited_for_a_moment() -> None:
    failed = seen(cause=Reason.PROGRAM_FAILED, exit_code=1, final=False)
    assert reason(record(1), observation=failed, ended_for=PATIENCE.more - 1) is None
    assert reason(record(1), observation=failed, ended_for=PATIENCE.more) is (Reason.PROGRAM_FAILED)
    known = dataclasses.replace(failed, cause=Reason.OUT_OF_MEMORY, final=True)
    assert reason(record(1), observation=known) is Reason.OUT_OF_MEMORY


# --- the record alone

RECORDS = [
    (record(3), Reason.PROGRAM_FAILED, "ended with exit code 3"),
    (record(137), Reason.PROGRAM_FAILED, "ended by SIGKILL"),
    (
        record(143, signals=("USR1", "TERM")),
        Reason.PROGRAM_FAILED,
        "ended by SIGTERM after it received SIGTERM",
    ),
    (record(137, oom=1), Reason.OUT_OF_MEMORY, "the kernel killed a process of the job"),
    (
        record(5, phase="setup"),
        Reason.SETUP_FAILED,
        "a login profile, a module or a set-up line ended with exit code 5 before the program"
        " began",
    ),
    (
        record(0, phase="setup"),
        Reason.SETUP_FAILED,
        "a login profile, a module or a set-up line ended with exit code 0 before the program"
        " began",
    ),
    (
        record(127, phase="missing"),
        Reason.EXECUTABLE_MISSING,
        "/opt/diag is not there after set-up; modules loaded: none",
    ),
    (
        record(127, phase="missing", detail="a/1:b"),
        Reason.EXECUTABLE_MISSING,
        "/opt/diag is not there after set-up; modules loaded: a/1, b",
    ),
    (record(0, oom=1), Reason.SUCCEEDED, "the program ended with 0"),
]


@pytest.mark.parametrize(("end", "expected", "summary"), RECORDS, ids=lambda value: str(value)[:20])
def test_the_record_tells_when_the_scheduler_adds_nothing_or_is_silent(
    end: ExitRecord, expected: Reason, summary: str
) -> None:
    for facts in (
        {"observation": seen()},
        {"absent_for": PATIENCE.absent, "record_for": PATIENCE.absent},
        {"record_for": PATIENCE.silent, "silent_for": PATIENCE.silent},
        {"record_for": PATIENCE.silent, "observation": seen(JobState.RUNNING)},
    ):
        verdict = judge(end, **facts)
        assert verdict is not None
        assert (verdict.reason, verdict.summary) == (expected, summary)


def test_a_record_waits_while_the_scheduler_may_still_say_why() -> None:
    known = {"record_for": PATIENCE.absent}
    assert reason(record(3), absent_for=PATIENCE.absent - 1, **known) is None
    assert reason(record(3), absent_for=PATIENCE.absent, **known) is Reason.PROGRAM_FAILED
    assert reason(record(3), record_for=PATIENCE.silent - 1) is None


def test_a_new_record_of_a_job_that_was_listed_nowhere_before_it_began_waits() -> None:
    """The scheduler has yet to clear up: what an allocation's agent had started may run."""
    long = 10 * PATIENCE.absent
    assert reason(record(137), absent_for=long, record_for=PATIENCE.absent - 1) is None
    assert reason(record(137), absent_for=long, record_for=PATIENCE.absent) is (
        Reason.PROGRAM_FAILED
    )


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.HELD])
def test_a_job_listed_as_waiting_after_its_record_was_requeued_and_has_not_ended(
    state: JobState,
) -> None:
    long = 10 * PATIENCE.silent
    assert reason(record(143), observation=seen(state), record_for=long) is None
    stale = {"observation": seen(state), "record_for": long, "silent_for": long}
    assert reason(record(143), **stale) is Reason.PROGRAM_FAILED


@pytest.mark.parametrize("code", [0, 3])
def test_a_record_of_an_earlier_start_never_counts(code: int) -> None:
    starts = (START, dataclasses.replace(START, token="t2"))
    assert reason(record(code), starts=starts, absent_for=PATIENCE.absent) is None
    assert reason(record(code), starts=()) is None
    assert reason(record(code), record(4, token="t2"), starts=starts, observation=seen()) is (
        Reason.PROGRAM_FAILED
    )


# --- silence


def test_absent_for_long_and_without_a_record_is_lost() -> None:
    assert reason(absent_for=PATIENCE.lost - 1) is None
    assert reason(absent_for=PATIENCE.lost) is Reason.LOST
    assert reason(starts=(), absent_for=PATIENCE.lost) is Reason.LOST


def test_silence_after_one_answer_without_the_job_is_no_absence() -> None:
    long = 100 * PATIENCE.lost
    assert reason(absent_for=long, silent_for=long) is None
    assert reason(record(3), absent_for=long, silent_for=long) is None
    assert reason(absent_for=long, silent_for=long - PATIENCE.lost) is Reason.LOST


def test_silence_alone_is_never_an_end() -> None:
    assert reason(silent_for=1e9) is None
    assert reason(silent_for=1e9, observation=seen(JobState.RUNNING)) is None


def test_a_word_that_tells_nothing_is_borne_for_long_and_then_the_job_is_lost() -> None:
    odd = seen(JobState.UNKNOWN, word="ODD")
    assert reason(observation=odd, untold_for=PATIENCE.silent - 1) is None
    verdict = judge(observation=odd, untold_for=PATIENCE.silent)
    assert verdict is not None
    assert verdict.reason is Reason.LOST
    assert verdict.summary == (
        "the scheduler lists it as 'ODD', a state that hpc-prefect does not know, and its script"
        " left no exit record"
    )
    assert reason(starts=(), observation=odd, untold_for=PATIENCE.silent) is Reason.LOST


def test_while_nobody_answers_a_word_gets_no_older() -> None:
    odd, long = seen(JobState.UNKNOWN), 100 * PATIENCE.silent
    assert reason(observation=odd, untold_for=long, silent_for=long) is None


def test_a_record_tells_more_than_a_word_that_tells_nothing() -> None:
    odd, long = seen(JobState.UNKNOWN), PATIENCE.silent
    assert reason(record(3), observation=odd, untold_for=long, record_for=long - 1) is None
    ended = reason(record(3), observation=odd, untold_for=long, record_for=long)
    assert ended is Reason.PROGRAM_FAILED


# --- properties

AGES = st.sampled_from([0.0, 1.0, 10.0, 59.0, 60.0, 299.0, 300.0, 600.0, 1e6]) | st.integers(
    0, 10**4
).map(float)
CAUSES = st.none() | st.sampled_from(Reason)
OBSERVATIONS = st.builds(
    Observation,
    id=st.just("7.a"),
    state=st.sampled_from(JobState),
    word=st.sampled_from(["W", "", "?"]),
    cause=CAUSES,
    exit_code=st.sampled_from([None, 0, 1, 117, 137]),
    signal=st.sampled_from(["", "SIGKILL"]),
    message=st.sampled_from(["", "m"]),
)
TOKENS = st.sampled_from(["t1", "t2", "t3"])
STARTS = st.lists(
    st.builds(StartRecord, token=TOKENS, id=st.sampled_from(["7.a", "8.a"]), time=AGES), max_size=3
).map(tuple)
EXITS = st.lists(
    st.builds(
        ExitRecord,
        token=TOKENS,
        code=st.sampled_from([0, 0, 1, 117, 127, 137, 143]),
        phase=st.sampled_from(["program", "program", "setup", "missing"]),
        signals=st.sampled_from([(), (), ("TERM",)]),
        oom=st.sampled_from([0, 0, 1]),
        time=AGES,
    ),
    max_size=3,
).map(tuple)
EVIDENCE = st.builds(
    Evidence,
    job_id=st.just("7.a"),
    walltime=st.sampled_from([1, 60, 10**6]),
    observation=st.none() | OBSERVATIONS,
    absent_for=AGES,
    silent_for=AGES,
    ended_for=st.none() | AGES,
    record_for=st.none() | AGES,
    starts=STARTS,
    exits=EXITS,
    missing_outputs=st.sampled_from([(), (), ("o",)]),
    cancel=st.sampled_from(["", "", "user", "timeout"]),
)


@given(EVIDENCE)
def test_nothing_but_a_record_of_the_newest_start_makes_a_success(evidence: Evidence) -> None:
    verdict = decide(evidence, PATIENCE)
    if verdict is None or not verdict.succeeded:
        return
    own = [start for start in evidence.starts if start.id == evidence.job_id]
    ends = [end for end in evidence.exits if end.token == own[-1].token]
    assert (ends[-1].code, ends[-1].phase) == (0, "program")
    assert not evidence.missing_outputs
    assert verdict.exit_code == 0


@given(EVIDENCE)
def test_an_end_that_the_scheduler_calls_bad_is_a_success_only_with_a_clean_record(
    evidence: Evidence,
) -> None:
    verdict = decide(evidence, PATIENCE)
    word = evidence.observation
    if verdict and verdict.succeeded and word and word.state is JobState.ENDED:
        bad = word.cause not in (None, Reason.SUCCEEDED) or word.exit_code or word.signal
        assert not bad or (evidence.exit is not None and evidence.exit.clean)


@given(EVIDENCE)
def test_there_is_no_verdict_when_nothing_is_known(evidence: Evidence) -> None:
    never = (Reason.CAN_NEVER_RUN, Reason.DEPENDENCY_NEVER_MET)
    word = evidence.observation
    said = word is not None and (word.state is JobState.ENDED or word.cause in never)
    absent = evidence.absent_for - evidence.silent_for >= PATIENCE.lost
    if evidence.exit is None and not said and not absent:
        assert decide(evidence, PATIENCE) is None


@given(EVIDENCE.filter(lambda evidence: evidence.exit is None), AGES)
def test_an_unknown_word_is_never_an_end(evidence: Evidence, age: float) -> None:
    unknown = seen(JobState.UNKNOWN, exit_code=0)
    asked = dataclasses.replace(evidence, observation=unknown, absent_for=0.0, silent_for=age)
    assert decide(asked, PATIENCE) is None


@given(EVIDENCE, AGES)
def test_waiting_longer_never_changes_a_verdict(evidence: Evidence, wait: float) -> None:
    verdict = decide(evidence, PATIENCE)
    later = dataclasses.replace(
        evidence,
        absent_for=evidence.absent_for + wait if evidence.absent_for else 0.0,
        silent_for=evidence.silent_for + wait,
        ended_for=None if evidence.ended_for is None else evidence.ended_for + wait,
        record_for=None if evidence.record_for is None else evidence.record_for + wait,
    )
    if verdict is not None:
        assert decide(later, PATIENCE) == verdict


# --- what the scheduler wrote into the job's own output

TOLD = {"told": Reason.OUT_OF_MEMORY, "told_words": "slurmstepd: Exceeded job memory limit"}


def test_what_the_scheduler_wrote_tells_why_a_program_was_killed_without_a_record() -> None:
    killed = seen(cause=Reason.PROGRAM_FAILED, signal="SIGKILL")
    verdict = judge(observation=killed, ended_for=0.0, **TOLD)
    assert verdict is not None
    assert verdict.reason is Reason.OUT_OF_MEMORY
    assert verdict.summary == TOLD["told_words"]


@pytest.mark.parametrize(
    ("cancel", "expected"),
    [
        ("", Reason.CANCELLED_ELSEWHERE),
        ("user", Reason.CANCELLED),
        ("timeout", Reason.TIMED_OUT),
    ],
)
def test_a_deletion_that_only_the_jobs_output_tells_of_is_told_by_who_asked_for_it(
    cancel: str, expected: Reason
) -> None:
    deleted = {"told": Reason.CANCELLED, "told_words": "PJM 7090"}
    assert reason(absent_for=PATIENCE.absent, cancel=cancel, **deleted) is expected


def test_what_the_scheduler_wrote_tells_why_when_it_does_not_list_the_job_any_more() -> None:
    assert reason(absent_for=PATIENCE.absent - 1, **TOLD) is None
    assert reason(absent_for=PATIENCE.absent, **TOLD) is Reason.OUT_OF_MEMORY
    assert reason(record(137), absent_for=PATIENCE.absent, **TOLD) is Reason.OUT_OF_MEMORY


def test_what_the_scheduler_wrote_is_nothing_against_a_program_that_ended_well() -> None:
    assert reason(record(), **TOLD) is Reason.SUCCEEDED
    ended = seen(cause=Reason.SUCCEEDED)
    assert reason(record(signals=("TERM",)), observation=ended, **TOLD) is Reason.SUCCEEDED


def test_what_the_scheduler_wrote_is_nothing_against_a_set_up_that_failed() -> None:
    ended = seen(cause=Reason.PROGRAM_FAILED, exit_code=1)
    assert reason(record(1, phase="setup"), observation=ended, **TOLD) is Reason.SETUP_FAILED


def test_the_schedulers_own_word_about_the_reason_counts_more_than_what_it_wrote() -> None:
    assert reason(observation=seen(cause=Reason.WALLTIME), **TOLD) is Reason.WALLTIME


@pytest.mark.parametrize(
    "facts",
    [
        pytest.param({"observation": seen(exit_code=117), "ended_for": 400.0}, id="forgotten"),
        pytest.param({"absent_for": 400.0}, id="listed nowhere"),
    ],
)
def test_outputs_of_a_record_that_came_late_are_waited_for_as_long_as_ever(
    facts: dict[str, Any],
) -> None:
    """The scheduler's end is long past, but NFS may still not show what was just written."""
    missing = facts | {"missing_outputs": ("o",)}
    assert reason(record(), record_for=PATIENCE.outputs - 1, **missing) is None
    assert reason(record(), record_for=PATIENCE.outputs, **missing) is Reason.OUTPUT_LOST
    assert reason(record(), record_for=1.0, **facts) is Reason.SUCCEEDED


def test_a_success_before_the_end_of_its_allocation_waits_for_its_outputs() -> None:
    """NFS may not show for a minute what was written, and the agent's line may be lost."""
    ended = {"observation": seen(cause=Reason.ALLOCATION_ENDED), "nodes": 2}
    hidden = ended | {"missing_outputs": ("o",)}
    assert reason(record(), record_for=PATIENCE.outputs - 1, **hidden) is None
    assert reason(record(), record_for=PATIENCE.outputs, **hidden) is Reason.ALLOCATION_ENDED
    assert reason(record(), **ended) is Reason.SUCCEEDED
    for failed in (record(1), record(0, signals=("TERM",))):
        assert reason(failed, record_for=1.0, **hidden) is Reason.ALLOCATION_ENDED
