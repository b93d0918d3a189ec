"""A record from its events: what is counted, once, whoever tells it and however often."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from hpc_prefect.records.fold import Record, fold

RUN = {"id": "r1", "name": "n", "kind": "flow", "flow": "f", "attempt": 1}


def began(time: float, **run: Any) -> dict[str, Any]:
    known = {"run": RUN | run, "parameters": {}, "environment": {}}
    return {"event": "began", "time": time, **known}


def done(time: float, key: str = "a", **facts: Any) -> dict[str, Any]:
    job = {"kind": "batch", "state": "succeeded", "attempt": 1, "job_id": f"{key}-id"}
    return {"event": "job-ended", "time": time, "key": key, **job, **facts}


def test_what_is_told_twice_is_counted_once() -> None:
    record = fold([began(1), done(2, qpu_seconds=7), done(3, qpu_seconds=7)])
    assert (record.totals.costs, record.totals.jobs) == ({"qpu_seconds": 7.0}, {"succeeded": 1})


def test_each_attempt_counts() -> None:
    first = done(2, state="failed", node_hours=1)
    record = fold([began(1), first, done(3, attempt=2, job_id="b", node_hours=2)])
    assert record.totals.costs == {"node_hours": 3.0}
    assert record.jobs["a"]["state"] == "succeeded"


def test_each_member_of_an_array_counts() -> None:
    array = done(2, state="failed", ends={"succeeded": 7, "program_failed": 2, "cancelled": 1})
    record = fold([began(1), array, done(3, key="again", ends={"succeeded": 4}, collected=True)])

    assert record.totals.jobs == {"succeeded": 11, "failed": 2, "cancelled": 1}
    assert record.totals.reused == 4


def test_a_runs_own_job_that_it_finds_again_is_not_called_reused() -> None:
    record = fold([began(1), done(2, collected=True, made_by="r1", node_hours=1)])
    assert (record.totals.costs, record.totals.saved) == ({"node_hours": 1.0}, {})
    assert record.jobs["a"]["collected"] is False
    sampled = fold([began(10), done(20, collected=True, finished_at=15.0, qpu_seconds=2)])
    assert sampled.totals.costs == {"qpu_seconds": 2.0}


def test_another_runs_job_is_saved_and_not_paid() -> None:
    record = fold([began(10), done(20, collected=True, made_by="r0", node_hours=1)])
    assert (record.totals.costs, record.totals.saved) == ({}, {"node_hours": 1.0})
    sampled = fold([began(10), done(20, collected=True, finished_at=5.0, qpu_seconds=2)])
    assert (sampled.totals.reused, sampled.totals.saved) == (1, {"qpu_seconds": 2.0})


def row(time: float, folder: str, number: int, energy: float) -> dict[str, Any]:
    facts = {"number": number, "row": {"iteration": number, "energy": energy}}
    return {"event": "iteration", "time": time, "loop": "scf", "folder": folder, **facts}


def test_two_loops_of_one_name_are_two_and_the_last_one_gives_the_measures() -> None:
    first = [row(n, "/w/1", n, -1 - n / 10) for n in range(1, 11)]
    second = [row(10 + n, "/w/2", n, -9.0) for n in range(1, 6)]
    record = fold([began(0), *first, *second])
    assert {loop: len(rows) for loop, rows in record.iterations.items()} == {
        "scf": 10,
        "scf (2)": 5,
    }
    assert record.measures == {"iteration": 5, "energy": -9.0}


def test_an_end_is_of_its_attempt() -> None:
    end = {"event": "ended", "time": 5, "state": "failed", "message": ""}
    assert fold([began(1), end]).state == "failed"
    assert fold([began(1), end, began(6, attempt=2)]).state == "running"
    assert fold([end, began(1)]).state == "failed"  # of two files, the second read first


def test_a_job_that_makes_no_sense_is_left_out_whole() -> None:
    for cost in ("x", float("nan"), float("inf"), -1, 10**400, []):
        record = fold([began(1), done(2, queue_seconds=3, node_hours=cost), done(3, "b")])
        assert (record.totals.jobs, record.totals.costs) == ({"succeeded": 1}, {})


def test_an_event_of_another_name_does_nothing() -> None:
    record = fold([began(1), done(2)])
    before = record.as_dict()
    for name in ("_init__", "counted", "label", "is-reused", "x", None, ["began"]):
        record.add({"event": name, "time": 3.0, "loop": "scf"})
    assert record.as_dict() == before


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
KINDS = ("began", "code", "campaign", "block", "job", "job-ended", "loop", "iteration", "measures")
FIELDS = ("time", "run", "parameters", "environment", "key", "loop", "number", "row", "values")


@given(st.lists(st.tuples(st.sampled_from((*KINDS, "ended", "x")),
                          st.dictionaries(st.sampled_from(FIELDS), anything))))  # fmt: skip
def test_no_event_is_an_error(events: list[tuple[str, dict[str, Any]]]) -> None:
    record = Record()
    for kind, fields in events:
        record.add({"event": kind, "time": 1.0, **fields})
    record.summary()


def ended(time: float, state: str, attempt: int = 1, **more: Any) -> dict[str, Any]:
    facts = {"key": "k", "attempt": attempt, "job_id": str(attempt), "state": state} | more
    return {"time": time, "event": "job-ended", **facts}


def test_a_job_that_was_lost_and_is_found_counts_as_it_then_ended() -> None:
    lost, found = ended(2, "lost", run_seconds=None), ended(3, "succeeded", run_seconds=5.0)
    record = fold([lost, lost, found, found, lost])
    assert record.totals.as_dict()["jobs"] == {"succeeded": 1}
    assert record.totals.as_dict()["costs"] == {"run_seconds": 5.0}
    assert record.totals.as_dict()["unknown"] == {}
    assert record.jobs["k"]["state"] == "succeeded"


def test_a_job_is_open_from_when_it_is_wanted_to_its_end_and_again_after_a_failure() -> None:
    wanted = {"event": "job", "key": "k"}
    events = [
        wanted | {"time": 1},
        ended(2, "failed"),
        wanted | {"time": 3},
        ended(4, "succeeded", 2),
        wanted | {"time": 5},
    ]
    seen = [fold(events[:count]) for count in range(1, 6)]
    assert [bool(each.open) for each in seen] == [True, False, True, False, False]
    states = [each.jobs["k"]["state"] for each in seen]
    assert states == ["wanted", "failed", "wanted", "succeeded", "succeeded"]


def test_an_attempt_that_is_told_late_is_counted_and_is_not_the_newest() -> None:
    record = fold([ended(5, "succeeded", 2), ended(3, "failed", 1)])
    assert record.totals.jobs == {"succeeded": 1, "failed": 1}
    assert (record.jobs["k"]["state"], record.jobs["k"]["attempt"]) == ("succeeded", 2)
