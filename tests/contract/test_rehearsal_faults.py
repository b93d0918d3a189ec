"""A PBS or PJM that is down, hung, full or late, and one whose answer gets lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path

import pytest

from hpc_prefect import JobFailed, JobResult, Reason
from hpc_prefect.server import Server

from .endings import save_blocks
from .places import PBS, PJM, Rehearsed
from .suite import run_program

#: Counts its run, then waits for a file and ends with a code that only the scheduler explains.
WAITS = 'echo "$1" >> runs; until [ -e go ]; do sleep 0.05; done; exit "$2"'


@pytest.fixture(scope="module")
def both(
    prefect_server: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Rehearsed, ...]]:
    """A PBS and a PJM, which a test meets side by side: most of its time is their patience."""
    with contextlib.ExitStack() as stack:
        places = []
        for kind in (PBS, PJM):
            name = f"{kind.__name__.lower()}-faults"
            place = kind.at(tmp_path_factory.mktemp(name), name)
            stack.callback(place.close)
            stack.enter_context(place.entered())  # the next one's PATH has the commands of both
            save_blocks(place)
            places.append(place)
        yield tuple(places)


@contextlib.contextmanager
def fault(rehearsed: Rehearsed, *names: str) -> Iterator[None]:
    """These faults are in force inside."""
    files = [rehearsed.state / "faults" / name for name in names]
    for file in files:
        file.touch()
    try:
        yield
    finally:
        for file in files:
            file.unlink(missing_ok=True)


def scheduler(rehearsed: Rehearsed) -> str:
    return str(rehearsed.profile["scheduler"])


def begin(rehearsed: Rehearsed, work_dir: Path, code: int = 0) -> asyncio.Task[JobResult]:
    """A job whose name is its scheduler's."""
    name = scheduler(rehearsed)
    return asyncio.ensure_future(run_program(rehearsed, work_dir, name, WAITS, "job", str(code)))


async def until(condition: Callable[[], object], job: asyncio.Task[JobResult]) -> None:
    end = asyncio.get_running_loop().time() + 200
    while not condition():
        assert not job.done(), job
        assert asyncio.get_running_loop().time() < end, "the condition did not come true"
        await asyncio.sleep(0.05)


def runs(work_dir: Path) -> list[str]:
    return (work_dir / "runs").read_text().split() if (work_dir / "runs").exists() else []


async def ended(job: asyncio.Task[JobResult]) -> JobResult:
    try:
        return await job
    except JobFailed as failed:
        return failed.result


Scenario = Callable[[Rehearsed, Path], Coroutine[None, None, None]]


async def at_each(both: tuple[Rehearsed, ...], folder: Path, scenario: Scenario) -> None:
    """The scenario at all places at once, in a folder for each."""
    async with asyncio.TaskGroup() as group:
        for place in both:
            work_dir = folder / scheduler(place)
            work_dir.mkdir()
            group.create_task(scenario(place, work_dir))


@pytest.mark.parametrize(
    "name", ["down", pytest.param("hung", marks=[pytest.mark.slow, pytest.mark.timeout(600)])]
)
async def test_a_server_that_does_not_answer_changes_nothing(
    both: tuple[Rehearsed, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    async def scenario(place: Rehearsed, work_dir: Path) -> None:
        job = begin(place, work_dir, code=3)
        await until(lambda: runs(work_dir), job)
        with fault(place, name):
            (work_dir / "go").touch()
            told = f"{scheduler(place)} gave no useful answer about 1 jobs"
            await until(lambda: told in caplog.text, job)
            assert not job.done()
        result = await ended(job)
        assert (result.verdict.reason, result.exit_code) == (Reason.PROGRAM_FAILED, 3)
        assert runs(work_dir) == ["job"]

    await at_each(both, tmp_path, scenario)


@pytest.mark.parametrize(
    "name",
    [
        "dies-after-submit",
        pytest.param("hangs-after-submit", marks=[pytest.mark.slow, pytest.mark.timeout(600)]),
    ],
)
async def test_a_job_whose_acceptance_was_not_heard_runs_once(
    both: tuple[Rehearsed, ...], tmp_path: Path, name: str
) -> None:
    async def scenario(place: Rehearsed, work_dir: Path) -> None:
        with fault(place, name):
            job = begin(place, work_dir)
            await until(lambda: runs(work_dir), job)
            (work_dir / "go").touch()
            assert (await ended(job)).succeeded
        assert runs(work_dir) == ["job"]

    await at_each(both, tmp_path, scenario)


async def test_a_full_queue_is_waited_for(
    both: tuple[Rehearsed, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(place: Rehearsed, work_dir: Path) -> None:
        (work_dir / "go").touch()
        with fault(place, "over-limit"):
            job = begin(place, work_dir)
            await until(lambda: f"{scheduler(place)}: the queue is full" in caplog.text, job)
        assert (await ended(job)).succeeded
        assert runs(work_dir) == ["job"]

    with caplog.at_level("INFO"):
        await at_each(both, tmp_path, scenario)


@pytest.mark.slow  # a job that may be there is looked for for a minute
@pytest.mark.timeout(600)
async def test_a_server_that_is_down_at_the_submission_gets_no_second_job(
    both: tuple[Rehearsed, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(place: Rehearsed, work_dir: Path) -> None:
        (work_dir / "go").touch()
        unclear = f"{scheduler(place)}: it is not clear whether the job was submitted"
        with fault(place, "down"):
            job = begin(place, work_dir)
            await until(lambda: unclear in caplog.text, job)
        assert (await ended(job)).succeeded
        assert runs(work_dir) == ["job"]

    with caplog.at_level("INFO"):
        await at_each(both, tmp_path, scenario)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_a_job_that_shows_after_all_patience_meets_the_guard(
    both: tuple[Rehearsed, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It was submitted, not heard of, not found for a minute, and so submitted again."""

    async def scenario(place: Rehearsed, work_dir: Path) -> None:
        name = scheduler(place)
        unclear = f"{name}: it is not clear whether the job was submitted"
        with fault(place, "dies-after-submit", "late"):
            job = begin(place, work_dir)
            await until(lambda: unclear in caplog.text, job)
            (place.state / "faults" / "dies-after-submit").unlink()
            await until(lambda: f"{name}: submitted as" in caplog.text, job)
        await until(lambda: runs(work_dir), job)
        (work_dir / "go").touch()
        assert (await ended(job)).succeeded
        assert runs(work_dir) == ["job"]

    with caplog.at_level("INFO"):
        await at_each(both, tmp_path, scenario)
