"""What must hold, whatever happens: of programs, of results, of journals."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

from hpc_prefect.job import folder as names
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.folder import read_journal
from hpc_prefect.job.result import JobResult
from hpc_prefect.job.script import FOLDER_CODE, GUARD_CODE
from simulation.file_server import File, FileServer
from simulation.world import World

if TYPE_CHECKING:
    from simulation.cluster import BatchJob, Cluster
    from simulation.process import Process

#: What can be wrong, in the words of the last line of a run:
#: a program's work is lost, or ran twice; what was told is false; no progress; something was
#: cancelled for nobody; more QPU seconds than allowed; something is left
#: over; the product stumbled.
KINDS = ("lost", "twice", "false", "stuck", "cancelled", "budget", "leak", "bug")

#: How far a journal is: nothing of it may be taken back.
_RANKS = {"": 0, "intended": 1, "submitted": 2, "lost": 3, "judged": 4}
#: Ends that are the scheduler's doing, whatever the program's record says.
_NOT_BY_CODE = ("cancelled", "timeout", "node fail", "out of memory", "preempted")
#: Seconds within which a job that is missing is asked about again.
_ASKED_WITHIN = 60.0


@dataclass
class Run:
    """One start of a program."""

    id: str
    restarts: int
    over: bool = False
    code: int | None = None
    recorded: bool = False


class Start(Protocol):
    """What a start of a program is of: a job, or a member of one."""

    @property
    def id(self) -> str: ...

    @property
    def requeues(self) -> bool:
        """Its scheduler may start it again by itself; `restarts`: it has, so often."""

    @property
    def restarts(self) -> int: ...


class Programs:
    """What the programs themselves know: how often they ran, and how they ended.

    Attributes:
        runs: of each attempt's folder.
        wishes: the work whose end somebody has asked for, by its folder without the attempt; an
            element by its id.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.runs: dict[str, list[Run]] = {}
        self.wishes: set[str] = set()
        self.closed: dict[str, str] = {}

    def started(self, folder: str, job: Start) -> None:
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


class Told:
    """What was told of each attempt, which must stay so, and what the journals say.

    Attributes:
        told: the last result of each attempt, by its folder.
    """

    def __init__(self, world: World, files: FileServer) -> None:
        self._world, self._files = world, files
        self.told: dict[str, JobResult] = {}
        self._ranks: dict[str, int] = {}

    def stays(self, result: JobResult) -> None:
        """What was told before holds."""
        before = self.told.get(result.folder)
        if before is not None:
            reason = before.verdict.reason
            if reason not in (result.verdict.reason, Reason.LOST):
                self.false(result, f"it was told as {reason} before")
        self.told[result.folder] = result

    def is_written(self, result: JobResult) -> bool:
        """Whether it is the journal's verdict, and no end that nobody has seen yet."""
        entries = entries_of(self._files, result.folder)
        written = [JobResult.from_dict(e["result"]) for e in entries if e.get("event") == "verdict"]
        return any(each.verdict.reason is result.verdict.reason for each in written)

    def false(self, result: JobResult, why: str) -> None:
        """It is told, and something speaks against it."""
        verdict = result.verdict
        self._world.fail(
            "false", f"{result.folder} is told as {verdict.reason} ({verdict.summary}), but {why}"
        )

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


class Judgements(Told):
    """What was told of each batch job: it must be what happened."""

    def __init__(self, world: World, cluster: Cluster) -> None:
        super().__init__(world, cluster.files)
        self._cluster = cluster
        self._programs = cluster.programs

    def result(self, result: JobResult, base: str) -> None:
        """A result was handed over."""
        verdict, folder = result.verdict, result.folder
        reason = verdict.reason
        self._world.coverage.sometimes(f"the end is: {reason}")
        if not self.is_written(result):
            self._world.coverage.sometimes("an end is not confirmed")
            if "did not confirm" not in verdict.summary:
                self.false(result, "its journal has no verdict")
            return
        self.stays(result)
        if reason is not Reason.LOST and self._programs.running(folder):
            self.false(result, "its program still runs")
        if wrong := self._contradiction(result, base):
            self.false(result, wrong)
        if reason in (Reason.NEVER_STARTED, Reason.REJECTED, Reason.QUEUE_FULL):
            self._programs.closed[folder] = reason.words

    def _contradiction(self, result: JobResult, base: str) -> str:
        """What speaks against it; empty when nothing does."""
        verdict, folder = result.verdict, result.folder
        reason = verdict.reason
        runs = self._programs.runs.get(folder, [])
        last = runs[-1] if runs else None
        jobs = self._jobs_of(folder)
        wished = base in self._programs.wishes or any(job.wished for job in jobs)
        if reason is Reason.SUCCEEDED:
            if last is None or last.code != 0:
                return f"its program ran as {last}"
            key = folder.rpartition("/")[2].rpartition("-")[0]
            outputs = self._cluster.outputs[key]
            missing = [each for each in outputs if self._cluster.files.entry(each) is None]
            return f"{missing} is not there" if missing else ""
        if reason in (Reason.NEVER_STARTED, Reason.REJECTED, Reason.QUEUE_FULL):
            return f"its program ran as {last}" if runs else ""
        if reason in (Reason.CANCELLED, Reason.TIMED_OUT) and base not in self._programs.wishes:
            return "nobody asked for its end"
        if reason is Reason.CANCELLED_ELSEWHERE and not wished:
            return "nobody has cancelled it"
        if reason is Reason.LOST:
            return self._found_after_all(folder, jobs)
        if reason is Reason.ALLOCATION_ENDED:
            for job in jobs:
                if job.held is not None and not job.held.is_over:
                    return f"the allocation in which {job.id} ran goes on"
        is_open_success = last is not None and last.recorded and not wished
        if is_open_success and not any(job.end in _NOT_BY_CODE for job in jobs):
            return "its program has succeeded, and its record says so"
        return ""

    def _jobs_of(self, folder: str) -> list[BatchJob]:
        """The scheduler's jobs that ran it."""
        return [job for job in self._cluster.every_job if job.script.folder == folder]

    def _found_after_all(self, folder: str, jobs: list[BatchJob]) -> str:
        """Why a job is not LOST; empty when it is."""
        for job in jobs:
            if len(job.runs) > 1:
                return ""  # one of its starts is nobody's
        began = {run.id for run in self._programs.runs.get(folder, ())}
        for job in jobs:
            if began and job.id not in began:
                continue  # the other job of its submission: what became of that tells nothing
            if began and job.open and job.runs:
                listed = self._cluster.seen(job) and self._world.now - job.shows_at > _ASKED_WITHIN
                return f"{job.id} runs, and is listed" if listed else ""
            if self._tells_code_alone(job) and job.code in (GUARD_CODE, FOLDER_CODE):
                continue  # the script's code, or the program's: without a record nobody can tell
            history = self._cluster.has_history and not job.forgotten
            if not job.open and history and self._world.now - job.ended_at > 5.0:
                return f"the history lists {job.id} as {job.end}"
        return ""

    def _tells_code_alone(self, job: BatchJob) -> bool:
        """Whether the scheduler says no more of its end than how its script ended."""
        untold = job.end == "preempted" and not self._cluster.tells_preemption
        return job.end == "by code" or untold


