"""Taking over what a dead process left, from its folder alone."""

from __future__ import annotations

import asyncio
import json

import pytest

from hpc_prefect.errors import JobHeld, LedgerError
from hpc_prefect.job.failure import Reason
from hpc_prefect.operations import attach, cancel_jobs, list_jobs

from ..executor.rig import Told, drive, until, was_killed

FOREVER = "sleep 600"


def only(rig):
    (job,) = list_jobs(rig.work)
    return job


async def attached(job, listener=None):
    return await asyncio.to_thread(attach, job, listener)


async def test_the_result_is_as_its_own_process_would_have_written_it(rig):
    """Its flow, started again, finds it without a command."""
    gate = rig.folder / "gate"
    spec = rig.spec(
        f"echo begun; until [ -e {gate} ]; do sleep 0.05; done; echo > made",
        expected_outputs=("made",),
    )
    provenance = {"campaign": "n2", "parameters": {"bond": 1.1}}
    request = rig.request(spec, provenance=provenance)
    job_id = await rig.abandon(request)
    told = Told(on_state=lambda text: gate.touch())
    result = await attached(only(rig), told)
    assert (result.state, result.job_id) == ("succeeded", job_id)
    assert told.text() == "begun"
    assert f"attached to {job_id}, which a script" in told.states[0]
    assert not any("submitted as" in each for each in told.states)
    record = json.loads((rig.attempt() / "record.json").read_text())
    assert record["job"] == json.loads(json.dumps(spec.as_dict()))
    assert (record["campaign"], record["parameters"]) == ("n2", {"bond": 1.1})
    again = await rig.run(request)
    assert (again.collected, again.job_id) == (True, job_id)
    assert len(rig.runs()) == 1


async def test_a_failure_is_told_and_stays_the_last_attempt(rig):
    await rig.abandon(rig.request(rig.spec("exit 3")), " as ")
    result = await attached(only(rig))
    assert (result.verdict.reason, result.exit_code) == (Reason.PROGRAM_FAILED, 3)
    assert [job.attempt for job in list_jobs(rig.work)] == [1]
    assert await attached(only(rig)) == result, "it is told again"


async def test_a_cancelled_job_that_nobody_claims_gets_its_verdict(rig):
    await rig.abandon(rig.request(rig.spec(FOREVER)))
    await asyncio.to_thread(cancel_jobs, [only(rig)])
    result = await attached(only(rig))
    assert result.verdict.reason is Reason.CANCELLED
    assert only(rig).status.state == "cancelled"
    assert len(rig.runs()) == 1


async def test_a_job_that_was_found_by_its_name_is_followed(rig):
    jobs = [{"key": "k", "program": rig.program("exit 0")}]
    assert was_killed(drive(rig, jobs, at="submit", when="after"))
    assert only(rig).ledger.job_id == ""
    assert (await attached(only(rig))).succeeded
    assert len(rig.runs()) == 1


async def test_the_job_of_a_living_process_is_refused_with_its_name(rig):
    told = Told()
    with rig.under_way(rig.request(rig.spec(FOREVER), listener=told)):
        await until(lambda: "running" in str(told.states), "the job's start")
        path = rig.attempt() / "claim-1"
        claim = json.loads(path.read_text()) | {"flow_run": "run-7"}
        path.write_text(json.dumps(claim))
        with pytest.raises(JobHeld, match=r"is held by flow run run-7 \(pid \d+ on .*still runs"):
            await attached(only(rig))


async def test_a_job_that_was_never_submitted_is_refused(rig):
    jobs = [{"key": "k", "program": rig.program("exit 0")}]
    assert was_killed(drive(rig, jobs, at="intent", when="before"))
    with pytest.raises(LedgerError, match="was never submitted, so there is nothing to attach"):
        await attached(only(rig))
    assert rig.active() == []


async def test_an_attempt_that_another_one_followed_is_refused(rig):
    await rig.abandon(rig.request(rig.spec("exit 3")), " as ")
    (rig.attempt(2)).mkdir()
    first = next(job for job in list_jobs(rig.work) if job.attempt == 1)
    with pytest.raises(LedgerError, match="attempt 2 of the job exists"):
        await attached(first)


async def test_a_folder_that_cannot_be_read_is_refused(rig):
    rig.attempt().mkdir(parents=True)
    with pytest.raises(LedgerError, match="cannot be read: neither a journal nor a claim"):
        await attached(only(rig))
