"""Held allocations at every place: what agent, dialect and scheduler make of one between them.

Of two nodes, with jobs beside each other on shares of them. A place's launcher in the allocation
is `srun` on the real Slurm; elsewhere, where all nodes are this machine, one that tells its nodes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from hpc_prefect.blocks import HPCProfileBlock
from hpc_prefect.executor.allocation import AllocationTerms, AllocationUse, HeldAllocation
from hpc_prefect.executor.request import JobRequest
from hpc_prefect.executor.service import Executor
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.identity import digest
from hpc_prefect.job.result import JobResult
from hpc_prefect.job.spec import Executable, JobSpec, Resources, Site
from hpc_prefect.ledger.claim import this_process
from hpc_prefect.operations.find import list_jobs
from hpc_prefect.transports.local import LocalTransport

from ..engines import SlurmCluster
from .places import PBS, PJM, Local, Place, Slurm

#: A launcher: tells its nodes, and how often the host file names each, and starts one process.
LAUNCHER = (
    'bash -c \'echo "$0" $(sort "$1" | uniq -c) >> told; shift; exec "$@"\' {hosts} {hostfile}'
    " {command}"
)
PATIENCE_SECONDS = 240  # others' jobs may fill the queue


class Nodes:
    """Two nodes of four cores that are held at a place."""

    def __init__(self, place: Place, folder: Path) -> None:
        self.place = place
        self.folder = folder
        fields = place.with_variant("")
        name = fields["scheduler"]
        options = getattr(HPCProfileBlock(**fields), name).model_dump(mode="json")
        slurm = name == "slurm"
        self.site = Site(
            scheduler=name,
            queue=fields.get("queue_cpu", ""),
            options=options,
            launcher="srun -n {ranks} {command}" if slurm else "launch {command}",
            launcher_in_allocation="" if slurm else LAUNCHER,
        )
        self.executor = Executor()
        shape: dict[str, Any] = {"num_nodes": 2, "ranks_per_node": 4, "walltime": 600}
        spec = self.spec("allocation", "", launcher="{command}", resources=shape)
        self.held = HeldAllocation(
            self.request(spec, f"{digest(str(self.folder))[:8]}-allocation"),
            AllocationTerms(idle_timeout=300, orphan_timeout=300),
            self.executor,
            LocalTransport(),
        )

    def spec(
        self, name: str, program: str, *, launcher: str = "", resources: dict[str, Any]
    ) -> JobSpec:
        site = self.site
        launch = resources.setdefault("launch", "mpi")
        own = launcher or (site.launcher if launch == "mpi" else "")
        return JobSpec(
            name=name,
            command_name="sh",
            executable=Executable(path="/bin/bash"),
            arguments=("-c", program),
            site=Site(
                scheduler=site.scheduler,
                queue=site.queue,
                options=site.options,
                launcher=own,
                launcher_in_allocation=site.launcher_in_allocation,
            ),
            resources=Resources(**{"walltime": 120} | resources),
            work_dir=str(self.folder),
        )

    def request(self, spec: JobSpec, key: str = "", **more: Any) -> JobRequest:
        """The allocation's key marks its jobs' processes: an agent ends all with its mark."""
        key = key or spec.name
        base = f"{self.folder}/.hpc-prefect/campaign/ab/{key}"
        return JobRequest(
            spec=spec,
            base=base,
            key=key,
            claimant=this_process(),
            poll_interval=1.0,
            **more,
        )

    def wait(self, work: Any) -> Any:
        """The result of what belongs to the executor's loop."""
        done = asyncio.run_coroutine_threadsafe(work, self.executor.loop)
        return done.result(PATIENCE_SECONDS)

    def start(self, name: str, program: str, **resources: Any) -> Future[JobResult]:
        spec = self.spec(name, program, resources=resources)
        return self.executor.start(self.request(spec, placing=self.held)).result

    def own_id(self) -> str:
        """Of the allocation, as its scheduler calls it."""
        (job,) = [job for job in list_jobs(self.folder) if job.name == "allocation"]
        return job.job_id

    def until(self, name: str) -> None:
        """Wait for what a program makes."""
        self.come_true((self.folder / name).exists, f"that somebody made {name}")

    def come_true(self, condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            assert time.monotonic() < end, f"{what} did not come true"
            time.sleep(0.05)


class Allocations:
    """What holds at every place; `place` is a fixture of the class."""

    @pytest.fixture
    def nodes(self, place: Place, tmp_path: Path) -> Iterator[Nodes]:
        before = dict(os.environ)
        os.environ.update(place.environ)
        nodes = Nodes(place, tmp_path)
        nodes.wait(nodes.held.open())
        yield nodes
        nodes.wait(nodes.held.close(now=True))
        nodes.come_true(lambda: nodes.own_id() not in place.active(), "that it left the queue")
        os.environ.clear()
        os.environ.update(before)

    @pytest.mark.timeout(600)
    def test_jobs_run_beside_each_other_on_their_shares(self, nodes: Nodes) -> None:
        # Each waits for all: they can end only beside each other.
        meets = "touch here-X; until [ -e here-a -a -e here-b -a -e here-c ]; do sleep 0.1; done"
        jobs = [
            nodes.start("a", meets.replace("X", "a"), ranks_per_node=2),
            nodes.start("b", meets.replace("X", "b"), num_nodes=2, ranks_per_node=1),
            nodes.start("c", meets.replace("X", "c"), launch="single"),
        ]
        assert [job.result(PATIENCE_SECONDS).state for job in jobs] == ["succeeded"] * 3
        use: AllocationUse = nodes.wait(nodes.held.close())
        assert 0 < use.used <= use.held

    @pytest.mark.timeout(600)
    def test_ends_are_told_as_they_are_alone(self, nodes: Nodes) -> None:
        code = nodes.start("code", "exit 3", launch="single")
        walltime = nodes.start("walltime", "exec sleep 600", launch="single", walltime=2)
        assert code.result(PATIENCE_SECONDS).verdict.exit_code == 3
        assert walltime.result(PATIENCE_SECONDS).verdict.reason is Reason.WALLTIME

    @pytest.mark.timeout(600)
    def test_cancelled_in_the_middle_of_a_job_the_job_says_so(self, nodes: Nodes) -> None:
        running = nodes.start("runs", "touch runs; exec sleep 600", ranks_per_node=4, num_nodes=2)
        nodes.until("runs")
        nodes.place.cancel(nodes.own_id())
        verdict = running.result(PATIENCE_SECONDS).verdict
        assert verdict.reason is Reason.ALLOCATION_ENDED
        assert verdict.retryable

    @pytest.mark.timeout(600)
    def test_with_its_agent_killed_its_jobs_end_with_it(self, nodes: Nodes) -> None:
        running = nodes.start("runs", "touch runs; exec sleep 600", launch="single")
        nodes.until("runs")
        spool = next(nodes.folder.glob(".hpc-prefect/campaign/*/*.spool"))
        # Only so the holder's word about the end of this batch job is known to be about it.
        assert os.readlink(spool / "agent") == nodes.own_id()
        _kill_agent(spool)
        verdict = running.result(PATIENCE_SECONDS).verdict
        assert verdict.reason is Reason.ALLOCATION_ENDED


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _started_as(name: str, job_id: str) -> list[int]:
    """The processes of that name of a job in an allocation."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            mark = f"HPC_ALLOCATION_JOB_ID={job_id}\0".encode() in (entry / "environ").read_bytes()
            if mark and (entry / "comm").read_text().strip() == name:
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def _kill_agent(spool: Path) -> None:
    wanted = [b"/bin/bash", os.fsencode(f"{spool}/agent.sh")]
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):  # it ended, or is no process
            if (entry / "cmdline").read_bytes().split(b"\0")[:2] == wanted:
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
                parents[int(entry.name)] = int(stat[1])
    # A subshell of the agent's looks like the agent.
    (agent,) = (pid for pid, parent in parents.items() if parent not in parents)
    os.kill(agent, signal.SIGKILL)


class TestLocal(Allocations):
    @pytest.fixture
    def place(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
        place = Local.at(tmp_path_factory.mktemp("local"))
        yield place
        place.close()


class TestPBS(Allocations):
    @pytest.fixture
    def place(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
        place = PBS.at(tmp_path_factory.mktemp("pbs"), "pbs")
        yield place
        place.close()


class TestPJM(Allocations):
    @pytest.fixture
    def place(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
        place = PJM.at(tmp_path_factory.mktemp("pjm"), "pjm")
        yield place
        place.close()


class TestSlurm(Allocations):
    @pytest.fixture
    def place(self, slurm: SlurmCluster) -> Place:
        return Slurm.of(slurm, "slurm", accounting=True)

    @pytest.mark.timeout(600)
    def test_each_step_has_its_own_memory(self, nodes: Nodes) -> None:
        takes = "exec python3 -c 'x = bytearray(400 << 20); import time; time.sleep(600)'"
        fits = nodes.start("fits", "sleep 1", launch="single", memory_per_node=50 << 20)
        over = nodes.start("over", takes, launch="single", memory_per_node=50 << 20)
        assert over.result(PATIENCE_SECONDS).verdict.reason is Reason.OUT_OF_MEMORY
        assert fits.result(PATIENCE_SECONDS).succeeded

    @pytest.mark.timeout(600)
    def test_a_step_whose_srun_was_killed_does_not_go_on(self, nodes: Nodes) -> None:
        # Without the mark of its job it is found as a process on another node is: by Slurm alone.
        program = "exec env -i bash -c 'echo $$ > pid; exec sleep 1000'"
        running = nodes.start("deaf", program, launch="single")
        nodes.until("pid")
        nodes.come_true(lambda: bool((nodes.folder / "pid").read_text()), "its number")
        (job,) = [job for job in list_jobs(nodes.folder) if job.name == "deaf"]
        for srun in _started_as("srun", job.job_id):
            os.kill(srun, signal.SIGKILL)
        assert running.result(PATIENCE_SECONDS).verdict.reason is Reason.PROGRAM_FAILED
        pid = int((nodes.folder / "pid").read_text())
        nodes.come_true(lambda: not _lives(pid), "the end of its program")

    @pytest.mark.timeout(600)
    def test_steps_are_on_the_nodes_that_the_agent_gave_them(self, nodes: Nodes) -> None:
        where = "echo $SLURMD_NODENAME >> where-X; until [ -e go ]; do sleep 0.1; done"
        jobs = [
            nodes.start(name, where.replace("X", name), ranks_per_node=4) for name in ("a", "b")
        ]
        for name in ("a", "b"):
            nodes.until(f"where-{name}")
        (nodes.folder / "go").touch()
        assert [job.result(PATIENCE_SECONDS).state for job in jobs] == ["succeeded"] * 2
        seen = [(nodes.folder / f"where-{name}").read_text().split() for name in ("a", "b")]
        assert [len(set(each)) for each in seen] == [1, 1]  # four ranks on one node
        assert seen[0][0] != seen[1][0]
        assert [len(each) for each in seen] == [4, 4]
