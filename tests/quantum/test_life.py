"""The life of a quantum job, by the executor's machinery, at a service in memory."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from hpc_prefect.errors import JobHeld, QuantumServiceError, SchedulerError
from hpc_prefect.executor.attempt import open_attempt
from hpc_prefect.job.failure import Reason
from hpc_prefect.ledger.claim import take, this_process
from hpc_prefect.ledger.quantum_folder import qpu_seconds
from hpc_prefect.operations import cancel_jobs, list_jobs
from hpc_prefect.operations.kinds import KINDS
from hpc_prefect.quantum.service import CANCELLED, DONE, ERROR, RUNNING
from hpc_prefect.transports.local import LocalTransport

from ..executor.rig import living_process
from .journals import words
from .memory import QUEUED, Lives, MemoryAttempt, MemoryRun, MemoryService


def cost(folder: Path) -> float:
    return sum(qpu_seconds(job.ledger) for job in list_jobs(folder))


async def until(true) -> None:
    while not true():  # noqa: ASYNC110 - what is awaited tells nobody
        await asyncio.sleep(0.01)


async def test_a_job_is_bought_once_and_its_result_kept(tmp_path):
    lives = Lives(tmp_path, MemoryService())
    first, again = [await lives.run().carry_out() for _ in range(2)]

    assert (first.state, first.resources_used) == ("succeeded", {"qpu_seconds": 2.0})
    assert (again.job_id, again.collected) == (first.job_id, True)
    assert words(tmp_path) == ["intent", "submitted", "verdict"]
    assert lives.service.statuses() == [DONE]


@pytest.mark.parametrize(("fault", "jobs"), [("lose", 1), ("drop", 1)])
async def test_a_lost_reply_is_looked_for_before_anything_is_posted_again(tmp_path, fault, jobs):
    lives = Lives(tmp_path, MemoryService())
    lives.service.on_post = [fault]

    result = await lives.run().carry_out()

    assert result.succeeded
    assert len(lives.service.jobs) == jobs


async def test_an_answer_that_is_read_late_does_not_tell_that_nothing_was_posted(tmp_path):
    lives = Lives(tmp_path, MemoryService())
    service = lives.service
    service.on_post, service.hidden, service.read_late = ["lose"], True, 2
    # Longer than a busy machine takes from the first list to the second.
    lives.provider.patience = replace(lives.provider.patience, find=3.0)
    ending = asyncio.ensure_future(lives.run().carry_out())
    await until(lambda: service.lists == 2)
    await asyncio.sleep(2 * lives.provider.patience.find)  # the process is stopped so long
    service.hidden = False
    service.go_on.set()

    assert (await ending).succeeded
    assert len(service.jobs) == 1


async def test_a_lost_post_that_is_not_listed_is_not_closed_by_a_cancel(tmp_path):
    lives = Lives(tmp_path, MemoryService(ends=QUEUED))
    lives.service.on_post, lives.service.hidden = ["lose"], True
    # Longer than a busy machine takes from the first list to the cancellation.
    lives.provider.patience = replace(lives.provider.patience, find=3.0)
    run = lives.run()
    ending = asyncio.ensure_future(run.carry_out())
    await until(lambda: lives.service.jobs)
    run.cancel("user")
    await ending

    assert words(tmp_path) == ["intent", "unconfirmed"]
    assert cost(tmp_path) == 5.0  # what was estimated
    lives.service.hidden = False
    lives.service.end(DONE)
    assert (await lives.run().carry_out()).succeeded
    assert len(lives.service.jobs) == 1


async def test_nothing_is_bought_before_the_end_of_a_job_that_an_earlier_run_cancelled(tmp_path):
    lives = Lives(tmp_path, MemoryService(ends=RUNNING))
    lives.service.stubborn = True
    run = lives.run()
    ending = asyncio.ensure_future(run.carry_out())
    await until(lambda: run.job_id)
    run.cancel("user")
    assert (await ending).state == "cancelled"
    assert words(tmp_path)[-2:] == ["cancel", "unconfirmed"]
    assert cost(tmp_path) == 5.0

    again = asyncio.ensure_future(lives.run().carry_out())
    await until(lambda: words(tmp_path).count("cancel") == 2)
    await asyncio.sleep(0.5)  # longer than one's own cancellation is waited for
    assert len(lives.service.jobs) == 1
    lives.service.ends = DONE
    lives.service.end(CANCELLED)
    assert (await again).succeeded
    assert lives.service.statuses() == [CANCELLED, DONE]
    assert cost(tmp_path) == 4.0


async def test_of_two_jobs_of_one_post_the_furthest_is_kept_and_both_are_paid(tmp_path):
    lives = Lives(tmp_path, MemoryService())
    lives.service.on_post = ["twice"]

    assert (await lives.run().carry_out()).succeeded

    assert len(lives.service.jobs) == 2
    assert cost(tmp_path) == 4.0


async def test_a_second_job_of_one_post_that_is_listed_late_is_cancelled_while_ours_waits(tmp_path):
    lives = Lives(tmp_path, MemoryService(ends=QUEUED))
    lives.service.on_post, lives.service.late = ["twice"], 1
    ending = asyncio.ensure_future(lives.run().carry_out())
    await until(lambda: lives.service.statuses() == [CANCELLED, QUEUED])
    lives.service.end(DONE)

    assert (await ending).job_id == "m2"
    assert cost(tmp_path) == 4.0


class Reached:
    """The kind of quantum jobs, where their service is this one."""

    def __init__(self, lives: Lives) -> None:
        self.provider = lambda site: lives.provider


@pytest.mark.parametrize("searchable", [True, False])
async def test_a_command_cancels_the_second_job_of_a_post_that_a_dead_process_did_not_see(
    tmp_path, searchable
):
    lives = Lives(tmp_path, MemoryService(ends=QUEUED, searchable=searchable))
    lives.service.on_post, lives.service.hidden = ["twice" if searchable else ""], True
    with living_process() as claimant:
        life = asyncio.ensure_future(lives.run(claimant=claimant).carry_out())
        await until(lambda: "submitted" in words(tmp_path) or life.done())
        assert not life.done(), life.exception()
        life.cancel()
        await asyncio.wait([life])
    lives.service.hidden = False

    earlier, KINDS["quantum"] = KINDS.get("quantum"), Reached(lives)
    try:
        (done,) = await asyncio.to_thread(cancel_jobs, list_jobs(tmp_path))
    finally:
        KINDS.pop("quantum")
        KINDS.update({"quantum": earlier} if earlier else {})

    assert done.confirmed, done.words
    assert set(lives.service.statuses()) == {CANCELLED}


async def test_a_second_job_that_is_listed_at_the_end_only_is_paid(tmp_path):
    lives = Lives(tmp_path, MemoryService(ends=QUEUED))
    lives.service.on_post, lives.service.late = ["twice"], 2
    ending = asyncio.ensure_future(lives.run().carry_out())
    await until(lambda: lives.service.lists == 2)
    lives.service.end(DONE)

    assert (await ending).succeeded
    assert cost(tmp_path) == 4.0


async def test_a_service_that_does_not_answer_at_the_end_is_asked_again_for_a_second_job(tmp_path):
    lives = Lives(tmp_path, MemoryService(ends=QUEUED))
    lives.service.on_post, lives.service.late = ["twice"], 2
    lives.service.unanswered = {3, 4}
    ending = asyncio.ensure_future(lives.run().carry_out())
    await until(lambda: lives.service.lists == 2)
    lives.service.end(DONE)

    assert (await ending).succeeded
    assert cost(tmp_path) == 4.0


async def test_a_search_that_is_under_way_when_ours_has_ended_is_not_given_up(tmp_path):
    found, go_on = asyncio.Event(), asyncio.Event()

    class Slow(MemoryAttempt):
        async def _end_others(self, keep, others):
            found.set()
            await go_on.wait()
            await super()._end_others(keep, others)

    class SlowRun(MemoryRun):
        attempt_type = Slow

    lives = Lives(tmp_path, MemoryService(ends=QUEUED))
    lives.run_type = SlowRun
    service = lives.service
    service.on_post, service.late, service.unanswered = ["twice"], 1, set(range(3, 100))
    ending = asyncio.ensure_future(lives.run().carry_out())
    await found.wait()
    service.ends_told = 0
    service.end(DONE)
    await until(lambda: service.ends_told)
    await asyncio.sleep(0.3)  # it would be given up by now
    go_on.set()

    assert (await ending).succeeded
    assert cost(tmp_path) == 4.0


async def test_a_refusal_closes_the_attempt_unless_an_earlier_post_may_have_been_taken(tmp_path):
    lives = Lives(tmp_path, MemoryService())
    lives.service.on_post = ["refuse"]
    assert (await lives.run().carry_out()).verdict.reason is Reason.REJECTED
    assert cost(tmp_path) == 0

    lives.service.on_post, lives.service.hidden = ["lose", "refuse"], True
    with pytest.raises(QuantumServiceError, match="an earlier POST of it may have been accepted"):
        await lives.run().carry_out()
    assert cost(tmp_path) == 5.0
    lives.service.hidden = False
    assert (await lives.run().carry_out()).succeeded
    assert len(lives.service.jobs) == 1


async def test_a_failed_job_is_another_attempt_for_the_next_run(tmp_path):
    lives = Lives(tmp_path, MemoryService(ends=ERROR))
    assert (await lives.run().carry_out()).verdict.reason is Reason.SERVICE_FAILED
    lives.service.ends = DONE
    assert (await lives.run().carry_out()).attempt == 2


class _ListsLate(LocalTransport):
    """NFS remembers a folder's names for up to a minute: the newest attempt is not among them."""

    def list(self, path: str) -> list[str]:
        return [name for name in super().list(path) if name != "k-2"]


