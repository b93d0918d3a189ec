"""Held allocations on the laptop's engine, attacked: what is asked of them at their edges."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import re
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from rig import Rig, until
from test_allocation import Held, _agent_of, _driven, _results, stop

from hpc_prefect.errors import TransportError
from hpc_prefect.executor.arrays.run import ArrayRun
from hpc_prefect.job.dialogue import Command, Dialogue, Reply
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.folder import word_digest
from hpc_prefect.job.outputs import Stamp
from hpc_prefect.job.spec import JobSpec, Site
from hpc_prefect.job.state import JobState, Observation
from hpc_prefect.operations.find import list_jobs
from hpc_prefect.schedulers.allocation import spool as spools
from hpc_prefect.schedulers.allocation.share import Held as Shape
from hpc_prefect.schedulers.base import Answer, NoAnswer
from hpc_prefect.schedulers.local.scheduler import LocalScheduler
from hpc_prefect.transports.local import LocalTransport

HOLD = "until [ -e go ]; do sleep 0.05; done"


class Over:
    """A `Placing` whose allocations are over when a job arrives; after so many there is none."""

    def __init__(self, folder: Path, count: int) -> None:
        self._folder = folder
        self._left = count

    async def site_for(self, spec: JobSpec) -> Site | None:
        if not self._left:
            return None
        self._left -= 1
        spool = self._folder / f"over-{self._left}.spool"
        for name in spools.FOLDERS:
            (spool / name).mkdir(parents=True)
        (spool / spools.GONE).write_text(spools.gone_text("", "walltime: its time was over"))
        return Shape.of(spec).site(spec, str(spool))

    def came_back(self, site: Site) -> None:
        pass


async def test_a_job_that_comes_too_late_for_many_allocations_is_not_given_up(rig: Rig) -> None:
    held = Held(rig)
    spec = rig.spec(program=rig.program("true", "k"), name="k", resources={"walltime": 60})
    request = rig.request(spec, "k", placing=Over(rig.folder, 5))
    result = await asyncio.wrap_future(held.executor.start(request).result)
    assert result.succeeded, result.verdict
    assert rig.runs() == ["k "]


async def test_what_never_started_in_an_allocation_costs_a_member_no_try(rig: Rig) -> None:
    held = Held(rig)
    text = "[ ! -e begun ] || exit 0; touch begun; exec sleep 600"
    spec = rig.spec(program=rig.program(text, "m"), resources={"walltime": 10})
    array = rig.array(spec, ["x"], placing=Over(rig.folder, 2), retries=1)
    (result,) = await asyncio.wrap_future(held.executor.start(array, ArrayRun).result)
    assert result.succeeded, result.verdict
    assert rig.runs() == ["m x", "m x"]


async def test_an_allocation_that_was_told_to_end_is_handed_nothing_more(rig: Rig) -> None:
    held = Held(rig, walltime=600, renew=True)
    rig.options["slots"] = 8
    await held.open()
    try:
        runs = held.start(HOLD, "holds", resources={"walltime": 400})
        await until(rig.runs, "the start of the one that is waited for")
        # Neither fits any more: the first has the next submitted, the second ends the present one.
        long = [held.start("true", f"long-{i}", resources={"walltime": 565}) for i in range(2)]
        assert all(result.succeeded for result in await asyncio.gather(*long))
        short = await held.run("true", "short", resources={"walltime": 60})
        assert (short.verdict.reason, short.attempt) == (Reason.SUCCEEDED, 1)
        (rig.work / "go").touch()
        assert (await runs).succeeded
    finally:
        await held.close()


class Blind(LocalTransport):
    """Does not see into the spools while `blind` is set, as with a file server that is away."""

    blind = False

    def read(self, path: str, offset: int = 0, size: int = -1) -> bytes | None:
        if self.blind and path.endswith(f".spool/{spools.HEARTBEAT}"):
            raise TransportError("the file server is away")
        return super().read(path, offset, size)


async def test_what_cannot_be_seen_now_is_no_reason_to_end_an_allocation(rig: Rig) -> None:
    transport = Blind()
    held = Held(rig, walltime=600, renew=True, transport=transport)
    rig.options["slots"] = 8
    await held.open()
    try:
        assert (await held.run("true", "warm", resources={"walltime": 60})).succeeded
        assert (await held.run("true", "a", resources={"walltime": 300})).succeeded
        await until(lambda: len(_allocations(rig)) == 2, "the next one, as no second would fit")
        transport.blind = True
        assert (await held.run("true", "b", resources={"walltime": 60})).succeeded
        transport.blind = False
        assert (await held.run("true", "c", resources={"walltime": 60})).succeeded
    finally:
        await held.close()
    first, second = (_spool_of(rig, key) for key in "ab")
    assert first != second
    assert _spool_of(rig, "c") == first


class Interrupted(LocalTransport):
    """Another holder does its work while this one makes a spool."""

    def __init__(self, other: Callable[[], object]) -> None:
        super().__init__()
        self._other = [other]

    def touch(self, path: str) -> None:
        super().touch(path)
        if path.endswith(f".spool/{spools.RENEWED}") and self._other:
            self._other.pop()()


async def test_the_end_of_an_earlier_submission_is_none_of_the_allocation(rig: Rig) -> None:
    """A holder is stopped before it submits; another one is refused, and the first one goes on."""
    other = Held(rig)

    def refused() -> None:
        rig.options["slots"] = 1
        opened = asyncio.run_coroutine_threadsafe(_is_refused(other), other.executor.loop)
        opened.result(60)
        rig.options["slots"] = 2

    held = Held(rig, transport=Interrupted(refused))
    await held.open()
    try:
        runs = held.start(HOLD, "k")
        await until(lambda: "observed" in rig.events(), "an answer about it")
        (rig.work / "go").touch()
        result = await runs
    finally:
        await held.close()
    assert (result.verdict.reason, result.attempt) == (Reason.SUCCEEDED, 1)
    assert held.where("k") == "allocation-local"


async def _is_refused(held: Held) -> None:
    ended = await held.allocation.open()
    assert ended is not None
    assert ended.verdict.reason is Reason.REJECTED
    await held.allocation.close()  # what is to be written of its end is written then


class Forgetful(LocalTransport):
    """Its scheduler lists no job while `forgets` is set."""

    forgets = False

    def run(self, command: Command) -> Reply:
        asks = command.argv[0] != "/bin/sh" and "jobs" in command.argv[:5]
        return Reply(0) if self.forgets and asks else super().run(command)


async def test_an_allocation_whose_node_is_gone_is_handed_nothing_more(rig: Rig) -> None:
    rig.options["slots"] = 8
    transport = Forgetful()
    held = Held(rig, transport=transport)
    await held.open()
    try:
        agent = await until(lambda: _agent(rig), "the agent")
        spool = next(rig.work.glob(".hpc-prefect/campaign/*/*.spool"))
        await until(lambda: _held_so_far(spool) > 0, "its second sign of life")
        transport.forgets = True
        await stop(agent)
        os.utime(spool / spools.HEARTBEAT, (0, 0))  # as if its node was gone for long
        result = await held.run("true", "k")
    finally:
        await held.close()
    assert (result.verdict.reason, result.attempt) == (Reason.SUCCEEDED, 1)
    assert held.where("k") == "local"


async def test_the_script_of_a_process_that_was_stopped_and_went_on_tells_the_end_too(
    rig: Rig,
) -> None:
    """The agent starts the script that is there at that time; that one's intent came later."""
    held = Held(rig)
    await held.open()
    try:
        blocker = held.start(HOLD, "blocker", resources={"walltime": 60, "ranks_per_node": 2})
        await until(rig.runs, "the start of what keeps the nodes busy")
        job = held.start("true", "k")
        await until(lambda: "submitted" in rig.events(), "the hand-over")
        _write_script_of_another(rig)
        (rig.work / "go").touch()
        assert (await job).succeeded
        assert (await blocker).succeeded
    finally:
        await held.close()


