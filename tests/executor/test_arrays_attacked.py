"""What schedulers, file servers and the members' own programs may do to an array."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from elements import Elements
from rig import Rig, Told, living_process, until

from hpc_prefect.errors import TransportError
from hpc_prefect.executor.arrays.request import Nobody
from hpc_prefect.executor.arrays.run import ArrayRun
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.retry import RetryPolicy
from hpc_prefect.job.state import JobState
from hpc_prefect.schedulers.local.scheduler import LocalScheduler
from hpc_prefect.transports.local import LocalTransport

#: Waits while there is a file `hold-<member>`; fails while there is `fail-<member>`.
HOLD = 'while [ -e "hold-$1" ]; do sleep 0.02; done; [ ! -e "fail-$1" ] || exit 3'
QUICK = dataclasses.replace(LocalScheduler.patience, find=0.3, absent=0.4, lost=0.8)


def outputs(request, name: str = "{}.out"):
    members = tuple(
        dataclasses.replace(each, expected_outputs=(name.format(each.key),))
        for each in request.members
    )
    return dataclasses.replace(request, members=members)


# --- outputs that were lost


async def test_what_ran_again_for_a_lost_output_counts_by_its_last_run(rig):
    """The first run's output is not there any more: it is no alteration that it is another now."""
    request = outputs(rig.array(rig.spec('date +%N > "$1.out"'), ["a", "b"]))
    await rig.run_array(request)
    (rig.work / "a.out").unlink()
    second = await rig.run_array(request)
    third = await rig.run_array(request)
    assert third["a"] == dataclasses.replace(second["a"], collected=True)
    assert third["a"].attempt == 2
    assert sorted(rig.runs()) == ["program a", "program a", "program b"]


async def test_what_failed_in_its_last_run_runs_again_whatever_it_wrote(rig):
    request = outputs(rig.array(rig.spec('date +%N > "$1.out"; ' + HOLD), ["a"]))
    await rig.run_array(request)
    (rig.work / "a.out").unlink()
    (rig.work / "fail-a").touch()
    assert (await rig.run_array(request))["a"].state == "failed"
    (rig.work / "fail-a").unlink()
    assert (await rig.run_array(request))["a"].attempt == 3


async def test_an_output_that_nobody_asks_for_any_more_may_change(rig):
    request = outputs(rig.array(rig.spec('echo "$1" > "$1.out"'), ["a", "b"]))
    await rig.run_array(request)
    (rig.work / "b.out").write_text("another")
    fewer = dataclasses.replace(request, members=request.members[:1])
    assert (await rig.run_array(fewer))["a"].collected


# --- members' own programs


@pytest.mark.parametrize(
    "attack",
    [
        pytest.param(": > m/0/members", id="empties its hundred's lines"),
        pytest.param("head -c 40 m/0/members > x; cat x > m/0/members", id="cuts them off"),
        pytest.param("rm m/0/members", id="removes them"),
        pytest.param(": > program.sh", id="empties the script"),
        pytest.param("rm m/0/1.record", id="removes the next one's record"),
        pytest.param("rm m/0/1.record; mkfifo m/0/1.record", id="puts a pipe there"),
        pytest.param("mkfifo m/0/1.stdout", id="puts a pipe in the place of an output"),
        pytest.param("mkfifo m/0/1.phase", id="puts a pipe in the place of the phase"),
        pytest.param("ln -s elsewhere m/0/1.guard", id="takes the next one's guard"),
        pytest.param("mkdir m/0/1.guard", id="puts a folder in the place of a guard"),
    ],
)
async def test_a_program_that_spoils_the_next_ones_files_makes_no_success_of_it(rig, attack):
    spec = rig.spec(f'[ "$1" != a ] || {{ cd .hpc-prefect/campaign/ab/k-1; {attack}; }}')
    connection = rig.connection(scheduler := LocalScheduler())
    scheduler.patience = QUICK
    results = await rig.run_array(rig.array(spec, ["a", "b"], per_element=2), connection)
    assert not results["b"].succeeded
    assert results["b"].state in ("failed", "lost")
    assert rig.runs() == ["program a"]


async def test_members_whose_files_were_all_removed_are_no_success(rig):
    """Whether they run cannot be told, nor can they be kept from it."""
    spec = rig.spec(f'[ "$1" != a ] || rm -rf {rig.attempt(1)}/m')
    connection = rig.connection(scheduler := LocalScheduler())
    scheduler.patience = QUICK
    with pytest.raises(TransportError, match=r"0\.guard"):
        await rig.run_array(rig.array(spec, ["a", "b"], per_element=2), connection)
    assert rig.runs() == ["program a"]


