"""Members that share an element: each is told what became of itself, not of another."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import pytest
from rig import Rig, until

from hpc_prefect.job import folder as names
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.state import JobState
from hpc_prefect.schedulers.local.scheduler import LocalScheduler

QUICK = dataclasses.replace(LocalScheduler.patience, outputs=0.5, record=0.3)
#: Ends with 3 while there is a file `fail-<member>`.
FAILS = '[ ! -e "fail-$1" ] || exit 3'


def with_outputs(request):
    members = tuple(
        dataclasses.replace(each, expected_outputs=(f"{each.key}.out",)) for each in request.members
    )
    return dataclasses.replace(request, members=members)


def packed(rig: Rig, program: str, lines: list[str]):
    return rig.array(rig.spec(program), lines, per_element=2)


async def test_a_member_is_not_told_of_the_code_of_the_one_before_it(rig: Rig):
    """Its element ends with that code; its own record says 0, and its output is not there."""
    (rig.work / "fail-a").touch()
    request = with_outputs(packed(rig, FAILS, ["a", "b"]))
    connection = rig.connection(scheduler := LocalScheduler())
    scheduler.patience = QUICK
    results = await rig.run_array(request, connection)
    assert results["a"].verdict.exit_code == 3
    assert results["b"].verdict.reason is Reason.OUTPUT_LOST


async def test_an_output_that_comes_late_is_waited_for_behind_one_that_failed(rig: Rig):
    """As on NFS, which may not show it for a minute."""
    (rig.work / "fail-a").touch()
    request = with_outputs(packed(rig, FAILS, ["a", "b"]))
    connection = rig.connection(scheduler := LocalScheduler())
    scheduler.patience = dataclasses.replace(LocalScheduler.patience, outputs=60.0)
    task = asyncio.ensure_future(rig.run_array(request, connection))
    seen = {"event": "member_observed", "i": 1, "state": "ended"}
    await until(lambda: any(seen.items() <= e.items() for e in rig.journal()), "its element's end")
    (rig.work / "b.out").write_text("late")
    results = await task
    assert [each.state for each in results.values()] == ["failed", "succeeded"]


@pytest.mark.parametrize("lines", [["a", "b"], ["a", "b", "c", "d"]], ids=["one element", "two"])
async def test_members_are_not_started_again_by_a_scheduler_that_requeues(rig: Rig, lines):
    """A success among them counts at once, also of a submission of one element."""
    rig.options["requeue"] = "yes"
    (rig.work / "fail-b").touch()
    (rig.work / "hold").touch()
    program = f'[ "$1" != b ] || while [ -e hold ]; do sleep 0.02; done; {FAILS}'
    task = asyncio.ensure_future(rig.run_array(packed(rig, program, lines)))
    ended = rig.attempt() / "ended.jsonl"
    await until(lambda: ended.exists() and '"i":0' in ended.read_text(), "the end of a")
    (rig.work / "hold").unlink()
    results = await task
    states = {key: each.state for key, each in results.items()}
    assert states == {key: "failed" if key == "b" else "succeeded" for key in lines}
    assert sorted(rig.runs()) == [f"program {key}" for key in lines]


class Preempts(LocalScheduler):
    """Says of each end that it had preempted the job."""

    def observe(self, ids, options):
        found = yield from super().observe(ids, options)
        ends = {i: each for i, each in found.items() if each.state is JobState.ENDED}
        preempted = {"cause": Reason.PREEMPTED, "exit_code": None, "word": "PREEMPTED"}
        return found | {i: dataclasses.replace(each, **preempted) for i, each in ends.items()}


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        ("kill -TERM $$", Reason.PREEMPTED),
        ("kill -KILL $$", Reason.PREEMPTED),
        ("exit 3", Reason.PROGRAM_FAILED),
        ("exit 0", Reason.SUCCEEDED),
    ],
)
async def test_a_member_that_died_of_a_signal_may_have_had_it_before_the_script(
    rig: Rig, end, reason
):
    """A scheduler signals one process after another; the script of this one has noted none."""
    request = packed(rig, f'[ "$1" = a ] || {end}', ["a", "b"])
    results = await rig.run_array(request, rig.connection(Preempts()))
    assert results["a"].verdict.reason is Reason.SUCCEEDED
    assert results["b"].verdict.reason is reason


class Spoils(LocalScheduler):
    """Between the hand-over and the start somebody removes what the script runs."""

    def submit(self, spec, ticket):
        Path(ticket.folder, names.PROGRAM).unlink()
        return (yield from super().submit(spec, ticket))


async def test_of_an_element_that_began_no_member_each_is_told_why(rig: Rig):
    request = packed(rig, FAILS, ["a", "b"])
    connection = rig.connection(scheduler := Spoils())
    scheduler.patience = QUICK
    results = await rig.run_array(request, connection)
    assert {each.verdict.reason for each in results.values()} == {Reason.FOLDER_NOT_WRITABLE}
    assert rig.runs() == []
