"""Too many jobs for a queue wait for their turn; a job that is over is not started again."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest
from rig import Told, until

from hpc_prefect.executor.coordination.queue_slots import QueueSlot
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.state import JobState
from hpc_prefect.schedulers.base import Refused
from hpc_prefect.schedulers.local.scheduler import LocalScheduler


class Full(LocalScheduler):
    """Says that the queue is full for as long as it is."""

    def __init__(self) -> None:
        self.full, self.tried = True, 0

    def submit(self, spec, ticket):
        self.tried += 1
        if self.full:
            return Refused("QOSMaxSubmitJobPerUserLimit", full=True)
        return (yield from super().submit(spec, ticket))


async def test_a_submission_to_a_full_queue_is_tried_again_until_there_is_room(rig):
    told, scheduler = Told(), Full()
    request = rig.request(rig.spec(), listener=told, poll_interval=0.05)
    with rig.under_way(request, rig.connection(scheduler)) as (_, task):
        await until(lambda: scheduler.tried >= 3, "three tries")
        scheduler.full = False
        result = await task
    assert (result.state, result.attempt) == ("succeeded", 1)
    assert len([text for text in told.states if text.startswith("the queue is full")]) == 1
    assert len(rig.runs()) == 1


async def test_a_full_queue_is_an_end_when_the_profile_has_no_more_patience(rig):
    request = rig.request(rig.spec(), poll_interval=0.05, queue_full_wait=0.2)
    result = await rig.run(request, rig.connection(Full()))
    assert result.verdict.reason is Reason.QUEUE_FULL
    assert "QOSMaxSubmitJobPerUserLimit" in result.verdict.summary
    assert rig.runs() == []


@pytest.mark.parametrize(
    ("by", "reason"), [("user", Reason.CANCELLED), ("timeout", Reason.TIMED_OUT)]
)
async def test_waiting_for_room_ends_with_a_cancellation(rig, by, reason):
    scheduler = Full()
    request = rig.request(rig.spec(), poll_interval=60.0)
    with rig.under_way(request, rig.connection(scheduler)) as (run, task):
        await until(lambda: scheduler.tried, "a try")
        run.cancel(by)
        result = await task
    assert result.verdict.reason is reason
    assert "the queue was full" in result.verdict.summary
    assert scheduler.tried == 1


async def test_a_killed_run_that_was_surely_refused_has_nothing_to_look_for(rig):
    """The journal says that it was refused, so the next run submits at once."""

    class FullThenCounting(Full):
        searches = 0

        def find(self, tags, options):
            self.searches += 1
            return (yield from super().find(tags, options))

    scheduler = FullThenCounting()
    request = rig.request(rig.spec(), poll_interval=60.0)
    with rig.under_way(request, rig.connection(scheduler)):
        await until(lambda: "refused" in rig.events(), "a refusal")
    scheduler.full = False
    assert (await rig.run(request, rig.connection(scheduler))).succeeded
    assert scheduler.searches == 0


async def test_no_more_jobs_of_a_process_are_in_a_queue_than_the_profile_says(rig):
    request = rig.request(rig.spec('until [ -e "$1" ]; do sleep 0.02; done'))
    connection = rig.connection()
    told = Told()
    with rig.under_way(_held(rig, request, "a"), connection) as (first, one):
        await until(lambda: first.job_id, "the first job")
        with rig.under_way(_held(rig, request, "b", listener=told), connection) as (second, two):
            await until(lambda: told.states, "the second call's word")
            assert told.states == ["waiting for a slot: 1 jobs of your flows are in the queue ''"]
            assert (len(rig.active()), second.job_id) == (1, "")
            (rig.work / "a").touch()
            assert (await one).succeeded
            (rig.work / "b").touch()
            assert (await two).succeeded


def _held(rig, request, name, **changes):
    spec = dataclasses.replace(request.spec, arguments=(str(rig.work / name),))
    base = f"{request.base}{name}"
    return dataclasses.replace(request, spec=spec, base=base, max_jobs_in_queue=1, **changes)


async def test_waiting_for_a_place_ends_with_a_cancellation(rig):
    connection = rig.connection()
    slot = QueueSlot("other", "", 1)
    await connection.slots("").occupy(slot)
    told = Told()
    request = rig.request(rig.spec(), max_jobs_in_queue=1, listener=told)
    with rig.under_way(request, connection) as (run, task):
        await until(lambda: told.states, "its wait")
        run.cancel("user")
        assert (await task).verdict.reason is Reason.CANCELLED
    assert rig.runs() == []
    connection.slots("").give_back(slot)
    await asyncio.wait_for(connection.slots("").take(slot), 60)


async def test_places_are_given_in_order_and_none_is_lost_by_those_who_give_up(rig):
    slots, slot, order = rig.connection().slots(""), QueueSlot("one", "", 1), []

    async def one(name):
        await slots.take(slot)
        order.append(name)

    await slots.take(slot)
    waiting = [asyncio.ensure_future(one(name)) for name in "abc"]
    await asyncio.sleep(0)
    waiting[1].cancel()
    for expected in (["a"], ["a", "c"]):
        slots.give_back(slot)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert order == expected
    slots.give_back(slot)
    await asyncio.wait_for(slots.take(slot), 60)


class NodeFails(LocalScheduler):
    """Reports the loss of a node, and has put the job back into the queue."""

    def observe(self, ids, options):
        answer = yield from super().observe(ids, options)
        ended = {"state": JobState.ENDED, "cause": Reason.NODE_FAILURE, "word": "NODE_FAIL"}
        return {id_: dataclasses.replace(seen, **ended) for id_, seen in answer.items()}


async def test_a_job_that_its_scheduler_starts_again_after_the_verdict_is_shut_out(rig):
    request = rig.request(rig.spec("sleep 60"))
    with rig.under_way(request, rig.connection(NodeFails())) as (run, task):
        await until(rig.runs, "the start")
        run._monitor.wants_answer = True
        result = await task
    assert result.verdict.reason is Reason.NODE_FAILURE
    await until(lambda: not rig.active(), "the end of what may have been put back")
    script = await asyncio.create_subprocess_exec(
        "bash", result.script_path, env={"HPC_LOCAL_JOBID": result.job_id, "PATH": "/usr/bin:/bin"}
    )
    assert await script.wait() == 117
    assert len(rig.runs()) == 1


async def test_a_job_without_a_limit_does_not_wait_behind_those_that_have_one(rig):
    slots, slot = rig.connection().slots(""), QueueSlot("one", "", 1)
    await slots.occupy(slot)
    limited = asyncio.ensure_future(slots.take(slot))
    await asyncio.sleep(0)
    await asyncio.wait_for(slots.take(QueueSlot("free", "", 0)), 60)
    assert not limited.done()
    limited.cancel()


class Held(LocalScheduler):
    """Says that a person holds the job, for as long as one does."""

    held = True

    def observe(self, ids, options):
        answer = yield from super().observe(ids, options)
        if not self.held:
            return answer
        held = {"state": JobState.HELD, "word": "PENDING", "message": "JobHeldUser"}
        return {id_: dataclasses.replace(seen, **held) for id_, seen in answer.items()}


async def test_a_held_job_is_warned_about_with_what_to_do_and_waited_for(rig):
    told, scheduler = Told(), Held()
    request = rig.request(rig.spec("until [ -e go ]; do sleep 0.02; done"), listener=told)
    with rig.under_way(request, rig.connection(scheduler)) as (_, task):
        await until(lambda: told.warnings or task.done(), "the warning")
        assert not task.done()
        assert "held as" in told.warnings[0]
        assert "JobHeldUser" in told.warnings[0]
        assert "release it (scontrol release, qrls, pjrls)" in told.warnings[0]
        scheduler.held = False
        (rig.work / "go").touch()
        assert (await task).succeeded
