"""What the table of a run's jobs says: what failed first, and what all of it took."""

from __future__ import annotations

import pytest

from hpc_prefect.batch import report
from hpc_prefect.batch.report import MOST_ROWS, page_key, rows, summary
from hpc_prefect.job.failure import Reason, Verdict
from hpc_prefect.job.result import JobResult


def result(name: str = "job", reason: Reason = Reason.SUCCEEDED, **more: object) -> JobResult:
    values: dict[str, object] = {
        "job_id": "1",
        "name": name,
        "tag": "abcdefghijk",
        "key": "k",
        "attempt": 1,
        "verdict": Verdict(reason=reason, summary="as it is"),
        "folder": name,
        "script_path": "",
        "stdout_path": "",
        "stderr_path": "",
    }
    return JobResult(**values | more)  # type: ignore[arg-type]


def test_what_failed_stands_first_and_the_rest_keeps_its_order() -> None:
    jobs = [result("a"), result("b", Reason.NODE_FAILURE), result("c"), result("d", Reason.LOST)]
    assert [row["job"] for row in rows(jobs)] == ["b", "d", "a", "c"]


@pytest.mark.parametrize("failed", [0, 1, MOST_ROWS, MOST_ROWS + 1])
def test_a_long_table_keeps_the_failures_and_the_newest_others(failed: int) -> None:
    others = [result(f"good-{n}") for n in range(MOST_ROWS)]
    bad = [result(f"bad-{n}", Reason.NODE_FAILURE) for n in range(failed)]
    names = [row["job"] for row in rows([*others, *bad])]
    assert len(names) == MOST_ROWS
    assert sum(name.startswith("bad") for name in names) == min(failed, MOST_ROWS)
    if failed < MOST_ROWS:
        assert names[-1] == f"good-{MOST_ROWS - 1}"


def test_the_sum_is_in_words_with_the_node_hours_of_this_run() -> None:
    jobs = [
        result("a", num_nodes=4, run_seconds=1800.0),
        result("b", Reason.NODE_FAILURE, num_nodes=2, run_seconds=900.0),
        result("c", num_nodes=8, run_seconds=3600.0, collected=True),
        result("d", Reason.LOST, num_nodes=1),
    ]
    assert summary(jobs) == (
        "4 jobs: 1 failed, 1 lost, 2 succeeded, 1 of them in an earlier run; "
        "2.5 node-hours in this run, those of 1 job not known"
    )
    assert summary([result()]) == "1 job: 1 succeeded"


@pytest.mark.parametrize(
    ("seconds", "hours", "shown"),
    [
        (None, None, ("", "")),
        (0.123456, 0.0, (0.12, 0.0)),
        (12.3456, 0.00001, (12.35, "< 0.001")),
        (1234.56, 0.12345, (1235, 0.123)),
        (1e5, 123.456, (100_000, 123.5)),
    ],
)
def test_numbers_are_rounded_for_people(
    seconds: float | None, hours: float | None, shown: tuple[object, object]
) -> None:
    assert (report._seconds(seconds), report._hours(hours)) == shown


def test_the_column_of_earlier_runs_is_there_when_one_has_something_to_say() -> None:
    assert "earlier run" not in rows([result()])[0]
    assert [row["earlier run"] for row in rows([result(), result(collected=True)])] == ["", "yes"]


def test_a_page_is_titled_by_its_job_where_prefect_takes_its_letters() -> None:
    assert page_key(result("Diag N2")) == "failed-diag-n2-abcdef"
    assert page_key(result("温度")) == "failed-abcdefghijk"
