"""Jobs in a held allocation on the laptop's engine: once each, whatever ends before them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rig import Rig, Told, until

from hpc_prefect.executor.allocation import AllocationTerms, HeldAllocation
from hpc_prefect.executor.arrays.run import ArrayRun
from hpc_prefect.executor.service import Executor
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.identity import digest
from hpc_prefect.job.result import JobResult
from hpc_prefect.operations.cancel import cancel_jobs
from hpc_prefect.operations.find import list_jobs
from hpc_prefect.transports.local import LocalTransport

DRIVER = Path(__file__).with_name("allocation_driver.py")


class Held:
    """An allocation of two cores, and what is run in it."""

    def __init__(
        self,
        rig: Rig,
        *,
        walltime: int = 600,
        renew: bool = False,
        transport: LocalTransport | None = None,
    ) -> None:
        self.rig = rig
        transport = transport or LocalTransport()
        self.executor = Executor(transport)
        self.told = Told()
        spec = rig.spec(
            name="allocation",
            resources={"walltime": walltime, "ranks_per_node": 2, "launch": "mpi"},
            site={"launcher": "{command}"},
        )
        terms = AllocationTerms(idle_timeout=300, orphan_timeout=300, renew=renew)
        # A key of its own, which marks its jobs' processes: an agent ends all with its mark.
        key = f"{digest(str(rig.folder))[:8]}-alloc"
        request = rig.request(spec, key, listener=self.told)
        self.allocation = HeldAllocation(request, terms, self.executor, transport)

    async def on_loop(self, work: Any) -> Any:
        """Await what belongs to the executor's loop."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self.executor.loop))

    async def open(self) -> None:
        await self.on_loop(self.allocation.open())

    async def close(self) -> None:
        await self.on_loop(self.allocation.close(now=True))

    def start(self, text: str, key: str, **changes: Any) -> asyncio.Future[JobResult]:
        """A job in the allocation, if it takes it."""
        changes.setdefault("resources", {"walltime": 60})
        request_changes = {
            name: changes.pop(name) for name in ("retry", "listener") if name in changes
        }
        spec = self.rig.spec(program=self.rig.program(text, key), name=key, **changes)
        request = self.rig.request(spec, key, placing=self.allocation, **request_changes)
        return asyncio.wrap_future(self.executor.start(request).result)

    async def run(self, text: str, key: str, **changes: Any) -> JobResult:
        return await self.start(text, key, **changes)

    def where(self, key: str, number: int = 1) -> str:
        """Of which scheduler the attempt is, by its intent."""
        intents = [e for e in self.rig.journal(number, key) if e["event"] == "intent"]
        return str(intents[-1]["job"]["site"]["scheduler"])


@pytest.fixture
async def held(rig: Rig) -> AsyncIterator[Held]:
    held = Held(rig)
    await held.open()
    yield held
    await held.close()


async def test_jobs_run_in_one_job_of_the_queue(held: Held, rig: Rig) -> None:
    results = await asyncio.gather(*(held.run("true", f"k{i}") for i in range(5)))
    assert all(result.succeeded for result in results)
    assert len(rig.active()) == 1
    assert len(rig.runs()) == 5
    assert {held.where(f"k{i}") for i in range(5)} == {"allocation-local"}


async def test_a_failed_program_is_told_as_that(held: Held) -> None:
    result = await held.run("exit 3", "k")
    assert (result.verdict.reason, result.verdict.exit_code) == (Reason.PROGRAM_FAILED, 3)


async def test_a_job_over_its_walltime_is_told_as_that(held: Held) -> None:
    result = await held.run("exec sleep 60", "k", resources={"walltime": 1})
    assert result.verdict.reason is Reason.WALLTIME


async def test_what_does_not_fit_is_submitted_normally_and_said(held: Held, rig: Rig) -> None:
    rig.options["slots"] = 8
    result = await held.run("true", "k", resources={"walltime": 3600})
    assert result.succeeded
    assert held.where("k") == "local"
    assert any("outside of the allocation" in text for text in held.told.warnings)


async def test_a_job_is_found_whether_it_was_done_in_an_allocation_or_not(
    held: Held, rig: Rig
) -> None:
    await held.run("true", "in")
    outside = rig.request(rig.spec(program=rig.program("true", "in"), name="in"), "in")
    collected = await asyncio.wrap_future(held.executor.start(outside).result)
    assert collected.collected
    assert rig.runs() == ["in "]


async def test_its_end_is_seen_and_its_use_told(held: Held, rig: Rig) -> None:
    await held.run("sleep 1.1", "k")
    use = await held.on_loop(held.allocation.close())
    await rig.emptied()
    assert 1 / 3600 <= use.used <= use.held


async def test_a_cancelled_job_ends_alone(held: Held, rig: Rig) -> None:
    running = held.start("exec sleep 600", "k")
    await until(rig.runs, "the start")
    (job,) = [job for job in list_jobs(rig.work) if job.name == "k"]
    (done,) = await asyncio.to_thread(cancel_jobs, [job])
    assert done.confirmed, done.words
    assert (await running).verdict.reason is Reason.CANCELLED
    assert (await held.run("true", "after")).succeeded


