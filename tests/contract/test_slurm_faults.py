"""A Slurm whose daemons are hung, killed and started again while jobs are submitted and run.

What the cluster of these tests loses is its own: it is stopped at the end of the module.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from hpc_prefect.executor.claim import this_process
from hpc_prefect.executor.connection import Connection
from hpc_prefect.executor.job import JobRun
from hpc_prefect.executor.request import JobRequest
from hpc_prefect.job import folder as names
from hpc_prefect.job.dialogue import Command, Reply
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.spec import Executable, JobSpec, Resources, Site
from hpc_prefect.job.state import JobResult, Patience
from hpc_prefect.schedulers.slurm import SlurmScheduler
from hpc_prefect.transports.local import LocalTransport

from ..engines import SlurmCluster, require_slurm, slurm_cluster, slurm_tool, slurm_up

PATIENCE = 120.0
COUNT = 50

#: Programs that end, after so many seconds, in a way of their own: code and signal of the verdict.
KINDS = {
    "ok": ("exit 0", Reason.SUCCEEDED, 0, ""),
    "three": ("exit 3", Reason.PROGRAM_FAILED, 3, ""),
    "segfault": ("kill -SEGV $$", Reason.PROGRAM_FAILED, 139, "SIGSEGV"),
}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[SlurmCluster]:
    """A cluster of the module's own, in a folder with a short path."""
    require_slurm()
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    try:
        slurm_up(folder)
        yield slurm_cluster(folder)
    finally:
        if (folder / "cluster.json").exists():
            slurm_tool("down", folder)
        shutil.rmtree(folder)


class Overheard(LocalTransport):
    """The commands of one cluster, and what they answered."""

    def __init__(self, cluster: SlurmCluster) -> None:
        self._environment = cluster.environment
        self.heard: list[tuple[str, Reply]] = []

    def run(self, command: Command) -> Reply:
        environment = self._environment | command.environment
        reply = super().run(dataclasses.replace(command, environment=environment))
        self.heard.append((command.argv[0], reply))
        return reply

    def count(self, program: str, *, failed: bool) -> int:
        return sum(who == program and (reply.code != 0) == failed for who, reply in self.heard)


class Told:
    """Everything that was told about one job."""

    def __init__(self) -> None:
        self.states: list[str] = []

    def state(self, text: str, *, warning: bool = False) -> None:
        self.states.append(text)

    def output(self, stream: str, text: str, path: str) -> None: ...


class Jobs:
    """Jobs on a cluster that is broken meanwhile; each program notes its start in one file."""

    def __init__(self, cluster: SlurmCluster, work: Path, patience: Patience | None = None) -> None:
        self.cluster = cluster
        self.work = work
        self.transport = Overheard(cluster)
        scheduler = SlurmScheduler()
        if patience is not None:
            scheduler.patience = patience
        options = {"accounting": True, "requeue": "no"}
        self.site = Site(scheduler="slurm", options=options)
        self.pool = ThreadPoolExecutor(8)
        self.connection = Connection(scheduler, self.transport, options, self.pool)
        self.told: dict[str, Told] = {}
        self.runs: dict[str, JobRun] = {}
        self.results: dict[str, JobResult] = {}

    async def run(self, label: str, program: str) -> JobResult:
        """One job from its submission to its result."""
        spec = JobSpec(
            name=label,
            command_name="sh",
            executable=Executable(path="/bin/sh"),
            arguments=("-c", f'echo "$1" >> runs; {program}', "sh", label),
            site=self.site,
            resources=Resources(walltime=300),
            work_dir=str(self.work),
        )
        told = self.told[label] = Told()
        request = JobRequest(
            spec=spec,
            base=f"{self.work}/{names.ROOT}/campaign/ab/{label}",
            key=label,
            claimant=this_process(),
            poll_interval=2.0,
            listener=told,
        )
        run = self.runs[label] = JobRun(request, self.connection)
        result = self.results[label] = await run.carry_out()
        return result

    def started(self) -> list[str]:
        """Labels of the programs that started, in order."""
        path = self.work / "runs"
        return path.read_text().split() if path.exists() else []

    async def signal(self, daemon: str, name: str) -> None:
        await asyncio.to_thread(self.cluster.signal, daemon, name)

    async def start(self, daemon: str) -> None:
        await asyncio.to_thread(self.cluster.start, daemon)

    async def ask(self, *argv: str) -> str:
        """What a person at the login node would see."""
        return (await asyncio.to_thread(self.cluster.run, *argv)).stdout


async def until(condition: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"{what} did not come true"
        await asyncio.sleep(0.05)


async def faults(jobs: Jobs) -> None:
    """All that can happen to the two daemons, one after another, each until it has done harm."""
    heard, done = jobs.transport, jobs.results

    await until(lambda: heard.count("sbatch", failed=False) >= 5, "the first submissions")
    await jobs.signal("slurmctld", "STOP")
    await until(lambda: heard.count("sbatch", failed=True) >= 3, "submissions without an answer")
    await jobs.signal("slurmctld", "CONT")

    await until(lambda: len(set(jobs.started())) >= 18, "jobs that waited for others")
    await jobs.signal("slurmdbd", "STOP")
    before = len(done)
    await until(lambda: len(done) >= before + 3, "ends while the accounting is hung")
    await jobs.signal("slurmdbd", "CONT")

    before = heard.count("squeue", failed=True)
    await jobs.signal("slurmctld", "KILL")
    await until(lambda: heard.count("squeue", failed=True) > before, "a question to nobody")
    await jobs.start("slurmctld")

    await until(lambda: len(set(jobs.started())) >= 32, "jobs that start after it")
    await jobs.signal("slurmdbd", "KILL")
    before = len(done)
    await until(lambda: len(done) >= before + 3, "ends without any accounting")
    await jobs.start("slurmdbd")

    before = heard.count("squeue", failed=True)
    await jobs.signal("slurmctld", "STOP")
    await until(lambda: heard.count("squeue", failed=True) > before, "a question without an answer")
    await jobs.signal("slurmctld", "CONT")


async def test_fifty_jobs_and_every_fault_of_the_daemons(
    cluster: SlurmCluster, tmp_path: Path
) -> None:
    """50 right verdicts, no program started twice.

    A job that had started in the last seconds before its controller was killed is forgotten, and
    then ended by Slurm itself: of such a job a failure of the machine is the right verdict.
    """
    jobs = Jobs(cluster, tmp_path)
    kinds = {f"{kind}-{n}": kind for n, kind in zip(range(COUNT), itertools.cycle(KINDS))}
    runs = [
        jobs.run(label, f"sleep {10 + 7 * n % 21}; {KINDS[kind][0]}")
        for n, (label, kind) in enumerate(kinds.items())
    ]
    await asyncio.gather(faults(jobs), *runs)

    wrong = {}
    for label, kind in kinds.items():
        verdict = jobs.results[label].verdict
        _, reason, code, signal = KINDS[kind]
        if (verdict.reason, verdict.exit_code, verdict.signal) != (reason, code, signal):
            wrong[label] = verdict
    starts = Counter(jobs.started())
    print(wrong)
    assert {label: n for label, n in starts.items() if n != 1} == {}
    assert all(verdict.reason is Reason.NODE_FAILURE for verdict in wrong.values()), wrong
    assert set(starts) == set(kinds)
    assert len({result.job_id for result in jobs.results.values()}) == COUNT
    found = [told for told in jobs.told.values() if any("found as" in s for s in told.states)]
    assert found, "no submission was found by its tag"
