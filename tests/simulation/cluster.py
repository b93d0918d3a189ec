"""A scheduler without its language: jobs, nodes, and what goes wrong with them.

The front ends (`slurm.py` …) tell of it in their commands' own texts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from simulation.arrays import BatchArray
from simulation.file_server import File, FileServer
from simulation.held import AgentProgram, AgentRun
from simulation.job_script import Program, ScriptRun, ScriptText
from simulation.machines import Machine
from simulation.members import ElementRun
from simulation.mix import ids_again
from simulation.oracles import Programs
from simulation.world import World

PENDING, HELD, RUNNING, ENDING, ENDED = "pending", "held", "running", "ending", "ended"
#: How a job ends: by its script's code, or by what the scheduler did.
BY_CODE, CANCELLED, TIMEOUT, NODE_FAIL, OUT_OF_MEMORY, PREEMPTED = (
    *("by code", "cancelled", "timeout", "node fail", "out of memory", "preempted"),
)

#: Seconds between the scheduler's two signals.
_GRACE = 10.0


@dataclass
class BatchJob:
    """A job as its scheduler has it.

    Attributes:
        shows_at: until then no command lists it; `forgotten`: none does, ever.
        restarts: how often the scheduler has started it anew, as it knows.
        end: how it ended; `code`: its script's exit code.
        wished: somebody asked for its end by a command.
    array, index: of an element, its array and its number in it.
    held: of a job in an allocation, the batch job's start that holds its nodes.
    """

    number: int
    id: str
    tag: str
    script: ScriptText
    work_dir: str
    outputs: tuple[str, ...]
    walltime: float
    requeues: bool
    submitted_at: float
    shows_at: float = 0.0
    forgotten: bool = False
    state: str = PENDING
    node: str = ""
    restarts: int = 0
    end: str = ""
    code: int = 0
    started_at: float = 0.0
    ended_at: float = 0.0
    wished: bool = False
    runs: list[ScriptRun | ElementRun] = field(default_factory=list)
    array: BatchArray | None = None
    index: int = 0
    held: AgentRun | None = None

    @property
    def open(self) -> bool:
        return self.state != ENDED


class Cluster:
    """All jobs of one scheduler.

    Attributes:
        jobs: those that it knows, by their ids; `every_job`: those too whose ids were given again.
        weather: until when each trouble lasts: `down` (no answer), `hung` (none in time),
            `unlisted` (jobs are not listed), `forgetful` (the history fails), `garbage`.
        behaviour, outputs: of each work's programs, by its key.
        has_history: it tells of ended jobs after they have left the queue; `gives_ids_again`,
            `starts_again`: what it does after it was killed.
        tells_preemption: of a job that was preempted, and not only how its script ended then.
    """

    def __init__(self, world: World, files: FileServer, machines: dict[str, Machine]) -> None:
        self.world = world
        self.files = files
        self.programs = Programs(world)
        self.jobs: dict[str, BatchJob] = {}
        self.arrays: dict[str, BatchArray] = {}
        self.begun_members: set[str] = set()
        self.every_job: list[BatchJob] = []
        self.weather: dict[str, float] = {}
        self.behaviour: dict[str, list[Program]] = {}
        self.outputs: dict[str, tuple[str, ...]] = {}
        self._machines = machines
        #: Told of an allocation that has ended because nobody held it.
        self.orphaned: Callable[[AgentRun], None] = lambda run: None
        self.has_history = self.gives_ids_again = self.starts_again = True
        self.tells_preemption = True
        self._numbers = 0

    def machine(self, node: str) -> Machine:
        return self._machines[node]

    def program_of(self, job: BatchJob) -> Program:
        """By its work's key and its attempt; the last one of the list for all later attempts."""
        listed, attempt = (
            self.behaviour[key_of(job.script.folder)],
            job.script.folder.rpartition("-")[2],
        )
        return listed[min(int(attempt) - 1, len(listed) - 1)]

    def has(self, trouble: str) -> bool:
        """Whether this trouble is there now."""
        there = self.world.now < self.weather.get(trouble, -1.0) and not self.world.chance.fair
        if there:
            self.world.coverage.sometimes(f"the scheduler is {trouble}")
        return there

    def next_number(self) -> int:
        """A number for a job: mostly a new one, but a scheduler that was killed and has forgotten
        what it knew may give one again."""
        old = [
            job
            for job in self.jobs.values()
            if (job.forgotten or job.state == ENDED) and job.array is None
        ]
        likely = ids_again(self.world.chance.seed)
        if self.gives_ids_again and old and self.world.chance.fault("an id is given again", likely):
            self.world.coverage.sometimes("an id is given again")
            job = self.world.chance.one_of("whose id", old)
            job.forgotten, job.state = True, ENDED
            self.world.note("scheduler", f"has forgotten {job.id} of {job.script.folder}")
            return job.number
        self._numbers += 1
        return self._numbers

    # --- the life of a job

    def make(
        self,
        number: int,
        job_id: str,
        tag: str,
        script: ScriptText,
        work_dir: str,
        walltime: float,
        *,
        requeues: bool,
    ) -> BatchJob:
        """A job that waits from now on."""
        job = self.new_job(number, job_id, tag, script, work_dir, walltime, requeues=requeues)
        self.enqueue([job])
        return job

    def new_job(
        self,
        number: int,
        job_id: str,
        tag: str,
        script: ScriptText,
        work_dir: str,
        walltime: float,
        *,
        requeues: bool,
    ) -> BatchJob:
        """A job that is known, and not yet in the queue."""
        outputs = self.outputs[key_of(script.folder)]
        job = BatchJob(
            number, job_id, tag, script, work_dir, outputs, walltime, requeues, self.world.now
        )
        self.jobs[job_id] = job
        self.every_job.append(job)
        self.world.note("scheduler", f"has {job_id}, named {tag}")
        return job

    def new_inside(
        self,
        job_id: str,
        tag: str,
        script: ScriptText,
        work_dir: str,
        outputs: tuple[str, ...],
        held: AgentRun,
        node: str,
    ) -> BatchJob:
        """A job that runs in an allocation; the scheduler does not know it."""
        now = self.world.now
        job = BatchJob(0, job_id, tag, script, work_dir, outputs, 0.0, False, now, state=RUNNING)
        job.held, job.node, job.started_at = held, node, now
        self.every_job.append(job)
        return job

    def enqueue(self, jobs: Sequence[BatchJob]) -> None:
        """What was submitted together waits from now on."""
        chance = self.world.chance
        wait = chance.number("a queue's wait", 0.2, 6.0)
        if chance.fault("a job waits for long", 0.05):
            wait += chance.number("long wait", 20.0, 400.0)
        if chance.fault("a job shows late", 0.04):
            shows_at = self.world.now + chance.number("shows late", 2.0, 90.0)
            for job in jobs:
                job.shows_at = shows_at
        if chance.fault("a job is forgotten", 0.03):
            for job in jobs:
                job.forgotten = True
                self.world.note("scheduler", f"forgets {job.id}")
            if not chance.fault("a forgotten job starts after all", 0.5):
                return
            wait += chance.number("forgotten for", 10.0, 900.0)
        if chance.fault("a job is held", 0.02):
            for job in jobs:
                job.state = HELD
            wait += chance.number("held for", 20.0, 300.0)
        for job in jobs:
            apart = chance.number("between elements", 0.0, 3.0) if job.index else 0.0
            self.world.later(wait + apart, partial(self.start, job))

    def start(self, job: BatchJob) -> None:
        if job.state not in (PENDING, HELD):
            return
        if job.array is not None and job.array.is_full():
            self.world.later(1.0, partial(self.start, job))
            return
        if job.forgotten:
            for each in job.array.elements if job.array else (job,):
                each.forgotten, each.shows_at = False, self.world.now
            self.world.note("scheduler", f"finds {job.id} again")
        self.world.note("scheduler", f"starts {job.id}")
        job.state, job.started_at = RUNNING, self.world.now
        if not job.script.members and key_of(job.script.folder) not in self.behaviour:
            job.code = 2  # its array's text is cut off: for bash a mistake, and it runs nothing
            self._ends(job, BY_CODE)
            return
        chance = self.world.chance
        job.node = f"n{chance.below('a node', 3)}"
        self._run(job)
        self.world.later(job.walltime, lambda run=job.runs[-1]: self._time_is_up(job, run))
        if chance.fault("a node dies", 0.03):
            self.world.later(chance.number("node lives", 0.0, 30.0), lambda: self.lose_node(job))
        if chance.fault("a running job is started again", 0.03) and self.starts_again:
            self.world.later(chance.number("again after", 0.1, 20.0), lambda: self._again(job))
        if chance.fault("an operator cancels", 0.02):
            delay = chance.number("operator comes", 0.0, 30.0)
            self.world.later(delay, lambda: self.cancel(job, by="operator"))
        if chance.fault("a job is preempted", 0.02):
            self.world.later(chance.number("preempted", 0.0, 20.0), lambda: self._preempt(job))

    def _run(self, job: BatchJob) -> None:
        run: list[ScriptRun | ElementRun] = []
        kind = ElementRun if job.script.members else self._program_kind(job)
        run.append(kind(self, job, lambda code: self._script_ended(job, run[0], code)))
        job.runs.append(run[0])

    def _program_kind(self, job: BatchJob) -> type[ScriptRun]:
        return AgentRun if isinstance(self.program_of(job), AgentProgram) else ScriptRun

    def _script_ended(self, job: BatchJob, run: ScriptRun | ElementRun, code: int) -> None:
        if job.runs[-1] is not run or job.state not in (RUNNING, ENDING):
            return
        job.code = code
        self.world.note("scheduler", f"sees the script of {job.id} end with {code}")
        self._ends(job, job.end or BY_CODE)

    def _ends(self, job: BatchJob, how: str) -> None:
        job.state, job.end = ENDING, how
        run = job.runs[-1] if job.runs else None

        def ended() -> None:
            if job.state == ENDING and (not job.runs or job.runs[-1] is run):
                self._end(job)

        self.world.later(self.world.chance.number("clearing up", 0.05, 1.5), ended)

    def _end(self, job: BatchJob) -> None:
        if len(job.runs) > 1 and job.end == BY_CODE:
            # Of a start that it does not know of it learns later.
            for run in job.runs[:-1]:
                self.world.later(self.world.chance.number("unknown run", 1.0, 120.0), run.kill)
        else:
            for run in job.runs:
                run.kill()
        job.state, job.ended_at = ENDED, self.world.now
        self.world.note("scheduler", f"ended {job.id}: {job.end}")

    def cancel(self, job: BatchJob, *, by: str) -> None:
        """As its command does it: SIGTERM, a while, SIGKILL; what waits is gone at once."""
        if not job.open or job.end:
            return
        job.wished = True
        self.world.note("scheduler", f"cancels {job.id} for the {by}")
        self.world.coverage.sometimes(f"a job is cancelled by the {by} while {job.state}")
        if job.state in (PENDING, HELD):
            job.end = CANCELLED
            self._end(job)
            return
        self._stop(job, CANCELLED)

    def _stop(self, job: BatchJob, how: str) -> None:
        job.end = how
        job.state = ENDING
        job.runs[-1]
        for each in job.runs:
            each.terminate()

        def killed() -> None:
            if job.state == ENDING and job.end == how and not job.ended_at:
                self._ends(job, how)

        grace = _GRACE
        if self.world.chance.fault("a node does not listen", 0.1):
            grace = self.world.chance.number("listens after", 20.0, 200.0)
        self.world.later(grace, killed)

    def _time_is_up(self, job: BatchJob, run: ScriptRun | ElementRun) -> None:
        if job.runs[-1] is run:
            self.time_is_up(job)

    def time_is_up(self, job: BatchJob) -> None:
        """It may not run for longer."""
        if job.state == RUNNING:
            self.world.coverage.sometimes("a job exceeds its walltime")
            self._stop(job, TIMEOUT)

    def lose_node(self, job: BatchJob) -> None:
        """The node on which it runs is gone."""
        if job.state != RUNNING:
            return
        self.world.note("scheduler", f"loses the node of {job.id}")
        self.world.coverage.sometimes("a node dies")
        self.files.power_lost_at(job.node)
        for run in job.runs:
            run.kill()
        if job.requeues:
            self._requeue(job)
        else:
            # It takes a while until the scheduler notices.
            self.world.later(
                self.world.chance.number("node missed", 1.0, 60.0),
                lambda: self._ends(job, NODE_FAIL) if job.state == RUNNING else None,
            )

    def _preempt(self, job: BatchJob) -> None:
        if job.state != RUNNING:
            return
        if job.requeues:
            for run in job.runs:
                run.kill()
            self._requeue(job)
        else:
            self._stop(job, PREEMPTED)

    def _requeue(self, job: BatchJob) -> None:
        job.state, job.restarts = PENDING, job.restarts + 1
        self.world.note("scheduler", f"requeues {job.id}")
        self.world.coverage.sometimes("a job is requeued")
        self.world.later(
            self.world.chance.number("requeued for", 1.0, 20.0), lambda: self.start(job)
        )

    def _again(self, job: BatchJob) -> None:
        """A controller that has forgotten that it started the job starts it once more."""
        if job.state != RUNNING:
            return
        self.world.note("scheduler", f"starts {job.id} a second time without knowing it")
        self.world.coverage.sometimes("a job is started again without being counted")
        self._run(job)

    # --- what is seen of it

    def seen(self, job: BatchJob) -> bool:
        """Whether any command lists it now."""
        if self.world.chance.fair:
            return not job.forgotten
        return not (job.forgotten or self.world.now < job.shows_at or self.has("unlisted"))

    def script_at(self, path: str) -> str | None:
        """The text that a submission reads."""
        found = self.files.entry(path)
        return found.data.decode() if isinstance(found, File) else None


def key_of(folder: str) -> str:
    """The key of a job's folder."""
    return folder.rpartition("/")[2].rpartition("-")[0]
