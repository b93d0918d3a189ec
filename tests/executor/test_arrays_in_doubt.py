"""A submission of an array that is in doubt, comes late or is taken over: no member runs twice."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rig import Overtaken, Rig, drive, living_process, until

from hpc_prefect.errors import JobHeld, LedgerError, SchedulerError, TransportError
from hpc_prefect.executor.arrays.evidence import MemberFiles
from hpc_prefect.executor.arrays.run import ArrayRun
from hpc_prefect.executor.arrays.submission import new_submission
from hpc_prefect.job import folder as names
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.folder import word_digest
from hpc_prefect.job.members import ASKED, ENDED
from hpc_prefect.job.retry import RetryPolicy
from hpc_prefect.schedulers.base import Refused, Unclear
from hpc_prefect.schedulers.local.scheduler import LocalScheduler
from hpc_prefect.transports.local import LocalTransport

QUICK = dataclasses.replace(LocalScheduler.patience, find=0.3)
#: Waits while there is a file `hold`.
HOLD = 'while [ -e hold ]; do sleep 0.02; done; echo "out $1"'


class Late(LocalScheduler):
    """The reply to its first submission is lost, and that arrives when the test says so.

    `before_second` is called when there is another one; `refuses` it.
    """

    patience = QUICK

    def __init__(self, rig: Rig, *, refuses: bool = False) -> None:
        self.rig, self.refuses = rig, refuses
        self.before_second: Callable[[], object] = lambda: None
        self.first = None

    def submit(self, spec, ticket):
        if self.first is None:
            script = self.rig.folder / "late.sh"
            shutil.copy(ticket.script, script)  # as a scheduler keeps it
            self.first = (spec, dataclasses.replace(ticket, script=str(script)))
            return Unclear("the connection was cut")
        self.before_second()
        if self.refuses:
            return Refused("the queue is closed")
        return (yield from super().submit(spec, ticket))

    def arrive(self) -> str:
        """The first submission reaches the queue after all; its id."""
        return self.rig.connection().converse(LocalScheduler().submit(*self.first)).id

    def arrive_and_begin(self, count: int) -> None:
        self.arrive()

        while len(self.rig.runs()) < count:
            time.sleep(0.01)


async def run_late(rig: Rig, scheduler: Late, expected: int = 0) -> None:
    """Let what was in doubt arrive and come to its end."""
    before = rig.runs()
    scheduler.arrive()
    await until(lambda: not rig.active(), "the end of the late submission")
    assert len(rig.runs()) == len(before) + expected


async def test_what_was_cancelled_in_doubt_does_not_run_when_it_comes_late(rig):
    """It would run beside the submission that the next call makes."""
    scheduler = Late(rig)
    request = rig.array(rig.spec(HOLD), ["a", "b", "c"])
    run = ArrayRun(request, rig.connection(scheduler))
    task = asyncio.get_running_loop().create_task(run.carry_out())
    await until(lambda: scheduler.first, "the submission")
    run.cancel("user")
    assert {each.verdict.reason for each in await task} == {Reason.CANCELLED}
    await run_late(rig, scheduler)

    again = await rig.run_array(request)
    assert {each.state for each in again.values()} == {"succeeded"}
    assert sorted(rig.runs()) == ["program a", "program b", "program c"]


async def test_what_was_refused_while_an_earlier_one_is_in_doubt_does_not_run_late(rig):
    scheduler = Late(rig, refuses=True)
    request = rig.array(rig.spec(HOLD), ["a", "b"])
    results = await rig.run_array(request, rig.connection(scheduler))
    assert {each.verdict.reason for each in results.values()} == {Reason.REJECTED}
    await run_late(rig, scheduler)
    assert {each.state for each in (await rig.run_array(request)).values()} == {"succeeded"}
    assert sorted(rig.runs()) == ["program a", "program b"]


async def test_members_that_the_one_in_doubt_has_begun_are_followed_and_kept(rig):
    """Refused, and begun at the same moment: the refusal is not what they came to."""
    scheduler = Late(rig, refuses=True)
    (rig.work / "hold").touch()
    scheduler.before_second = lambda: scheduler.arrive_and_begin(2)
    request = rig.array(rig.spec(HOLD), ["a", "b"])
    task = asyncio.ensure_future(rig.run_array(request, rig.connection(scheduler)))
    await until(lambda: "reopened" in read(rig, ENDED), "what shows that they run")
    (rig.work / "hold").unlink()
    results = await task
    assert {each.state for each in results.values()} == {"succeeded"}

    again = await rig.run_array(request)
    assert again == {
        key: dataclasses.replace(each, collected=True) for key, each in results.items()
    }
    assert sorted(rig.runs()) == ["program a", "program b"]


def read(rig: Rig, name: str, number: int = 1) -> str:
    path = rig.attempt(number) / name
    return path.read_text() if path.exists() else ""


@pytest.mark.parametrize("per_element", [1, 2])
async def test_of_two_submissions_each_member_is_run_by_one_and_nothing_is_left(rig, per_element):
    scheduler = Late(rig)
    scheduler.before_second = scheduler.arrive
    lines = ["a", "b", "c", "d", "e"]
    request = rig.array(rig.spec("sleep 0.1"), lines, per_element=per_element)
    results = await rig.run_array(request, rig.connection(scheduler))
    assert {each.state for each in results.values()} == {"succeeded"}
    await until(lambda: not rig.active(), "the end of both")
    assert sorted(rig.runs()) == [f"program {line}" for line in lines]


async def test_what_is_cancelled_is_gone_in_the_other_submission_too(rig):
    scheduler = Late(rig)
    (rig.work / "hold").touch()
    rig.options["slots"] = 1
    scheduler.before_second = lambda: scheduler.arrive_and_begin(1)
    run = ArrayRun(rig.array(rig.spec(HOLD), ["a", "b"]), rig.connection(scheduler))
    task = asyncio.get_running_loop().create_task(run.carry_out())
    await until(lambda: len(rig.active()) > 1, "both in the queue")
    await until(lambda: run.counts().running == 1, "a member of the late one that is known to run")
    run.cancel("user")
    assert {each.state for each in await task} == {"cancelled"}
    await rig.emptied()
    # The one that is cancelled first makes room: the other may begin before it is cancelled.
    assert sorted(rig.runs()) in (["program a"], ["program a", "program b"])


async def abandoned(rig: Rig, request, begun: int) -> None:
    """A call that died when so many of its members had begun."""
    with living_process() as claimant:
        left = dataclasses.replace(request, claimant=claimant)
        task = asyncio.ensure_future(ArrayRun(left, rig.connection()).carry_out())
        await until(lambda: len(rig.runs()) == begun, "the members under way")
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda data: b"", id="emptied"),
        pytest.param(lambda data: data[:-20], id="cut off"),
        pytest.param(lambda data: data[: data.index(b"\n") + 1], id="a line less"),
        pytest.param(lambda data: b"\0" * 50 + data[50:], id="overwritten"),
        pytest.param(None, id="removed"),
    ],
)
async def test_without_the_list_of_its_members_nothing_is_submitted(rig, spoil):
    """They may be running: their results could not be told apart, and they would run again."""
    (rig.work / "hold").touch()
    request = rig.array(rig.spec(HOLD), ["a", "b"])
    await abandoned(rig, request, begun=2)
    path = rig.attempt(1) / ASKED
    if spoil is None:
        path.unlink()
    else:
        path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(LedgerError, match="the list of its members cannot be read"):
        await rig.run_array(request)
    assert not rig.attempt(2).exists()
    (rig.work / "hold").unlink()
    await until(lambda: not rig.active(), "the end of the members")
    assert sorted(rig.runs()) == ["program a", "program b"]


async def test_a_list_that_was_cut_off_before_anything_was_submitted_stands_in_nobodys_way(rig):
    """Its writer's machine has lost power, and the next call was cancelled before it submitted."""
    request = rig.array(rig.spec(), ["a", "b"])
    rig.attempt(1).mkdir(parents=True)
    (rig.attempt(1) / ASKED).write_bytes(b'{"key":"a","na')
    run = ArrayRun(request, rig.connection())
    run.cancel("user")
    assert {each.verdict.reason for each in await run.carry_out()} == {Reason.CANCELLED}
    results = await rig.run_array(request)
    assert {each.state for each in results.values()} == {"succeeded"}
    assert sorted(rig.runs()) == ["program a", "program b"]


