"""What an attempt of a quantum job has cost, by its journal."""

from __future__ import annotations

from typing import Any

import pytest

from hpc_prefect.job.folder import journal_line, read_journal
from hpc_prefect.ledger.quantum_folder import qpu_seconds

ESTIMATE = 3.0


def cost(*entries: tuple[str, dict[str, Any]]) -> float:
    intent = ("intent", {"tag": "t", "claim": 1, "job": {"estimated_seconds": ESTIMATE}})
    lines = [journal_line(1.0, event, **facts) for event, facts in (intent, *entries)]
    return qpu_seconds(read_journal(b"".join(lines)))


def submitted(job_id: str) -> tuple[str, dict[str, Any]]:
    return "submitted", {"id": job_id}


def verdict(job_id: str, seconds: float) -> tuple[str, dict[str, Any]]:
    used = {"qpu_seconds": seconds}
    return "verdict", {"result": {"state": "succeeded", "job_id": job_id, "resources_used": used}}


DUPLICATE = ("duplicate", {"id": "q2"})


def test_an_intent_counts_with_its_estimate_until_the_cost_is_known() -> None:
    assert cost() == cost(submitted("q1")) == ESTIMATE
    assert cost(submitted("q1"), verdict("q1", 1.5)) == 1.5


def test_a_duplicate_counts_beside_the_job_that_was_kept() -> None:
    kept = (submitted("q2"), DUPLICATE, submitted("q3"), verdict("q3", 1.5))
    assert cost(*kept) == 1.5 + ESTIMATE
    assert cost(*kept, ("duplicate", {"id": "q2", "qpu_seconds": 0.5})) == 2.0


@pytest.mark.parametrize("late", ["q2", "q4"], ids=["a duplicate", "one that nobody knew"])
def test_an_id_that_a_stopped_process_notes_after_the_verdict_hides_no_cost(late: str) -> None:
    kept = (submitted("q3"), verdict("q3", 1.5))
    first = (DUPLICATE,) if late == "q2" else ()
    assert cost(*first, *kept, submitted(late)) == 1.5 + ESTIMATE
