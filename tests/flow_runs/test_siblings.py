"""Tasks that are alike: which jobs are whose after a retry or a restart."""

from __future__ import annotations

import threading
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from prefect import flow, task

from hpc_prefect import ONCE, campaign, scope
from hpc_prefect.errors import InvalidJob, JobFailed

from ..flows.jobs import job, job_sync, runs

pytestmark = pytest.mark.usefixtures("blocks")


@pytest.mark.parametrize("names", [("緩和", "弛緩"), ("relax", "relax"), ("x=-1", "x=1")])
async def test_a_task_with_a_stored_result_moves_no_job_of_one_that_is_named_alike(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    @task(name=names[0], persist_result=True)
    async def one(work_dir: str) -> None:
        await job(work_dir, "a")

    @task(name=names[1], persist_result=True)
    async def other(work_dir: str) -> None:
        await job(work_dir, "b")
        await job(work_dir, "c")

    @flow(retries=1)
    async def outer(work_dir: str) -> None:
        await one(work_dir)
        await other(work_dir)

    (tmp_path / "fail-c").touch()
    await outer(str(tmp_path))
    assert runs(tmp_path) == ["a", "b", "c", "c"]


def test_threads_that_come_in_another_order_after_a_restart_find_their_own_jobs(
    tmp_path: Path,
) -> None:
    def relaxing(label: str, turn: threading.Event) -> Any:
        @task(name="relax")
        def relax() -> str:
            assert turn.wait(120)
            return job_sync(str(tmp_path), label).folder

        return relax

    def ordered(order: str) -> dict[str, str]:
        turns = {label: threading.Event() for label in "abc"}
        futures = {label: relaxing(label, turns[label]).submit() for label in "abc"}
        found = {}
        for label in order:
            turns[label].set()
            found[label] = futures[label].result()
        return found

    order = "abc"

    @flow
    def outer(work_dir: str) -> dict[str, str]:
        found = ordered(order)
        job_sync(work_dir, "end")
        return found

    (tmp_path / "fail-end").touch()
    with pytest.raises(JobFailed):
        outer(str(tmp_path))
    order = "cab"
    found = outer(str(tmp_path))
    assert runs(tmp_path) == ["a", "b", "c", "end", "end"]
    assert len(set(found.values())) == 3


def test_identical_mapped_tasks_are_as_many_jobs_and_only_the_failed_one_runs_again(
    tmp_path: Path,
) -> None:
    @task(persist_result=True)
    def relax(work_dir: str) -> str:
        return job_sync(work_dir, "x").folder

    @flow
    def outer(work_dir: str) -> list[str]:
        relaxed = relax.map([work_dir] * 3)
        relaxed.wait()  # the end of the flow would end those that still run
        return relaxed.result()

    (tmp_path / "fail-x").touch()
    with pytest.raises(JobFailed):
        outer(str(tmp_path))
    assert len(set(outer(str(tmp_path)))) == 3
    assert runs(tmp_path) == ["x"] * 4


async def test_identical_tasks_that_are_kept_once_keep_their_own_jobs(tmp_path: Path) -> None:
    @task(cache_policy=ONCE)
    async def kept(work_dir: str) -> str:
        await job(work_dir, "x")
        return (await job(work_dir, "y")).folder

    @flow
    async def outer(work_dir: str, fail: Path) -> list[str]:
        first = await kept(work_dir)
        if not fail.exists():
            (Path(work_dir) / "fail-y").touch()
            fail.touch()
        return [first, await kept(work_dir)]

    again = partial(outer, str(tmp_path), tmp_path / "failed")
    with pytest.raises(JobFailed):
        await again()
    first, second = await again()
    assert first != second
    assert second.endswith("-2")
    assert Counter(runs(tmp_path)) == {"x": 2, "y": 3}


async def test_one_scope_opened_in_another_order_is_the_same_scope(tmp_path: Path) -> None:
    order = "ab"

    @flow
    async def outer(work_dir: str) -> None:
        for label in order:
            with scope("same"):
                await job(work_dir, label)
        await job(work_dir, "end")

    (tmp_path / "fail-end").touch()
    with pytest.raises(JobFailed):
        await outer(str(tmp_path))
    order = "ba"
    await outer(str(tmp_path))
    assert runs(tmp_path) == ["a", "b", "end", "end"]


class Opaque:
    """Holds who knows what."""


async def test_a_job_in_a_task_whose_parameter_cannot_be_told_is_refused_before_submission(
    tmp_path: Path,
) -> None:
    @task
    async def relax(work_dir: str, what: object, how: str) -> None:
        if how == "plainly":
            await job(work_dir, "x")
        elif how == "keyed":
            await job(work_dir, "keyed", job_key="mine")
        else:
            with scope("mine"):
                await job(work_dir, "scoped")

    @flow
    async def outer(work_dir: str, how: str) -> None:
        await relax(work_dir, Opaque(), how)

    with pytest.raises(InvalidJob) as caught:
        await outer(str(tmp_path), "plainly")
    assert "task relax, whose parameter 'what' (a Opaque has no digest" in str(caught.value)
    assert "with hpc_prefect.scope('…')" in str(caught.value)
    assert "job_key" in str(caught.value)
    for how in ("keyed", "in a scope"):
        await outer(str(tmp_path), how)
    assert runs(tmp_path) == ["keyed", "scoped"]


async def test_a_flow_whose_parameter_has_no_digest_needs_a_named_campaign(tmp_path: Path) -> None:
    @flow
    async def outer(work_dir: str, what: object) -> None:
        await job(work_dir, "x")

    identity = r"parameter 'what' .* of flow outer has no stable identity"
    with pytest.raises(InvalidJob, match=identity) as told:
        await outer(str(tmp_path), Opaque())
    assert "with hpc_prefect.campaign('…')" in str(told.value)
    assert not (tmp_path / ".hpc-prefect").exists()
    for _ in range(2):
        with campaign("mine"):
            await outer(str(tmp_path), Opaque())
    assert runs(tmp_path) == ["x"]
