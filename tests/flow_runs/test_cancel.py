"""What ends a job with its caller, and what leaves it running."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from prefect import flow, task

from hpc_prefect import HPCProfileBlock, JobFailed, Reason, campaign
from hpc_prefect.errors import JobTimedOut
from hpc_prefect.job.state import JobState

from ..flows.jobs import LONG, WAIT, job, runs
from ..flows.seen import ended, flow_run, ids, process, remote, run_of, task_runs, until, words

pytestmark = [pytest.mark.usefixtures("blocks"), pytest.mark.timeout(600)]


def states(run_id: str, count: int = 1) -> dict[str, str]:
    return {each.name: str(each.state_name) for each in task_runs(run_id, count=count)}


async def started(work_dir: Path, *labels: str) -> None:
    await asyncio.to_thread(until, lambda: set(runs(work_dir)) >= set(labels))


# --- timeout_seconds


@pytest.fixture(scope="module")
def timed_out(
    blocks: None, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, JobTimedOut, str]:
    work_dir = tmp_path_factory.mktemp("timed-out")

    @flow
    async def limited() -> None:
        # Time enough to be submitted.
        await job(str(work_dir), "long", LONG, timeout_seconds=20)

    with pytest.raises(JobTimedOut) as caught:
        asyncio.run(limited())
    return work_dir, caught.value, run_of(work_dir)


def test_a_job_that_takes_too_long_is_an_error_that_says_so(
    timed_out: tuple[Path, JobTimedOut, str],
) -> None:
    _, error, _ = timed_out
    assert isinstance(error, TimeoutError)
    assert error.result.verdict.reason is Reason.TIMED_OUT
    assert error.result.state == "cancelled"
    assert "timed out: " in str(error)
    assert "the call's timeout_seconds passed and the job was cancelled" in str(error)


def test_a_job_that_takes_too_long_is_cancelled_in_its_queue(
    timed_out: tuple[Path, JobTimedOut, str], spool: Path
) -> None:
    seen = remote(spool, timed_out[1].result.job_id)
    assert (seen.state, seen.word) == (JobState.ENDED, "CANCELLED")


def test_a_job_that_takes_too_long_is_timed_out_in_prefect(
    timed_out: tuple[Path, JobTimedOut, str],
) -> None:
    (task_run,) = task_runs(timed_out[2])
    assert task_run.state is not None
    assert (task_run.state.name, task_run.state.is_failed()) == ("TimedOut", True)
    state = flow_run(timed_out[2]).state
    assert state is not None
    assert state.is_failed()


async def test_a_timeout_counts_the_queue_too(tmp_path: Path, spool: Path) -> None:
    narrow = HPCProfileBlock(
        scheduler="local",
        executables={"sh": "/bin/sh"},
        queue_cpu="narrow",
        local={"slots": 1, "spool": str(spool), "kill_grace": 1.0},
    )
    await narrow.asave("hpc-narrow", overwrite=True)
    there = {"hpc_profile_block_name": "hpc-narrow"}
    first = asyncio.create_task(job(str(tmp_path), "long", LONG, **there))
    await started(tmp_path, "long")
    with pytest.raises(JobTimedOut):
        await job(str(tmp_path), "behind it", timeout_seconds=0.5, **there)
    first.cancel()
    await asyncio.wait([first])
    assert runs(tmp_path) == ["long"]


# --- cancelled from inside


async def test_a_failed_sibling_in_a_task_group_cancels_the_others_job(
    tmp_path: Path, spool: Path
) -> None:
    @flow
    async def siblings() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(job(str(tmp_path), "long", LONG))
            await started(tmp_path, "long")
            group.create_task(job(str(tmp_path), "bad", "exit 3"))

    with pytest.raises(ExceptionGroup) as caught:
        await siblings()
    assert caught.group_contains(JobFailed, match="job bad")
    assert sorted(words(spool, tmp_path)) == ["CANCELLED", "EXITED"]
    state = flow_run(run_of(tmp_path)).state
    assert state is not None
    assert state.is_failed()
    found = await asyncio.to_thread(states, run_of(tmp_path), 2)
    assert found == {"long": "Crashed", "bad": "Failed"}


async def test_a_cancelled_call_cancels_its_job_and_stays_cancelled(
    tmp_path: Path, spool: Path
) -> None:
    @flow
    async def impatient() -> None:
        waiting = asyncio.create_task(job(str(tmp_path), "long", LONG))
        await started(tmp_path, "long")
        waiting.cancel("enough")
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert waiting.cancelled()

    await impatient()
    assert words(spool, tmp_path) == ["CANCELLED"]
    assert await asyncio.to_thread(states, run_of(tmp_path)) == {"long": "Crashed"}


async def test_a_timeout_around_the_call_cancels_its_job(tmp_path: Path, spool: Path) -> None:
    async def passes(timeout: asyncio.Timeout) -> None:
        await started(tmp_path, "long")
        timeout.reschedule(asyncio.get_running_loop().time())

    async def limited() -> None:
        async with asyncio.timeout(None) as timeout, asyncio.TaskGroup() as group:
            group.create_task(passes(timeout))
            await job(str(tmp_path), "long", LONG)

    with pytest.raises(TimeoutError):
        await limited()
    assert words(spool, tmp_path) == ["CANCELLED"]


async def test_a_tasks_own_timeout_cancels_its_job(tmp_path: Path, spool: Path) -> None:
    # Prefect's timeout cancels at every await, also at those of the clearing up. It leaves time
    # enough to submit.
    @task(timeout_seconds=20)
    async def limited() -> None:
        await job(str(tmp_path), "long", LONG)

    @flow
    async def outer() -> None:
        await limited()

    with pytest.raises(TimeoutError):
        await outer()
    assert words(spool, tmp_path) == ["CANCELLED"]


async def test_a_cancelled_job_runs_again_when_the_flow_is_started_again(tmp_path: Path) -> None:
    @flow
    async def twice(patient: bool) -> int:
        waiting = asyncio.create_task(job(str(tmp_path), "wait", WAIT))
        if not patient:
            await started(tmp_path, "wait")
            waiting.cancel()
        return (await waiting).attempt

    with campaign("mine"):
        with pytest.raises(asyncio.CancelledError):
            await twice(False)
        (tmp_path / "go").touch()
        assert await twice(True) == 2
    assert runs(tmp_path) == ["wait", "wait"]


async def test_a_call_that_is_cancelled_at_once_submits_nothing_or_cancels_it(
    tmp_path: Path, spool: Path
) -> None:
    waiting = asyncio.create_task(job(str(tmp_path), "long", LONG))
    await asyncio.to_thread(until, lambda: list(tmp_path.glob(".hpc-prefect/*/??/*")))
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert words(spool, tmp_path) in ([], ["CANCELLED"])


# --- cancelled from outside


@dataclass
class Stopped:
    """A flow in a process of its own that got a signal while its job ran."""

    work_dir: Path
    said: str
    code: int
    words: list[str]


CASES = {
    "Ctrl-C, async flow": ("alone", signal.SIGINT),
    "Ctrl-C, sync flow": ("alone_sync", signal.SIGINT),
    "Ctrl-C, sync flow, task in a thread": ("in_a_thread", signal.SIGINT),
    "Ctrl-C, script": ("script", signal.SIGINT),
    "Ctrl-C, async script": ("async_script", signal.SIGINT),
    "SIGTERM, async flow": ("alone", signal.SIGTERM),
    "SIGTERM, sync flow": ("alone_sync", signal.SIGTERM),
    "SIGTERM, sync flow, task in a thread": ("in_a_thread", signal.SIGTERM),
    "SIGHUP, async flow": ("alone", signal.SIGHUP),
    "SIGTERM after another job has ended": ("gathered", signal.SIGTERM),
    "SIGTERM, on_sigterm=cancel": ("cancelled_by_sigterm", signal.SIGTERM),
}
CANCELLING = [name for name in CASES if name.startswith("Ctrl-C") or name.endswith("cancel")]
LEAVING = [name for name in CASES if name not in CANCELLING]


@pytest.fixture(scope="module")
def stopped(
    blocks: None, spool: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Stopped]]:
    """All cases at once: most of their time is Prefect's start, and waiting."""
    HPCProfileBlock(
        scheduler="local",
        executables={"sh": "/bin/sh"},
        on_sigterm="cancel",
        queue_cpu="cancels",
        local={"slots": 12, "spool": str(spool), "kill_grace": 1.0},
    ).save("hpc-cancels", overwrite=True, _sync=True)
    work_dirs = {name: tmp_path_factory.mktemp("stopped") for name in CASES}
    with contextlib.ExitStack() as stack:
        processes = {
            name: stack.enter_context(process(which, str(work_dirs[name])))
            for name, (which, _) in CASES.items()
        }
        found = {}
        for name in _as_they_get_ready(work_dirs):
            processes[name].send_signal(CASES[name][1])
        for name in CASES:
            said, _ = processes[name].communicate(timeout=240)
            there = words(spool, work_dirs[name])
            found[name] = Stopped(work_dirs[name], said, processes[name].returncode, there)
        yield found
    for work_dir in work_dirs.values():
        (work_dir / "go").touch()


