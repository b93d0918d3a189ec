"""A Slurm whose daemons are hung, killed and started again while jobs are submitted and run.

What the cluster of these tests loses is its own: it is stopped at the end of the module.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import shutil
import subprocess
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from hpc_prefect.executor.connection import Connection
from hpc_prefect.executor.request import JobRequest
from hpc_prefect.executor.run import JobRun
from hpc_prefect.job import folder as names
from hpc_prefect.job.dialogue import Command, Reply
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.folder import read_starts
from hpc_prefect.job.result import JobResult
from hpc_prefect.job.spec import Executable, JobSpec, Resources, Site
from hpc_prefect.job.state import Patience
from hpc_prefect.ledger.claim import this_process
from hpc_prefect.schedulers.slurm.scheduler import SlurmScheduler
from hpc_prefect.transports.local import LocalTransport

from ..engines import SlurmCluster, require_slurm, slurm_cluster, slurm_tool, slurm_up

PATIENCE = 120.0
COUNT = 50
#: So many of them end only after the last fault: until then there is somebody who asks.
LATE = 2

#: Programs that end, after so many seconds, in a way of their own: code and signal of the verdict.
KINDS = {
    "ok": ("exit 0", Reason.SUCCEEDED, 0, ""),
    "three": ("exit 3", Reason.PROGRAM_FAILED, 3, ""),
    "segfault": ("kill -SEGV $$", Reason.PROGRAM_FAILED, 139, "SIGSEGV"),
}

#: What Slurm makes of a job whose start it has forgotten: the node where it starts it again has it
#: (cancelled, by Slurm), another one does not (lost: that start is refused), or none is tried.
ENDED_BY_SLURM = (Reason.NODE_FAILURE, Reason.CANCELLED_ELSEWHERE, Reason.LOST)
#: It saves its state every five seconds, and in the background.
UNSAVED = 12.0

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


@pytest.fixture(autouse=True)
def not_left_hung(cluster: SlurmCluster) -> Iterator[None]:
    """A test that failed leaves no daemon stopped for the next one."""
    yield
    for daemon in ("slurmctld", "slurmdbd"):
        with contextlib.suppress(subprocess.CalledProcessError):
            slurm_tool("signal", cluster.dir, daemon, "CONT")


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

    def state(self, text: str, *, warning: bool = False, **_: object) -> None:
        self.states.append(text)

    def said(self, words: str) -> bool:
        return any(words in text for text in self.states)

    def output(self, stream: str, text: str, path: str) -> None: ...


class Jobs:
    """Jobs on a cluster that is broken meanwhile; each program notes its start in one file."""

    def __init__(self, cluster: SlurmCluster, work: Path) -> None:
        self.cluster = cluster
        self.work = work
        self.transport = Overheard(cluster)
        scheduler = SlurmScheduler()
        # No fault lasts for longer.
        scheduler.patience = Patience(absent=40, lost=45, record=30, silent=45)
        self.connection = Connection(scheduler, self.transport, {}, ThreadPoolExecutor(8))
        self.told: defaultdict[str, Told] = defaultdict(Told)
        self.runs: dict[str, JobRun] = {}
        self.results: dict[str, JobResult] = {}

    async def run(self, label: str, program: str, *directives: str) -> JobResult:
        """One job from its submission to its result."""
        options = {"requeue": "no", "directives": directives}
        spec = JobSpec(
            name=label,
            command_name="sh",
            executable=Executable(path="/bin/sh"),
            arguments=("-c", f'echo "$1" >> runs; {program}', "sh", label),
            site=Site(scheduler="slurm", options=options),
            resources=Resources(walltime=300),
            work_dir=str(self.work),
        )
        request = JobRequest(
            spec=spec,
            base=f"{self.work}/{names.ROOT}/campaign/ab/{label}",
            key=label,
            claimant=this_process(),
            poll_interval=2.0,
            listener=self.told[label],
        )
        run = self.runs[label] = JobRun(request, self.connection)
        result = self.results[label] = await run.carry_out()
        return result

    def started(self) -> list[str]:
        """Labels of the programs that started, in order."""
        path = self.work / "runs"
        return path.read_text().split() if path.exists() else []

    def started_at(self, label: str) -> float:
        """When the job's script first started (seconds since 1970)."""
        return read_starts((Path(self.results[label].folder) / names.START).read_bytes())[0].time

    async def signal(self, daemon: str, name: str) -> None:
        await asyncio.to_thread(self.cluster.signal, daemon, name)

    async def start(self, daemon: str) -> None:
        await asyncio.to_thread(self.cluster.start, daemon)


