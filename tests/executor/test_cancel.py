"""Cancel means cancel, at any time; what was not confirmed is finished by the next call."""

from __future__ import annotations

import asyncio
import dataclasses
import os

import pytest
from rig import Told, until

from hpc_prefect.errors import SchedulerError
from hpc_prefect.executor.service import executor
from hpc_prefect.job.failure import Reason
from hpc_prefect.schedulers.base import NoAnswer
from hpc_prefect.schedulers.local import LocalScheduler

FOREVER = "sleep 600"


async def test_a_running_job_is_cancelled(rig):
    told = Told()
    with rig.under_way(rig.request(rig.spec(FOREVER), listener=told)) as (run, task):
        await until(lambda: "running" in str(told.states), "the job's start")
        run.cancel("user")
        result = await task
    assert (result.state, result.verdict.reason) == ("cancelled", Reason.CANCELLED)
    assert f"cancelling {result.job_id} (user)" in told.states
    assert rig.events().index("cancel") < rig.events().index("verdict")
    assert rig.active() == []


async def test_a_waiting_job_is_cancelled_and_never_starts(rig):
    spec = rig.spec(program="/bin/sleep", arguments=("600",), resources={"ranks_per_node": 2})
    with rig.under_way(rig.request(spec, "blocker", listener=(first := Told()))):
        await until(lambda: "running" in str(first.states), "the job that takes all slots")
        told = Told()
        with rig.under_way(rig.request(rig.spec(), listener=told)) as (run, task):
            await until(lambda: "submitted as" in str(told.states), "the submission")
            run.cancel("user")
            result = await task
    assert result.verdict.reason is Reason.CANCELLED
    assert rig.runs() == []
    assert os.readlink(rig.attempt() / "guard") == "closed", "nor will a requeued one"


async def test_a_job_cancelled_before_it_is_submitted_never_is(rig):
    with rig.under_way(rig.request(rig.spec())) as (run, task):
        run.cancel("user")
        result = await task
    assert (result.state, result.job_id) == ("cancelled", "")
    assert result.verdict.summary == "it was cancelled before it was submitted"
    assert "submitted" not in rig.events()
    assert rig.runs() == []


class Slow(LocalScheduler):
    """Tells when the job is accepted, before we know it."""

    def __init__(self, on_submit) -> None:
        self.on_submit = on_submit

    def submit(self, spec, ticket):
        outcome = yield from super().submit(spec, ticket)
        self.on_submit()
        return outcome


async def test_a_job_cancelled_during_its_submission_is_cancelled(rig):
    loop = asyncio.get_running_loop()
    scheduler = Slow(lambda: asyncio.run_coroutine_threadsafe(cancel(), loop).result())

    async def cancel():
        run.cancel("user")

    with rig.under_way(rig.request(rig.spec(FOREVER)), rig.connection(scheduler)) as (run, task):
        result = await task
    assert result.verdict.reason is Reason.CANCELLED
    assert rig.events().count("cancel") == 1
    assert rig.active() == []


async def test_a_timeout_is_told_apart_from_a_cancellation(rig):
    request = rig.request(rig.spec(FOREVER), timeout=0.5)
    result = await asyncio.wrap_future(executor().start(request).result)
    assert (result.state, result.verdict.reason) == ("cancelled", Reason.TIMED_OUT)
    assert rig.active() == []


async def test_a_cancellation_with_scancel_is_told_as_someone_elses(rig):
    told = Told()
    with rig.under_way(rig.request(rig.spec(FOREVER), listener=told)) as (run, task):
        await until(lambda: "running" in str(told.states), "the job's start")
        rig.engine("cancel", run.job_id)
        result = await task
    assert result.verdict.reason is Reason.CANCELLED_ELSEWHERE
    assert "cancelled by" in result.verdict.summary


async def test_a_job_that_ends_well_before_the_cancellation_arrives_keeps_its_success(rig):
    gate, told = rig.folder / "gate", Told()

    class Late(LocalScheduler):
        """The cancellation takes its time, and finds no job."""

        def cancel(self, jobs, options):
            gate.touch()
            yield from ()
            return NoAnswer("socket timed out")

    spec = rig.spec(f"until [ -e {gate} ]; do sleep 0.05; done")
    request = rig.request(spec, listener=told)
    with rig.under_way(request, rig.connection(Late())) as (run, task):
        await until(lambda: "running" in str(told.states), "the job's start")
        run.cancel("user")
        result = await task
    assert (result.state, result.exit_code) == ("succeeded", 0)


