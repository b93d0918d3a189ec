"""A job's result: its state, and what is read back of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hpc_prefect.job.failure import ADVICE, Reason, Verdict
from hpc_prefect.job.result import JobResult
from hpc_prefect.job.state import signal_of


@pytest.mark.parametrize(
    ("code", "name"),
    [(None, ""), (0, ""), (3, ""), (128, ""), (137, "SIGKILL"), (143, "SIGTERM"), (255, "")],
)
def test_a_signal_is_read_from_the_shells_code(code: int | None, name: str) -> None:
    assert signal_of(code) == name


def result(why: Reason, **fields: Any) -> JobResult:
    verdict = Verdict(reason=why, summary="s", said="x", exit_code=3, signal="SIGKILL")
    paths = dict.fromkeys(("folder", "script_path", "stdout_path", "stderr_path"), "/f")
    return JobResult(
        job_id="7.a", name="n", tag="t", key="k", attempt=1, verdict=verdict, **paths, **fields
    )


STATES = {
    Reason.SUCCEEDED: "succeeded",
    Reason.LOST: "lost",
    Reason.CANCELLED: "cancelled",
    Reason.CANCELLED_ELSEWHERE: "cancelled",
    Reason.TIMED_OUT: "cancelled",
}


@pytest.mark.parametrize("why", Reason)
def test_a_result_survives_the_journal_and_says_its_state(why: Reason) -> None:
    made = result(why, queue_seconds=1.5, resources_used={"max_rss": 5.0})
    stored = json.loads(json.dumps(made.as_dict() | {"of a later version": 1}))
    assert JobResult.from_dict(stored) == made
    assert stored["state"] == made.state == STATES.get(why, "failed")
    assert made.succeeded is (why is Reason.SUCCEEDED)
    assert (made.exit_code, made.signal) == (3, "SIGKILL")


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"verdict": 1},
        {"verdict": {"reason": "?", "summary": ""}},
        {"verdict": {"reason": "lost", "summary": ""}},
    ],
    ids=str,
)
def test_what_is_no_result_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        JobResult.from_dict(broken)


@pytest.mark.parametrize("why", Reason)
def test_every_reason_has_a_remedy(why: Reason) -> None:
    verdict = Verdict(reason=why, summary="s")
    assert verdict.remedy == ADVICE[why].remedy != ""
    assert verdict.retryable is ADVICE[why].retryable


def test_only_what_may_well_succeed_next_time_is_retryable() -> None:
    assert {why for why in Reason if ADVICE[why].retryable} == {
        Reason.WALLTIME,
        Reason.OUT_OF_MEMORY,
        Reason.NODE_FAILURE,
        Reason.ALLOCATION_ENDED,
        Reason.NEVER_STARTED,
        Reason.PREEMPTED,
        Reason.QUEUE_FULL,
    }
