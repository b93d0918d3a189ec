"""Jobs that were handed to an allocation whose batch job nobody submits, or which begins late: each
comes to an end, and runs once."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rig import PATIENCE, Rig, until
from test_allocation import Held

from hpc_prefect.executor.arrays.run import ArrayRun
from hpc_prefect.job.dialogue import Command, Reply
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.folder import START
from hpc_prefect.job.spec import JobSpec, Site
from hpc_prefect.ledger.job_folder import CLOSED
from hpc_prefect.schedulers.allocation import spool as spools
from hpc_prefect.schedulers.allocation.share import Held as Shape
from hpc_prefect.transports.local import LocalTransport


class Unsubmitted:
    """A `Placing` that gives a job one spool, whose holder died long ago, before it submitted
    anything; afterwards none."""

    def __init__(self, folder: Path) -> None:
        self.spool = folder / "unsubmitted.spool"
        self._shape: Shape | None = None
        self.agent: subprocess.Popen[bytes] | None = None

    async def site_for(self, spec: JobSpec) -> Site | None:
        if self._shape is not None:
            return None
        self._shape = Shape.of(spec)
        for name in spools.FOLDERS:
            (self.spool / name).mkdir(parents=True)
        (self.spool / spools.AGENT).write_text(spools.agent_text())
        for name in (spools.BELL, spools.LOG, spools.RENEWED):
            (self.spool / name).touch()
        is_old(self.spool)
        return self._shape.site(spec, str(self.spool))

    def came_back(self, site: Site) -> None:
        pass

    def begin(self) -> None:
        """The batch job begins after all."""
        shape = self._shape
        assert shape is not None
        (self.spool / spools.RENEWED).touch()
        memory = shape.mib_per_node
        numbers = (1, shape.cores_per_node, memory, 0, 2 * shape.walltime, 0, 1, 600, 1)
        words = (self.spool / spools.AGENT, self.spool, "local", *map(str, numbers))
        environment = {**os.environ, "HPC_LOCAL_JOBID": "4711"}
        self.agent = subprocess.Popen(["/bin/bash", *words], env=environment)


def is_old(spool: Path) -> None:
    """As if its holder had died long ago."""
    os.utime(spool / spools.RENEWED, (0, 0))


@pytest.fixture
def placing(rig: Rig) -> Iterator[Unsubmitted]:
    placing = Unsubmitted(rig.folder)
    yield placing
    if placing.agent is not None:
        assert placing.agent.wait(PATIENCE) == 0


async def test_a_job_of_an_allocation_that_nobody_submits_runs_elsewhere(
    rig: Rig, placing: Unsubmitted
) -> None:
    request = rig.request(rig.spec(), placing=placing)
    handle = Held(rig).executor.start(request)
    result = await asyncio.wait_for(asyncio.wrap_future(handle.result), PATIENCE)
    assert (result.verdict.reason, result.attempt) == (Reason.SUCCEEDED, 2)
    assert rig.runs() == ["program "]


class Racing(LocalTransport):
    """The batch job begins in the very moment in which a job's guard is to be closed."""

    def __init__(self, rig: Rig, placing: Unsubmitted) -> None:
        super().__init__()
        self._rig, self._placing = rig, placing

    def link(self, path: str, target: str) -> bool:
        if target == CLOSED and self._placing.agent is None:
            self._placing.begin()
            end = time.monotonic() + PATIENCE
            while not self._rig.runs():
                assert time.monotonic() < end
                time.sleep(0.01)
        return super().link(path, target)


@pytest.mark.parametrize("as_array", [False, True], ids=["a job", "a member"])
async def test_what_begins_while_its_allocation_is_taken_for_gone_goes_on(
    rig: Rig, placing: Unsubmitted, as_array: bool
) -> None:
    executor = Held(rig, transport=Racing(rig, placing)).executor
    spec = rig.spec("until [ -e go ]; do sleep 0.05; done")
    ends: asyncio.Future[Any]
    if as_array:
        array = rig.array(spec, ["x"], placing=placing)
        ends = asyncio.wrap_future(executor.start(array, ArrayRun).result)
    else:
        ends = asyncio.wrap_future(executor.start(rig.request(spec, placing=placing)).result)
    await until(lambda: ends.done() or _is_seen_running(rig), "an answer about it")
    (rig.work / "go").touch()
    result = (await ends)[0] if as_array else await ends
    assert (result.verdict.reason, result.attempt) == (Reason.SUCCEEDED, 1)
    assert len(rig.runs()) == 1


def _is_seen_running(rig: Rig) -> bool:
    return any(each.get("state") == "running" for each in rig.journal())


class Refusing(LocalTransport):
    """Submissions to the engine have no outcome while `refuses` is set."""

    refuses = False

    def run(self, command: Command) -> Reply:
        submits = command.argv[0] != "/bin/sh" and command.argv[4] == "submit"
        return Reply(None) if self.refuses and submits else super().run(command)


async def test_when_the_next_allocation_cannot_be_submitted_its_jobs_run_elsewhere(
    rig: Rig,
) -> None:
    rig.options["slots"] = 8
    transport = Refusing()
    held = Held(rig, walltime=400, renew=True, transport=transport)
    await held.open()
    try:
        # Of 377 seconds for jobs some have gone by, and what the agent says is a little old.
        assert (await held.run("true", "first", resources={"walltime": 60})).succeeded
        transport.refuses = True
        waits = held.start("true", "long", resources={"walltime": 372})
        await until(lambda: "submitted" in rig.events(1, "long"), "the hand-over")
        (spool,) = (path for path in _spools(rig) if not (path / spools.HEARTBEAT).exists())
        await until(lambda: _is_given_up(held), "the end of the submission")
        transport.refuses = False
        is_old(spool)
        result = await asyncio.wait_for(waits, PATIENCE)
        assert (result.verdict.reason, result.attempt) == (Reason.SUCCEEDED, 2)
        assert held.where("long", 2) == "local"
    finally:
        await held.close()


def _spools(rig: Rig) -> list[Path]:
    return [*rig.work.glob(".hpc-prefect/campaign/*/*.spool")]


def _is_given_up(held: Held) -> bool:
    return any("is not followed any more" in text for text in held.told.warnings)


async def test_a_job_comes_back_once_from_an_allocation_that_ends_before_it_begins(
    rig: Rig,
) -> None:
    """Its holder waits a while for the record of what has ended, and knows its end later."""
    resources = {"ranks_per_node": 2, "launch": "mpi"}
    waits = rig.program("until [ -e go ]; do sleep 0.05; done", "blocker")
    spec = rig.spec(program=waits, resources=resources, site={"launcher": "{command}"})
    held = Held(rig)
    with rig.under_way(rig.request(spec, "blocker")):
        await until(rig.runs, "the start of what keeps the queue busy")
        await held.open()
        try:
            job = held.start("true", "k")
            await until(lambda: "submitted" in rig.events(), "the hand-over")
            (spool,) = _spools(rig)
            start = spool.parent / f"{spool.stem}-1" / START
            start.unlink()
            start.mkdir()  # so it cannot begin
            (rig.work / "go").touch()
            result = await job
        finally:
            await held.close()
    assert (result.verdict.reason, result.attempt) == (Reason.SUCCEEDED, 2)
    assert held.where("k", 2) == "local"
