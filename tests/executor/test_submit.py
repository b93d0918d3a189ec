"""Submissions without a clear outcome: the job is looked for by its tag before anything else."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import threading
import time

import pytest
from rig import Counting, Rig, Told, living_process, until

from hpc_prefect.errors import LedgerError, SchedulerError, TransportError
from hpc_prefect.job.dialogue import Reply
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.result import JobResult
from hpc_prefect.schedulers.base import Accepted, NoAnswer, Refused, Unclear
from hpc_prefect.schedulers.local.scheduler import LocalScheduler

QUICK = dataclasses.replace(LocalScheduler.patience, find=0.3)


class ReplyLost(LocalScheduler):
    """Takes the first jobs, or not, and does not get to say so."""

    patience = QUICK

    def __init__(self, *, accepts: bool, times: int = 1) -> None:
        self.accepts, self.times = accepts, times

    def submit(self, spec, ticket):
        if self.times == 0:
            return (yield from super().submit(spec, ticket))
        self.times -= 1
        if self.accepts:
            yield from super().submit(spec, ticket)
        return Unclear("the connection was cut")


async def test_a_job_whose_acceptance_was_not_heard_is_found_by_its_tag(rig):
    told = Told()
    connection = rig.connection(ReplyLost(accepts=True), transport := Counting())
    result = await rig.run(rig.request(rig.spec("sleep 0.2"), listener=told), connection)
    assert result.succeeded
    assert transport.verbs().count("submit") == 1
    assert len(rig.runs()) == 1
    assert f"found in the queue as {result.job_id}: it had been submitted" in told.states


class Untold(ReplyLost):
    """Does not tell when a job was submitted."""

    def find(self, tags, options):
        found = yield from super().find(tags, options)
        return {tag: without_times(jobs) for tag, jobs in found.items()}

    def observe(self, ids, options):
        return without_times((yield from super().observe(ids, options)))


def without_times(answer):
    return {id_: dataclasses.replace(seen, queued_at=0.0) for id_, seen in answer.items()}


@pytest.mark.parametrize("killed", [False, True], ids=["", "taken up again"])
async def test_how_long_a_job_waited_that_was_found_is_known_only_from_the_scheduler(rig, killed):
    request = rig.request(rig.spec("sleep 0.5"))
    connection = rig.connection(Untold(accepts=True))
    with rig.under_way(request, connection) as (run, task):
        await until(lambda: run.job_id and rig.runs(), "the job's start")
        if not killed:
            assert (await task).queue_seconds is None
    if killed:
        assert (await rig.run(request, connection)).queue_seconds is None
    # Found while it waits: once it has started, its own guard tells the id, and no more.
    waits = rig.program("until [ -e go ]; do sleep 0.02; done", "holds")
    holds = rig.request(rig.spec(program=waits, name="holds"), "holds")
    wide = rig.request(
        rig.spec(resources={"threads_per_rank": 2}), "wide", listener=(told := Told())
    )
    with rig.under_way(holds) as (held, _):
        await until(lambda: held.job_id and rig.runs()[-1:] == ["holds "], "what holds it up")
        with rig.under_way(wide, rig.connection(ReplyLost(accepts=True))) as (_, task):
            await until(
                lambda: any("found in the queue as" in text for text in told.states),
                "its being found",
            )
            (rig.work / "go").touch()
            assert (await task).queue_seconds is not None


async def test_a_job_that_was_surely_not_accepted_is_submitted_again(rig):
    connection = rig.connection(ReplyLost(accepts=False), transport := Counting())
    result = await rig.run(rig.request(rig.spec()), connection)
    assert (result.state, result.attempt) == ("succeeded", 1)
    assert transport.verbs().index("find") < transport.verbs().index("submit")
    assert len(rig.runs()) == 1


async def test_three_unclear_submissions_end_with_an_error(rig):
    connection = rig.connection(ReplyLost(accepts=False, times=9))
    with pytest.raises(SchedulerError, match="it is not clear whether it was submitted"):
        await rig.run(rig.request(rig.spec()), connection)
    assert rig.runs() == []


class Twice(ReplyLost):
    """Loses the reply, after a job of the same name was submitted by hand."""

    def submit(self, spec, ticket):
        yield from LocalScheduler.submit(self, spec, ticket)
        return (yield from super().submit(spec, ticket))


async def test_two_jobs_under_one_tag_are_an_error_that_names_both(rig):
    blocked = rig.spec(program="/bin/sleep", arguments=("60",), resources={"ranks_per_node": 2})
    with rig.under_way(rig.request(blocked, "blocker", listener=(told := Told()))):
        await until(lambda: "running" in str(told.states), "the job that takes all slots")
        connection = rig.connection(Twice(accepts=True))
        with pytest.raises(LedgerError, match="holds 2 jobs named h") as caught:
            await rig.run(rig.request(rig.spec()), connection)
        hits = rig.active()[1:]
        assert len(hits) == 2
        assert all(job_id in str(caught.value) for job_id in hits)


async def test_when_one_of_two_jobs_under_one_tag_is_cancelled_the_other_one_is_taken(rig):
    """As the error asks for; the cancelled one is listed as ended for days."""
    blocked = rig.spec(
        program="/bin/bash",
        arguments=("-c", "until [ -e go ]; do sleep 0.02; done"),
        resources={"ranks_per_node": 2},
    )
    with rig.under_way(rig.request(blocked, "blocker", listener=(told := Told()))):
        await until(lambda: "running" in str(told.states), "the job that takes all slots")
        request = rig.request(rig.spec())
        with pytest.raises(LedgerError, match="holds 2 jobs"):
            await rig.run(request, rig.connection(Twice(accepts=True)))
        rig.engine("cancel", cancelled := rig.active()[1])
        await until(lambda: cancelled not in rig.active(), "the end of one")
        (rig.work / "go").touch()
        result = await rig.run(request)
    assert (result.state, result.attempt, len(rig.runs())) == ("succeeded", 1, 1)
    assert result.job_id != cancelled


class Forgetting(LocalScheduler):
    """Takes jobs that it does not keep, so many of them."""

    patience = dataclasses.replace(QUICK, lost=0.5, absent=0.2)

    def __init__(self, times: int) -> None:
        self.times = times
        self.tickets = []

    def submit(self, spec, ticket):
        if len(self.tickets) == self.times:
            return (yield from super().submit(spec, ticket))
        self.tickets.append((spec, ticket))
        return Accepted(f"forgotten-{len(self.tickets)}")


async def test_a_job_that_was_forgotten_before_it_started_is_submitted_again(rig):
    scheduler = Forgetting(1)
    told = Told()
    result = await rig.run(rig.request(rig.spec(), listener=told), rig.connection(scheduler))
    assert (result.state, result.attempt, len(rig.runs())) == ("succeeded", 2, 1)
    assert "forgotten-1 never started; it is submitted again" in told.states
    arrive(rig, scheduler)  # it comes to light after all
    await until(lambda: not rig.active(), "the end of the late job")
    assert len(rig.runs()) == 1
    assert (rig.attempt(1) / "duplicates").exists()


async def test_a_scheduler_that_forgets_every_job_is_given_no_more_than_three(rig):
    result = await rig.run(rig.request(rig.spec()), rig.connection(Forgetting(9)))
    assert (result.verdict.reason, result.attempt) == (Reason.NEVER_STARTED, 3)
    assert result.verdict.retryable


async def test_a_job_that_was_at_its_guard_is_lost_and_not_submitted_again(rig):
    class Started(Forgetting):
        def submit(self, spec, ticket):
            os.symlink("forgotten-1", f"{ticket.folder}/guard")
            return (yield from super().submit(spec, ticket))

    result = await rig.run(rig.request(rig.spec()), rig.connection(scheduler := Started(9)))
    assert (result.verdict.reason, len(scheduler.tickets)) == (Reason.LOST, 1)
    again = await rig.run(rig.request(rig.spec()), rig.connection(scheduler))
    assert (again.verdict.reason, len(scheduler.tickets), rig.runs()) == (Reason.LOST, 1, [])


class Late(LocalScheduler):
    """The submission of a driver that was killed arrives just before its successor's own."""

    patience = dataclasses.replace(QUICK, record=0.3)

    def submit(self, spec, ticket):
        late = yield from super().submit(spec, ticket)
        self.late = late.id
        return (yield from super().submit(spec, ticket))


