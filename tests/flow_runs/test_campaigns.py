"""Which experiment a run continues: names, parameters, completion, take-over."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import get_client

from hpc_prefect import campaign, resume, scope
from hpc_prefect.errors import CannotResume, ConfigurationError, InvalidJob, JobFailed, LedgerError
from hpc_prefect.flow_runs import campaigns, scopes
from hpc_prefect.flow_runs import run_labels as traces
from hpc_prefect.flow_runs.campaigns.experiments import experiments
from hpc_prefect.flow_runs.campaigns.opening import is_over
from hpc_prefect.operations import list_jobs

from ..flows.jobs import job, runs
from ..flows.seen import PROGRAMS, ended, flow_run, logs, run_of, until

pytestmark = pytest.mark.usefixtures("blocks")

FILE = PROGRAMS / "experiments.py"


@contextmanager
def started(which: str, work_dir: Path, seed: str = "0") -> Iterator[subprocess.Popen[str]]:
    """A flow of `experiments.py`, until its job runs; killed at the end."""
    process = subprocess.Popen(
        [sys.executable, str(FILE), which, str(work_dir)],
        text=True, stdout=-1, stderr=subprocess.STDOUT, env=os.environ | {"PYTHONHASHSEED": seed},
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def folders(work_dir: Path) -> list[Path]:
    return sorted(each.parent for each in work_dir.glob(".hpc-prefect/**/campaign.json"))


# --- names and parameters


@pytest.mark.parametrize(
    "names", [("温度", "圧力"), ("x=-1", "x=1"), ("a" * 40 + "b", "a" * 40 + "c")]
)
async def test_campaigns_whose_names_read_alike_are_two(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    @flow
    async def outer(work_dir: str) -> list[str]:
        found = []
        for name in names:
            with campaign(name):
                found.append((await job(work_dir, "x")).folder)
        return found

    assert len(set(await outer(str(tmp_path)))) == 2
    assert runs(tmp_path) == ["x", "x"]
    for name in names:
        (found,) = list_jobs(tmp_path, campaign=name)
        assert found.campaign_name == name


async def test_one_key_in_one_named_campaign_of_two_folders_is_two_jobs_with_two_tags(
    tmp_path: Path,
) -> None:
    @flow
    async def outer() -> set[str]:
        tags = set()
        for name in ("a", "b"):
            with campaign("mine"):
                tags.add((await job(str(tmp_path / name), "x", job_key="k")).tag)
        return tags

    assert len(await outer()) == 2


def test_a_set_as_a_parameter_is_one_experiment_in_processes_of_other_hash_seeds(
    tmp_path: Path,
) -> None:
    with started("with_sets", tmp_path, "1"):
        until(lambda: runs(tmp_path))
    with started("with_sets", tmp_path, "2") as second:
        until(lambda: list(tmp_path.glob(".hpc-prefect/**/claim-2")))
        (tmp_path / "go").touch()
        ended(second)
    assert runs(tmp_path) == ["wait"]
    assert len(folders(tmp_path)) == 1


def test_a_set_as_a_parameter_is_the_same_after_its_way_through_prefect(tmp_path: Path) -> None:
    with started("with_sets", tmp_path, "1"):
        until(lambda: runs(tmp_path))
        run = run_of(tmp_path)
    (tmp_path / "go").touch()
    resume(run)
    assert runs(tmp_path) == ["wait"]
    assert len(folders(tmp_path)) == 1


@pytest.mark.parametrize("opens", [campaign, scope])
@pytest.mark.parametrize("name", ["", 7, b"seven", None])
async def test_what_is_no_name_is_refused_before_a_call_is_made(
    tmp_path: Path, opens: Any, name: Any
) -> None:
    @flow
    async def outer(work_dir: str) -> None:
        with opens(name):
            await job(work_dir, "x")

    with pytest.raises(ConfigurationError, match=f"the name of a {opens.__name__} .* text"):
        await outer(str(tmp_path))
    assert runs(tmp_path) == []


@pytest.mark.parametrize("name", [os.fsdecode(b"\xff"), "two\nlines", 'json:"x"'])
async def test_a_runs_trace_holds_names_and_paths_that_are_no_text(
    tmp_path: Path, name: str
) -> None:
    """Without it neither `resume` nor the hook that cancels jobs would find the run's jobs."""
    work_dir = tmp_path / name

    @flow
    async def outer() -> None:
        await job(str(work_dir), "x")

    with campaign(name):
        state = await outer(return_state=True)  # type: ignore[call-overload]
    assert state.is_completed()
    trace = traces.read_trace(flow_run(str(state.state_details.flow_run_id)))
    assert trace.name == name
    assert list(map(Path, trace.folders)) == folders(work_dir)


# --- when an experiment is complete


async def test_a_failure_that_could_not_be_noted_leaves_its_experiment_to_be_continued(
    tmp_path: Path,
) -> None:
    """The disk was full, say, and was not when the flow ended."""

    @flow
    async def sweep(work_dir: str) -> None:
        await job(work_dir, "a")
        in_the_way = folders(tmp_path)[0] / "failed"
        if full:
            in_the_way.touch()
        await asyncio.gather(job(work_dir, "b"), return_exceptions=True)
        if full:
            in_the_way.unlink()

    (tmp_path / "fail-b").touch()
    full = True
    await sweep(str(tmp_path))
    full = False
    await sweep(str(tmp_path))
    assert Counter(runs(tmp_path)) == {"a": 1, "b": 2}


