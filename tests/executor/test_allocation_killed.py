"""Held allocations when their holder is killed, or their folder is full: each job runs once, and no
allocation is left in the queue after the last flow has ended."""

from __future__ import annotations

import asyncio
import resource
from pathlib import Path

import pytest
from rig import Rig, until
from test_allocation import Held, _agent_of, _driven, _results
from test_allocation_attacked import HOLD, _allocations

from hpc_prefect.job.failure import Reason
from hpc_prefect.schedulers.allocation import spool as spools
from hpc_prefect.transports.local import LocalTransport


def the_spool(rig: Rig) -> Path:
    """Of the only allocation."""
    (spool,) = rig.folder.glob("work/.hpc-prefect/**/*.spool")
    return spool


# --- the holder is killed


#: What a holder of two terms changes until both have a job, about so many times.
CHANGES = 64


@pytest.mark.parametrize("when", ["before", "torn", "after"])
@pytest.mark.parametrize("call", range(30, CHANGES, 8))
async def test_killed_at_a_change_while_two_terms_are_under_way_each_job_runs_once(
    rig: Rig, call: int, when: str
) -> None:
    call += {"before": 0, "torn": 1, "after": 2}[when]
    rig.options["slots"] = 8
    program = rig.program("sleep 0.1", "p")
    jobs = ("a:300", "b:565", "c:565")  # of the first one's 570 seconds
    with _driven(rig, program, *jobs, renew=600, call=call, when=when) as driver:
        await asyncio.to_thread(driver.wait, 200)
    with _driven(rig, program, *jobs, renew=600) as driver:
        results = await asyncio.to_thread(_results, driver)
    assert results == dict.fromkeys("abc", "succeeded")
    assert sorted(rig.runs()) == ["p a", "p b", "p c"]
    await rig.emptied()


@pytest.mark.parametrize("word", [spools.CLOSE, spools.CLOSE_NOW])
async def test_an_allocation_told_to_end_while_jobs_wait_and_its_holder_killed(
    rig: Rig, word: str
) -> None:
    """What was taken before it was told is run there; with NOW it is submitted again."""
    program = rig.program(HOLD, "p")
    keys = ("a", "b", "c", "d")
    with _driven(rig, program, *keys):
        await until(lambda: len(rig.runs()) == 2, "two jobs of four in two cores")
        await until(lambda: len(_taken(rig)) == 4, "all that were handed over")
        reply = LocalTransport().run(spools.ask_to_end(str(the_spool(rig)), word))
        assert reply.code == 0, reply
    (rig.work / "go").touch()
    late = "late"  # comes when it takes nothing more
    with _driven(rig, program, *keys, late) as driver:
        results = await asyncio.to_thread(_results, driver)
    (first, second) = sorted(line.split()[1] for line in rig.runs()[:2])
    ended = {key for key, state in results.items() if state != "succeeded"}
    # Those that ran when it was told NOW were ended with it.
    assert ended <= ({first, second} if word == spools.CLOSE_NOW else set())
    assert sorted(rig.runs()) == sorted(f"p {key}" for key in (*keys, late))
    await rig.emptied()


def _taken(rig: Rig) -> list[Path]:
    """Jobs that were handed over, and at which the agent has looked."""
    spool = the_spool(rig)
    waiting = {path.name for path in (spool / "inbox").iterdir()}
    return [path for path in (spool / "jobs").iterdir() if path.name not in waiting]


