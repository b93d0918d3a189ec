"""Cancelling by the folders alone: wish, scheduler, confirmation, and what is not confirmed."""

from __future__ import annotations

import asyncio
import dataclasses
import json

import pytest

from hpc_prefect.errors import TransportError
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.script import GUARD_CODE
from hpc_prefect.job.state import JobState, Observation
from hpc_prefect.ledger.claim import Claimant, this_process
from hpc_prefect.operations import JobSnapshot, cancel_jobs, cancel_jobs_of, list_jobs
from hpc_prefect.operations.cancel import _CancelRequest
from hpc_prefect.operations.end_watch import EndWatch
from hpc_prefect.operations.members import MemberCounts
from hpc_prefect.transports.local import LocalTransport

from ..executor.rig import Counting, Rig, Told, dead_process, drive, until, was_killed

FOREVER = "sleep 600"


def known(rig: Rig, **given: object) -> list[JobSnapshot]:
    return list_jobs(rig.work, **given)


async def cancel(jobs, **given):
    return await asyncio.to_thread(cancel_jobs, jobs, **given)


async def not_confirmed(words: str, jobs):
    """What came of it when it is told in these words. A busy machine may need more time for that
    than there was."""
    for wait in (1.0, 5.0, 25.0):
        (done,) = await cancel(jobs, wait=wait)
        assert not done.confirmed
        if words in done.words:
            break
    return done


async def test_the_job_of_a_dead_process_is_cancelled_and_its_wish_was_written_first(rig):
    job_id = await rig.abandon(rig.request(rig.spec(FOREVER)))
    (done,) = await cancel(known(rig))
    assert done.confirmed, done.words
    await rig.emptied()
    assert [entry["event"] for entry in done.job.events][-2:] == ["cancel", "ended"]
    assert done.job.status.state == "ended"
    assert "no verdict yet" in done.job.status.reason
    assert "verdict" not in rig.events(), "that is for whoever attaches"
    (again,) = await cancel(known(rig))
    assert (again.confirmed, again.job.job_id) == (True, job_id)
    assert again.words.startswith("it had ended")


async def test_a_living_claimant_ends_its_job_as_cancelled_and_not_by_someone_else(rig):
    told = Told()
    with rig.under_way(rig.request(rig.spec(FOREVER), listener=told)) as (_, task):
        await until(lambda: "running" in str(told.states), "the job's start")
        (done,) = await cancel(known(rig))
        result = await task
    assert done.confirmed
    assert (result.state, result.verdict.reason) == ("cancelled", Reason.CANCELLED)


async def test_all_jobs_of_a_scheduler_are_cancelled_in_one_command(rig):
    spec = rig.spec(FOREVER)  # written once: a job may be about to read its program
    for key in ("a", "b", "c"):
        await rig.abandon(rig.request(spec, key), " as ")
    transport = Counting()
    done = await cancel(known(rig, transport=transport))
    assert [one.confirmed for one in done] == [True] * 3
    assert transport.verbs().count("cancel") == 1
    await rig.emptied()


async def test_an_end_that_stands_in_the_journal_alone_is_asked_for_again(rig):
    """It may be that of a second job, while NFS hides that the first one has started."""
    await rig.abandon(rig.request(rig.spec(FOREVER)))
    (rig.attempt() / "start").write_text("")
    told = {"time": 9e9, "event": "observed", "state": "ended", "word": "FAILED"}
    with (rig.attempt() / "journal.jsonl").open("a") as journal:
        journal.write(json.dumps(told) + "\n")
    (left,) = known(rig)
    assert left.status.state == "ended"
    (done,) = await cancel([left])
    assert done.confirmed, done.words
    await rig.emptied()


@pytest.mark.parametrize("members", [None, MemberCounts()])
async def test_the_end_of_what_the_start_guard_turned_away_is_not_that_of_the_job(rig, members):
    """Another one has begun. The code of an array is that of one element, and tells nothing."""
    await rig.abandon(rig.request(rig.spec(FOREVER)))
    (left,) = known(rig)
    request = _CancelRequest(dataclasses.replace(left, members=members), ["7"], has_searched=True)
    request.members_told = members is not None
    watch = EndWatch("local", "7", left.tag, request.over, lambda *_: None)
    ended = Observation(id="7", state=JobState.ENDED, word="FAILED", exit_code=GUARD_CODE)
    request.saw_end(watch, ended, "local")
    assert (request.words, request.is_to_search) == (
        ("", True) if members is None else ("local says FAILED", False)
    )
    request.started_as = "7"  # it was the one that has begun, and was started again
    request.conclude()
    assert request.words == "local says FAILED"


async def test_a_job_that_has_ended_is_left_as_it_is(rig):
    await rig.run(rig.request(rig.spec("exit 0")))
    (done,) = await cancel(known(rig))
    assert (done.confirmed, done.words) == (True, "it had ended: succeeded")
    assert (rig.attempt() / "cancel").read_text() == ""


async def test_a_job_whose_submission_was_in_doubt_is_found_by_its_name_and_cancelled(rig):
    jobs = [{"key": "k", "program": rig.program(FOREVER)}]
    assert was_killed(drive(rig, jobs, at="submitted", when="before"))
    (done,) = await cancel(known(rig))
    assert done.confirmed, done.words
    await rig.emptied()


