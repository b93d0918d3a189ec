"""Arrays in the executor: each member runs once, and only what is missing is submitted again."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import threading
import time
from pathlib import Path

import pytest

from hpc_prefect.errors import JobHeld
from hpc_prefect.executor.arrays.run import ArrayRun
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.folder import read_entries
from hpc_prefect.job.members import ENDED
from hpc_prefect.job.retry import RetryPolicy
from hpc_prefect.job.state import JobState
from hpc_prefect.schedulers.local.scheduler import LocalScheduler
from hpc_prefect.transports.local import LocalTransport

from .rig import Counting, Rig, Told, living_process, until

#: Fails while a file `fail-<member>` is there; waits while `hold-<member>` is.
PROGRAM = """
echo "out $1"; echo "err $1" >&2
while [ -e "hold-$1" ]; do sleep 0.02; done
[ ! -e "fail-$1" ] || exit 3
"""


#: The member `slow` takes all of the time that its first run has; no other needs much of it.
SLOW = '[ "$1" != slow ] || [ -e tried ] || { touch tried; exec sleep 600; }'


@pytest.fixture(params=[1, 3], ids=["a member an element", "three in an element"])
def per_element(request) -> int:
    return request.param


async def test_each_member_runs_once_and_its_result_is_its_own(rig: Rig, per_element: int):
    lines = [f"m{i}" for i in range(7)]
    request = rig.array(rig.spec(PROGRAM), lines, per_element=per_element)
    results = await rig.run_array(request)

    assert sorted(rig.runs()) == [f"program {line}" for line in lines]
    assert [result.state for result in results.values()] == ["succeeded"] * 7
    assert [Path(each.stdout_path).read_text() for each in results.values()] == [
        f"out {line}\n" for line in lines
    ]
    assert Path(results["m4"].stderr_path).read_text() == "err m4\n"
    assert all(result.run_seconds is not None for result in results.values())
    assert not any(result.collected for result in results.values())


async def test_a_second_call_runs_what_failed_and_what_is_new_alone(rig: Rig, per_element: int):
    (rig.work / "fail-m2").touch()
    spec = rig.spec(PROGRAM)
    first = await rig.run_array(rig.array(spec, ["m1", "m2", "m3"], per_element=per_element))
    assert first["m2"].verdict.reason is Reason.PROGRAM_FAILED
    assert first["m2"].exit_code == 3
    assert [first[each].state for each in ("m1", "m3")] == ["succeeded"] * 2

    (rig.work / "fail-m2").unlink()
    again = await rig.run_array(rig.array(spec, ["m0", "m1", "m2", "m3"], per_element=per_element))
    assert [result.state for result in again.values()] == ["succeeded"] * 4
    assert [key for key, result in again.items() if result.collected] == ["m1", "m3"]
    assert sorted(rig.runs()) == [f"program m{i}" for i in (0, 1, 2, 2, 3)]
    assert again["m1"] == dataclasses.replace(first["m1"], collected=True)


async def test_a_member_has_five_files_at_most_and_no_folder(rig: Rig, per_element: int):
    request = rig.array(rig.spec(PROGRAM), ["a", "b", "c"], per_element=per_element)
    await rig.run_array(request)
    for folder in (rig.work / ".hpc-prefect" / "campaign" / "ab").glob("k-*/m/0"):
        own = [path.name for path in folder.iterdir() if path.name.startswith("0.")]
        assert len(own) <= 5, own
        assert not [path for path in folder.iterdir() if path.is_dir()]


async def test_what_a_dead_call_left_is_taken_up_and_nothing_runs_twice(rig: Rig, per_element: int):
    lines = [f"m{i}" for i in range(4)]
    (rig.work / "hold-m1").touch()
    spec = rig.spec(PROGRAM)
    with living_process() as claimant:
        left = rig.array(spec, lines, per_element=per_element, claimant=claimant)
        task = asyncio.get_running_loop().create_task(ArrayRun(left, rig.connection()).carry_out())
        await until(lambda: "program m1" in rig.runs(), "a member under way")
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    (rig.work / "hold-m1").unlink()
    results = await rig.run_array(rig.array(spec, lines, per_element=per_element))
    assert [result.state for result in results.values()] == ["succeeded"] * 4
    assert sorted(rig.runs()) == [f"program {line}" for line in lines]


async def test_another_living_call_has_the_array(rig: Rig):
    (rig.work / "hold-a").touch()
    spec = rig.spec(PROGRAM)
    with living_process() as claimant:
        left = rig.array(spec, ["a"], claimant=claimant)
        task = asyncio.get_running_loop().create_task(ArrayRun(left, rig.connection()).carry_out())
        await until(lambda: "program a" in rig.runs(), "the member under way")
        with pytest.raises(JobHeld, match="still runs"):
            await rig.run_array(rig.array(spec, ["a"]))
        (rig.work / "hold-a").unlink()
        await task
    assert rig.runs() == ["program a"]


async def test_what_is_cancelled_is_gone_and_the_next_call_runs_it(rig: Rig, per_element: int):
    lines = ["a", "b", "c", "d", "e"]
    for line in lines:
        (rig.work / f"hold-{line}").touch()
    spec = rig.spec(PROGRAM)
    run = ArrayRun(rig.array(spec, lines, per_element=per_element), rig.connection())
    task = asyncio.get_running_loop().create_task(run.carry_out())
    await until(lambda: len(rig.runs()) == 2, "two of them on the two slots")
    run.cancel("user")
    results = await task
    assert {result.verdict.reason for result in results} <= {
        Reason.CANCELLED,
        Reason.NEVER_STARTED,
    }
    await rig.emptied()

    for line in lines:
        (rig.work / f"hold-{line}").unlink()
    begun = len(rig.runs())
    again = await rig.run_array(rig.array(spec, lines, per_element=per_element))
    assert [result.state for result in again.values()] == ["succeeded"] * 5
    assert len(rig.runs()) == begun + 5


async def test_a_cancelled_array_that_nobody_saw_end_is_ended_before_it_is_run_again(rig: Rig):
    (rig.work / "hold-a").touch()
    spec = rig.spec(PROGRAM)
    with living_process() as claimant:
        left = rig.array(spec, ["a"], claimant=claimant)
        run = ArrayRun(left, rig.connection())
        task = asyncio.get_running_loop().create_task(run.carry_out())
        await until(lambda: "program a" in rig.runs(), "the member under way")
        rig.attempt(1).joinpath("cancel").write_text('{"event":"cancel","by":"user"}\n')
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    (rig.work / "hold-a").unlink()
    told = Told()
    results = await rig.run_array(rig.array(spec, ["a"], listener=told))
    assert results["a"].state == "succeeded"
    # It ended by itself or was cancelled, whichever came first; it never ran beside itself.
    assert len(rig.runs()) in (1, 2)


async def test_a_member_that_needs_more_gets_it_by_itself_alone(rig: Rig):
    """Of three, one takes longer than its walltime; its next try has ten times as much."""
    spec = rig.spec(SLOW, resources={"walltime": 10})
    spec = dataclasses.replace(spec, site=dataclasses.replace(spec.site, max_walltime=600))
    policy = RetryPolicy(walltime_factor=10)
    request = rig.array(spec, ["a", "slow", "b"], retries=1, retry=policy)
    results = await rig.run_array(request)
    assert {key: result.state for key, result in results.items()} == dict.fromkeys(
        ("a", "slow", "b"), "succeeded"
    )
    assert sorted(rig.runs()) == [f"program {each}" for each in ("a", "b", "slow", "slow")]
    assert walltimes(rig) == [10, 100]


def walltimes(rig: Rig) -> list[int]:
    """Of all submissions, in their order."""
    folders = rig.attempt().parent.glob("k-*")
    entries = [each for n in range(1, 1 + len([*folders])) for each in rig.journal(n)]
    intents = [each["job"] for each in entries if each["event"] == "intent"]
    return [job["resources"]["walltime"] for job in intents]


async def test_a_later_call_gives_a_member_the_more_that_it_needs(rig: Rig):
    """As the call would have done that was killed when it had failed."""
    spec = rig.spec(SLOW, resources={"walltime": 10})
    spec = dataclasses.replace(spec, site=dataclasses.replace(spec.site, max_walltime=600))
    lines = ["a", "slow"]
    first = await rig.run_array(rig.array(spec, lines))
    assert first["slow"].verdict.reason is Reason.WALLTIME
    policy = RetryPolicy(walltime_factor=10)
    results = await rig.run_array(rig.array(spec, [*lines, "new"], retries=1, retry=policy))
    assert {each.state for each in results.values()} == {"succeeded"}
    runs = [f"program {each}" for each in ("a", "new", "slow", "slow")]
    assert sorted(rig.runs()) == runs
    assert sorted(walltimes(rig)) == [10, 10, 100]


async def test_members_of_a_dead_element_that_were_not_begun_say_so(rig: Rig):
    spec = rig.spec('[ "$1" != slow ] || sleep 600', resources={"walltime": 10})
    request = rig.array(spec, ["a", "slow", "never"], per_element=3)
    results = await rig.run_array(request)
    assert results["a"].state == "succeeded"
    assert results["slow"].verdict.reason is Reason.WALLTIME
    assert results["never"].verdict.reason is Reason.NEVER_STARTED
    assert "before this member began" in results["never"].verdict.summary
    assert sorted(rig.runs()) == ["program a", "program slow"]


async def test_expected_outputs_are_a_members_own(rig: Rig, per_element: int):
    spec = rig.spec('[ "$1" = lazy ] || echo "$1" > "$1.out"')
    request = rig.array(spec, ["a", "lazy"], per_element=per_element)
    members = tuple(
        dataclasses.replace(each, expected_outputs=(f"{each.key}.out",)) for each in request.members
    )
    request = dataclasses.replace(request, members=members)
    results = await rig.run_array(request)
    assert results["a"].state == "succeeded"
    assert results["lazy"].verdict.reason is Reason.OUTPUT_LOST

    (rig.work / "a.out").unlink()
    again = await rig.run_array(request)
    assert not again["a"].collected
    assert sorted(rig.runs()) == ["program a"] * 2 + ["program lazy"] * 2


async def test_a_refused_submission_is_that_of_each_member(rig: Rig):
    spec = rig.spec(PROGRAM, resources={"ranks_per_node": 99})
    results = await rig.run_array(rig.array(spec, ["a", "b"], per_element=2))
    assert {result.verdict.reason for result in results.values()} == {Reason.REJECTED}
    assert rig.runs() == []


async def test_arguments_reach_each_member_byte_for_byte(rig: Rig):
    spec = rig.spec('printf "%s|" "$@" > "args-$1"')
    request = rig.array(spec, ["x"])
    odd = ("x", "a b", "", "$HOME", "`id`", "'", '"', "\\", "*", "line\nline", "esac ;;", "é\udcff")
    member = dataclasses.replace(request.members[0], arguments=odd)
    await rig.run_array(dataclasses.replace(request, members=(member,)))
    written = (rig.work / "args-x").read_bytes()
    assert written == "".join(f"{each}|" for each in odd).encode("utf-8", "surrogateescape")


async def test_few_commands_whatever_the_number_of_members(rig: Rig):
    """Ten in an element: the submissions, and questions that do not grow with the members."""
    transport = Counting()
    lines = [f"m{i}" for i in range(40)]
    request = rig.array(rig.spec(PROGRAM), lines, per_element=40, poll_interval=5.0)
    await rig.run_array(request, rig.connection(transport=transport))
    assert transport.verbs().count("submit") == 1
    # On a slow machine it takes longer, so it is asked about more often; but not once a member.
    assert len(transport.commands) <= 20


class SlowDisk(LocalTransport):
    """What is to be on disk for good takes as long as looks need to write once more."""

    def __init__(self) -> None:
        self.again = threading.Event()

    def append(self, path: str, data: bytes, *, durable: bool = False) -> None:
        if path.endswith(ENDED) and data and not durable:
            self.again.set()
        if path.endswith(ENDED) and data and durable:
            self.again.clear()
            self.again.wait(3.0)
        super().append(path, data, durable=durable)


async def test_an_end_is_written_once_however_long_the_last_writing_takes(rig: Rig):
    request = rig.array(rig.spec(PROGRAM), ["a", "b", "c"])
    await rig.run_array(request, rig.connection(transport=SlowDisk()))
    written = read_entries((rig.attempt() / ENDED).read_bytes())
    assert sorted(entry["i"] for entry in written) == [0, 1, 2]


class Held(LocalScheduler):
    """Says of an array that it is held, until somebody has been told."""

    held = True

    def observe(self, ids, options):
        answer = yield from super().observe(ids, options)
        return {
            name: dataclasses.replace(seen, state=JobState.HELD, message="by a person")
            if self.held and name.count("_") == 0
            else seen
            for name, seen in answer.items()
        }


async def test_an_array_that_waits_for_a_person_is_told(rig: Rig):
    scheduler = Held()
    for line in ("a", "b"):
        (rig.work / f"hold-{line}").touch()

    def told(text: str) -> None:
        if "held as" in text:
            scheduler.held = False
            for line in ("a", "b"):
                (rig.work / f"hold-{line}").unlink()

    listener = Told(told)
    request = rig.array(rig.spec(PROGRAM), ["a", "b"], listener=listener)
    results = await rig.run_array(request, rig.connection(scheduler))
    assert [each.state for each in results.values()] == ["succeeded"] * 2
    (warning,) = listener.warnings
    assert "by a person; it waits for a person" in warning


class Probing(LocalTransport):
    """Counts the files that are written to read the file server's clock."""

    def __init__(self) -> None:
        super().__init__()
        self.probes = 0

    def write_atomic(self, path, data, *, mode=0o600, durable=False):
        self.probes += "journal.jsonl." in path
        super().write_atomic(path, data, mode=mode, durable=durable)


async def test_the_age_of_a_verdict_is_asked_for_once_however_many_outputs_are_gone(rig: Rig):
    """A file for each member would be thousands."""
    request = rig.array(rig.spec('touch "$1.out"'), ["a", "b", "c", "d"])
    members = [
        dataclasses.replace(each, expected_outputs=(f"{each.key}.out",)) for each in request.members
    ]
    request = dataclasses.replace(request, members=tuple(members))
    await rig.run_array(request)
    for path in rig.work.glob("*.out"):
        path.unlink()
    old = time.time() - 1000.0  # so that nothing is waited for
    os.utime(rig.attempt() / "journal.jsonl", (old, old))
    transport = Probing()
    again = await rig.run_array(request, rig.connection(transport=transport))
    assert {result.state for result in again.values()} == {"succeeded"}
    assert (len(rig.runs()), transport.probes) == (8, 1)
