"""A PBS or PJM that is down, hung, full or late, and one whose answer gets lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpc_prefect import JobFailed, JobResult, Reason

from .endings import save_blocks
from .places import PBS, PJM, Place, Rehearsed
from .suite import run_program

#: Counts its run, then waits for a file and ends with a code that only the scheduler explains.
WAITS = 'echo "$1" >> runs; until [ -e go ]; do sleep 0.05; done; exit "$2"'


@pytest.fixture(scope="module", params=[PBS, PJM], ids=["pbs", "pjm"])
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    name = f"{request.param.__name__.lower()}-faults"
    place = request.param.at(tmp_path_factory.mktemp(name), name)
    yield place
    place.close()


@pytest.fixture(scope="module")
def rehearsed(entered: Place) -> Rehearsed:
    assert isinstance(entered, Rehearsed)
    save_blocks(entered)
    return entered


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


def begin(rehearsed: Rehearsed, work_dir: Path, code: int = 0) -> asyncio.Task[JobResult]:
    return asyncio.ensure_future(run_program(rehearsed, work_dir, "job", WAITS, "job", str(code)))


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


@pytest.mark.parametrize(
    "name", ["down", pytest.param("hung", marks=[pytest.mark.slow, pytest.mark.timeout(600)])]
)
async def test_a_server_that_does_not_answer_changes_nothing(
    rehearsed: Rehearsed, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    job = begin(rehearsed, tmp_path, code=3)
    await until(lambda: runs(tmp_path), job)
    with fault(rehearsed, name):
        (tmp_path / "go").touch()
        await until(lambda: "gave no useful answer about 1 jobs" in caplog.text, job)
        assert not job.done()
    result = await ended(job)
    assert (result.verdict.reason, result.exit_code) == (Reason.PROGRAM_FAILED, 3)
    assert runs(tmp_path) == ["job"]


@pytest.mark.parametrize(
    "name",
    [
        "dies-after-submit",
        pytest.param("hangs-after-submit", marks=[pytest.mark.slow, pytest.mark.timeout(600)]),
    ],
)
async def test_a_job_whose_acceptance_was_not_heard_runs_once(
    rehearsed: Rehearsed, tmp_path: Path, name: str
) -> None:
    with fault(rehearsed, name):
        job = begin(rehearsed, tmp_path)
        await until(lambda: runs(tmp_path), job)
        (tmp_path / "go").touch()
        assert (await ended(job)).succeeded
    assert runs(tmp_path) == ["job"]


async def test_a_full_queue_is_waited_for(
    rehearsed: Rehearsed, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "go").touch()
    with caplog.at_level("INFO"), fault(rehearsed, "over-limit"):
        job = begin(rehearsed, tmp_path)
        await until(lambda: "the queue is full" in caplog.text, job)
    assert (await ended(job)).succeeded
    assert runs(tmp_path) == ["job"]


@pytest.mark.slow  # a job that may be there is looked for for a minute
@pytest.mark.timeout(600)
async def test_a_server_that_is_down_at_the_submission_gets_no_second_job(
    rehearsed: Rehearsed, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "go").touch()
    with caplog.at_level("INFO"), fault(rehearsed, "down"):
        job = begin(rehearsed, tmp_path)
        await until(lambda: "the submission's outcome is unclear" in caplog.text, job)
    result = await ended(job)
    assert result.succeeded
    assert runs(tmp_path) == ["job"]


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_a_job_that_shows_after_all_patience_meets_the_guard(
    rehearsed: Rehearsed, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It was submitted, not heard of, not found for a minute, and so submitted again."""
    with caplog.at_level("INFO"):
        with fault(rehearsed, "dies-after-submit", "late"):
            job = begin(rehearsed, tmp_path)
            await until(lambda: "the submission's outcome is unclear" in caplog.text, job)
            (rehearsed.state / "faults" / "dies-after-submit").unlink()
            await until(lambda: "submitted as" in caplog.text, job)
        await until(lambda: runs(tmp_path), job)
        (tmp_path / "go").touch()
        assert (await ended(job)).succeeded
    assert runs(tmp_path) == ["job"]