@pytest.mark.parametrize(
    "attack",
    [
        pytest.param("rm m/0/0.record", id="removes its record"),
        pytest.param("rm m/0/0.record; mkfifo m/0/0.record", id="puts a pipe there"),
        pytest.param(
            "rm m/0/0.phase; mkfifo m/0/0.phase", id="puts a pipe in the place of the phase"
        ),
        pytest.param("yes program | head -c 50000000 > m/0/0.phase", id="fills the phase"),
        pytest.param(
            "printf 'setup\\nprogram\\ncode 0\\n' > m/0/0.phase; exit 3", id="tells a success"
        ),
        pytest.param(": > m/0/0.record", id="empties its record"),
    ],
)
async def test_a_program_that_spoils_its_own_files_takes_down_no_other(rig, attack):
    spec = rig.spec(f'[ "$1" != a ] || {{ cd .hpc-prefect/campaign/ab/k-1; {attack}; }}')
    connection = rig.connection(scheduler := LocalScheduler())
    scheduler.patience = dataclasses.replace(QUICK, silent=2.0)
    results = await rig.run_array(rig.array(spec, ["a", "b"], per_element=2), connection)
    assert not results["a"].succeeded
    assert results["b"].succeeded
    assert rig.runs() == ["program a", "program b"]


@pytest.mark.parametrize(
    "launcher",
    [
        pytest.param("cat /dev/null | {command} | cat", id="pipes"),
        pytest.param("{command} # and no more", id="a comment"),
        pytest.param("case x in x) {command} ;; esac", id="a case of its own"),
        pytest.param("env RANK=0", id="a word before it"),
    ],
)
async def test_a_launcher_line_starts_each_member_and_tells_its_failure(rig, launcher):
    (rig.work / "fail-b").touch()
    spec = rig.spec(
        'echo "out $1"; ' + HOLD, resources={"launch": "mpi"}, site={"launcher": launcher}
    )
    request = rig.array(spec, ["a", "b", "c"], per_element=3)
    results = await rig.run_array(request)
    assert [each.state for each in results.values()] == ["succeeded", "failed", "succeeded"]
    assert results["b"].exit_code == 3
    assert rig.runs() == ["program a", "program b", "program c"]
    written = [Path(each.stdout_path).read_text() for each in results.values()]
    assert written == ["out a\n", "out b\n", "out c\n"]


@pytest.mark.parametrize("launcher", ["exec {command}", "{command}; exit 0", "true; exit 0 #"])
async def test_a_launcher_line_that_ends_the_shell_makes_no_success(rig, launcher):
    (rig.work / "fail-a").touch()
    spec = rig.spec(HOLD, resources={"launch": "mpi"}, site={"launcher": launcher})
    results = await rig.run_array(rig.array(spec, ["a", "b"], per_element=2))
    assert not results["a"].succeeded


# --- several members in an element


async def test_a_signal_lets_the_member_that_runs_end_and_begins_no_other(rig):
    """As a scheduler's warning before its kill; what was not begun says so, and runs later."""
    (rig.work / "hold-a").touch()
    spec = rig.spec('trap : TERM; touch "trapped-$1"; ' + HOLD)
    request = rig.array(spec, ["a", "b", "c"], per_element=3)
    task = asyncio.ensure_future(rig.run_array(request))
    await until((rig.work / "trapped-a").exists, "the first one, which bears a signal")
    await until(lambda: record(rig, 0), "its start record")
    signal_scripts(rig)
    (rig.work / "hold-a").unlink()
    results = await task
    assert [each.state for each in results.values()] == ["succeeded", "failed", "failed"]
    assert results["c"].verdict.reason is Reason.NEVER_STARTED
    again = await rig.run_array(request)
    assert {each.state for each in again.values()} == {"succeeded"}
    assert rig.runs() == ["program a", "program b", "program c"]


def record(rig: Rig, index: int) -> str:
    return (rig.attempt(1) / f"m/0/{index}.record").read_text()


def signal_scripts(rig: Rig) -> None:
    """SIGTERM to every shell of this array's job: those that have its folder open."""
    for descriptor in Path("/proc").glob("[0-9]*/fd/240"):
        with contextlib.suppress(OSError):
            if os.readlink(descriptor) == str(rig.attempt(1)):
                os.kill(int(descriptor.parts[2]), signal.SIGTERM)


