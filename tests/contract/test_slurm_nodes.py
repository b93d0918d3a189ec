"""A node of a real Slurm fails under an array, and under a held allocation.

Only what ran on it is told as that and runs again; what ran elsewhere is not touched. Of an
allocation all of it ends, as Slurm ends a job whose node is gone.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from hpc_prefect.executor.allocation import AllocationTerms, HeldAllocation
from hpc_prefect.executor.arrays.request import ArrayRequest
from hpc_prefect.executor.arrays.run import ArrayRun
from hpc_prefect.executor.service import Executor
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.result import JobResult
from hpc_prefect.job.retry import RetryPolicy
from hpc_prefect.transports.local import LocalTransport

from ..engines import SlurmCluster
from ..executor.rig import until
from .places import Slurm
from .test_allocations import Nodes
from .test_array_runs import ArrayDesk

#: Notes its start and its node; waits while a file `hold` is there.
PROGRAM = 'echo "$1 $SLURMD_NODENAME" >> runs; while [ -e hold ]; do sleep 0.1; done'
#: The node that other tests leave alone, but for those that make it fail too.
FAILING = "n4"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture
def place(slurm: SlurmCluster) -> Iterator[Slurm]:
    place = Slurm.of(slurm, "slurm", accounting=True)
    with place.failing_node():
        yield place


@pytest.fixture
async def desk(place: Slurm, tmp_path: Path) -> AsyncIterator[ArrayDesk]:
    """Arrays on two nodes, of which one will fail."""
    before = dict(os.environ)
    os.environ.update(place.environ)
    desk = ArrayDesk(place, tmp_path)
    options = {**desk.site.options, "directives": ["--exclude=n1,n2"]}
    desk.site = dataclasses.replace(desk.site, options=options)
    yield desk
    os.environ.clear()
    os.environ.update(before)


def array(desk: ArrayDesk, labels: list[str], **changes: Any) -> ArrayRequest:
    request = desk.request([(label, 0) for label in labels], **changes)
    members = tuple(
        dataclasses.replace(each, arguments=("-c", PROGRAM, "sh", each.key))
        for each in request.members
    )
    return dataclasses.replace(request, members=members)


def starts(folder: Path) -> list[tuple[str, str]]:
    """Of each start of a program: its label and its node."""
    path = folder / "runs"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(label, node) for label, node in map(str.split, lines)]


def on(folder: Path, node: str) -> set[str]:
    return {label for label, where in starts(folder) if where == node}


def cores(place: Slurm) -> int:
    """Of the node that will fail."""
    return int(place.run("sinfo", "--noheader", f"--nodes={FAILING}", "--format=%c").split()[0])


async def failed_under(
    desk: ArrayDesk, place: Slurm, request: ArrayRequest
) -> tuple[list[JobResult], set[str], set[str]]:
    """The results of an array one of whose nodes fails; what had begun there, and elsewhere."""
    desk.hold()
    task = asyncio.get_running_loop().create_task(desk.run(request).carry_out())
    await until(lambda: on(desk.folder, FAILING) or task.done(), "a start on the failing node")
    await until(lambda: on(desk.folder, "n3") or task.done(), "a start on the other one")
    assert not task.done(), task
    # Until nothing begins any more.
    await until(lambda: len(starts(desk.folder)) >= min(len(request.members), cores(place) + 1))
    elsewhere = on(desk.folder, "n3")  # later a second attempt may run there
    await asyncio.to_thread(place.fail_node, "")
    there = on(desk.folder, FAILING)
    desk.go_on()
    return list(await task), there, elsewhere


async def test_members_on_a_node_that_fails_are_told_so_and_no_others(
    desk: ArrayDesk, place: Slurm
) -> None:
    labels = [f"m{n:02}" for n in range(cores(place) + 2)]
    results, there, elsewhere = await failed_under(desk, place, array(desk, labels))
    told = {each.key: each.verdict.reason for each in results}
    failed = {key for key, reason in told.items() if reason is Reason.NODE_FAILURE}
    begun = Counter(label for label, _ in starts(desk.folder))
    assert failed
    # One that was about to begin when the node failed never did.
    assert failed & set(begun) <= there
    assert failed & there
    # A member may have begun there after the node was given back.
    assert all(told[key] is Reason.SUCCEEDED for key in set(labels) - failed)
    assert elsewhere <= set(labels) - failed
    assert set(labels) - failed <= set(begun)
    assert set(begun.values()) == {1}


@pytest.mark.parametrize("per_element", [1, 3], ids=["a member an element", "three in an element"])
async def test_what_a_failed_node_took_runs_again_where_the_policy_says_so(
    desk: ArrayDesk, place: Slurm, per_element: int
) -> None:
    labels = [f"m{n:02}" for n in range(per_element * (cores(place) + 2))]
    request = array(desk, labels, per_element=per_element, retries=1, retry=RetryPolicy())
    results, there, elsewhere = await failed_under(desk, place, request)
    assert {each.verdict.reason for each in results} == {Reason.SUCCEEDED}
    often = Counter(label for label, _ in starts(desk.folder))
    assert set(often) == set(labels)
    again = {label for label, times in often.items() if times > 1}
    assert again
    assert again <= there
    assert max(often.values()) == 2
    assert {each.key for each in results if each.attempt == 2} >= again
    assert all(each.attempt == 1 for each in results if each.key in elsewhere)


async def test_an_allocation_whose_node_fails_is_followed_by_the_next_one(
    place: Slurm, tmp_path: Path
) -> None:
    before = dict(os.environ)
    os.environ.update(place.environ)
    nodes = Nodes(place, tmp_path)
    shape = {"num_nodes": 2, "ranks_per_node": 2, "walltime": 600}
    spec = nodes.spec("allocation", "", launcher="{command}", resources=shape)
    options = {**spec.site.options, "directives": ["--exclude=n1,n2"]}
    spec = dataclasses.replace(spec, site=dataclasses.replace(spec.site, options=options))
    terms = AllocationTerms(idle_timeout=300, orphan_timeout=300, renew=True)
    executor = Executor()
    held = HeldAllocation(nodes.request(spec), terms, executor, LocalTransport())
    own = nodes.spec("job", "", resources={"launch": "single", "walltime": 100})
    desk = ArrayDesk(place, tmp_path)
    request = array(desk, ["a", "b", "c", "d"], retries=1, retry=RetryPolicy(), placing=held)
    request = dataclasses.replace(
        request, spec=dataclasses.replace(own, executable=request.spec.executable, arguments=())
    )

    async def on_loop(work: Any) -> Any:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, executor.loop))

    desk.hold()
    try:
        await on_loop(held.open())
        running = asyncio.wrap_future(executor.start(request, ArrayRun).result)
        await until(lambda: len(starts(tmp_path)) == 4 or running.done(), "four that run")
        assert not running.done(), running
        assert len(on(tmp_path, FAILING)) == 2  # the launcher puts them on their nodes
        await asyncio.to_thread(place.fail_node, "")
        await until(lambda: len(starts(tmp_path)) > 4 or running.done(), "one that runs again")
        desk.go_on()
        results = await running
        assert [each.verdict.reason for each in results] == [Reason.SUCCEEDED] * 4
        begun = Counter(label for label, _ in starts(tmp_path))
        again = {label for label, times in begun.items() if times == 2}
        # Slurm ends what is on the other node. On the one that it takes for lost a program goes on
        # here, and may succeed.
        assert again
        assert set(begun.values()) <= {1, 2}
        # One that was handed to the first allocation in its last moment never began there.
        assert all(each.attempt >= 2 for each in results if each.key in again), results
        assert len({each.job_id.partition(".")[0] for each in results if each.key in again}) == 1
    finally:
        await on_loop(held.close(now=True))
        os.environ.clear()
        os.environ.update(before)
