"""Calls with many work_dirs are one experiment, whichever of them comes first."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest
from prefect import flow

from hpc_prefect import JobFailed, JobResult, campaign, resume
from hpc_prefect.errors import CannotResume, JobHeld
from hpc_prefect.flow_runs.run_labels import campaign_folders, read_trace
from hpc_prefect.ledger.campaign_parts import folders_of, home_of
from hpc_prefect.ledger.claim import Claimant
from hpc_prefect.local_batch import process
from hpc_prefect.operations.completion import is_marked
from hpc_prefect.transports.host import host
from hpc_prefect.transports.local import LocalTransport

from .. import warm
from ..flows.jobs import in_two, job, job_sync, runs
from ..flows.seen import PROGRAMS, flow_run, logs, until

pytestmark = pytest.mark.usefixtures("blocks")

FILE = PROGRAMS / "jobs.py"
HERE = LocalTransport()


def made(tmp_path: Path, names: str) -> list[str]:
    for name in names:
        (tmp_path / name).mkdir()
    return [str(tmp_path / name) for name in names]


def counted(tmp_path: Path) -> Counter[str]:
    return Counter(name for below in tmp_path.iterdir() for name in runs(below))


def folders(tmp_path: Path, instance: int = 1) -> list[str]:
    suffix = f".{instance}" if instance > 1 else ""
    found = [str(path.parent) for path in tmp_path.glob("*/.hpc-prefect/*/campaign.json")]
    return sorted(path for path in found if Path(path).suffix == suffix)


def are_one(found: list[str]) -> None:
    assert {home_of(HERE, folder) for folder in found} == {found[0]}
    assert sorted(folders_of(HERE, found[-1])) == found
    instances = [json.loads(Path(each, "campaign.json").read_text())["instance"] for each in found]
    assert len(set(instances)) == 1


async def test_a_failure_in_one_work_dir_leaves_all_of_the_experiment_to_be_continued(
    tmp_path: Path,
) -> None:
    dirs = made(tmp_path, "abc")

    @flow
    async def sweep(where: str) -> list[object]:
        points = (job(each, Path(each).name) for each in random.sample(dirs, len(dirs)))
        return await asyncio.gather(*points, return_exceptions=True)

    (tmp_path / "b" / "fail-b").touch()
    assert [type(each) for each in await sweep(str(tmp_path))].count(JobFailed) == 1
    assert all(isinstance(each, JobResult) for each in await sweep(str(tmp_path)))
    assert counted(tmp_path) == {"a": 1, "b": 2, "c": 1}
    are_one(folders(tmp_path))

    state = await sweep(str(tmp_path), return_state=True)  # type: ignore[call-overload]
    assert counted(tmp_path) == {"a": 2, "b": 3, "c": 2}
    are_one(folders(tmp_path, 2))
    run = str(state.state_details.flow_run_id)
    until(lambda: logs(run, "sweep begins anew (number 2)"))
    assert len(logs(run, "sweep begins anew (number 2)")) == 1
    until(lambda: read_trace(flow_run(run)).folders)
    assert len(read_trace(flow_run(run)).folders) == 1
    assert sorted(campaign_folders(read_trace(flow_run(run)))) == folders(tmp_path, 2)


def test_threads_that_come_in_any_order_are_one_experiment(tmp_path: Path) -> None:
    dirs = made(tmp_path, "abcdef")

    @flow
    def sweep(where: str) -> None:
        async def all_of_them() -> None:
            await asyncio.gather(*(asyncio.to_thread(job_sync, each, "x") for each in dirs))

        asyncio.run(all_of_them())

    for instance in (1, 2):
        sweep(str(tmp_path))
        are_one(folders(tmp_path, instance))
        assert is_marked(HERE, folders(tmp_path, instance)[-1])


async def test_an_instance_that_was_begun_afresh_is_continued_in_all_of_its_work_dirs(
    tmp_path: Path,
) -> None:
    dirs = made(tmp_path, "ab")

    @flow
    async def experiment(fresh: bool) -> None:
        with campaign(f"afresh-{tmp_path}", fresh=fresh):
            for each in dirs:
                await job(each, Path(each).name)

    await experiment(False)
    (tmp_path / "a" / "fail-a").touch()
    with pytest.raises(JobFailed):
        await experiment(True)
    await experiment(False)
    assert counted(tmp_path) == {"a": 3, "b": 2}
    are_one(folders(tmp_path))
    are_one(folders(tmp_path, 2))


async def test_what_succeeded_does_not_run_again_when_the_home_was_removed(tmp_path: Path) -> None:
    dirs = made(tmp_path, "abc")

    @flow
    async def sweep(where: str) -> None:
        points = (job(each, Path(each).name) for each in dirs)
        await asyncio.gather(*points, return_exceptions=True)

    (tmp_path / "b" / "fail-b").touch()
    await sweep(str(tmp_path))
    shutil.rmtree(tmp_path / "a")
    (tmp_path / "a").mkdir()
    await sweep(str(tmp_path))
    assert counted(tmp_path) == {"a": 1, "b": 2, "c": 1}


async def test_a_work_dir_that_is_removed_meanwhile_comes_not_back(tmp_path: Path) -> None:
    dirs = made(tmp_path, "abc")

    @flow
    async def archiving(count: int) -> None:
        with campaign(f"archived-{tmp_path}"):
            for each in dirs[:count]:
                await job(each, Path(each).name)
                if each != dirs[-1]:
                    shutil.rmtree(each)

    await archiving(3)
    assert [path.name for path in tmp_path.iterdir()] == ["c"]
    for each in dirs[:2]:
        Path(each).mkdir()
    await archiving(3)
    assert counted(tmp_path) == {"c": 1}


async def test_links_to_a_work_dir_are_that_work_dir(tmp_path: Path) -> None:
    made(tmp_path, "ab")
    (tmp_path / "link").symlink_to(tmp_path)

    @flow
    async def sweep(through: str) -> None:
        with campaign(f"linked-{tmp_path}"):
            for name in "ab":
                await job(f"{tmp_path}/{through}/{name}", name, job_key=name)

    await sweep("link")
    await sweep(".")
    assert {name: len(runs(tmp_path / name)) for name in "ab"} == {"a": 1, "b": 1}
    are_one(folders(tmp_path))


async def test_a_copy_beside_its_original_has_jobs_of_its_own(tmp_path: Path) -> None:
    (first,) = made(tmp_path, "a")

    @flow
    async def sweep(order: str) -> None:
        with campaign(f"copied-{tmp_path}"):
            for name in order:
                await job(f"{tmp_path}/{name}", "x", job_key="k")

    await sweep("a")
    shutil.copytree(first, tmp_path / "b", symlinks=True)
    for order in ("ab", "ba"):
        await sweep(order)
    assert runs(tmp_path / "a") == ["x"]


def test_processes_of_a_pool_are_one_experiment_in_all_of_their_work_dirs(tmp_path: Path) -> None:
    made(tmp_path, "abc")
    (tmp_path / "a" / "fail-a").touch()
    for _ in range(2):
        done = warm.run([str(FILE), "in_a_pool", str(tmp_path)], timeout=200)
        assert done.returncode == 0
    assert counted(tmp_path) == {"a": 2, "b": 1, "c": 1}


async def test_a_named_experiment_that_grows_by_a_work_dir_runs_what_is_new(tmp_path: Path) -> None:
    dirs = made(tmp_path, "bca")

    @flow
    async def sweep(count: int) -> None:
        with campaign(f"grows-{tmp_path}"):
            for each in reversed(dirs[:count]):  # the newest first
                await job(each, Path(each).name)

    for count in (1, 2, 3):
        await sweep(count)
        are_one(folders(tmp_path))
        assert is_marked(HERE, folders(tmp_path)[0])
    assert counted(tmp_path) == {"a": 1, "b": 1, "c": 1}


def started(tmp_path: Path, order: str) -> tuple[warm.Process, str]:
    """A flow in two work_dirs whose job in the second one runs; its flow run."""
    process = warm.Process([str(FILE), "in_two", str(tmp_path), *order])
    second = tmp_path / order[1]
    until(lambda: runs(second))
    (claim,) = second.glob(".hpc-prefect/*/claim-1")
    return process, str(json.loads(claim.read_text())["flow_run"])


def killed(tmp_path: Path, order: str) -> str:
    process, run = started(tmp_path, order)
    process.kill()
    process.wait()
    return run


def test_a_killed_run_is_resumed_in_all_of_its_work_dirs(tmp_path: Path) -> None:
    made(tmp_path, "12")
    run = killed(tmp_path, "21")
    (tmp_path / "1" / "go").touch()
    resume(run)
    assert counted(tmp_path) == {"first": 1, "second": 1}
    are_one(folders(tmp_path))
    assert is_marked(HERE, folders(tmp_path)[0])


async def test_a_second_run_is_refused_in_whichever_work_dir_it_begins(tmp_path: Path) -> None:
    made(tmp_path, "123")
    process, _ = started(tmp_path, "21")
    try:
        for other in ("12", "21", "31"):  # in 3 nobody has worked yet
            with pytest.raises(JobHeld, match="which still runs"):
                await in_two(str(tmp_path), *map(int, other))
    finally:
        process.kill()
        process.wait()
    assert counted(tmp_path) == {"first": 2, "second": 1}


async def test_a_run_that_was_taken_over_begins_nothing_in_a_further_work_dir(
    tmp_path: Path,
) -> None:
    dirs = made(tmp_path, "ab")
    other = Claimant(flow_run="", host=host().name, process=process.identity(os.getppid()) or "")

    @flow
    async def experiment() -> None:
        await job(dirs[0], "a")
        (home,) = folders(tmp_path)
        Path(home, "claim-2").write_text(json.dumps(other.as_dict()))
        with pytest.raises(JobHeld, match="which still runs"):
            await job(dirs[1], "b")

    await experiment()
    assert counted(tmp_path) == {"a": 1}


def test_a_work_dir_that_is_not_mounted_is_missed_by_a_resume(tmp_path: Path) -> None:
    made(tmp_path, "12")
    run = killed(tmp_path, "21")
    (tmp_path / "1" / "go").touch()
    until((tmp_path / "1" / "ended").exists)
    shutil.move(tmp_path / "1", tmp_path / "elsewhere")
    with pytest.raises(CannotResume, match=f"{tmp_path}/1/.* does not exist"):
        resume(run)
