"""The same on other schedulers: their commands, ids and names, from the journal's intent alone."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpc_prefect.executor.arrays.run import ArrayRun
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.spec import Site
from hpc_prefect.job.state import JobState
from hpc_prefect.operations import ask, attach, cancel_jobs, list_jobs
from hpc_prefect.operations.cancel_member import cancel_member
from hpc_prefect.operations.members import read_members
from hpc_prefect.schedulers import scheduler_for
from hpc_prefect.schedulers.base import NoAnswer
from hpc_prefect.transports.local import LocalTransport
from hpc_rehearsal.pbs import install as pbs
from hpc_rehearsal.pjm import install as pjm

from ..executor.rig import Rig, Told, living_process, until


@pytest.fixture(params=["pbs", "pjm", "slurm"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """Its commands are on PATH; jobs left at a stand-in are ended."""
    name, commands, state = request.param, tmp_path / "bin", tmp_path / "state"
    before = dict(os.environ)
    with contextlib.ExitStack() as stack:
        stack.callback(os.environ.update, before)
        stack.callback(os.environ.clear)
        if name == "slurm":
            os.environ.update(request.getfixturevalue("slurm").environment)
        else:
            kind = {"pbs": pbs, "pjm": pjm}[name]
            kind.install(commands, state, home=str(tmp_path))
            stack.callback(kind.stop, state)
            os.environ["PATH"] = f"{commands}:{before['PATH']}"
        options = {"accounting": True} if name == "slurm" else {}
        yield Site(scheduler=name, options=options)


def job(rig: Rig, site: Site, text: str, key: str = "k", **given: object):
    spec = dataclasses.replace(rig.spec(program=rig.program(text, key)), site=site)
    return rig.request(spec, key, poll_interval=1.0, **given)


async def left_by_a_dead_process(rig: Rig, site: Site, text: str, key: str = "k") -> None:
    connection = rig.connection(scheduler_for(site.scheduler))
    told = Told()
    with living_process() as claimant:
        asked = dataclasses.replace(job(rig, site, text, key, listener=told), claimant=claimant)
        with rig.under_way(asked, connection):
            await until(lambda: "running as" in str(told.states), "the job's start")


async def test_jobs_there_are_listed_asked_about_cancelled_and_attached_to(rig, site):
    gate = rig.folder / "gate"
    await left_by_a_dead_process(rig, site, "sleep 600", "endless")
    await left_by_a_dead_process(rig, site, f"until [ -e {gate} ]; do sleep 0.05; done", "gated")
    jobs = {job.key: job for job in await asyncio.to_thread(ask, list_jobs(rig.work))}
    assert [job.status.state for job in jobs.values()] == ["running", "running"]
    assert jobs["gated"].where.startswith(f"{site.scheduler}@")

    (done,) = await asyncio.to_thread(cancel_jobs, [jobs["endless"]])
    assert (done.confirmed, done.job.status.state) == (True, "ended"), done.words
    result = await asyncio.to_thread(attach, done.job)
    assert result.verdict.reason is Reason.CANCELLED

    gate.touch()
    assert (await asyncio.to_thread(attach, jobs["gated"])).succeeded
    assert len(rig.runs()) == 2


class Twice(LocalTransport):
    """Submits everything twice, as after a lost reply; only the last job's id is known."""

    def run(self, command):
        if command.argv[0] in ("sbatch", "qsub", "pjsub"):
            super().run(command)
        return super().run(command)


async def test_of_an_array_all_jobs_are_cancelled_that_its_submission_has_made(rig, site):
    """Each may run some of its members, and the journal knows one."""
    scheduler = scheduler_for(site.scheduler)
    spec = dataclasses.replace(rig.spec("sleep 600"), site=site)
    with living_process() as claimant:
        request = rig.array(spec, ["a", "b"], claimant=claimant, poll_interval=1.0)
        work = ArrayRun(request, rig.connection(scheduler, Twice())).carry_out()
        task = asyncio.ensure_future(work)
        await until(lambda: len(rig.runs()) == 2 or task.done(), "the members' starts")
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    (left,) = await asyncio.to_thread(list_jobs, rig.work)
    (done,) = await asyncio.to_thread(cancel_jobs, [left], wait=60.0)
    assert done.confirmed, done.words
    said = await rig.connection(scheduler).find(left.tag)
    assert not isinstance(said, NoAnswer)
    assert [i for i, seen in said.items() if seen.state is not JobState.ENDED] == []


