"""What must hold, whatever happens: of programs, of results, of journals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpc_prefect.job import folder as names
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.folder import read_journal
from hpc_prefect.job.result import JobResult

from simulation.file_server import File, FileServer
from simulation.world import World

if TYPE_CHECKING:
    from simulation.cluster import BatchJob, Cluster

#: What can be wrong, in the words of the last line of a run:
#: a program's work is lost, or ran twice; what was told is false; no progress; something was
#: cancelled for nobody; something of a life is left; the product stumbled.
KINDS = ("lost", "twice", "false", "stuck", "cancelled", "leak", "bug")

#: How far a journal is: nothing of it may be taken back.
_RANKS = {"": 0, "intended": 1, "submitted": 2, "lost": 3, "judged": 4}


@dataclass
class Run:
    """One start of a program."""

    id: str
    restarts: int
    over: bool = False
    code: int | None = None
    recorded: bool = False


class Programs:
    """What the programs themselves know: how often they ran, and how they ended.

    Attributes:
        runs: of each attempt's folder.
        wishes: the work whose end somebody has asked for, by its folder without the attempt.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.runs: dict[str, list[Run]] = {}
        self.wishes: set[str] = set()
        self.closed: dict[str, str] = {}

    def started(self, folder: str, job: BatchJob) -> None:
        runs = self.runs.setdefault(folder, [])
        self._world.note("program", f"of {folder} starts as {job.id}")
        if runs and not (
            job.requeues and runs[-1].id == job.id and job.restarts > runs[-1].restarts
        ):
            self._world.fail("twice", f"the program of {folder} runs a second time, as {job.id}")
        if folder in self.closed:
            self._world.fail("twice", f"{folder} was told as {self.closed[folder]}, and it starts")
        base = folder.rpartition("-")[0]
        for other, theirs in self.runs.items():
            if other == folder or other.rpartition("-")[0] != base:
                continue
            if any(not run.over for run in theirs):
                self._world.fail("twice", f"{folder} runs beside {other}")
            if any(run.recorded for run in theirs) and base not in self.wishes:
                self._world.fail("twice", f"{folder} runs after the success of {other}")
        runs.append(Run(job.id, job.restarts))

    def _open(self, folder: str, job_id: str) -> Run | None:
        runs = [run for run in self.runs.get(folder, ()) if run.id == job_id and not run.over]
        return runs[-1] if runs else None

    def ended(self, folder: str, job_id: str, code: int) -> None:
        self._world.note("program", f"of {folder} ends with {code}")
        if run := self._open(folder, job_id):
            run.over, run.code = True, code

    def killed(self, folder: str, job_id: str) -> None:
        self._world.note("program", f"of {folder} is killed")
        if run := self._open(folder, job_id):
            run.over = True

    def recorded(self, folder: str, job_id: str) -> None:
        """Its script has written that it succeeded."""
        self.runs[folder][-1].recorded = True

    def running(self, folder: str) -> bool:
        return any(not run.over for run in self.runs.get(folder, ()))


class Judgements:
    """What was told of each attempt: it must be what happened, and stay so."""

    def __init__(self, world: World, cluster: Cluster, outputs: dict[str, tuple[str, ...]]) -> None:
        self._world, self._cluster = world, cluster
        self._programs = cluster.programs
        self._outputs = outputs
        self._told: dict[str, JobResult] = {}
        self._ranks: dict[str, int] = {}

    def result(self, result: JobResult, base: str) -> None:
        """A result was handed over."""
        verdict, folder = result.verdict, result.folder
        reason = verdict.reason
        self._world.coverage.sometimes(f"the end is: {reason}")
        unconfirmed = "did not confirm" in verdict.summary
        before = self._told.get(folder)
        if before is not None and before.verdict.reason not in (reason, Reason.LOST):
            if "did not confirm" not in before.verdict.summary:
                self._false(result, f"it was told as {before.verdict.reason} before")
        self._told[folder] = result
        if reason is not Reason.LOST and not unconfirmed and self._programs.running(folder):
            self._false(result, "its program still runs")
        wrong = self._contradiction(result, base)
        if wrong and not unconfirmed:
            self._false(result, wrong)
        if reason in (Reason.NEVER_STARTED, Reason.REJECTED, Reason.QUEUE_FULL):
            self._programs.closed[folder] = reason.words

    def _contradiction(self, result: JobResult, base: str) -> str:
        """What speaks against it; empty when nothing does."""
        verdict, folder = result.verdict, result.folder
        reason = verdict.reason
        runs = self._programs.runs.get(folder, [])
        last = runs[-1] if runs else None
        wished = base in self._programs.wishes
        if reason is Reason.SUCCEEDED:
            if last is None or last.code != 0:
                return f"its program ran as {last}"
            key = folder.rpartition("/")[2].rpartition("-")[0]
            missing = [o for o in self._outputs[key] if self._cluster.files.entry(o) is None]
            return f"{missing} is not there" if missing else ""
        if reason in (Reason.NEVER_STARTED, Reason.REJECTED, Reason.QUEUE_FULL):
            return f"its program ran as {last}" if runs else ""
        if reason in (Reason.CANCELLED, Reason.TIMED_OUT) and not wished:
            return "nobody asked for its end"
        if reason is Reason.CANCELLED_ELSEWHERE and not self._ended_by_command(folder):
            return "nobody has cancelled it"
        if reason is Reason.PROGRAM_FAILED and last and last.recorded and not wished:
            return "its program has succeeded, and its record says so"
        if reason is Reason.LOST and last and last.recorded:
            return "its program has succeeded, and its record says so"
        return ""

    def _ended_by_command(self, folder: str) -> bool:
        jobs = self._cluster.jobs.values()
        return any(job.wished for job in jobs if job.script.folder == folder)

    def _false(self, result: JobResult, why: str) -> None:
        verdict = result.verdict
        self._world.fail(
            "false", f"{result.folder} is told as {verdict.reason} ({verdict.summary}), but {why}"
        )

    def cancelled_by_product(self, job: BatchJob) -> None:
        """The product has asked the scheduler for a job's end."""
        folder = job.script.folder
        if folder.rpartition("-")[0] in self._programs.wishes or folder in self._told:
            return
        if any(run.in_program for run in job.runs):
            self._world.fail("cancelled", f"{job.id} of {folder} is cancelled; nobody asked for it")

    def journals(self, files: FileServer) -> None:
        """No journal goes back, also not behind a torn line."""
        for path in files.below(f"/{names.JOURNAL}"):
            entry = files.entry(path)
            if not isinstance(entry, File):
                continue
            ledger = read_journal(entry.data)
            state = str(ledger.result.get("state", ""))
            word = "intended" if ledger.intended else ""
            word = "submitted" if ledger.job_id else word
            if state:
                word = "lost" if state == "lost" else "judged"
            rank = _RANKS[word]
            if rank < self._ranks.get(path, 0):
                self._world.fail("false", f"{path} has gone back to {word!r}")
            self._ranks[path] = rank