async def test_a_member_that_failed_by_itself_is_not_told_of_what_ended_its_element(rig):
    """It would be submitted again with more walltime, for an error of its own."""
    (rig.work / "fail-a").touch()
    (rig.work / "hold-slow").touch()
    spec = rig.spec(HOLD, resources={"walltime": 10})
    results = await rig.run_array(rig.array(spec, ["a", "slow"], per_element=2))
    assert results["a"].verdict.reason is Reason.PROGRAM_FAILED
    assert results["a"].exit_code == 3
    assert results["slow"].verdict.reason is Reason.WALLTIME


async def abandoned(rig: Rig, request, when) -> None:
    """A call that died once that was so."""
    with living_process() as claimant:
        left = dataclasses.replace(request, claimant=claimant)
        task = asyncio.ensure_future(ArrayRun(left, rig.connection()).carry_out())
        await until(when, "the moment of its death")
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_a_member_that_succeeded_before_its_element_was_cancelled_is_not_run_again(rig):
    for line in ("a", "b"):
        (rig.work / f"hold-{line}").touch()
    request = rig.array(rig.spec(HOLD), ["a", "b"], per_element=2)
    await abandoned(rig, request, lambda: rig.runs() == ["program a"])
    (rig.work / "hold-a").unlink()
    await until(lambda: "program b" in rig.runs(), "the member after it")
    rig.attempt(1).joinpath("cancel").write_text('{"event":"cancel","by":"user"}\n')
    task = asyncio.ensure_future(rig.run_array(request))
    await until(lambda: rig.runs().count("program b") == 2, "the next run of the other one")
    (rig.work / "hold-b").unlink()
    assert {each.state for each in (await task).values()} == {"succeeded"}
    assert rig.runs() == ["program a", "program b", "program b"]


async def test_what_a_person_cancelled_in_the_queue_is_not_submitted_again(rig):
    """Also not its members that their element had not begun yet."""
    (rig.work / "hold-a").touch()
    policy = RetryPolicy(reasons=frozenset([Reason.NEVER_STARTED]))
    request = rig.array(rig.spec(HOLD), ["a", "b"], per_element=2, retries=1, retry=policy)
    task = asyncio.ensure_future(rig.run_array(request))
    await until(lambda: rig.runs() == ["program a"], "the first one")
    rig.engine("cancel", *rig.active())
    results = await task
    assert {each.state for each in results.values()} == {"cancelled"}
    assert not rig.attempt(2).exists()


# --- schedulers


async def test_elements_that_vanish_when_they_are_cancelled_while_they_wait(rig):
    rig.options["slots"] = 1
    (rig.work / "hold-a").touch()
    connection = rig.connection(scheduler := Elements())
    scheduler.forgets = True
    run = ArrayRun(rig.array(rig.spec(HOLD), ["a", "b", "c"]), connection)
    task = asyncio.get_running_loop().create_task(run.carry_out())
    await until(lambda: rig.runs() == ["program a"], "the first one")
    run.cancel("user")
    assert {each.verdict.reason for each in await task} == {Reason.CANCELLED}
    await rig.emptied()
    (rig.work / "hold-a").unlink()
    again = await rig.run_array(rig.array(rig.spec(HOLD), ["a", "b", "c"]))
    assert {each.state for each in again.values()} == {"succeeded"}
    assert sorted(rig.runs()) == ["program a", "program a", "program b", "program c"]


async def test_an_element_that_somebody_removed_while_it_waited_has_never_run(rig):
    """It leaves no trace, and the others come to their own ends."""
    rig.options["slots"] = 1
    (rig.work / "hold-a").touch()
    connection = rig.connection(scheduler := Elements())
    scheduler.forgets, scheduler.patience = True, QUICK
    task = asyncio.ensure_future(
        rig.run_array(rig.array(rig.spec(HOLD), ["a", "b", "c"]), connection)
    )
    await until(lambda: rig.runs() and "submitted" in rig.events(), "the first one")
    assert await connection.cancel("A1[1]", "") is None
    (rig.work / "hold-a").unlink()
    results = await task
    assert [each.state for each in results.values()] == ["succeeded", "failed", "succeeded"]
    assert results["b"].verdict.reason is Reason.NEVER_STARTED
    assert rig.runs() == ["program a", "program c"]


async def test_an_array_that_is_listed_late_is_no_array_that_is_gone(rig):
    rig.options["slots"] = 1
    connection = rig.connection(scheduler := Elements())
    scheduler.hides, scheduler.patience = 6, dataclasses.replace(QUICK, absent=60.0, lost=60.0)
    lines = ["a", "b", "c", "d"]
    request = rig.array(rig.spec("sleep 0.3"), lines, poll_interval=0.05)
    results = await rig.run_array(request, connection)
    assert {each.state for each in results.values()} == {"succeeded"}
    assert sorted(rig.runs()) == [f"program {line}" for line in lines]