async def test_a_job_in_doubt_of_which_no_trace_is_found_is_not_confirmed(rig):
    jobs = [{"key": "k", "program": rig.program("exit 0")}]
    assert was_killed(drive(rig, jobs, at="intent", when="after"))
    wanted = "whether it was submitted is not known; local lists no such job"
    done = await not_confirmed(wanted, known(rig))
    assert done.words == wanted
    assert done.job.ledger.cancel == "user", "whoever takes it up knows"


async def test_a_scheduler_that_does_not_answer_is_told_and_the_wish_stays(rig):
    class Broken(LocalTransport):
        def run(self, command):
            return super().run(dataclasses.replace(command, argv=("/bin/false",)))

    job_id = await rig.abandon(rig.request(rig.spec(FOREVER)))
    wanted = "local did not accept the cancellation (exit status 1"
    done = await not_confirmed(wanted, known(rig, transport=Broken()))
    assert done.words.startswith(wanted)
    assert rig.active() == [job_id]
    (done,) = await cancel(known(rig))
    assert done.confirmed, done.words
    await rig.emptied()


async def test_a_command_that_hangs_is_given_up_when_it_is_time(rig):
    class Hanging(LocalTransport):
        def run(self, command):
            return super().run(dataclasses.replace(command, argv=("sleep", "1000")))

    await rig.abandon(rig.request(rig.spec(FOREVER)))
    (done,) = await cancel(known(rig, transport=Hanging()), wait=1.0)
    assert not done.confirmed
    assert "no answer in time" in done.words


async def test_a_full_disk_does_not_keep_a_job_alive(rig):
    await rig.abandon(rig.request(rig.spec(FOREVER)))
    (done,) = await cancel(known(rig, transport=Full()))
    assert done.confirmed, done.words
    await rig.emptied()


class Full(LocalTransport):
    """A disk that has no room for a wish."""

    def append(self, path, data, *, durable=False):
        raise TransportError(f"cannot write {path}: No space left on device")


async def test_a_job_that_its_process_has_not_submitted_yet_is_not_confirmed_but_told(rig):
    connection, first, told = rig.connection(), Told(), Told()
    blocker = rig.spec(program="/bin/sleep", arguments=("600",))
    occupied = rig.request(blocker, "blocker", listener=first, max_jobs_in_queue=1)
    waiting = rig.request(rig.spec(), listener=told, max_jobs_in_queue=1)
    with rig.under_way(occupied, connection) as (run, _):
        await until(lambda: "running" in str(first.states), "the job that takes the place")
        with rig.under_way(waiting, connection) as (_, task):
            await until(lambda: "waiting" in str(told.states), "that it waits")
            (job,) = [job for job in known(rig) if job.key == "k"]
            (done,) = await cancel([job], wait=0.5)
            assert not done.confirmed
            assert done.words == "it is not submitted yet; its process was asked not to submit it"
            rig.engine("cancel", run.job_id)
            assert (await task).verdict.reason is Reason.CANCELLED
    assert rig.runs() == []


async def test_a_job_that_was_never_submitted_needs_no_cancelling(rig):
    jobs = [{"key": "k", "program": rig.program("exit 0")}]
    assert was_killed(drive(rig, jobs, at="intent", when="before"))
    (done,) = await cancel(known(rig))
    assert (done.confirmed, done.words) == (True, "it was never submitted")


async def test_what_cannot_be_read_is_not_confirmed(rig):
    rig.attempt().mkdir(parents=True)
    (done,) = await cancel(known(rig))
    assert not done.confirmed
    assert "its folder cannot be read" in done.words


# --- all jobs of a flow run


def worked_for(flow_run: str) -> Claimant:
    return dataclasses.replace(dead_process(), flow_run=flow_run)


def claimed(rig: Rig, key: str, *claimants: Claimant) -> None:
    """As if these had claimed the job one after another."""
    for generation, claimant in enumerate(claimants, start=1):
        path = rig.attempt(1, key) / f"claim-{generation}"
        path.write_text(json.dumps(dataclasses.asdict(claimant)))


async def test_the_jobs_of_a_flow_run_are_those_that_no_other_run_took_over(rig):
    keys = ("mine", "attached", "anothers", "taken")
    spec = rig.spec(FOREVER)  # written once: a job may be about to read its program
    for key in keys:
        await rig.abandon(rig.request(spec, key), " as ")
    a_command = this_process()
    claimed(rig, "mine", worked_for("run-1"))
    claimed(rig, "attached", worked_for("run-1"), dead_process())
    claimed(rig, "anothers", worked_for("run-2"))
    claimed(rig, "taken", worked_for("run-1"), worked_for("run-2"), a_command)
    campaign = rig.attempt().parents[1]
    done = await asyncio.to_thread(cancel_jobs_of, "run-1", [rig.work, campaign])
    assert sorted(one.job.key for one in done) == ["attached", "mine"]
    assert all(one.confirmed for one in done)
    assert len(rig.active()) == 2