async def test_a_second_job_of_the_attempt_does_not_start_the_program_and_the_first_is_followed(
    rig,
):
    told = Told()
    scheduler = Late()
    request = rig.request(rig.spec("sleep 0.5; echo done"), listener=told)
    # One slot: the late job is first at the guard, ours is turned away.
    rig.options["slots"] = 1
    result = await rig.run(request, rig.connection(scheduler))
    assert (result.state, result.attempt) == ("succeeded", 1)
    assert result.job_id == scheduler.late
    assert len(rig.runs()) == 1
    await until(lambda: not rig.active(), "the end of the second job")


class Doubtful(LocalScheduler):
    """Leaves the first submission in doubt and refuses the second; neither is handed on."""

    patience = QUICK

    def __init__(self, before_refusal=None) -> None:
        self.tickets = []
        self.before_refusal = before_refusal

    def submit(self, spec, ticket):
        yield from ()
        self.tickets.append((spec, ticket))
        if len(self.tickets) == 1:
            return Unclear("the connection was cut")
        if self.before_refusal:
            self.before_refusal()
        return Refused("the queue is closed")


def arrive(rig, scheduler):
    """The submission that was in doubt reaches the queue after all; returns the job's id."""
    return rig.connection().converse(LocalScheduler().submit(*scheduler.tickets[0])).id