class Deaf(LocalScheduler):
    """Takes a wish to cancel and does nothing."""

    patience = dataclasses.replace(LocalScheduler.patience, confirm=0.5)

    def cancel(self, jobs, options):
        yield from ()


async def test_a_cancellation_without_effect_is_said_and_the_next_call_finishes_it(rig):
    """Until then nothing is submitted, so that the program never runs beside itself."""
    told, flag = Told(), rig.folder / "flag"
    spec = rig.spec(f"[ -e {flag} ] || {FOREVER}")
    request = rig.request(spec, listener=told)
    with rig.under_way(request, rig.connection(Deaf())) as (run, task):
        await until(lambda: "running" in str(told.states), "the job's start")
        run.cancel("user")
        result = await task
    assert result.verdict.reason is Reason.CANCELLED
    assert "did not confirm it within 0.5 s; it may still be there" in result.verdict.summary
    assert rig.active() == [result.job_id]
    assert "verdict" not in rig.events()

    with pytest.raises(SchedulerError, match=f"the end of {result.job_id}, which"):
        await rig.run(request, rig.connection(Deaf()))
    assert rig.active() == [result.job_id]

    flag.touch()
    again = await rig.run(request)
    assert (again.state, again.attempt) == ("succeeded", 2)
    assert len(rig.runs()) == 2


async def leave_cancelled(rig, request):
    """A dead run that journalled its wish to cancel and got no further."""
    job_id = await rig.abandon(request)
    with (rig.attempt() / "journal.jsonl").open("a") as journal:
        journal.write('{"time":1,"event":"cancel","by":"user"}\n')
    return job_id


async def test_a_cancellation_that_a_dead_run_left_is_finished_and_then_the_job_runs(rig):
    flag = rig.folder / "flag"
    request = rig.request(rig.spec(f"[ -e {flag} ] || {FOREVER}"))
    job_id = await leave_cancelled(rig, request)
    flag.touch()
    result = await rig.run(request)
    assert (result.state, result.attempt) == ("succeeded", 2)
    assert result.job_id != job_id
    assert len(rig.runs()) == 2
    verdict = next(entry for entry in rig.journal(1) if entry["event"] == "verdict")
    assert verdict["result"]["verdict"]["reason"] == "cancelled"


async def test_a_job_that_ended_well_although_a_dead_run_wished_its_end_is_a_success(rig):
    gate = rig.folder / "gate"
    request = rig.request(rig.spec(f"until [ -e {gate} ]; do sleep 0.05; done"))
    job_id = await leave_cancelled(rig, request)
    gate.touch()
    await until(lambda: not rig.active(), "the job's end")
    result = await rig.run(request)
    assert (result.state, result.attempt, result.job_id) == ("succeeded", 1, job_id)
    assert len(rig.runs()) == 1


async def test_the_job_that_runs_again_after_a_left_cancellation_can_be_cancelled_too(rig):
    told = Told()
    request = rig.request(rig.spec(FOREVER), listener=told)
    await leave_cancelled(rig, request)
    with rig.under_way(request) as (run, task):
        await until(lambda: len(rig.runs()) == 2, "the second run")
        run.cancel("user")
        result = await task
    assert (result.verdict.reason, result.attempt) == (Reason.CANCELLED, 2)
    assert rig.active() == []


async def test_a_cancellation_while_a_left_one_is_finished_keeps_the_job_from_running_again(rig):
    told = Told()
    request = rig.request(rig.spec(f"trap '' TERM; {FOREVER}"), listener=told)
    await leave_cancelled(rig, request)
    with rig.under_way(request) as (run, task):
        await until(lambda: "cancelling" in str(told.states), "the first cancellation")
        run.cancel("user")
        result = await task
    assert (result.verdict.reason, result.attempt) == (Reason.CANCELLED, 1)
    assert len(rig.runs()) == 1


async def test_a_cancelled_job_runs_as_the_next_attempt_when_it_is_called_again(rig):
    with rig.under_way(rig.request(rig.spec())) as (run, task):
        run.cancel("user")
        await task
    result = await rig.run(rig.request(rig.spec()))
    assert (result.state, result.attempt) == ("succeeded", 2)
