"""A run on one page: what stands first, what is counted, and that any record can be shown."""

from __future__ import annotations

from typing import Any

import pytest

from hpc_prefect.records.fold import Record
from hpc_prefect.records.page import MOST_ROWS, Jobs, page, sparkline, summary

from . import built, given


def shown(*events: dict[str, Any]) -> tuple[Record, Jobs]:
    """A record and its jobs, as its writer takes events in."""
    record, jobs = Record(folder="/w/.hpc-prefect/c/runs/id", with_jobs=False), Jobs()
    for event in events:
        record.add(event)
        jobs.add(event, record)
    return record, jobs


def text(*events: dict[str, Any], **more: Any) -> str:
    return page(*shown(*events), **more)


def batch(key: str, at: float = 1.0, **facts: Any) -> list[dict[str, Any]]:
    facts = {"reason": "succeeded", "name": key, "job_id": f"{key}.vm"} | facts
    wanted, ended = given.job(key, given.BEGAN + at)
    return [wanted | {"name": facts["name"]}, ended | facts]


def test_what_failed_stands_first_and_the_rest_keeps_its_order() -> None:
    states = {"a": "succeeded", "b": "failed", "c": "succeeded", "d": "lost"}
    events = [each for at, (key, state) in enumerate(states.items())
              for each in batch(key, at, state=state)]  # fmt: skip
    _, jobs = shown(given.began("id"), *events)
    assert [job["name"] for job in jobs.ended(quantum=False)] == ["b", "d", "a", "c"]


@pytest.mark.parametrize("failed", [0, 1, MOST_ROWS, MOST_ROWS + 1])
def test_of_many_jobs_the_failures_and_the_newest_others_are_shown(failed: int) -> None:
    events = [batch(f"good-{n}", n)[1] for n in range(MOST_ROWS + 1)]
    events += [batch(f"bad-{n}", n, state="failed")[1] for n in range(failed)]
    _, jobs = shown(given.began("id"), *events)
    names = [str(job["name"]) for job in jobs.ended(quantum=False)]
    assert len(names) == MOST_ROWS
    assert sum(name.startswith("bad") for name in names) == min(failed, MOST_ROWS)
    if failed < MOST_ROWS:
        assert names[-1] == f"good-{MOST_ROWS}"


def test_the_sum_is_in_words_with_the_node_hours_of_this_run() -> None:
    jobs = [
        batch("a", node_hours=2.0),
        batch("b", state="failed", node_hours=0.5),
        batch("c", node_hours=8.0, collected=True, made_by="another"),
        batch("d", state="lost", node_hours=None),
        batch("e")[:1],
    ]
    record, rows = shown(given.began("id"), *(each for pair in jobs for each in pair))
    assert summary(record, len(rows.under_way)) == (
        "running; 4 jobs: 1 failed, 1 lost, 2 succeeded, 1 of them in an earlier run; 1 under way;"
        " 2.5 node-hours"
    )
    whole = page(record, rows)
    assert "| node-hours | 2.5, those of 1 job not known |" in whole
    assert "| saved by resuming | 8.0 node-hours |" in whole
    assert "| under way | e |" in whole
    assert "| earlier run |" in whole


def test_a_column_of_which_no_job_has_something_to_say_is_left_out() -> None:
    assert "earlier run" not in text(given.began("id"), *batch("a"))


@pytest.mark.parametrize(
    ("seconds", "hours", "cells"),
    [
        (0.123456, 0.0, "0.12 | 0"),
        (12.3456, 0.00001, r"12.35 | \< 0.001"),
        (1234.56, 0.12345, "1235 | 0.123"),
        (1e5, 123.456, "100000 | 123.5"),
    ],
)
def test_numbers_are_rounded_for_people(seconds: float, hours: float, cells: str) -> None:
    whole = text(given.began("id"), *batch("a", run_seconds=seconds, node_hours=hours))
    assert f" | {cells} | " in whole


def test_reasons_are_words() -> None:
    whole = text(given.began("id"), *batch("a", state="failed", reason="walltime"))
    assert "| a | walltime exceeded |" in whole


def test_an_attempt_that_is_told_again_is_one_row_and_another_attempt_its_own() -> None:
    first = batch("a", state="failed")[1]
    whole = text(given.began("id"), first, first, first | {"attempt": 2, "state": "succeeded"})
    assert whole.count("\n| a |") == 2


def test_quantum_jobs_have_a_table_with_device_shots_and_qpu_seconds() -> None:
    job = {**built.sampler_job(), "qpu_seconds_are": "estimated", "job_id": "d3sc"}
    whole = text(given.began("id"), given.event(given.BEGAN + 1, "job-ended", **job))
    section = whole.partition("### Quantum jobs")[2]
    assert "ibm\\_torino | 1000 | 40 | 12 | 3.0 (estimated) |" in section
    assert "### Jobs" not in whole
    assert "| QPU seconds | 3.0 |" in whole


def test_a_loop_is_a_line_of_blocks_and_its_newest_rows() -> None:
    loop = {"loop": "n2", "folder": "/w/loop"}
    events = [given.event(given.BEGAN, "loop", **loop, watched="energy")]
    for n in range(1, 9):
        row = {"iteration": n, "energy": 2.0**-n, "change": None if n == 1 else -(2.0**-n)}
        events.append(given.event(given.BEGAN + n, "iteration", **loop, number=n, row=row))
    whole = text(given.began("id"), *events)
    assert "### Loop n2: 8 iterations\n\nenergy: 0.5 `█▄▂▁▁▁▁▁` 0.00390625\n" in whole
    assert "| 8 | 0.00390625 | -0.00390625 |\n| 7 |" in whole
    assert "| 3 |" not in whole


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ([], ""),
        ([None, "x", float("nan")], ""),
        ([1.0], "▁"),
        ([1, 1], "▁▁"),
        ([0, None, 1], "▁ █"),
        ([-1e308, 1e308], "▁█"),
    ],
)
def test_a_sparkline_shows_what_is_a_number(values: list[object], line: str) -> None:
    assert sparkline(values) == line


def test_a_run_that_failed_says_why_and_how_to_go_on() -> None:
    whole = text(
        given.began("abc-1", parameters={"shots": 7, "a|b": "*"}, attempt=2),
        given.ended(given.BEGAN + 60, "failed", "job bad failed"),
        notes=["This run has used 2 QPU seconds."],
    )
    assert whole.startswith("## hot-polecat: failed\n\njob bad failed\n\n| flow | sqd-loop |")
    for part in (
        "| begun | 2 times: it was retried or resumed |",
        "| took | 60 s |",
        "| shots | 7 |",
        r"| a\|b | \* |",
    ):
        assert part in whole
    assert "This run has used 2 QPU seconds." in whole
    assert "hpc-prefect runs show abc-1\nhpc-prefect resume abc-1" in whole
    assert "The record: /w/.hpc-prefect/c/runs/id" in whole


@pytest.mark.parametrize("odd", [None, [], {}, "x\n| y |", float("nan"), -1, 1e400])
def test_whatever_is_in_a_record_is_shown_in_some_way(odd: object) -> None:
    names = ("name", "state", "reason", "exit_code", "node_hours", "circuits", "collected",
             "finished_at", "run_seconds", "folder", "qpu_seconds")  # fmt: skip
    for name in names:
        for kind in ("batch", "sampler"):
            wanted, ended = batch("a", **{name: odd})
            try:
                record, jobs = shown(given.began("id"), wanted | {"kind": kind}, ended)
            except (TypeError, ValueError):  # the writer leaves it out
                continue
            assert page(record, jobs).startswith("## hot-polecat: running\n")
