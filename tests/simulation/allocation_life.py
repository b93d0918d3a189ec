"""A flow that holds an allocation for its jobs, what happens to it, and what must hold."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from hpc_prefect.errors import SchedulerError
from hpc_prefect.executor.allocation import AllocationTerms, AllocationUse, HeldAllocation
from hpc_prefect.executor.request import JobRequest
from hpc_prefect.executor.run import JobRun
from hpc_prefect.executor.service import Handle
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.identity import job_key, spread
from hpc_prefect.job.result import JobResult
from hpc_prefect.job.spec import Executable, JobSpec, Resources
from hpc_prefect.schedulers import is_allocation
from simulation import cluster as batch
from simulation.held import AgentProgram, AgentRun
from simulation.life import LONGEST, Life, Listening, Wanted
from simulation.oracles import entries_of

if TYPE_CHECKING:
    from simulation.cluster import BatchJob
    from simulation.place import Place
    from simulation.process import Process

T = TypeVar("T")

#: Batch jobs of one allocation, in all of its life.
_MOST_TERMS = 80
#: Attempts of a job that is handed to one allocation after another.
_MOST_ATTEMPTS = 20
#: Batch jobs, one after another and of one start, in which no job ran.
_MOST_UNUSED = 10
#: Seconds after which an end that was due must have come: a file server may be silent meanwhile,
#: and a node not listen.
_SLACK = 420.0


@dataclass(frozen=True)
class Shape:
    """What is held, how long, and how jobs are handed to it; seconds.

    Attributes:
        in_turn: each job comes after the end of the one before, `pause` later; else all at once.
    """

    cores: int
    walltime: int
    idle_timeout: int
    orphan_timeout: int
    renew: bool
    in_turn: bool
    pause: float


@dataclass
class _Hold:
    """An allocation as one process of the flow has it."""

    allocation: HeldAllocation
    opened: Future[Any]
    last: Future[Any] | None = None
    left: bool = False
    closes: bool = False


@cache
def _terms(key: str) -> list[tuple[str, str]]:
    """The keys of an allocation's batch jobs, each with the folder above."""
    terms = [job_key(key, (), "allocation", n) for n in range(1, _MOST_TERMS)]
    return [(term, spread(term)) for term in terms]