async def test_a_job_whose_allocation_ends_before_its_turn_and_whose_holders_die_runs_once(
    rig: Rig,
) -> None:
    waits = rig.program("until [ -e go ]; do sleep 0.05; done", "blocker")
    resources = {"ranks_per_node": 2, "launch": "mpi"}
    site = {"launcher": "{command}"}
    blocker = rig.spec(program=waits, name="blocker", resources=resources, site=site)
    with rig.under_way(rig.request(blocker, "blocker")):
        await until(rig.runs, "the start of what keeps the queue busy")
        program = rig.program("true", "p")
        # First to the allocation, and then, as somebody cancelled that, outside of it.
        for attempt in (1, 2, 2, 2):
            with _driven(rig, program, "a"):
                await until(lambda n=attempt: "submitted" in rig.events(n, "a"), "the hand-over")
                if waiting := {*_allocations(rig)} & {*rig.active()}:
                    rig.engine("cancel", *waiting)
        assert rig.runs() == ["blocker "]
        (rig.work / "go").touch()
        with _driven(rig, program, "a") as driver:
            results = await asyncio.to_thread(_results, driver)
    assert results == {"a": "succeeded"}
    assert rig.runs() == ["blocker ", "p a"]
    await rig.emptied()


# --- its folder is full


class Log:
    """The log of an allocation's agent, which can be kept from growing."""

    #: Of no meaning to anybody: what jobs write below this limit is not kept from growing.
    PADDING = "#" * 65536 + "\n"

    def __init__(self, rig: Rig) -> None:
        self._path = the_spool(rig) / spools.LOG
        self._agent = _agent_of(rig)
        with self._path.open("a") as file:
            file.write(self.PADDING)

    def fill(self, spare: int) -> None:
        """From now on it has room for so many bytes more."""
        self._limit(self._path.stat().st_size + spare)

    def empty(self) -> None:
        self._limit(resource.RLIM_INFINITY)

    def _limit(self, size: int) -> None:
        resource.prlimit(self._agent, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    def events(self) -> list[str]:
        """The whole lines' first words, each line once: after a torn write it is written again."""
        lines = self._path.read_text().split("\n")
        return [line.split()[0] for line in dict.fromkeys(lines) if line.endswith(" .")]


async def opened(rig: Rig) -> tuple[Held, Log]:
    held = Held(rig)
    await held.open()
    await until((the_spool(rig) / spools.HEARTBEAT).exists, "the agent's first beat")
    return held, Log(rig)


@pytest.mark.parametrize("spare", [0, 7], ids=["full", "torn"])
@pytest.mark.parametrize("code", [0, 3])
@pytest.mark.parametrize("line", ["S", "E"])
async def test_a_full_spool_at_a_line_about_a_job_costs_neither_the_job_nor_its_verdict(
    rig: Rig, line: str, code: int, spare: int
) -> None:
    held, log = await opened(rig)
    try:
        if line == "S":
            log.fill(spare)
        running = held.start(f"{HOLD}; exit {code}", "k")
        await until(rig.runs, "the start")
        if line == "E":
            await until(lambda: "S" in log.events(), "the line of its start")
            log.fill(spare)
        (rig.work / "go").touch()
        # Its end is there before there is room again.
        await until((rig.attempt() / "exit").read_bytes, "the record of its end")
        log.empty()
        result = await running
        wanted = Reason.PROGRAM_FAILED if code else Reason.SUCCEEDED
        assert (result.verdict.reason, result.verdict.exit_code) == (wanted, code)
        assert (await held.run("true", "after")).succeeded
    finally:
        await held.close()
    assert rig.runs() == ["k ", "after "]
    assert log.events() == ["S", "E", "S", "E", "X"]
    await rig.emptied()


async def test_a_full_spool_at_an_allocations_last_line_does_not_keep_it(rig: Rig) -> None:
    held, log = await opened(rig)
    assert (await held.run("true", "k")).succeeded
    await until(lambda: "E" in log.events(), "the line of its end")
    log.fill(0)
    use = await held.on_loop(held.allocation.close())
    assert use.held > 0
    assert "X" not in log.events()
    await rig.emptied()


async def test_a_spool_that_stays_full_does_not_keep_jobs_from_running_once(rig: Rig) -> None:
    held, log = await opened(rig)
    log.fill(0)
    try:
        results = await asyncio.gather(*(held.run("true", f"k{n}") for n in range(4)))
        assert all(result.succeeded for result in results)
        assert sorted(rig.runs()) == [f"k{n} " for n in range(4)]
    finally:
        log.empty()
        await held.close()
    assert len(_allocations(rig)) == 1
    await rig.emptied()