#: Directives with which a job of one of them waits for an hour.
LATER = time.time() + 3600
WAITS = {
    "pbs": f"-a {time.strftime('%Y%m%d%H%M', time.localtime(LATER))}",
    "pjm": f"--at {time.strftime('%Y%m%d%H%M', time.localtime(LATER))}",
    "slurm": "--begin=now+1hour",
}


async def test_of_a_waiting_job_all_are_cancelled_that_its_submission_has_made(rig, site):
    """None has begun, so each may; the journal knows one."""
    options = {**site.options, "directives": [WAITS[site.scheduler]]}
    connection = rig.connection(scheduler_for(site.scheduler), Twice())
    with living_process() as claimant:
        waiting = dataclasses.replace(site, options=options)
        asked = dataclasses.replace(job(rig, waiting, "exit 0"), claimant=claimant)
        with rig.under_way(asked, connection) as (run, task):
            await until(lambda: run.job_id or task.done(), "its submission")
    (left,) = await asyncio.to_thread(list_jobs, rig.work)
    (done,) = await asyncio.to_thread(cancel_jobs, [left], wait=60.0)
    assert done.confirmed, done.words
    said = await rig.connection(scheduler_for(site.scheduler)).find(left.tag)
    assert not isinstance(said, NoAnswer)
    assert [i for i, seen in said.items() if seen.state is not JobState.ENDED] == []


async def test_a_waiting_member_is_cancelled_in_all_arrays_that_its_submission_has_made(rig, site):
    options = {**site.options, "directives": [WAITS[site.scheduler]]}
    scheduler = scheduler_for(site.scheduler)
    spec = dataclasses.replace(rig.spec(), site=dataclasses.replace(site, options=options))
    with living_process() as claimant:
        request = rig.array(spec, ["a", "b"], claimant=claimant, poll_interval=1.0)
        work = ArrayRun(request, rig.connection(scheduler, Twice())).carry_out()
        task = asyncio.ensure_future(work)
        await until(lambda: "submitted" in rig.events() or task.done(), "its submission")
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    (left,) = await asyncio.to_thread(list_jobs, rig.work)
    first, other = await asyncio.to_thread(read_members, left.folder)
    # Slurm forgets an element that never began; that it cannot begin any more is its end.
    done, words = await asyncio.to_thread(cancel_member, left, first, wait=60.0)
    assert done, words
    if site.scheduler == "slurm":
        first, other = await asyncio.to_thread(read_members, left.folder)
        assert (first.state, other.state) == ("ended", "submitted")
        assert await asyncio.to_thread(cancel_member, left, first, wait=60.0) == (
            True,
            "it had ended: it cannot begin any more",
        )

    connection = rig.connection(scheduler)
    found = await connection.find(left.tag)
    assert not isinstance(found, NoAnswer)
    # Slurm's history has arrays of other tests, by the same name.
    arrays = [each for each, seen in found.items() if seen.state is not JobState.ENDED]
    assert len(arrays) == 2, arrays
    for index, count in ((first.index, 0), (other.index, 2)):
        ids = [scheduler.element_id(each, index) for each in arrays]
        said = await connection.ask(scheduler.observe(ids, connection.options))
        left_over = [i for i in ids if i in said and said[i].state is not JobState.ENDED]
        assert len(left_over) == count, said
    (all_of_it,) = await asyncio.to_thread(cancel_jobs, [left], wait=60.0)
    assert all_of_it.confirmed, all_of_it.words