class LosesPower(LocalTransport):
    """Power is lost when a list of members is written the second time: what of it was not forced to
    disk is gone."""

    def write_atomic(self, path, data, *, mode=0o600, durable=False):
        again = path.endswith(ASKED) and os.path.exists(path)
        super().write_atomic(path, data, mode=mode, durable=durable)
        if again:
            if not durable:
                super().write_atomic(path, data[:20], mode=mode)
            raise TransportError("the power is lost")


async def test_a_list_that_is_written_again_is_never_seen_cut_off(rig):
    """Its first submission is in doubt, and would be followed by nobody."""
    scheduler = Late(rig)
    request = rig.array(rig.spec(), ["a", "b"])
    with contextlib.suppress(TransportError):
        await rig.run_array(request, rig.connection(scheduler, LosesPower()))
    scheduler.arrive()
    results = await rig.run_array(request, rig.connection(scheduler))
    assert {each.state for each in results.values()} == {"succeeded"}
    assert sorted(rig.runs()) == ["program a", "program b"]


async def test_members_whose_ends_are_not_there_any_more_are_judged_by_their_records(rig):
    request = rig.array(rig.spec(HOLD), ["a", "b", "c"])
    first = await rig.run_array(request)
    (rig.attempt(1) / ENDED).unlink()
    again = await rig.run_array(request)
    assert {each.state for each in again.values()} == {"succeeded"}
    assert [each.job_id for each in again.values()] == [each.job_id for each in first.values()]
    assert len(rig.runs()) == 3