def _write_script_of_another(rig: Rig) -> None:
    (intent,) = (each for each in rig.journal() if each["event"] == "intent")
    script, theirs = rig.attempt() / "script.sh", "0" * 32
    found = re.findall(r"\b[0-9a-f]{32}\b", script.read_text())
    (ours,) = {each for each in found if word_digest(each) == intent["word_sha256"]}
    script.write_text(script.read_text().replace(ours, theirs))
    with (rig.attempt() / "journal.jsonl").open("a") as journal:
        journal.write(json.dumps(intent | {"word_sha256": word_digest(theirs)}) + "\n")


class Hiding(LocalTransport):
    """Does not see an output while `hides` is set, as NFS may for a minute."""

    hides = True

    def stamp(self, path: str, most: int) -> Stamp | None:
        return None if self.hides and path.endswith("/out") else super().stamp(path, most)


class Lost(LocalScheduler):
    """Says of what has ended that it did so with its allocation: the agent's line is lost."""

    patience = dataclasses.replace(LocalScheduler.patience, outputs=60.0)

    def observe(
        self, ids: Sequence[str], options: Mapping[str, object]
    ) -> Dialogue[Answer | NoAnswer]:
        said = yield from super().observe(ids, options)
        assert not isinstance(said, NoAnswer)
        return {
            job_id: dataclasses.replace(seen, cause=Reason.ALLOCATION_ENDED)
            if isinstance(seen, Observation) and seen.state is JobState.ENDED
            else seen
            for job_id, seen in said.items()
        }


