"""Numbers of identical calls, whatever is entered when, and whatever is not entered at all."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from hpc_prefect.job.identity import Path, Step
from hpc_prefect.job.numbers import Entry

#: What one run of a task does, told by its function and parameters: kinds of calls, in their order.
BODIES = st.lists(st.sampled_from("abc"), max_size=4)
#: A task by its name and parameters, and the calls that each of its runs makes. Those of runs that
#: are told apart by nothing (closures) may differ.
RUNS = st.lists(st.tuples(st.sampled_from(["relax", "緩和", "弛緩"]), BODIES), max_size=6)


def start(runs: list[tuple[str, list[str]]], schedule: list[int]) -> Counter[Any]:
    """Identities of all calls when these runs are entered and go on as a schedule says."""
    root = Entry()
    entries: dict[int, Entry] = {}
    left = {i: list(body) for i, (_, body) in enumerate(runs)}
    made: Counter[Any] = Counter()
    for i in [*schedule, *sorted(left) * 5]:
        if left.get(i):
            path: Path = (Step("task", runs[i][0]),)
            entry = entries.setdefault(i, Entry(root, path))
            what = left[i].pop(0)
            made[(path, what, entry.next_number((path, what)))] += 1
    return made


@given(RUNS, st.lists(st.integers(0, 5)), st.lists(st.integers(0, 5)))
def test_threads_in_any_order_make_the_same_set_of_identities(
    runs: list[tuple[str, list[str]]], first: list[int], then: list[int]
) -> None:
    assert start(runs, first) == start(runs, then)


@given(RUNS, st.lists(st.integers(0, 5)))
def test_no_two_calls_have_one_identity(
    runs: list[tuple[str, list[str]]], schedule: list[int]
) -> None:
    made = start(runs, schedule)
    assert set(made.values()) <= {1}
    assert made.total() == sum(len(body) for _, body in runs)


@given(RUNS, st.data())
def test_runs_of_a_task_that_are_not_entered_move_no_call_of_another_task(
    runs: list[tuple[str, list[str]]], data: st.DataObject
) -> None:
    """Prefect has the results of all runs of some tasks: none of these is entered."""
    stored = data.draw(st.sets(st.sampled_from(["relax", "緩和", "弛緩"])))
    entered = [run for run in runs if run[0] not in stored]
    expected = {each: n for each, n in start(runs, []).items() if each[0][0].name not in stored}
    assert start(entered, []) == expected


@given(st.lists(BODIES, min_size=1, max_size=4), st.data())
def test_a_run_that_is_not_entered_moves_no_call_that_only_others_make(
    bodies: list[list[str]], data: st.DataObject
) -> None:
    """Of runs that nothing but a closure tells apart, one has its result stored."""
    runs = [("relax", [f"{i}{what}" for what in body]) for i, body in enumerate(bodies)]
    missing = data.draw(st.integers(0, len(runs) - 1))
    entered = runs[:missing] + runs[missing + 1 :]
    assert set(start(entered, [])) <= set(start(runs, []))


@given(st.lists(BODIES, min_size=1, max_size=4), st.data())
def test_runs_that_number_themselves_keep_their_calls_when_others_are_not_entered(
    bodies: list[list[str]], data: st.DataObject
) -> None:
    """`ONCE`: all runs of the task are told apart, those with a stored result are not entered."""
    stored = data.draw(st.sets(st.integers(0, len(bodies) - 1)))

    def calls(skip: set[int]) -> dict[int, list[Any]]:
        root = Entry()
        made = {}
        for i, body in enumerate(bodies):
            entry = Entry(root, (Step("task", "relax"),))
            assert entry.number_itself("once") == i
            if i not in skip:
                path = entry.path
                made[i] = [(path, what, entry.next_number((path, what))) for what in body]
        return made

    whole = calls(set())
    assert calls(stored) == {i: made for i, made in whole.items() if i not in stored}


@given(st.lists(BODIES, min_size=2, max_size=3), st.lists(st.integers(1, 3), max_size=4))
def test_a_retry_makes_the_calls_of_its_run_again_and_no_others(
    bodies: list[list[str]], attempts: list[int]
) -> None:
    """Also in tasks inside it, which are other runs in the next attempt."""
    root = Entry()
    path: Path = (Step("task", "outer"),)
    inner: Path = (*path, Step("task", "inner"))
    outers = [Entry(root, path) for _ in bodies]

    def attempt(i: int, number: int) -> list[Any]:
        outers[i].begin(number)
        task = Entry(outers[i], inner)
        return [(what, task.next_number((inner, what))) for what in bodies[i]]

    first = [attempt(i, 1) for i in range(len(bodies))]
    for number, i in enumerate(attempts, start=2):
        which = i % len(bodies)
        assert attempt(which, number) == first[which]
    every = [call for calls in first for call in calls]
    assert len(set(every)) == len(every)