async def test_an_attempt_that_is_listed_late_is_no_endless_search(tmp_path):
    lives = Lives(tmp_path, MemoryService(ends=ERROR))
    for _ in range(2):
        await lives.run().carry_out()
    lives.transport, lives.service.ends = _ListsLate(), DONE
    assert (await asyncio.wait_for(lives.run().carry_out(), 60)).attempt == 3


def test_who_has_lost_the_job_while_it_prepared_writes_no_intent(tmp_path):
    lives = Lives(tmp_path, MemoryService())
    run = lives.run(claimant=this_process("one"))
    attempt = open_attempt(run._request, run._connection, run.attempt_type)
    folder = attempt.folder.path
    take(lives.transport, folder, this_process("two"), lambda flow_run: True)
    with pytest.raises(JobHeld):
        attempt.note_intent()
    assert attempt.folder.ledger().intent == {}


async def test_where_no_job_can_be_found_by_its_tag_a_lost_reply_stays_a_persons_affair(tmp_path):
    lives = Lives(tmp_path, MemoryService(searchable=False))
    lives.service.on_post = ["lose"]
    for _ in range(2):
        with pytest.raises(QuantumServiceError, match="cannot be searched for it"):
            await lives.run().carry_out()
    assert len(lives.service.jobs) == 1


