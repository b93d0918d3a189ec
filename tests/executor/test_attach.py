"""What may only be attached to is followed to its end, and never submitted."""

from __future__ import annotations

import json
import os

import pytest
from rig import Counting, drive, until, was_killed

from hpc_prefect.errors import LedgerError, SchedulerError
from hpc_prefect.job.failure import Reason

FOREVER = "sleep 600"


async def test_a_running_job_of_a_dead_claimant_is_followed_to_its_end(rig):
    gate = rig.folder / "gate"
    spec = rig.spec(f"until [ -e {gate} ]; do sleep 0.05; done")
    job_id = await rig.abandon(rig.request(spec))
    gate.touch()
    result = await rig.run(rig.request(spec, attach_only=True))
    assert (result.state, result.job_id) == ("succeeded", job_id)
    assert len(rig.runs()) == 1


async def test_a_failed_job_is_told_and_not_run_again(rig):
    spec = rig.spec("exit 3")
    failed = await rig.run(rig.request(spec))
    transport = Counting()
    result = await rig.run(rig.request(spec, attach_only=True), rig.connection(transport=transport))
    assert (result.verdict, result.attempt) == (failed.verdict, 1)
    assert (transport.commands, len(rig.runs())) == ([], 1)


async def test_a_job_whose_end_was_wished_is_brought_to_it_and_not_run_again(rig):
    spec = rig.spec(FOREVER)
    await rig.abandon(rig.request(spec))
    with (rig.attempt() / "cancel").open("a") as file:
        file.write('{"time":1,"event":"cancel","by":"user"}\n')
    result = await rig.run(rig.request(spec, attach_only=True))
    assert (result.verdict.reason, result.attempt) == (Reason.CANCELLED, 1)
    assert (rig.active(), len(rig.runs())) == ([], 1)


async def test_a_job_that_was_about_to_be_submitted_is_looked_for_and_not_submitted(rig):
    jobs = [{"key": "k", "program": rig.program("exit 0")}]
    assert was_killed(drive(rig, jobs, at="intent", when="after"))
    with pytest.raises(SchedulerError, match=r"lists no job named h\w{14}, so its submission"):
        await rig.run(rig.request(rig.spec(), attach_only=True))
    assert (rig.active(), rig.runs()) == ([], [])


async def test_a_job_that_was_submitted_before_its_id_was_journalled_is_found(rig):
    jobs = [{"key": "k", "program": rig.program("exit 0")}]
    assert was_killed(drive(rig, jobs, at="submitted", when="before"))
    result = await rig.run(rig.request(rig.spec(), attach_only=True))
    assert result.succeeded
    assert len(rig.runs()) == 1


async def test_a_job_that_was_never_submitted_cannot_be_attached_to(rig):
    rig.attempt().mkdir(parents=True)
    with pytest.raises(LedgerError, match="was never submitted, so there is nothing to attach"):
        await rig.run(rig.request(rig.spec(), attach_only=True))
    assert os.listdir(rig.attempt()) == [], "nor is it claimed"


async def test_a_job_that_was_found_lost_can_be_attached_to(rig):
    spec = rig.spec("exit 0")
    await rig.abandon(rig.request(spec), " as ")
    await until(lambda: not rig.active(), "the job's end")
    lost = {"reason": "lost", "summary": "neither queue nor history lists it"}
    entry = {"time": 1, "event": "verdict", "result": {"state": "lost", "verdict": lost}}
    known = ("job_id", "name", "tag", "key", "folder", "script_path", "stdout_path", "stderr_path")
    entry["result"] |= dict.fromkeys(known, "") | {"attempt": 1}
    with (rig.attempt() / "journal.jsonl").open("a") as journal:
        journal.write(json.dumps(entry) + "\n")
    result = await rig.run(rig.request(spec, attach_only=True))
    assert (result.state, len(rig.runs())) == ("succeeded", 1)