async def until(condition: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"{what} did not come true"
        await asyncio.sleep(0.05)


async def faults(jobs: Jobs, hung: asyncio.Event) -> tuple[float, float]:
    """All that can happen to the two daemons, one after another, each until it has done harm.

    Returns between which times the controller was killed (seconds since 1970). `hung` is set while
    it hangs.
    """
    heard, done = jobs.transport, jobs.results

    await until(lambda: heard.count("sbatch", failed=False) >= 5, "the first submissions")
    await jobs.signal("slurmctld", "STOP")
    hung.set()
    await until(lambda: heard.count("sbatch", failed=True) >= 3, "submissions without an answer")
    await jobs.signal("slurmctld", "CONT")

    await until(lambda: len(set(jobs.started())) >= 18, "jobs that waited for others")
    await jobs.signal("slurmdbd", "STOP")
    before = len(done)
    await until(lambda: len(done) >= before + 3, "ends while the accounting is hung")
    await jobs.signal("slurmdbd", "CONT")

    before = heard.count("squeue", failed=True)
    alive_at = time.time()
    await jobs.signal("slurmctld", "KILL")
    killed_at = time.time()
    await until(lambda: heard.count("squeue", failed=True) > before, "a question to nobody")
    await jobs.start("slurmctld")

    await until(lambda: len(set(jobs.started())) >= 32, "jobs that start after it")
    await jobs.signal("slurmdbd", "KILL")
    before = len(done)
    enough = min(before + 3, COUNT - LATE)
    await until(lambda: len(done) >= enough, "ends without any accounting")
    await jobs.start("slurmdbd")

    before = heard.count("squeue", failed=True)
    await jobs.signal("slurmctld", "STOP")
    await until(lambda: heard.count("squeue", failed=True) > before, "a question without an answer")
    await jobs.signal("slurmctld", "CONT")
    (jobs.work / "faults-are-over").touch()
    return alive_at, killed_at


async def test_fifty_jobs_and_every_fault_of_the_daemons(
    cluster: SlurmCluster, tmp_path: Path
) -> None:
    """50 right verdicts, and no program started twice.

    Slurm itself ends, or loses sight of, jobs that had started in the last seconds before its
    controller was killed, because that had not been saved. Of such a job, if it left no record of
    its own end, only Slurm's word can be told: and never a success.
    """
    jobs = Jobs(cluster, tmp_path)
    kinds = {f"{kind}-{n}": kind for n, kind in zip(range(COUNT), itertools.cycle(KINDS))}
    hung = asyncio.Event()

    async def run(n: int, label: str) -> None:
        if n >= COUNT // 2:  # the second half is submitted to a controller that hangs
            await hung.wait()
        late = "until test -e faults-are-over; do sleep 0.2; done; " if n >= COUNT - LATE else ""
        await jobs.run(label, f"sleep {10 + 7 * n % 21}; {late}{KINDS[kinds[label]][0]}")

    runs = (run(n, label) for n, label in enumerate(kinds))
    (alive_at, killed_at), *_ = await asyncio.gather(faults(jobs, hung), *runs)

    starts = Counter(jobs.started())
    assert {label: n for label, n in starts.items() if n != 1} == {}
    wrong = {}
    for label, kind in kinds.items():
        verdict = jobs.results[label].verdict
        _, *right = KINDS[kind]
        if [verdict.reason, verdict.exit_code, verdict.signal] != right:
            wrong[label] = verdict
    print(f"ended by Slurm: {wrong}")
    for label, verdict in wrong.items():
        assert verdict.reason in ENDED_BY_SLURM, verdict
        # A node may begin what it was told just before.
        began = jobs.started_at(label)
        assert alive_at - UNSAVED < began < killed_at + UNSAVED, (label, verdict)
    assert set(starts) == set(kinds)
    assert len({result.job_id for result in jobs.results.values()}) == COUNT
    assert any(told.said("found in the queue as") for told in jobs.told.values())


async def test_cancelling_a_forgotten_job_spares_the_one_that_has_its_id_now(
    cluster: SlurmCluster, tmp_path: Path
) -> None:
    """A killed controller forgets a job that it had accepted, and gives the id again."""
    jobs = Jobs(cluster, tmp_path)
    before = _state_of(cluster)
    await jobs.run("saved", "exit 0")
    # The next state is saved only some seconds later: until then nothing of the job is on disk.
    await until(lambda: _state_of(cluster) != before, "a new state on disk")
    state = _state_file(cluster).read_bytes()
    forgotten = asyncio.create_task(jobs.run("forgotten", "sleep 300"))
    await until(lambda: "forgotten" in jobs.started(), "its start")
    await jobs.signal("slurmctld", "KILL")
    # On a slow machine it may have saved one more.
    _state_file(cluster).write_bytes(state)
    await jobs.start("slurmctld")

    heir = asyncio.create_task(jobs.run("heir", "exit 3", "--hold"))
    await until(lambda: jobs.told["heir"].said("held as"), "the other job's place in the queue")
    job_id = jobs.runs["heir"].job_id
    assert job_id == jobs.runs["forgotten"].job_id

    jobs.runs["forgotten"].cancel("user")
    result = await forgotten
    assert (result.state, result.exit_code) == ("cancelled", None)
    assert "may still be queued or running" in result.verdict.summary
    listed = cluster.run("squeue", "--noheader", "--format=%j %T", f"--jobs={job_id}").stdout
    assert listed.split()[1:] == ["PENDING"]

    assert cluster.run("scontrol", "release", job_id).returncode == 0
    verdict = (await heir).verdict
    assert (verdict.reason, verdict.exit_code) == (Reason.PROGRAM_FAILED, 3)
    assert jobs.started() == ["saved", "forgotten", "heir"]


def _state_of(cluster: SlurmCluster) -> int:
    """Which state of the controller is on disk; 0 for none."""
    file = _state_file(cluster)
    return file.stat().st_ino if file.exists() else 0


def _state_file(cluster: SlurmCluster) -> Path:
    return cluster.dir / "state" / "job_state"