class Stopped(Elements):
    """It does not list a new array twice; the second of these answers is read much later."""

    #: Longer than a busy machine takes between two questions.
    patience, hides = dataclasses.replace(QUICK, absent=5.0, lost=10.0), 2

    def observe(self, ids, options):
        late = self.hides == 1
        said = yield from super().observe(ids, options)
        if late:  # as by a process that is stopped meanwhile
            threading.Event().wait(1.2 * self.patience.absent)
        return said


async def test_an_answer_that_is_read_late_closes_no_array(rig):
    """Between the two answers it was absent for a moment only."""
    rig.options["slots"] = 1
    (rig.work / "hold-a").touch()
    connection = rig.connection(scheduler := Stopped())
    request = rig.array(rig.spec(HOLD), ["a", "b", "c"], poll_interval=0.05)
    task = asyncio.ensure_future(rig.run_array(request, connection))
    await until(lambda: len(scheduler.asked) > 3, "an answer after the late one")
    (rig.work / "hold-a").unlink()
    results = await task
    assert {each.state for each in results.values()} == {"succeeded"}
    assert sorted(rig.runs()) == ["program a", "program b", "program c"]


class Hopeless(LocalScheduler):
    """Says of all that waits that it can never run."""

    def observe(self, ids, options):
        said = yield from super().observe(ids, options)
        return {
            job_id: dataclasses.replace(seen, cause=Reason.CAN_NEVER_RUN, message="too many nodes")
            if seen.state is JobState.QUEUED
            else seen
            for job_id, seen in said.items()
        }


async def test_an_array_that_can_never_run_does_not_wait_for_ever(rig):
    spec = rig.spec(program="/bin/sleep", arguments=("600",), resources={"ranks_per_node": 2})
    with rig.under_way(rig.request(spec, "blocker", listener=(first := Told()))):
        await until(lambda: "running" in str(first.states), "the job that takes all slots")
        request = rig.array(rig.spec(HOLD), ["a", "b"], poll_interval=0.1)
        results = await rig.run_array(request, rig.connection(Hopeless()))
        assert {each.verdict.reason for each in results.values()} == {Reason.CAN_NEVER_RUN}
        assert "too many nodes" in results["a"].verdict.summary
        await until(lambda: len(rig.active()) == 1, "its end in the queue")
    assert rig.runs() == []


async def test_what_is_cancelled_before_it_is_under_way_waits_for_no_slot(rig):
    spec = rig.spec(program="/bin/sleep", arguments=("600",))
    connection = rig.connection()
    held = rig.request(spec, "other", listener=(first := Told()), max_jobs_in_queue=1)
    with rig.under_way(held, connection):
        await until(lambda: "running" in str(first.states), "the job that has the slot")
        request = rig.array(rig.spec(HOLD), ["a"], max_jobs_in_queue=1)
        run = ArrayRun(request, connection)
        run.cancel("user")
        (result,) = await run.carry_out()
        assert result.verdict.reason is Reason.CANCELLED
        assert len(rig.active()) == 1


class Unlisted(LocalScheduler):
    """Tells of no element of an array that waits, though it does."""

    def observe(self, ids, options):
        said = yield from super().observe(ids, options)
        return {i: dataclasses.replace(seen, left=((0, 0),)) for i, seen in said.items()}


class Racing(LocalTransport):
    """A member begins in the very moment in which its guard is to be closed."""

    def __init__(self, before) -> None:
        self.before = before

    def link(self, path, target):
        self.before()
        return super().link(path, target)


async def test_a_member_that_begins_while_it_is_cancelled_alone_has_an_end(rig):
    rig.options["slots"] = 1
    (rig.work / "hold-a").touch()
    (rig.work / "hold-b").touch()

    def begin() -> None:
        (rig.work / "hold-a").unlink(missing_ok=True)
        while "program b" not in rig.runs():
            time.sleep(0.01)

    request = rig.array(rig.spec(HOLD), ["a", "b"], poll_interval=0.1)
    connection = rig.connection(Unlisted(), Racing(begin))
    task = asyncio.ensure_future(rig.run_array(request, connection))
    await until(lambda: rig.runs() == ["program a"], "the first one")
    rig.attempt(1).joinpath("cancel").write_text('{"event":"cancel","by":"user","member":1}\n')
    await until(lambda: "program b" in rig.runs(), "the other one's start")
    (rig.work / "hold-b").unlink()
    assert {each.state for each in (await task).values()} == {"succeeded"}
    assert rig.runs() == ["program a", "program b"]


# --- file servers