async def test_who_has_lost_the_array_submits_nothing_more(rig):
    """Stopped for long between two submissions, and taken for dead on another host."""
    rig.options["max_array_size"] = 1
    (rig.work / "hold").touch()
    request = rig.array(rig.spec(HOLD), ["a", "b"], at_once=1)
    task = asyncio.ensure_future(rig.run_array(request))
    await until(lambda: rig.runs() == ["program a"], "the first submission at work")
    with living_process() as other:
        claim = json.dumps(dataclasses.asdict(other))
        (rig.attempt(1) / "claim-2").write_text(claim + "\n")
        (rig.work / "hold").unlink()
        with pytest.raises(JobHeld):
            await task
    assert rig.runs() == ["program a"]


async def test_who_has_lost_the_array_writes_no_ends_into_it(rig):
    """They would stand, and who has it now may know better."""
    (rig.work / "hold").touch()
    request = rig.array(rig.spec(f'[ "$1" = a ] || {{ {HOLD}; }}'), ["a", "b"])
    task = asyncio.ensure_future(rig.run_array(request))
    await until(lambda: '"i":0' in read(rig, ENDED), "the end of the first one")
    with living_process() as other:
        claim = json.dumps(dataclasses.asdict(other))
        (rig.attempt(1) / "claim-2").write_text(claim + "\n")
        (rig.work / "hold").unlink()
        with pytest.raises(JobHeld):
            await task
    assert '"i":1' not in read(rig, ENDED)


async def test_who_has_lost_the_array_before_the_verdict_is_written_tells_none(rig):
    with living_process() as other:
        connection = rig.connection(transport=Overtaken(other, b'"verdict"'))
        with pytest.raises(JobHeld):
            await rig.run_array(rig.array(rig.spec(HOLD), ["a"]), connection)
    assert rig.runs() == ["program a"]


async def test_a_folder_that_another_run_has_used_is_not_used_again(rig):
    request = rig.array(rig.spec(HOLD), ["a"])
    await rig.run_array(request)
    with pytest.raises(JobHeld, match="was used by another run"):
        new_submission(request, rig.connection(), 1, request.members, {})