async def test_a_job_that_ran_when_the_allocation_was_cancelled_is_told_so(
    held: Held, rig: Rig
) -> None:
    running = held.start("exec sleep 600", "k")
    await until(rig.runs, "the start")
    rig.engine("cancel", *rig.active())
    result = await running
    assert result.verdict.reason is Reason.ALLOCATION_ENDED
    assert result.verdict.retryable


async def test_a_job_that_had_not_started_is_submitted_again_when_the_allocation_is_gone(
    held: Held, rig: Rig
) -> None:
    holds = held.start("exec sleep 600", "holds", resources={"walltime": 60, "ranks_per_node": 2})
    await until(rig.runs, "the start")
    waits = held.start("true", "waits")
    await until(lambda: "submitted" in rig.events(1, "waits"), "the hand-over")
    rig.engine("cancel", *rig.active())
    assert (await holds).verdict.reason is Reason.ALLOCATION_ENDED
    assert (await waits).succeeded
    assert held.where("waits", 2) == "local"
    assert rig.runs().count("waits ") == 1


async def test_members_of_one_process_are_put_on_their_nodes_by_the_launcher(
    held: Held, rig: Rig
) -> None:
    """Without it all of them would run on the node of the agent."""
    rig.options["slots"] = 8
    spec = rig.spec(
        program=rig.program('echo "$1 ${BY:-nobody}" >> by', "m"),
        resources={"walltime": 60},
        site={"launcher": "env BY=launcher {command}"},
    )
    for placing, key in ((held.allocation, "inside"), (None, "outside")):
        array = rig.array(spec, [key], placing=placing)
        (result,) = await asyncio.wrap_future(held.executor.start(array, ArrayRun).result)
        assert result.succeeded
    told = (rig.work / "by").read_text().splitlines()
    assert told == ["inside launcher", "outside nobody"]


async def test_members_that_had_not_begun_are_submitted_again_when_the_allocation_is_gone(
    held: Held, rig: Rig
) -> None:
    holds = held.start("exec sleep 600", "holds", resources={"walltime": 60, "ranks_per_node": 2})
    await until(rig.runs, "the start")
    spec = rig.spec(program=rig.program("true", "m"), resources={"walltime": 60})
    array = rig.array(spec, ["x", "y"], placing=held.allocation)
    results = asyncio.wrap_future(held.executor.start(array, ArrayRun).result)
    await until(lambda: "submitted" in rig.events(2), "the hand-over of both")
    rig.engine("cancel", *rig.active())
    assert [result.state for result in await results] == ["succeeded", "succeeded"]
    assert sorted(rig.runs()) == ["holds ", "m x", "m y"]
    assert (await holds).verdict.reason is Reason.ALLOCATION_ENDED


async def test_when_the_agent_is_killed_its_jobs_end_with_the_allocation(
    held: Held, rig: Rig
) -> None:
    running = held.start("exec sleep 600", "k")
    await until(rig.runs, "the start")
    agent = _agent_of(rig)
    os.kill(agent, signal.SIGKILL)
    result = await running
    assert result.verdict.reason is Reason.ALLOCATION_ENDED


def _agent_of(rig: Rig) -> int:
    """Of all processes with its command line the one above the others, its children."""
    parents: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0")
                if words[0] == b"/bin/bash" and any(
                    word.endswith(b".spool/agent.sh") and os.fsencode(rig.folder) in word
                    for word in words[1:2]
                ):
                    parents[int(entry)] = int(_stat_of(int(entry))[1])
    above = [pid for pid, parent in parents.items() if parent not in parents]
    assert len(above) == 1, f"there is no agent: {parents}"
    return above[0]