async def test_a_success_whose_output_is_not_seen_yet_is_none_of_the_allocations_end(
    rig: Rig,
) -> None:
    transport = Hiding()
    request = rig.request(rig.spec("echo > out", expected_outputs=("out",)))
    with rig.under_way(request, rig.connection(Lost(), transport)) as (_, ends):
        await until(lambda: _is_told_as_ended(rig, "k"), "the end of the allocation")
        transport.hides = False
        assert (await ends).succeeded


def _is_told_as_ended(rig: Rig, key: str) -> bool:
    """Whether a job's process knows that its scheduler says so."""
    return any(each.get("state") == "ended" for each in rig.journal(1, key))


def _spool_of(rig: Rig, key: str) -> str:
    intents = [each for each in rig.journal(1, key) if each["event"] == "intent"]
    return str(intents[-1]["job"]["site"]["options"]["spool"])


@pytest.mark.parametrize("second", ["waits", "runs"])
async def test_a_holder_started_again_takes_up_all_that_was_left(rig: Rig, second: str) -> None:
    """Also the next allocation, which the killed holder had submitted beside the present one."""
    rig.options["slots"] = 8 if second == "runs" else 2
    program = rig.program(HOLD, "p")
    jobs = ("a:300", "b:565")  # of the first one's 570 seconds
    with _driven(rig, program, *jobs, renew=600):
        await until(lambda: len(_allocations(rig)) == 2, "the next allocation")
        await until(lambda: len(rig.runs()) == (2 if second == "runs" else 1), "the jobs")
    (rig.work / "go").touch()
    with _driven(rig, program, *jobs, renew=600) as driver:
        results = await asyncio.to_thread(_results, driver)
    assert results == {"a": "succeeded", "b": "succeeded"}
    assert sorted(rig.runs()) == ["p a", "p b"]
    await rig.emptied()  # none is left to its timeout


def _allocations(rig: Rig) -> list[str]:
    return [job.job_id for job in list_jobs(rig.work) if job.name == "allocation"]


async def test_what_a_killed_allocation_held_is_told(rig: Rig) -> None:
    held = Held(rig)
    await held.open()
    try:
        agent = await until(lambda: _agent(rig), "the agent")
        spool = next(rig.work.glob(".hpc-prefect/campaign/*/*.spool"))
        await until(lambda: _held_so_far(spool) > 0, "some time in which it was held for nothing")
        os.kill(agent, signal.SIGKILL)
        await until(lambda: not rig.active(), "its end")
    finally:
        await held.close()
    use = held.allocation.use
    assert use.held > 0
    assert use.used == 0


async def test_an_agent_that_hangs_is_not_waited_for(rig: Rig) -> None:
    held = Held(rig)
    await held.open()
    agent = await until(lambda: _agent(rig), "the agent")
    spool = next(rig.work.glob(".hpc-prefect/campaign/*/*.spool"))
    await until(lambda: _held_so_far(spool) > 0, "its second sign of life")
    await stop(agent)
    os.utime(spool / spools.HEARTBEAT, (0, 0))  # as if it hung for long
    await held.on_loop(held.allocation.close())
    await rig.emptied()


def _held_so_far(spool: Path) -> int:
    path = spool / spools.HEARTBEAT
    words = path.read_text().split() if path.exists() else []
    return int(words[2]) if len(words) == 3 else 0  # it is made empty


def _agent(rig: Rig) -> int | None:
    try:
        return _agent_of(rig)
    except AssertionError:
        return None