class AllocationLife(Life):
    """A flow whose calls are made in the block of an allocation.

    Attributes:
        bases: of its batch jobs' folders, without the attempts.
    """

    def __init__(
        self, place: Place, number: int, wanted: list[Wanted], shape: Shape, starts: int
    ) -> None:
        super().__init__(place, number, wanted, starts)
        self.shape = shape
        key = f"held{number}"
        campaign = wanted[0].base.rsplit("/", 2)[0]
        self._key, self._base = key, f"{campaign}/cd/{key}"
        self.bases: list[str] = []
        for term, above in _terms(key):
            self.bases.append(f"{campaign}/{above}/{term}")
            place.cluster.outputs[term] = ()
            place.cluster.behaviour[term] = [AgentProgram()]
        self._holds: dict[int, _Hold] = {}
        self._processes: list[Process] = []
        self._told_ends: set[str] = set()
        self._unused = 0

    # --- a start

    def start(self) -> None:
        under_way = self._process
        self._unused = 0
        super().start()
        if self.world.chance.fair and under_way is not None:
            # It has come through all that was foul.
            self.world.later(LONGEST, partial(self._must_be_over, under_way))

    #: What carries a call out.
    kind: ClassVar[type[Any]] = JobRun

    def hand_over(self, job: Wanted, process: Process, run: str) -> Handle[JobResult]:
        hold = self._holds.get(process.number)
        if hold is None:
            hold = self._holds[process.number] = self._hold(process, run)
        request = self._request(job, process, run)
        request = dataclasses.replace(request, placing=hold.allocation)
        before = hold.last if self.shape.in_turn else None
        hold.last = _on_loop(process, partial(self._inside, hold, before, request, process))
        return Handle(hold.last, process.executor, job.base)

    async def _inside(
        self, hold: _Hold, before: Future[Any] | None, request: JobRequest, process: Process
    ) -> JobResult:
        """A call that is made inside of the block."""
        await asyncio.wrap_future(hold.opened)
        if before is not None:
            ended = asyncio.wrap_future(before)
            await asyncio.wait([ended])
            _ = ended.cancelled() or ended.exception()  # it is told elsewhere
            await asyncio.sleep(self.shape.pause)
        with process.at_work():
            handle = process.executor.start(request, self.kind)
        return await asyncio.wrap_future(handle.result)

    def _hold(self, process: Process, run: str) -> _Hold:
        """Enter the block."""
        self._processes.append(process)
        chance, shape = self.world.chance, self.shape
        request = JobRequest(
            spec=self._spec(),
            base=self._base,
            key=self._key,
            claimant=process.claimant(run),
            poll_interval=self.place.poll_interval,
            queue_full_wait=300.0,
            listener=Listening(self.world.coverage),
            is_over=partial(self.place.prefect_says_over, process),
        )
        terms = AllocationTerms(
            idle_timeout=shape.idle_timeout,
            orphan_timeout=shape.orphan_timeout,
            renew=shape.renew,
        )
        allocation = HeldAllocation(request, terms, process.executor, process.mount)
        allocation.on_term = _Terms(self, process)
        opened = _on_loop(process, partial(self._open_it, allocation))
        hold = _Hold(allocation, opened)
        after = chance.number("leaves its block after", 0.0, 60.0)
        if chance.fault("a flow leaves its block by an error", 0.06):
            self.world.later(after, partial(self._leave_by_error, process, hold))
        elif chance.fault("a flow's process is told to end", 0.06):
            self.world.later(after, partial(self._leave_it, process, hold))
        return hold

    def _spec(self) -> JobSpec:
        """As the block's `_spec` makes it."""
        like, shape = self.wanted[0].spec, self.shape
        assert like is not None
        options = dict(like.site.options)
        if "requeue" in options:
            options["requeue"] = "no"
        return dataclasses.replace(
            like,
            name="allocation",
            command_name="allocation",
            executable=Executable(path="/bin/bash"),
            site=dataclasses.replace(like.site, options=options, launcher="{command}"),
            resources=Resources(ranks_per_node=shape.cores, walltime=shape.walltime, launch="mpi"),
            expected_outputs=(),
        )

    async def _open_it(self, allocation: HeldAllocation) -> None:
        """As the block does it when it is entered."""
        try:
            ended = await allocation.open()
        except Exception:
            self._wish_for_ends()
            await allocation.close(now=True)
            raise
        if ended is not None:
            raise SchedulerError(f"the allocation ended before it could be used: {ended.verdict}")

    # --- its end

    def _cancel_by_command(self) -> None:
        """A job of it, or the allocation."""
        files = self.place.files
        known = [base for base in self.bases if files.is_folder(f"{base}-1")]
        if not known or self.world.chance.below("a job, or the allocation", 2):
            super()._cancel_by_command()
            return
        self.world.coverage.sometimes("an allocation is cancelled by a command")
        base = known[-1]
        process = self.place.new_process("jobs cancel")
        job = Wanted(base.rpartition("/")[2], base)
        process.loop.create_task(Life._command(self, process, job))

    def _wish_for_ends(self) -> None:
        """From now on its batch jobs may be cancelled."""
        self.place.programs.wishes.update(self.bases)

    def _end(self, process: Process) -> None:
        """Leave the block, and end the process."""
        hold = self._holds.get(process.number)
        if process.dead or hold is None or hold.left:
            super()._end(process)
            return
        hold.left = True
        closed = self._close(process, hold, now=False)
        closed.add_done_callback(partial(self._closed, process))

    def _close(self, process: Process, hold: _Hold, *, now: bool) -> Future[AllocationUse]:
        self._wish_for_ends()
        hold.closes = True
        self.world.note(self._name, f"leaves its block{' by an error' if now else ''}")
        return _on_loop(process, partial(hold.allocation.close, now=now))

    def _closed(self, process: Process, closed: Future[AllocationUse]) -> None:
        if process.dead or closed.cancelled():
            return
        if error := closed.exception():
            self.world.fail("bug", f"leaving the block of {self._base}: {error!r}")
        self.world.coverage.sometimes("an allocation is closed")
        self.world.later(0.0, partial(self._end, process))

    def _leave_by_error(self, process: Process, hold: _Hold) -> None:
        if not (process.dead or hold.left or self.world.chance.fair):
            self.world.coverage.sometimes("a flow leaves its block by an error")
            self._close(process, hold, now=True)

    def _leave_it(self, process: Process, hold: _Hold) -> None:
        """SIGTERM, as of `on_sigterm = "leave"`."""
        if not (process.dead or hold.left or self.world.chance.fair):
            self.world.coverage.sometimes("a flow's process is told to end")
            hold.allocation.leave()
            process.die("told to end")

    def died(self, process: Process) -> None:
        self._holds.pop(process.number, None)
        super().died(process)
        due = self.shape.orphan_timeout + _SLACK
        self.world.later(due, partial(self._must_be_gone, self.world.now))

    def orphaned(self, run: AgentRun) -> None:
        """An agent has ended because nobody has held its allocation: that must be true."""
        if run.folder.rpartition("-")[0] not in self.bases:
            return
        troubled = any(f.startswith("there is trouble") for f in self.world.chance.happened)
        # If a submission made two jobs, the flow may get an error, and holds neither.
        twins = sum(job.script.folder == run.folder for job in self.batch_jobs()) > 1
        process = self._process
        hold = self._holds.get(process.number) if process is not None else None
        if process is None or hold is None or run.folder in self._told_ends:
            return
        if troubled or twins:
            return
        least = self.world.now - self.shape.orphan_timeout
        stopped = process.resumed_at > least or process.stopped_for() > 0
        if hold.opened.done() and not hold.closes and not stopped and process.began_at < least:
            self.world.fail("lost", f"{run.folder} has ended as nobody's, and is held")

    def _must_be_gone(self, since: float) -> None:
        """Nobody has held it for longer than it may be without its flow."""
        if any(not each.dead or each.died_at > since for each in self._processes):
            return
        for job in self.batch_jobs():
            run = job.runs[-1] if job.runs else None
            if not isinstance(run, AgentRun) or not run.in_program:
                continue
            if self.world.now - run.began_at > _SLACK:
                self.world.fail("leak", f"{job.id} holds nodes for nobody")
        self.world.coverage.sometimes("nobody holds an allocation any more")

    def batch_jobs(self) -> list[BatchJob]:
        """All that were ever submitted to hold its nodes."""
        bases = set(self.bases)
        every = self.place.cluster.every_job
        return [job for job in every if job.script.folder.rpartition("-")[0] in bases]

    def left_over(self) -> list[str]:
        """Batch jobs that hold nodes in the end, or are going to."""
        return [
            f"{job.id}, of an allocation, is {job.state} in the end"
            for job in self.batch_jobs()
            if job.open and not (job.forgotten and job.state == batch.PENDING)
        ]

    # --- what it is told

    def _judge(self, job: Wanted, result: Any) -> Any:
        self.must_be_over_for_good(result, job.base)
        attempts = int(result.folder.rpartition("-")[2])
        if attempts > _MOST_ATTEMPTS:
            self.world.fail("stuck", f"{result.folder} is the last of too many attempts")
        return super()._judge(job, result)

    def must_be_over_for_good(self, result: JobResult, base: str) -> None:
        """Who came too late for an allocation is handed over again, unless somebody asked for the
        end of the work of this base."""
        reason, folder = result.verdict.reason, result.folder
        wished = base in self.place.programs.wishes
        if reason is Reason.NEVER_STARTED and self.world.chance.fair and not wished:
            self.world.fail("lost", f"{folder} never started, and is not submitted again")
        if reason is Reason.REJECTED and self._wrongly_rejected(result):
            self.world.fail("lost", f"{folder} is told as rejected, and no agent has refused it")

    def _wrongly_rejected(self, result: JobResult) -> bool:
        """Whether it was handed to an allocation, and no agent says that it can never take it."""
        handed = self.handed_over(result.folder)
        if handed is None:
            return False
        runs = (run for job in self.batch_jobs() for run in job.runs)
        agents = (run.agent for run in runs if isinstance(run, AgentRun) and run.agent is not None)
        return not any(handed["tag"] in agent.refused for agent in agents)

    def handed_over(self, folder: str) -> dict[str, Any] | None:
        """The intent by which it was handed to an allocation; None if it was submitted outside."""
        entries = entries_of(self.place.files, folder)
        intents = [entry for entry in entries if entry.get("event") == "intent"]
        if intents and is_allocation(intents[-1]["job"]["site"]["scheduler"]):
            return intents[-1]
        return None

    def judge_term(self, result: JobResult, use: AllocationUse) -> None:
        """One of its batch jobs has ended."""
        verdict = result.verdict
        self._told_ends.add(result.folder)
        self.world.note(self._name, f"is told of its allocation: {verdict.reason} ({use})")
        self.world.coverage.sometimes(f"an allocation's end is: {verdict.reason}")
        self.place.judgements.result(result, result.folder.rpartition("-")[0])
        self._unused = 0 if use.used else self._unused + 1
        if self._unused > _MOST_UNUSED:
            self.world.fail("stuck", f"{result.folder} is the last of too many that no job ran in")
        if use.used > use.held * 1.001 + 0.001:
            self.world.fail("false", f"{result.folder} is told as used for more than held: {use}")

    def _stumbled(self, job: Wanted, error: BaseException) -> None:
        super()._stumbled(job, error)
        if "Cancel all but one" in str(error):  # a person does it, of its batch jobs too
            waiting: dict[str, list[BatchJob]] = {}
            for each in self.batch_jobs():
                if each.open and not each.runs:
                    waiting.setdefault(each.script.folder, []).append(each)
            for twins in waiting.values():
                for each in twins[1:]:
                    self.place.cluster.cancel(each, by="user")


class _Terms:
    """Who is told of the allocation's batch jobs."""

    def __init__(self, life: AllocationLife, process: Process) -> None:
        self._life, self._process = life, process

    def begun(self, request: JobRequest) -> None:
        for job in self._life.batch_jobs():
            if job.script.folder.rpartition("-")[0] != request.base and job.state == batch.RUNNING:
                self._life.world.coverage.sometimes("an allocation has two batch jobs")
        self._life.world.note(self._process.name, f"holds, or attaches to, {request.base}")

    def ended(self, result: JobResult, use: AllocationUse) -> None:
        if not self._process.dead:
            self._life.judge_term(result, use)


def _on_loop(process: Process, work: Callable[[], Coroutine[Any, Any, T]]) -> Future[T]:
    """Have it done on a process's loop; nothing of it begins when that dies before."""
    told: Future[T] = Future()

    def ended(task: asyncio.Task[T]) -> None:
        if task.cancelled():
            told.cancel()
        elif (error := task.exception()) is not None:
            told.set_exception(error)
        else:
            told.set_result(task.result())

    def begin() -> None:
        process.loop.create_task(work()).add_done_callback(ended)

    process.loop.call_soon(begin)
    return told