class Hiccups(LocalTransport):
    """Each third read of a member's record fails."""

    def __init__(self) -> None:
        self.count, self.lock = itertools.count(1), threading.Lock()

    def read(self, path, *arguments):
        if path.endswith(".record"):
            with self.lock:
                if next(self.count) % 3 == 0:
                    raise TransportError("the file server does not answer")
        return super().read(path, *arguments)


async def test_a_file_server_that_fails_now_and_then_keeps_no_member_from_its_end(rig):
    (rig.work / "fail-b").touch()
    request = rig.array(rig.spec(HOLD), ["a", "b"], poll_interval=0.1)
    results = await rig.run_array(request, rig.connection(transport=Hiccups()))
    assert [each.state for each in results.values()] == ["succeeded", "failed"]


class Unreadable(LocalTransport):
    """One member's record cannot be read."""

    broken = True

    def read(self, path, *arguments):
        if self.broken and path.endswith("/0.record"):
            raise TransportError("permission denied")
        return super().read(path, *arguments)


class Collecting(Nobody):
    def __init__(self) -> None:
        self.names: list[str] = []

    def ended(self, results) -> None:
        self.names += [result.name for result in results]


class Full(LocalTransport):
    """No list of ends can be written; it is counted how often that is tried."""

    full, tries = True, 0

    def append(self, path, data, *, durable=False):
        if self.full and data and path.endswith("ended.jsonl"):
            self.tries += 1
            raise TransportError("No space left on device")
        super().append(path, data, durable=durable)


async def test_a_full_disk_is_not_tried_again_and_again(rig):
    """Each try may leave half a line, and there were a hundred in a second."""
    connection = rig.connection(scheduler := Elements(), transport := Full())
    (rig.work / "hold-b").touch()
    request = rig.array(rig.spec(HOLD), ["a", "b"], poll_interval=0.5)
    begun = time.monotonic()
    task = asyncio.ensure_future(rig.run_array(request, connection))
    await until(lambda: transport.tries, "the first try")
    asked = len(scheduler.asked)
    await until(lambda: len(scheduler.asked) > asked + 4, "some questions more")
    tries, seconds = transport.tries, time.monotonic() - begun
    transport.full = False
    (rig.work / "hold-b").unlink()
    assert {each.state for each in (await task).values()} == {"succeeded"}
    assert tries <= 1 + seconds


async def test_a_member_that_cannot_be_looked_at_holds_up_no_other(rig):
    connection = rig.connection(transport=(transport := Unreadable()))
    seen = Collecting()
    request = rig.array(rig.spec(HOLD), ["a", "b", "c"], follower=seen)
    task = asyncio.ensure_future(rig.run_array(request, connection))
    await until(lambda: sorted(seen.names) == ["b", "c"], "the others' ends")
    transport.broken = False
    assert {each.state for each in (await task).values()} == {"succeeded"}


class UnreadableOnce(LocalTransport):
    """What a job left in its outputs cannot be read at the first try."""

    tries = 0

    def left(self, path, since, most):
        self.tries += 1
        if self.tries == 1:
            raise TransportError("Stale file handle")
        return super().left(path, since, most)


async def test_a_member_in_doubt_stays_in_view_when_its_end_cannot_be_read(rig):
    """The call ended with a KeyError."""
    connection = rig.connection(scheduler := Elements(), transport := UnreadableOnce())
    scheduler.patience = dataclasses.replace(LocalScheduler.patience, outputs=60.0)
    request = outputs(rig.array(rig.spec("exit 0"), ["a", "b"], poll_interval=0.1))
    task = asyncio.ensure_future(rig.run_array(request, connection))
    in_doubt = "a question about each of them alone"
    await until(
        lambda: {"[0]", "[1]"} <= {i[-3:] for ids in scheduler.asked for i in ids}, in_doubt
    )
    for name in ("a.out", "b.out"):
        (rig.work / name).write_text("written late")
    assert {each.state for each in (await task).values()} == {"succeeded"}
    assert transport.tries == 3


async def test_secrets_of_a_call_that_was_killed_are_gone_with_the_next_one(rig):
    spec = rig.spec('echo "$TOKEN" > /dev/null', secret_names=("TOKEN",))
    request = rig.array(spec, ["a"], secrets={"TOKEN": "s3cret"})
    await rig.run_array(request)
    left = rig.attempt(2)
    left.mkdir(mode=0o700)
    (left / "secrets").write_text("export TOKEN='s3cret'\n")  # killed before it was submitted
    assert (await rig.run_array(request))["a"].collected
    kept = [p for p in rig.work.rglob("*") if p.is_file() and "s3cret" in p.read_text()]
    assert kept == []