def _stat_of(pid: int) -> list[str]:
    """What the kernel tells of a process, from its state on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


async def stop(pid: int) -> None:
    """Stop a process, and wait until it does nothing any more."""
    os.kill(pid, signal.SIGSTOP)
    await until(lambda: _stat_of(pid)[0] == "T", "the stop")


async def test_renewed_the_next_is_submitted_when_a_job_no_longer_fits(rig: Rig) -> None:
    held = Held(rig, walltime=400, renew=True)
    rig.options["slots"] = 8
    await held.open()
    try:
        assert (await held.run("true", "first", resources={"walltime": 60})).succeeded
        # Of 377 seconds for jobs some have gone by, and what the agent says is a little old.
        assert (await held.run("true", "long", resources={"walltime": 372})).succeeded
        assert held.where("long") == "allocation-local"
        assert len({job.key for job in list_jobs(rig.work) if job.name == "allocation"}) == 2
    finally:
        await held.close()


async def test_renewed_one_that_a_person_cancelled_is_followed_by_no_other(rig: Rig) -> None:
    held = Held(rig, renew=True)
    await held.open()
    try:
        running = held.start("exec sleep 600", "k")
        await until(rig.runs, "the start")
        rig.engine("cancel", *rig.active())
        assert (await running).verdict.reason is Reason.ALLOCATION_ENDED
        assert (await held.run("true", "after")).succeeded
        assert held.where("after") == "local"
        assert len({job.key for job in list_jobs(rig.work) if job.name == "allocation"}) == 1
    finally:
        await held.close()


async def test_what_still_fits_into_the_present_one_does_not_wait_for_the_next(rig: Rig) -> None:
    held = Held(rig, walltime=600, renew=True)
    rig.options["slots"] = 8
    await held.open()
    try:
        first = await held.run("true", "first", resources={"walltime": 60})
        # No second one of these would fit, so the next is submitted already.
        assert (await held.run("true", "half", resources={"walltime": 300})).succeeded
        third = await held.run("true", "third", resources={"walltime": 60})
        assert third.job_id.partition(".")[0] == first.job_id.partition(".")[0]
        assert len({job.key for job in list_jobs(rig.work) if job.name == "allocation"}) == 2
    finally:
        await held.close()


# --- another process holds it, and is killed


@contextlib.contextmanager
def _driven(rig: Rig, *words: str, **trap: Any) -> Iterator[subprocess.Popen[str]]:
    """A process that holds an allocation; `trap` as of `driver.py`, or `renew`."""
    options = json.dumps(rig.options)
    argv = [sys.executable, str(DRIVER), json.dumps(trap), str(rig.folder), options, *words]
    with subprocess.Popen(argv, text=True, stdout=subprocess.PIPE) as driver:
        try:
            yield driver
        finally:
            driver.kill()


def _results(driver: subprocess.Popen[str]) -> dict[str, Any]:
    assert driver.stdout is not None
    found: dict[str, Any] = json.loads(driver.stdout.read())
    return found


async def test_a_killed_holder_started_again_attaches_to_the_allocation_and_its_jobs(
    rig: Rig,
) -> None:
    program = rig.program("until [ -e go ]; do sleep 0.05; done", "p")
    with _driven(rig, program, "a", "b", "c"):
        await until(lambda: len(rig.runs()) == 2, "two jobs of three in two cores")
    (rig.work / "go").touch()
    with _driven(rig, program, "a", "b", "c") as driver:
        results = await asyncio.to_thread(_results, driver)
    assert results == {"a": "succeeded", "b": "succeeded", "c": "succeeded"}
    assert sorted(rig.runs()) == ["p a", "p b", "p c"]
    assert len([job for job in list_jobs(rig.work) if job.name == "allocation"]) == 1


async def test_a_second_holder_is_refused(rig: Rig) -> None:
    program = rig.program("until [ -e go ]; do sleep 0.05; done", "p")
    with _driven(rig, program, "a") as first:
        await until(rig.runs, "the first one's job")
        with _driven(rig, program, "z") as second:
            refused = await asyncio.to_thread(_results, second)
        assert refused["error"] == "JobHeld"
        (rig.work / "go").touch()
        assert await asyncio.to_thread(_results, first) == {"a": "succeeded"}


@pytest.mark.parametrize("kills", range(3))
async def test_killed_again_and_again_each_job_runs_once(rig: Rig, kills: int) -> None:
    program = rig.program("sleep 0.$((RANDOM % 3))", "p")
    keys = [f"j{i}" for i in range(12)]
    seen: Callable[[], int] = lambda: len(rig.runs())  # noqa: E731
    for step in range(1 + kills):
        with _driven(rig, program, *keys) as driver:
            target = 3 * (step + 1)
            await until(lambda driver=driver, t=target: seen() >= t or driver.poll() is not None)
    with _driven(rig, program, *keys) as driver:
        results = await asyncio.to_thread(_results, driver)
    assert results == dict.fromkeys(keys, "succeeded")
    assert sorted(rig.runs()) == sorted(f"p {key}" for key in keys)


#: What a holder does that changes something, from the spool to its end; about so many times.
CHANGES = 52


@pytest.mark.parametrize("when", ["before", "torn", "after"])
@pytest.mark.parametrize("call", range(1, CHANGES, 9))
async def test_killed_at_any_change_that_it_makes_each_job_runs_once(
    rig: Rig, call: int, when: str
) -> None:
    # Each of the three is killed at other calls, which the machine's timing shifts a little anyhow.
    call += {"before": 0, "torn": 1, "after": 2}[when]
    program = rig.program("sleep 0.1", "p")
    with _driven(rig, program, "a", "b", call=call, when=when) as driver:
        await asyncio.to_thread(driver.wait, 200)
    with _driven(rig, program, "a", "b") as driver:
        results = await asyncio.to_thread(_results, driver)
    assert results == {"a": "succeeded", "b": "succeeded"}
    assert sorted(rig.runs()) == ["p a", "p b"]
    await rig.emptied()