class Deaf(LocalScheduler):
    """Hears every wish for an end, and fulfils none."""

    patience = dataclasses.replace(QUICK, confirm=0.3)

    def cancel(self, jobs, options):
        yield from ()


async def test_nothing_is_submitted_beside_what_was_cancelled_and_is_still_there(rig):
    (rig.work / "hold").touch()
    request = rig.array(rig.spec(HOLD), ["a", "b", "c"])
    run = ArrayRun(request, rig.connection(Deaf()))
    task = asyncio.get_running_loop().create_task(run.carry_out())
    await until(lambda: len(rig.runs()) == 2, "the members on the two slots")
    run.cancel("user")
    assert {each.state for each in await task} == {"cancelled"}
    with pytest.raises(SchedulerError, match="still does not confirm"):
        await rig.run_array(request, rig.connection(Deaf()))
    assert not rig.attempt(2).exists()
    (rig.work / "hold").unlink()
    await until(lambda: not rig.active(), "the members' own ends")
    results = await rig.run_array(request)
    assert {each.state for each in results.values()} == {"succeeded"}
    assert sorted(rig.runs()) == ["program a", "program b", "program c"]


class FullDisk(LocalTransport):
    """Has no room for a verdict."""

    def append(self, path, data, **options):
        if b'"event":"verdict"' in data:
            raise TransportError("no space left on device")
        super().append(path, data, **options)


class Closed(LocalScheduler):
    def submit(self, spec, ticket):
        yield from ()
        return Refused("the queue is closed")


async def test_a_folder_whose_submission_was_refused_has_no_ends_for_the_next_one_in_it(rig):
    request = rig.array(rig.spec(HOLD), ["a", "b"])
    with pytest.raises(TransportError):
        await rig.run_array(request, rig.connection(Closed(), FullDisk()))
    first = await rig.run_array(request)
    assert {each.state for each in first.values()} == {"succeeded"}
    again = await rig.run_array(request)
    assert [each.collected for each in again.values()] == [True, True]
    assert sorted(rig.runs()) == ["program a", "program b"]


async def test_two_processes_that_make_the_same_call_at_once_run_each_member_once(rig):
    program = rig.program("until [ -e go ]; do sleep 0.05; done", name="program-one")
    job = {"key": "one", "lines": ["a", "b", "c"], "program": program}
    two = [asyncio.ensure_future(asyncio.to_thread(drive, rig, [job])) for _ in range(2)]
    await asyncio.wait(two, return_when=asyncio.FIRST_COMPLETED)  # the one that is refused
    (rig.work / "go").touch()
    both = await asyncio.gather(*two)
    assert sorted(done.returncode for done in both) == [0, 1]
    assert "which still runs" in next(done.stderr for done in both if done.returncode)
    assert sorted(rig.runs()) == ["program-one a", "program-one b", "program-one c"]


@pytest.mark.parametrize("end", ["success", "refused", "cancelled", "killed"])
async def test_secrets_are_in_their_own_file_alone_and_gone_at_the_end(rig, end):
    (rig.work / "hold").touch()
    spec = rig.spec('[ "$TOKEN" = s3cret ] || exit 4; ' + HOLD, secret_names=("TOKEN",))
    request = rig.array(spec, ["a", "b"], secrets={"TOKEN": "s3cret"})
    if end == "killed":
        await abandoned(rig, request, begun=2)
        assert secret_files(rig) == {"secrets": 0o600}
    run = ArrayRun(request, rig.connection(Closed() if end == "refused" else None))
    task = asyncio.get_running_loop().create_task(run.carry_out())
    if end != "refused":
        await until(lambda: len(rig.runs()) == 2, "both members under way")
        assert secret_files(rig) == {"secrets": 0o600}
    if end == "cancelled":
        run.cancel("user")
    else:
        (rig.work / "hold").unlink()
    states = {each.state for each in await task}
    assert states == {{"refused": "failed", "cancelled": "cancelled"}.get(end, "succeeded")}
    assert secret_files(rig) == {}