async def test_a_sweep_whose_failures_were_caught_is_continued_by_the_next_start(
    tmp_path: Path,
) -> None:
    @flow
    async def sweep(work_dir: str) -> list[object]:
        points = (job(work_dir, label) for label in "abc")
        return await asyncio.gather(*points, return_exceptions=True)

    (tmp_path / "fail-b").touch()
    assert isinstance((await sweep(str(tmp_path)))[1], JobFailed)
    await sweep(str(tmp_path))
    assert Counter(runs(tmp_path)) == {"a": 1, "b": 2, "c": 1}
    state = await sweep(str(tmp_path), return_state=True)  # type: ignore[call-overload]
    assert Counter(runs(tmp_path)) == {"a": 2, "b": 3, "c": 2}
    run = str(state.state_details.flow_run_id)
    (told,) = until(lambda: logs(run, "sweep begins anew (number 2), because number 1 is complete"))
    assert "with hpc_prefect.campaign('sweep')" in told.message


async def test_a_call_that_was_refused_and_caught_leaves_its_experiment_to_be_continued(
    tmp_path: Path,
) -> None:
    @flow
    async def sweep(work_dir: str) -> list[object]:
        points = [job(work_dir, "a"), job(work_dir, "b", inputs=["missing"])]
        return await asyncio.gather(*points, return_exceptions=True)

    assert isinstance((await sweep(str(tmp_path)))[1], InvalidJob)
    (tmp_path / "missing").touch()
    await sweep(str(tmp_path))
    assert Counter(runs(tmp_path)) == {"a": 1, "b": 1}


async def test_a_named_sweep_that_is_finished_and_grows_runs_what_is_new(tmp_path: Path) -> None:
    @flow
    async def sweep(work_dir: str, points: int) -> None:
        with campaign("mine"):
            await asyncio.gather(*(job(work_dir, f"p{k}") for k in range(points)))

    for points in (3, 3, 5):
        await sweep(str(tmp_path), points)
    assert Counter(runs(tmp_path)) == dict.fromkeys(("p0", "p1", "p2", "p3", "p4"), 1)


# --- taken over


def test_a_run_whose_work_another_one_took_over_is_told_so_and_not_resumed(tmp_path: Path) -> None:
    with started("alone", tmp_path):
        until(lambda: runs(tmp_path))
        first = run_of(tmp_path)
    with started("alone", tmp_path) as process:
        until(lambda: list(tmp_path.glob(".hpc-prefect/**/claim-2")))
        (tmp_path / "go").touch()
        ended(process)
    state = until(lambda: _final(first))
    assert (state.name, "was taken over by flow run" in str(state.message)) == ("Crashed", True)
    with pytest.raises(CannotResume, match="was taken over and completed by flow run"):
        resume(first)
    with started("alone", tmp_path) as process:  # a third one, which begins anew
        until(lambda: len(folders(tmp_path)) == 2)
        with pytest.raises(CannotResume, match="was taken over and completed by flow run"):
            resume(first)
    assert runs(tmp_path)[0] == "wait"


def _final(run: str):  # type: ignore[no-untyped-def]
    state = flow_run(run).state
    return state if state is not None and state.is_final() else None


# --- folders of the version before


@pytest.mark.parametrize(("name", "old"), [("mine", "mine"), ("", "outer-0699b158")])
async def test_a_folder_of_the_version_before_is_refused_until_it_is_moved_away(
    tmp_path: Path, name: str, old: str
) -> None:
    @flow
    async def outer(work_dir: str) -> None:
        with campaign(name) if name else nullcontext():
            await job(work_dir, "x")

    folder = tmp_path / ".hpc-prefect" / old
    folder.mkdir(mode=0o700, parents=True)
    holder = '{"flow_run": "", "host": "elsewhere", "process": "boot 1 1"}\n'
    (folder / "claim-1").write_text(holder)
    with pytest.raises(
        LedgerError, match=r"was made by an earlier version .* move the folder away"
    ):
        await outer(str(tmp_path))
    assert runs(tmp_path) == []
    (folder / "completed").touch()
    await outer(str(tmp_path))
    assert runs(tmp_path) == ["x"]


# --- what a process keeps


def test_nothing_is_kept_of_runs_that_have_ended(tmp_path: Path) -> None:
    @flow
    def outer(k: int) -> None:
        with scope(f"scope-{k}"):
            campaigns.campaign_id(tmp_path)

    kept = (experiments, scopes._entries, traces._left)
    before = [len(each) for each in kept]  # other tests' runs, whose errors are still held
    for k in range(12):
        outer(k)

    def grown() -> int:
        gc.collect()
        outer(13)
        return max(len(each) - was for each, was in zip(kept, before, strict=True))

    until(lambda: grown() <= 2)  # threads of Prefect's may hold a run a little longer


async def test_the_second_of_two_runs_of_one_process_takes_jobs_over_without_asking_prefect(
    tmp_path: Path,
) -> None:
    @flow
    async def outer(work_dir: str) -> None:
        await job(work_dir, "a")
        await job(work_dir, "b")

    (tmp_path / "fail-b").touch()
    first = await outer(str(tmp_path), return_state=True)  # type: ignore[call-overload]
    run = UUID(str(first.state_details.flow_run_id))

    @flow(name="outer")
    async def again(work_dir: str) -> bool:
        campaigns.campaign_id(work_dir)
        with get_client(sync_client=True) as client:
            client.delete_flow_run(run)  # Prefect does not know it any more: it cannot be asked
        over = is_over(str(run))
        await job(work_dir, "a")
        await job(work_dir, "b")
        return over

    assert await again(str(tmp_path))
    assert runs(tmp_path) == ["a", "b", "b"]