def start_late(rig, scheduler):
    """The same, and its script is at work when this returns."""
    scheduler.late = arrive(rig, scheduler)
    while not os.path.lexists(rig.attempt() / "guard"):
        time.sleep(0.01)


def forget_the_verdict(rig):
    """As if the process had died before it wrote one."""
    journal = rig.attempt() / "journal.jsonl"
    kept = [line for line in journal.read_text().splitlines() if '"verdict"' not in line]
    journal.write_text("\n".join(kept) + "\n")


async def the_late_job_is_turned_away(rig, request, scheduler):
    late = arrive(rig, scheduler)
    await until(lambda: not rig.active(), "the end of the late job")
    assert rig.runs() == []
    assert (rig.attempt() / "duplicates").read_text().split() == [late]
    result = await rig.run(request)
    assert (result.state, result.attempt) == ("succeeded", 2)
    assert len(rig.runs()) == 1


async def test_a_job_that_arrives_after_its_attempt_was_refused_does_not_start_the_program(rig):
    scheduler, request = Doubtful(), rig.request(rig.spec())
    result = await rig.run(request, rig.connection(scheduler))
    assert (result.verdict.reason, result.job_id) == (Reason.REJECTED, "")
    await the_late_job_is_turned_away(rig, request, scheduler)


async def test_a_job_that_arrives_after_its_cancellation_in_doubt_does_not_start_the_program(rig):
    scheduler = Doubtful()
    told = Told(lambda text: "not clear" in text and run.cancel("user"))
    request = rig.request(rig.spec(), listener=told)
    with rig.under_way(request, rig.connection(scheduler)) as (run, task):
        result = await task
    assert (result.verdict.reason, result.job_id) == (Reason.CANCELLED, "")
    assert result.verdict.summary == "it was cancelled before it was submitted"
    await the_late_job_is_turned_away(rig, request, scheduler)


async def test_an_attempt_that_a_killed_run_closed_is_followed_by_the_next_one(rig):
    """It was killed after that and before it could write the verdict."""
    scheduler, request = Doubtful(), rig.request(rig.spec())
    await rig.run(request, rig.connection(scheduler))
    forget_the_verdict(rig)
    assert rig.events() == ["intent", "intent", "refused"]
    await the_late_job_is_turned_away(rig, request, scheduler)


async def test_a_job_that_started_while_its_attempt_was_settled_is_followed(rig):
    told = Told()
    scheduler = Doubtful(lambda: start_late(rig, scheduler))
    request = rig.request(rig.spec("sleep 0.3"), listener=told)
    result = await rig.run(request, rig.connection(scheduler))
    assert (result.state, result.attempt, result.job_id) == ("succeeded", 1, scheduler.late)
    assert (
        f"it had been submitted after all, as {scheduler.late}, which is followed now"
        in told.states
    )
    assert len(rig.runs()) == 1


async def test_a_job_that_started_while_its_attempt_was_settled_is_cancelled_if_asked_for(rig):
    loop = asyncio.get_running_loop()

    def start_late_and_cancel():
        start_late(rig, scheduler)
        loop.call_soon_threadsafe(run.cancel, "user")

    scheduler = Doubtful(start_late_and_cancel)
    request = rig.request(rig.spec("sleep 600"))
    with rig.under_way(request, rig.connection(scheduler)) as (run, task):
        result = await task
    assert (result.verdict.reason, result.job_id) == (Reason.CANCELLED, scheduler.late)
    assert rig.active() == []


class Quick(LocalScheduler):
    patience = QUICK


class StandingStill(LocalScheduler):
    """Of a process that stands still right before it submits, until it is let go on."""

    def __init__(self) -> None:
        self.stands, self.goes_on = threading.Event(), threading.Event()

    def submit(self, spec, ticket):
        self.stands.set()
        assert self.goes_on.wait(60)
        return (yield from super().submit(spec, ticket))