class Submissions:
    """What must be so when the product submits, and when it cancels."""

    def __init__(self, cluster: Cluster, judgements: Judgements) -> None:
        self._cluster, self._judgements = cluster, judgements
        self._world = cluster.world
        self._submitted: dict[str, tuple[int, bool]] = {}

    def submits(self, tag: str, folder: str, process: Process) -> None:
        """Before anything is made: the intent is on disk, the claim ours, and what was submitted
        before has been looked for."""
        fail = self._world.fail
        intents = [
            entry
            for entry in entries_of(self._cluster.files, folder, on_disk=True)
            if entry.get("event") == "intent" and entry.get("tag") == tag
        ]
        if not intents:
            fail("lost", f"{tag} is submitted, and no intent of it is on disk")
        by, asked = self._submitted.get(tag, (0, True))
        if by == process.number and not asked:
            fail("twice", f"{tag} is submitted again, and nobody has looked for the first one")
        self._submitted[tag] = (process.number, False)
        self._must_hold(folder, process)

    def refused(self, tag: str) -> None:
        """The scheduler has said for sure that it did not take it."""
        self._submitted.pop(tag, None)

    def asked(self, tags: Sequence[str]) -> None:
        """There was a useful answer about these names."""
        for tag in tags:
            if tag in self._submitted:
                self._submitted[tag] = (self._submitted[tag][0], True)

    def asked_all(self) -> None:
        """There was one about all names."""
        self._submitted = {tag: (by, True) for tag, (by, _) in self._submitted.items()}

    def _must_hold(self, folder: str, process: Process) -> None:
        """Unless it was stopped since it looked, or cannot know yet."""
        looked_at = process.looked_at
        if looked_at is None:
            self._world.coverage.sometimes("a job is submitted by who was stopped on the way")
            return
        files = self._cluster.files
        claims = [name for name in files.names(folder) if name.startswith(names.CLAIM)]
        generations = [int(n) for each in claims if (n := each[len(names.CLAIM) :]).isdecimal()]
        if not generations:
            return
        newest = files.entry(f"{folder}/{names.CLAIM}{max(generations)}")
        if not isinstance(newest, File) or not newest.data.endswith(b"\n"):
            return
        holder = json.loads(newest.data)["process"]
        long_ago = newest.made < looked_at - files.lag - 1.0
        if holder != process.identity and long_ago:
            self._world.fail(
                "twice", f"{process.name} submits in {folder}, which {holder} has taken over"
            )

    def cancels(self, job: BatchJob) -> None:
        """Somebody has asked for its end, or it is known to be of no use."""
        folder = job.script.folder
        if not self._cluster.programs.wishes.isdisjoint((folder.rpartition("-")[0], job.id)):
            return
        if folder not in self._judgements.told and any(run.in_program for run in job.runs):
            self._world.fail("cancelled", f"{job.id} of {folder} is cancelled; nobody asked for it")


def entries_of(files: FileServer, folder: str, *, on_disk: bool = False) -> list[dict[str, Any]]:
    """A journal's entries; `on_disk`: those that survive the loss of power."""
    entry = files.entry(f"{folder}/{names.JOURNAL}")
    if not isinstance(entry, File):
        return []
    return _parsed(entry.data[: entry.synced] if on_disk else entry.data)


@lru_cache(maxsize=16)  # a journal is read again and again
def _parsed(data: bytes) -> list[dict[str, Any]]:
    lines = map(_entry, filter(None, data.split(b"\n")[:-1]))
    return [entry for entry in lines if entry is not None]


@lru_cache(maxsize=256)  # … and grows by one line
def _entry(line: bytes) -> dict[str, Any] | None:
    try:
        entry: dict[str, Any] = json.loads(line.decode())
    except ValueError:
        return None  # torn
    return entry