def secret_files(rig: Rig) -> dict[str, int]:
    found = [path for path in rig.work.rglob("*") if path.is_file()]
    return {p.name: p.stat().st_mode & 0o777 for p in found if b"s3cret" in p.read_bytes()
            and p.name != "program"}  # fmt: skip


class Amnesic(LocalScheduler):
    """Lists no more what it has started."""

    patience = dataclasses.replace(QUICK, absent=0.2, lost=0.4)

    def __init__(self, rig: Rig) -> None:
        self.rig = rig

    def observe(self, ids, options):
        said = yield from super().observe(ids, options)
        return {} if self.rig.runs() else said


async def test_a_lost_member_is_not_submitted_again_whatever_the_policy(rig):
    (rig.work / "hold").touch()
    policy = RetryPolicy(reasons=frozenset([Reason.LOST]))
    request = rig.array(rig.spec(HOLD), ["a"], retries=3, retry=policy)
    results = await rig.run_array(request, rig.connection(Amnesic(rig)))
    assert results["a"].verdict.reason is Reason.LOST
    (rig.work / "hold").unlink()
    again = await rig.run_array(request)
    assert again["a"].succeeded
    assert rig.runs() == ["program a"]


class Forgets(LocalScheduler):
    """Lists no more what it has started, while there is a file `hold`."""

    #: Both members have begun by then, and one has ended, also on a busy machine.
    patience = dataclasses.replace(Amnesic.patience, lost=5.0)

    def __init__(self, rig: Rig) -> None:
        self.rig = rig

    def observe(self, ids, options):
        if (self.rig.work / "hold").exists():
            yield from ()
            return {}
        return (yield from super().observe(ids, options))


@pytest.mark.parametrize("at_last", ["succeeded", "failed"])
async def test_what_a_member_came_to_at_last_counts_beside_a_lost_one_of_its_first(rig, at_last):
    """The first submission, with a lost member in it, is followed again by each later call."""
    (rig.work / "hold").touch()
    (rig.work / "fail").touch()
    held = "case $1 in b) while [ -e hold ]; do sleep 0.02; done ;; esac; [ ! -e fail ] || exit 3"
    spec = rig.spec(held)
    connection = rig.connection(Forgets(rig))
    first = await rig.run_array(rig.array(spec, ["a", "b"]), connection)
    reasons = {key: each.verdict.reason for key, each in first.items()}
    assert reasons == {"a": Reason.PROGRAM_FAILED, "b": Reason.LOST}
    (rig.work / "fail").unlink()
    if at_last == "failed":
        (rig.work / "fail").touch()
    second = await rig.run_array(rig.array(spec, ["a"]), connection)
    assert second["a"].state == at_last
    (rig.work / "hold").unlink()
    (rig.work / "fail").unlink(missing_ok=True)
    third = await rig.run_array(rig.array(spec, ["a", "b"], retries=2))
    assert {each.state for each in third.values()} == {"succeeded"}
    assert third["a"].attempt == (2 if at_last == "succeeded" else 3)
    assert rig.runs().count("program a") == third["a"].attempt
    assert rig.runs().count("program b") == 1


async def test_a_members_end_by_the_script_of_a_stopped_process_is_known_by_its_intent(
    rig: Rig,
) -> None:
    request = rig.array(rig.spec(program=rig.program("true")), ["a", "b"])
    submission = new_submission(request, rig.connection(), 1, request.members, {})
    files = MemberFiles(submission, lambda: "")
    records = [files.records(0), files.records(1)]  # before anybody knows of the other script
    submission.folder.note("intent", claim=0, word_sha256=word_digest("theirs"))
    for index in (0, 1):
        record = Path(submission.folder.member(index).file(names.EXIT))
        record.parent.mkdir(parents=True, exist_ok=True)
        start, end = {"token": "t", "id": "1"}, {"token": "t", "code": 0, "word": "theirs"}
        record.write_text("".join(json.dumps(each) + "\n" for each in (start, end)))
    for each in records:
        each.refresh(starts=True)
        assert [end.code for end in each.exits] == [0]
    assert word_digest("theirs") in submission.words