@pytest.mark.parametrize(("text", "state"), [("exit 0", "succeeded"), ("exit 3", "failed")])
async def test_what_a_process_submits_that_stood_still_hides_no_end_of_the_job_that_ran(
    rig, text, state
):
    """Another one had taken over, followed its job to the end, and died before the verdict."""
    rig.options["requeue"] = "yes"  # else a success closes nothing
    spec, scheduler = rig.spec(text), StandingStill()
    there, quick = rig.request(spec, is_over=lambda run: True), Quick()
    with living_process() as other, contextlib.ExitStack() as stack:
        here = rig.request(spec, claimant=dataclasses.replace(other, flow_run="stopped"))
        stack.enter_context(rig.under_way(here, rig.connection(scheduler)))
        await until(scheduler.stands.is_set)
        ran = await rig.run(there, rig.connection(quick))
        forget_the_verdict(rig)
        scheduler.goes_on.set()
        await until(lambda: rig.events().count("submitted") == 2)
        result = await rig.run(there, rig.connection(quick))
    assert (ran.state, ran.attempt) == (result.state, result.attempt) == (state, 1)
    assert result.verdict == ran.verdict
    assert result.job_id == ran.job_id
    assert len(rig.runs()) == 1
    ids = [entry["id"] for entry in rig.journal() if entry["event"] == "submitted"]
    assert (rig.attempt() / "duplicates").read_text().split() == [ids[1]]


async def test_a_job_that_found_its_attempt_closed_before_any_job_began_is_submitted_again(rig):
    """Closed by a process that stood still in the middle of that."""
    spec, scheduler = rig.spec(), StandingStill()
    with rig.under_way(rig.request(spec), rig.connection(scheduler)) as (_, task):
        await until(scheduler.stands.is_set)
        os.symlink("closed", rig.attempt() / "guard")
        scheduler.goes_on.set()
        result = await task
    assert (result.state, result.attempt) == ("succeeded", 2)
    first = JobResult.from_dict(rig.journal()[-1]["result"] | {"collected": False})
    assert first.verdict.reason is Reason.NEVER_STARTED
    assert len(rig.runs()) == 1


class Silent(LocalScheduler):
    """Does not answer when it is asked for a name."""

    patience = dataclasses.replace(QUICK, find=0.02)

    def __init__(self) -> None:
        self.submitted = 0

    def find(self, tags, options):
        yield from ()
        return NoAnswer("the controller hangs")

    def submit(self, spec, ticket):
        self.submitted += 1
        yield from ()
        return Unclear("no answer in time")


async def test_while_the_scheduler_does_not_answer_nothing_more_is_submitted(rig):
    scheduler = Silent()
    with pytest.raises(SchedulerError, match="it is not known whether it was submitted") as caught:
        await rig.run(rig.request(rig.spec()), rig.connection(scheduler))
    assert "the controller hangs" in str(caught.value)
    assert scheduler.submitted == 1


async def test_an_intent_without_id_of_a_dead_run_is_looked_for_before_it_is_submitted(rig):
    gate, told = rig.folder / "gate", Told()
    spec = rig.spec(f"until [ -e {gate} ]; do sleep 0.05; done")
    request = rig.request(spec, listener=told)
    await rig.abandon(request, "submitted as")
    gate.touch()
    journal = rig.attempt() / "journal.jsonl"
    journal.write_bytes(journal.read_bytes().split(b"\n")[1] + b"\n")  # only the intent
    assert rig.events() == ["intent"]
    connection = rig.connection(transport=(transport := Counting()))
    result = await rig.run(request, connection)
    assert result.succeeded
    assert "submit" not in transport.verbs()
    assert len(rig.runs()) == 1
    assert str(rig.left_by.pid) in str(rig.journal())


class Full(Counting):
    """A disk that is full from the n-th line of the journal on; the last line is torn."""

    def __init__(self, lines: int) -> None:
        super().__init__()
        self.lines = lines

    def append(self, path, data, *, durable=False):
        if path.endswith("journal.jsonl"):
            if self.lines == 0:
                super().append(path, data[:10])
                raise TransportError(f"cannot write {path}: No space left on device")
            self.lines -= 1
        super().append(path, data, durable=durable)


@pytest.mark.parametrize("lines", [0, 1])
async def test_a_full_disk_is_an_error_and_the_job_runs_once_when_there_is_room(rig: Rig, lines):
    request = rig.request(rig.spec())
    with pytest.raises(TransportError, match="No space left"):
        await rig.run(request, rig.connection(transport=Full(lines)))
    result = await rig.run(request)
    assert (result.state, result.attempt) == ("succeeded", 1)
    assert len(rig.runs()) == 1
    assert (await rig.run(request)).collected


class Refusing(Counting):
    """An engine that says no, for sure."""

    def run(self, command):
        self.commands.append(command)
        return Reply(1, "", "engine.py: the queue is closed")


async def test_a_refusal_is_a_verdict_with_the_schedulers_own_words(rig):
    result = await rig.run(rig.request(rig.spec()), rig.connection(transport=Refusing()))
    assert result.verdict.reason is Reason.REJECTED
    assert "the queue is closed" in result.verdict.said
