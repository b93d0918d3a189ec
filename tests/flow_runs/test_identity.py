"""Which job a call is: retries, resumed runs, identical calls and tasks."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from pathlib import Path

import pytest
from prefect import flow

from hpc_prefect import campaign, scope
from hpc_prefect.errors import JobFailed, JobHeld

from ..flows import jobs
from ..flows.jobs import COUNT, job, runs
from ..flows.seen import ended, process, until

pytestmark = pytest.mark.usefixtures("blocks")


async def test_identical_calls_under_gather_are_as_many_jobs(tmp_path: Path) -> None:
    @flow
    async def five() -> list[str]:
        results = await asyncio.gather(*(job(str(tmp_path), "x") for _ in range(5)))
        return [result.folder for result in results]

    assert len(set(await five())) == 5
    assert runs(tmp_path) == ["x"] * 5


async def test_a_retried_task_runs_only_the_job_that_failed_again(tmp_path: Path) -> None:
    (tmp_path / "fail-b").touch()

    @flow
    async def outer() -> None:
        await jobs.three_jobs(str(tmp_path), "")

    await outer()
    assert runs(tmp_path) == ["a", "b", "b", "c"]


async def test_a_retried_task_finds_the_jobs_of_the_tasks_inside_it(tmp_path: Path) -> None:
    (tmp_path / "fail-b").touch()

    @flow
    async def outer() -> None:
        await jobs.three_jobs_in_a_task(str(tmp_path), "")

    await outer()
    assert runs(tmp_path) == ["a", "b", "b", "c"]


async def test_two_identical_tasks_at_once_run_their_jobs_each(tmp_path: Path) -> None:
    (tmp_path / "fail-b").touch()  # one of the two is retried

    @flow
    async def outer() -> list[list[str]]:
        return await asyncio.gather(
            jobs.three_jobs(str(tmp_path), ""), jobs.three_jobs(str(tmp_path), "")
        )

    first, second = await outer()
    assert not set(first) & set(second)
    assert Counter(runs(tmp_path)) == {"a": 2, "b": 3, "c": 2}


async def test_a_retried_flow_collects_what_is_done(tmp_path: Path) -> None:
    (tmp_path / "fail-two").touch()

    @flow(retries=1)
    async def outer() -> None:
        await job(str(tmp_path), "one")
        await jobs.below(str(tmp_path), "sub")
        await jobs.one_job(str(tmp_path), "task")
        await job(str(tmp_path), "two")

    await outer()
    assert runs(tmp_path) == ["one", "sub", "task", "two", "two"]


async def test_a_failed_flow_that_is_started_again_runs_only_what_failed(tmp_path: Path) -> None:
    (tmp_path / "fail-two").touch()

    @flow
    async def outer() -> list[int]:
        first = await job(str(tmp_path), "one")
        sub = await jobs.below(str(tmp_path), "sub")
        again = await jobs.below(str(tmp_path), "sub")
        assert sub != again
        return [first.attempt, (await job(str(tmp_path), "two")).attempt]

    with pytest.raises(JobFailed, match="label two was told to fail"):
        await outer()
    assert await outer() == [1, 2]
    assert runs(tmp_path) == ["one", "sub", "sub", "two", "two"]


async def test_a_completed_flow_that_is_started_again_is_a_new_experiment(tmp_path: Path) -> None:
    @flow
    async def outer() -> str:
        return (await job(str(tmp_path), "one")).folder

    folders = {await outer(), await outer(), await outer()}
    assert len(folders) == 3
    assert runs(tmp_path) == ["one"] * 3
    assert len(list((tmp_path / ".hpc-prefect").iterdir())) == 3


async def test_other_parameters_are_another_experiment(tmp_path: Path) -> None:
    @flow
    async def outer(shots: int) -> None:
        await job(str(tmp_path), "one")
        await job(str(tmp_path), "two")

    (tmp_path / "fail-two").touch()
    with pytest.raises(JobFailed):
        await outer(10)
    await outer(20)
    assert runs(tmp_path) == ["one", "two", "one", "two"]


async def test_scopes_tell_identical_calls_apart_whatever_their_order(tmp_path: Path) -> None:
    (tmp_path / "fail-x").touch()

    @flow
    async def outer(order: list[int]) -> list[str]:
        folders = {}
        with campaign("walkers"):
            for walker in order:
                with scope(f"walker-{walker}"):
                    folders[walker] = (await job(str(tmp_path), "x")).folder
        return [folders[walker] for walker in sorted(folders)]

    with pytest.raises(JobFailed):
        await outer([0, 1, 2])
    forth = await outer([2, 0, 1])
    assert len(set(forth)) == 3
    assert forth[0].endswith("-2")  # walker 0 failed in the first run
    assert runs(tmp_path) == ["x"] * 4


async def test_one_scope_name_opened_twice_is_two_scopes(tmp_path: Path) -> None:
    @flow
    async def outer() -> set[str]:
        folders = set()
        for _ in range(2):
            with scope("again"):
                folders.add((await job(str(tmp_path), "x")).folder)
        return folders

    assert len(await outer()) == 2


async def test_fresh_takes_nothing_over(tmp_path: Path) -> None:
    (tmp_path / "fail-two").touch()

    @flow
    async def outer(fresh: bool) -> None:
        with campaign("mine", fresh=fresh):
            await job(str(tmp_path), "one")
            await job(str(tmp_path), "two")

    with pytest.raises(JobFailed):
        await outer(False)
    await outer(True)
    assert runs(tmp_path) == ["one", "two"] * 2


async def test_a_changed_input_file_is_another_job(tmp_path: Path) -> None:
    (tmp_path / "fail-two").touch()

    @flow
    async def outer() -> None:
        await job(str(tmp_path), "one", inputs=["in.txt"])
        await job(str(tmp_path), "two")

    (tmp_path / "in.txt").write_text("1")
    with pytest.raises(JobFailed):
        await outer()
    (tmp_path / "in.txt").write_text("2")
    await outer()
    assert runs(tmp_path) == ["one", "two", "one", "two"]


async def test_job_key_stands_for_the_job(tmp_path: Path) -> None:
    (tmp_path / "fail-two").touch()

    @flow
    async def outer(salt: str) -> None:
        with campaign("keyed"):
            await job(str(tmp_path), "one", job_key="k", user_args=[COUNT, "sh", f"one{salt}"])
            await job(str(tmp_path), "two")

    with pytest.raises(JobFailed):
        await outer("-1")
    await outer("-2")
    assert runs(tmp_path) == ["one-1", "two", "two"]


def test_a_killed_loop_of_identical_jobs_goes_on_at_its_iteration(tmp_path: Path) -> None:
    with process("loop", str(tmp_path), "5") as first:
        until(lambda: runs(tmp_path) == ["same", "same", "same", "wait"])
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    with process("loop", str(tmp_path), "5") as second:
        until(lambda: list(tmp_path.glob(".hpc-prefect/*/*/*/claim-2")))  # it took the job over
        (tmp_path / "go").touch()
        ended(second)
    assert Counter(runs(tmp_path)) == {"same": 5, "wait": 1}
    assert (tmp_path / "ended").read_text() == "wait\n"


def test_a_job_that_ended_while_nobody_watched_is_collected(tmp_path: Path) -> None:
    with process("alone", str(tmp_path)) as first:
        until(lambda: runs(tmp_path))
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    (tmp_path / "go").touch()
    until((tmp_path / "ended").exists)
    with process("alone", str(tmp_path)) as second:
        assert "attached to" in ended(second)
    assert runs(tmp_path) == ["wait"]


def test_a_plain_script_is_continued_too(tmp_path: Path) -> None:
    with process("script", str(tmp_path)) as first:
        until(lambda: runs(tmp_path))
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    (tmp_path / "go").touch()
    with process("script", str(tmp_path)) as second:
        ended(second)
    assert runs(tmp_path) == ["wait"]
    with process("script", str(tmp_path)) as third:  # the second came to its end: a new experiment
        ended(third)
    assert runs(tmp_path) == ["wait", "wait"]


def test_two_living_runs_of_one_experiment_do_not_share_a_job(tmp_path: Path) -> None:
    with process("alone", str(tmp_path)) as first:
        until(lambda: runs(tmp_path))
        with process("alone", str(tmp_path)) as second:
            said = ended(second, code=1)
        assert JobHeld.__name__ in said
        assert f"pid {first.pid} on" in said
        assert "with hpc_prefect.campaign('replica-2')" in said
        (tmp_path / "go").touch()
        ended(first)
    assert runs(tmp_path) == ["wait"]