async def test_what_only_attaches_submits_nothing(tmp_path):
    lives = Lives(tmp_path, MemoryService())
    lives.service.on_post, lives.service.hidden = ["lose", "lose", "lose"], True
    with pytest.raises(SchedulerError, match="not clear whether it was submitted"):
        await lives.run().carry_out()
    with pytest.raises(SchedulerError, match="Nothing was submitted"):
        await lives.run(attach_only=True).carry_out()
    assert len(lives.service.jobs) == 3  # the list of this service never shows what it has


async def test_who_asks_to_submit_only_is_told_the_id_and_the_next_one_fetches(tmp_path):
    lives = Lives(tmp_path, MemoryService(ends=QUEUED))
    submitted = await lives.run(submit_only=True).carry_out()
    assert words(tmp_path) == ["intent", "submitted"]
    lives.service.end(DONE)
    fetched = await lives.run(attach_only=True).carry_out()
    assert (fetched.job_id, fetched.succeeded) == (submitted.job_id, True)


async def test_a_price_above_what_is_left_cancels_a_job_in_the_queue(tmp_path):
    lives = Lives(tmp_path, MemoryService(ends=QUEUED))
    look = lives.service.look

    def dear(job_id):
        found = look(job_id)
        return type(found)(status=found.status, facts={**found.facts, "estimated_seconds": 9.0})

    lives.service.look = dear
    result = await lives.run(spec={"allowed_seconds": 1.0}).carry_out()
    assert result.verdict.reason is Reason.OVER_BUDGET
    assert lives.service.statuses() == [CANCELLED]
