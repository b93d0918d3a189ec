"""Arrays from the request to the members' results, at every scheduler that has them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from hpc_prefect.blocks import HPCProfileBlock
from hpc_prefect.executor.arrays.request import ArrayRequest
from hpc_prefect.executor.arrays.run import ArrayRun
from hpc_prefect.executor.connection import Connection
from hpc_prefect.job.dialogue import Command, Reply
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.members import MemberSpec
from hpc_prefect.job.result import JobResult
from hpc_prefect.job.spec import Executable, JobSpec, Resources, Site
from hpc_prefect.ledger.claim import this_process
from hpc_prefect.schedulers import scheduler_for
from hpc_prefect.transports.local import LocalTransport

from ..engines import SlurmCluster
from ..executor.rig import living_process, until
from .places import Local, Place, Slurm

#: Notes its start; waits while a file `hold` is there; ends as its second argument says.
PROGRAM = """
echo "$1" >> runs; echo "out $1"; echo "err $1" >&2
while [ -e hold ]; do sleep 0.1; done
exit "$2"
"""


class Counted(LocalTransport):
    """Counts the scheduler's commands."""

    def __init__(self) -> None:
        self.commands: list[Command] = []

    def run(self, command: Command) -> Reply:
        self.commands.append(command)
        return super().run(command)


class ArrayDesk:
    """Arrays of shell programs at a place."""

    def __init__(self, place: Place, folder: Path) -> None:
        self.folder = folder
        fields = place.with_variant("")
        name = fields["scheduler"]
        options = getattr(HPCProfileBlock(**fields), name).model_dump(mode="json")
        self.site = Site(scheduler=name, queue=fields.get("queue_cpu", ""), options=options)
        self.transport = Counted()
        self._pool = ThreadPoolExecutor(8)

    def request(self, members: Sequence[tuple[str, int]], **changes: Any) -> ArrayRequest:
        """Members by their labels, each with the code that its program ends with."""
        spec = JobSpec(
            name="scan",
            command_name="sh",
            executable=Executable(path="/bin/sh"),
            site=self.site,
            resources=Resources(walltime=600),
            work_dir=str(self.folder),
        )
        # The key is in its jobs' names, and places are shared.
        given: dict[str, Any] = {"claimant": this_process(), "key": "k" + os.urandom(4).hex()}
        given |= {"poll_interval": 2.0, **changes}
        return ArrayRequest(
            spec=spec,
            base=f"{self.folder}/.hpc-prefect/campaign/ab/k",
            members=tuple(
                MemberSpec(
                    key=label,
                    name=label,
                    arguments=("-c", PROGRAM, "sh", label, str(code)),
                    work_dir=str(self.folder),
                )
                for label, code in members
            ),
            **given,
        )

    def run(self, request: ArrayRequest) -> ArrayRun:
        options = self.site.options
        scheduler = scheduler_for(self.site.scheduler)
        return ArrayRun(request, Connection(scheduler, self.transport, options, self._pool))

    async def results(self, request: ArrayRequest) -> list[JobResult]:
        return list(await self.run(request).carry_out())

    def runs(self) -> list[str]:
        file = self.folder / "runs"
        return sorted(file.read_text().split()) if file.exists() else []

    def hold(self) -> None:
        (self.folder / "hold").touch()

    def go_on(self) -> None:
        (self.folder / "hold").unlink()


class ArrayRuns:
    """What holds at every place; `place` is a fixture of the class."""

    @pytest.fixture
    async def desk(self, place: Place, tmp_path: Path) -> AsyncIterator[ArrayDesk]:
        before = dict(os.environ)
        os.environ.update(place.environ)
        yield ArrayDesk(place, tmp_path)
        os.environ.clear()
        os.environ.update(before)

    async def test_each_member_runs_once_in_one_submission_and_few_questions(
        self, desk: ArrayDesk
    ) -> None:
        members = [(f"m{n:02}", 3 if n == 7 else 0) for n in range(30)]
        began = time.monotonic()
        results = await desk.results(desk.request(members))
        polls = (time.monotonic() - began) / 2.0  # the queue may be full of others' jobs

        assert desk.runs() == [label for label, _ in members]
        assert [each.name for each in results if not each.succeeded] == ["m07"]
        assert results[7].verdict.reason is Reason.PROGRAM_FAILED
        assert results[7].exit_code == 3
        assert [Path(each.stdout_path).read_text() for each in results] == [
            f"out {label}\n" for label, _ in members
        ]
        assert len({each.job_id for each in results}) == 30
        assert len(list(desk.folder.glob(".hpc-prefect/*/ab/k*"))) == 1
        assert len(desk.transport.commands) <= 20 + 3 * polls

    async def test_several_members_share_an_element(self, desk: ArrayDesk) -> None:
        members = [(f"m{n:02}", 3 if n == 4 else 0) for n in range(10)]
        results = await desk.results(desk.request(members, per_element=4))
        assert desk.runs() == [label for label, _ in members]
        assert len({each.job_id for each in results}) == 3
        assert [each.state for each in results].count("succeeded") == 9

    async def test_what_a_dead_process_left_is_taken_up(self, desk: ArrayDesk) -> None:
        desk.hold()
        members = [(f"m{n}", 0) for n in range(8)]
        with living_process() as claimant:
            left = desk.request(members, claimant=claimant, at_once=2)
            task = asyncio.get_running_loop().create_task(desk.run(left).carry_out())
            await until(lambda: len(desk.runs()) == 2 or task.done(), "two that run")
            assert not task.done(), task
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        desk.go_on()
        results = await desk.results(desk.request([*members, ("new", 0)], key=left.key))
        assert [each.state for each in results] == ["succeeded"] * 9
        assert desk.runs() == sorted(label for label, _ in [*members, ("new", 0)])

    async def test_what_is_cancelled_has_not_run_and_is_gone(self, desk: ArrayDesk) -> None:
        desk.hold()
        run = desk.run(desk.request([(f"m{n}", 0) for n in range(12)], at_once=2))
        task = asyncio.get_running_loop().create_task(run.carry_out())
        await until(lambda: len(desk.runs()) == 2, "two that run")
        run.cancel("user")
        results = await task
        assert {each.verdict.reason for each in results} == {Reason.CANCELLED}
        assert len(desk.runs()) == 2
        assert not any("did not confirm" in each.verdict.summary for each in results)

    async def test_no_more_run_at_once_than_was_said(self, desk: ArrayDesk) -> None:
        desk.hold()
        run = desk.run(desk.request([(f"m{n}", 0) for n in range(6)], at_once=2))
        task = asyncio.get_running_loop().create_task(run.carry_out())
        await until(lambda: len(desk.runs()) == 2, "two that run")
        await asyncio.sleep(1.0)  # the others have had their chance
        assert len(desk.runs()) == 2
        desk.go_on()
        assert [each.state for each in await task] == ["succeeded"] * 6


class TestSlurm(ArrayRuns):
    @pytest.fixture
    def place(self, slurm: SlurmCluster) -> Place:
        return Slurm.of(slurm, "slurm", accounting=True)


class TestSlurmWithoutAccounting(ArrayRuns):
    @pytest.fixture
    def place(self, slurm_without_accounting: SlurmCluster) -> Place:
        return Slurm.of(slurm_without_accounting, "slurm-light", accounting=False)


class TestLocal(ArrayRuns):
    @pytest.fixture
    def place(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
        place = Local.at(tmp_path_factory.mktemp("local"))
        yield place
        place.close()
