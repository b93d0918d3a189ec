"""Cancel means cancel, at any time; what was not confirmed is finished by the next call."""

from __future__ import annotations

import asyncio
import dataclasses
import os

import pytest
from rig import Told, until

from hpc_prefect.errors import SchedulerError
from hpc_prefect.executor.attempt import open_attempt
from hpc_prefect.executor.service import executor
from hpc_prefect.job.failure import Reason
from hpc_prefect.ledger.claim import TOUCH_EVERY
from hpc_prefect.ledger.job_folder import JobFolder
from hpc_prefect.schedulers.base import NoAnswer
from hpc_prefect.schedulers.local.scheduler import LocalScheduler
from hpc_prefect.transports.local import LocalTransport

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
    """Takes a request to cancel and does nothing."""

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
    assert (
        "did not confirm it within 0.5 s; it may still be queued or running"
        in result.verdict.summary
    )
    assert rig.active() == [result.job_id]
    assert "verdict" not in rig.events()

    with pytest.raises(SchedulerError, match=f"the end of {result.job_id}, which"):
        await rig.run(request, rig.connection(Deaf()))
    assert rig.active() == [result.job_id]

    flag.touch()
    again = await rig.run(request)
    assert (again.state, again.attempt) == ("succeeded", 2)
    assert len(rig.runs()) == 2


@pytest.fixture(params=["journal.jsonl", "cancel"])
def leave_cancelled(rig, request):
    """A dead run that journalled its request to cancel, or was told from outside, and no more."""

    async def leave(job):
        job_id = await rig.abandon(job)
        with (rig.attempt() / request.param).open("a") as file:
            file.write('{"time":1,"event":"cancel","by":"user"}\n')
        return job_id

    return leave


async def test_a_cancellation_that_a_dead_run_left_is_finished_and_then_the_job_runs(
    rig, leave_cancelled
):
    flag = rig.folder / "flag"
    request = rig.request(rig.spec(f"[ -e {flag} ] || {FOREVER}"))
    job_id = await leave_cancelled(request)
    await until(rig.runs, "the start of the program")
    flag.touch()
    result = await rig.run(request)
    assert (result.state, result.attempt) == ("succeeded", 2)
    assert result.job_id != job_id
    assert len(rig.runs()) == 2
    verdict = next(entry for entry in rig.journal(1) if entry["event"] == "verdict")
    assert verdict["result"]["verdict"]["reason"] == "cancelled"


async def test_a_job_that_ended_well_although_a_dead_run_wished_its_end_is_a_success(
    rig, leave_cancelled
):
    gate = rig.folder / "gate"
    request = rig.request(rig.spec(f"until [ -e {gate} ]; do sleep 0.05; done"))
    job_id = await leave_cancelled(request)
    gate.touch()
    await until(lambda: not rig.active(), "the job's end")
    result = await rig.run(request)
    assert (result.state, result.attempt, result.job_id) == ("succeeded", 1, job_id)
    assert len(rig.runs()) == 1


async def test_the_job_that_runs_again_after_a_left_cancellation_can_be_cancelled_too(
    rig, leave_cancelled
):
    told = Told()
    request = rig.request(rig.spec(FOREVER), listener=told)
    await leave_cancelled(request)
    with rig.under_way(request) as (run, task):
        await until(lambda: len(rig.runs()) == 2, "the second run")
        run.cancel("user")
        result = await task
    assert (result.verdict.reason, result.attempt) == (Reason.CANCELLED, 2)
    assert rig.active() == []


async def test_a_cancellation_while_a_left_one_is_finished_keeps_the_job_from_running_again(
    rig, leave_cancelled
):
    told = Told()
    request = rig.request(rig.spec(f"trap '' TERM; {FOREVER}"), listener=told)
    await leave_cancelled(request)
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


# --- asked from outside of the claimant's process


def request_cancel(rig, by="user"):
    JobFolder(LocalTransport(), str(rig.attempt())).note_cancel_request(by=by, who="a test")


async def test_a_job_that_was_cancelled_from_outside_is_no_cancellation_by_someone_else(rig):
    told = Told()
    with rig.under_way(rig.request(rig.spec(FOREVER), listener=told)) as (run, task):
        await until(lambda: "running" in str(told.states), "the job's start")
        request_cancel(rig)
        rig.engine("cancel", run.job_id)
        result = await task
    assert (result.state, result.verdict.reason) == ("cancelled", Reason.CANCELLED)


async def test_a_job_that_ends_well_although_its_end_was_wished_outside_is_a_success(rig):
    gate, told = rig.folder / "gate", Told()
    spec = rig.spec(f"until [ -e {gate} ]; do sleep 0.05; done")
    with rig.under_way(rig.request(spec, listener=told)) as (_, task):
        await until(lambda: "running" in str(told.states), "the job's start")
        request_cancel(rig)
        gate.touch()
        result = await task
    assert (result.state, result.exit_code) == ("succeeded", 0)


async def test_a_job_whose_end_was_wished_while_it_waited_for_a_place_is_never_submitted(rig):
    connection, first, told = rig.connection(), Told(), Told()
    gate = rig.folder / "gate"
    blocker = rig.spec(
        program="/bin/bash", arguments=("-c", f"until [ -e {gate} ]; do sleep 0.05; done")
    )
    occupied = rig.request(blocker, "blocker", listener=first, max_jobs_in_queue=1)
    waiting = rig.request(rig.spec(), listener=told, max_jobs_in_queue=1)
    with rig.under_way(occupied, connection):
        await until(lambda: "running" in str(first.states), "the job that takes the place")
        with rig.under_way(waiting, connection) as (_, task):
            await until(lambda: "waiting" in str(told.states), "that it waits")
            request_cancel(rig)
            gate.touch()
            result = await task
    assert (result.verdict.reason, result.job_id) == (Reason.CANCELLED, "")
    assert rig.runs() == []


@pytest.mark.slow
async def test_a_claimant_finishes_what_somebody_wished_who_could_not_reach_the_scheduler(rig):
    """It looks for requests when it renews its claim."""
    told = Told()
    with rig.under_way(rig.request(rig.spec(FOREVER), listener=told)) as (_, task):
        await until(lambda: "running" in str(told.states), "the job's start")
        request_cancel(rig)
        result = await asyncio.wait_for(task, 10 * TOUCH_EVERY)
    assert result.verdict.reason is Reason.CANCELLED
    assert f"cancelling {result.job_id} (user)" in told.states


async def test_a_wish_that_was_there_before_the_claim_is_no_news_to_the_claimant(rig):
    await rig.abandon(rig.request(rig.spec(FOREVER)))
    request_cancel(rig)
    attempt = open_attempt(rig.request(rig.spec(FOREVER)), rig.connection())
    assert attempt.cancel == "user"
    heard = []
    attempt.on_cancel_request = heard.append
    attempt.heartbeat()
    assert heard == []
    request_cancel(rig, "timeout")
    attempt.heartbeat()
    assert heard == ["timeout"]


async def test_a_wish_after_one_that_a_crash_tore_off_is_read(rig):
    await rig.abandon(rig.request(rig.spec(FOREVER)))
    (rig.attempt() / "cancel").write_text('{"time":1,"ev')
    request_cancel(rig)
    assert JobFolder(LocalTransport(), str(rig.attempt())).ledger().cancel == "user"