def _as_they_get_ready(work_dirs: dict[str, Path]) -> Iterator[str]:
    """The cases, each when its job runs and everything else in it is over."""
    waiting = dict(work_dirs)
    while waiting:
        name = until(lambda: next((name for name in waiting if _ready(name, waiting[name])), None))
        del waiting[name]
        yield name


def _ready(name: str, work_dir: Path) -> bool:
    others_over = CASES[name][0] != "gathered" or (work_dir / "short-ended").exists()
    # A program may run before the journal has the id under which it does.
    return others_over and "wait" in runs(work_dir) and len(ids(work_dir)) == len(jobs_in(work_dir))


def jobs_in(work_dir: Path) -> list[Path]:
    return list(work_dir.glob(".hpc-prefect/*/*/*-1/journal.jsonl"))


@pytest.mark.parametrize("name", CANCELLING)
def test_a_signal_that_means_cancel_cancels_the_job(name: str, stopped: dict[str, Stopped]) -> None:
    assert stopped[name].words == ["CANCELLED"], stopped[name].said
    assert stopped[name].code != 0


@pytest.mark.parametrize("name", LEAVING)
def test_sigterm_leaves_the_job_running(name: str, stopped: dict[str, Stopped]) -> None:
    assert "RUNNING" in stopped[name].words, stopped[name].said
    assert "CANCELLED" not in stopped[name].words
    assert stopped[name].code != 0


@pytest.mark.parametrize("name", ["SIGTERM, async flow", "SIGTERM, sync flow"])
def test_sigterm_says_that_the_job_runs_on(name: str, stopped: dict[str, Stopped]) -> None:
    assert "the job is left running" in stopped[name].said


@pytest.mark.parametrize("name", [name for name in CASES if "flow" in name and "HUP" not in name])
def test_a_signal_leaves_no_flow_run_that_looks_alive(
    name: str, stopped: dict[str, Stopped]
) -> None:
    state = flow_run(run_of(stopped[name].work_dir)).state
    assert state is not None
    assert state.name == "Crashed"


def test_the_next_start_takes_the_job_up(stopped: dict[str, Stopped]) -> None:
    name = "SIGTERM, sync flow"
    work_dir = stopped[name].work_dir
    with process(CASES[name][0], str(work_dir)) as second:
        until(lambda: list(work_dir.glob(".hpc-prefect/*/*/*/claim-2")))
        (work_dir / "go").touch()
        assert "attached to" in ended(second)
    assert runs(work_dir) == ["wait"]
