"""Who wants jobs: a flow that is started, dies, and is started again, with its user."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from hpc_prefect.errors import (
    HpcPrefectError,
    JobHeld,
    LedgerError,
    SchedulerError,
    TransportError,
)
from hpc_prefect.executor.attempt import numbers
from hpc_prefect.executor.request import JobRequest
from hpc_prefect.executor.service import Handle
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.result import JobResult
from hpc_prefect.job.spec import JobSpec
from hpc_prefect.operations.cancel import Cancellation, cancelled
from hpc_prefect.operations.snapshot import JobSnapshot, read_job
from simulation import leaks
from simulation.coverage import TOLD, Coverage
from simulation.process import Process

if TYPE_CHECKING:
    from simulation.place import Place

#: What a job that is under way may be ended by with an error, and the flow be started again.
_ERRORS: tuple[type[HpcPrefectError], ...] = (JobHeld, LedgerError, SchedulerError, TransportError)
#: Starts in fair weather, after which all must be well.
_FAIR_STARTS = 4
#: Within so many seconds a start in fair weather must come to its end.
LONGEST = 6 * 3600.0


class Listening:
    """A listener that counts what it is told."""

    def __init__(self, coverage: Coverage) -> None:
        self._coverage = coverage

    def state(
        self, text: str, *, warning: bool = False, minor: bool = False, job_id: str = ""
    ) -> None:
        for part in (*TOLD, "it had been submitted after all"):
            if part in text:
                self._coverage.sometimes(f"told: {part}")

    def output(self, stream: str, text: str, path: str) -> None:
        self._coverage.sometimes(f"told: {stream}")


@dataclass(frozen=True)
class Wanted:
    """A job that a flow wants.

    Attributes:
        base: its folder without the attempt.
        spec: of a batch job.
        shots: of a quantum job.
    """

    key: str
    base: str
    spec: JobSpec | None = None
    shots: int = 0


class Life:
    """A flow with its jobs, from its first start to its last.

    Attributes:
        results: the last result of each job, by its key.
        over: nobody starts it again.
        errors: what a job that is under way may end with, and the flow be started again.
    """

    errors = _ERRORS

    def __init__(self, place: Place, number: int, wanted: list[Wanted], starts: int) -> None:
        self.place = place
        self.world = place.world
        self.number = number
        self.wanted = wanted
        self.results: dict[str, Any] = {}
        self.over = False
        self.starts_left = starts
        self._fair_starts = 0
        self._process: Process | None = None
        self._open: dict[str, Future[JobResult]] = {}
        self._calls: dict[Process, set[str]] = {}  # under way in each
        self._given_up: set[str] = set()
        self._errors: list[str] = []
        self._name = f"life {number}"
        self._most_in_queue = self.world.chance.one_of("most in the queue", (0, 0, 0, 1, 2))

    # --- a start

    def start(self) -> None:
        """A process that wants all of its jobs."""
        place, world = self.place, self.world
        if self._process is not None or self.over:
            return
        fair = world.chance.fair
        self.starts_left -= 1
        self._fair_starts += fair
        self._errors = []
        process = self._process = place.new_process(self._name)
        run = f"run-{process.number}"
        place.runs[run] = process
        if not fair:
            process.doom(30 + 25 * len(self.wanted))
        self._open = {}
        self._calls[process] = {job.key for job in self.wanted} - self._given_up
        for job in self.wanted:
            if job.key in self._given_up:
                continue
            with process.at_work():
                handle = self.hand_over(job, process, run)
            self._open[job.key] = handle.result
            handle.result.add_done_callback(partial(self._ended, process, job))
            if not fair and world.chance.fault("a flow cancels a job", 0.05):
                delay = world.chance.number("cancelled after", 0.0, 30.0)
                world.later(delay, partial(self._cancel, process, job, handle))
        if not self._open:
            self._end(process)
            return
        if fair:
            world.later(LONGEST, partial(self._must_be_over, process))
        elif world.chance.fault("somebody cancels by a command", 0.06):
            delay = world.chance.number("command after", 0.5, 40.0)
            world.later(delay, self._cancel_by_command)

    def hand_over(self, job: Wanted, process: Process, run: str) -> Handle[JobResult]:
        """Have the process's executor begin with it."""
        return process.executor.start(self._request(job, process, run))

    def _request(self, job: Wanted, process: Process, run: str) -> JobRequest:
        chance = self.world.chance
        assert job.spec is not None
        return JobRequest(
            spec=job.spec,
            base=job.base,
            key=job.key,
            claimant=process.claimant(run),
            poll_interval=self.place.poll_interval,
            timeout=self.timeout_of(job),
            attach_only=chance.fault("a call only attaches", 0.03),
            queue_full_wait=300.0,
            max_jobs_in_queue=self._most_in_queue,
            listener=Listening(self.world.coverage),
            is_over=partial(self.place.prefect_says_over, process),
        )

    def timeout_of(self, job: Wanted) -> float | None:
        """After how many seconds its end is asked for; None for never."""
        chance = self.world.chance
        if not chance.fault("a call has a timeout", 0.05):
            return None
        self.place.programs.wishes.add(job.base)
        return chance.number("timeout", 1.0, 60.0)

    def _cancel(self, process: Process, job: Wanted, handle: Any) -> None:
        if process.dead or handle.result.done():
            return
        self.world.note(self._name, f"cancels {job.key}")
        self.place.programs.wishes.add(job.base)
        handle.cancel("user")

    def _ended(self, process: Process, job: Wanted, future: Future[JobResult]) -> None:
        """A result, or an error, was handed over."""
        if process.dead or future.cancelled():
            return
        error = future.exception()
        if self._process is not process:  # it was taken for dead; what it tells must be true too
            if error is None:
                self._judge(job, future.result())
            self._over_in(process, job)
            return
        self._open.pop(job.key, None)
        self._calls[process].discard(job.key)
        if error is not None:
            self._stumbled(job, error)
        else:
            self.results[job.key] = self._judge(job, future.result())
        if not self._open:
            self.world.later(0.0, partial(self._end, process))

    def _over_in(self, process: Process, job: Wanted) -> None:
        """A call of one that was taken for dead is over; after its last one it ends, like all."""
        self._calls[process].discard(job.key)
        if not self._calls[process]:
            self.world.later(0.0, partial(self._end, process))

    def _judge(self, job: Wanted, result: Any) -> Any:
        """Hold what was handed over against what happened; what is kept of it has a `state`."""
        verdict = result.verdict
        self.world.note(self._name, f"is told of {job.key}: {verdict.reason} ({verdict.summary})")
        self.place.judgements.result(result, job.base)
        return result

    def _stumbled(self, job: Wanted, error: BaseException) -> None:
        """No result, and why; a person does what the message says."""
        self.world.note(self._name, f"gets an error about {job.key}: {type(error).__name__}")
        self.world.coverage.sometimes(f"an error: {type(error).__name__}")
        if not isinstance(error, self.errors):
            self.world.fail("bug", f"{job.base}: {error!r}")
        self._errors.append(str(error))
        if "Cancel all but one" in str(error):
            self.world.coverage.sometimes("two jobs of one name are told of")
            cluster = self.place.cluster
            mine = [j for j in cluster.every_job if j.script.folder.startswith(f"{job.base}-")]
            open_ones = [each for each in mine if each.open and not each.runs]
            for each in open_ones[: len([j for j in mine if j.open]) - 1]:
                cluster.cancel(each, by="user")

    def _end(self, process: Process) -> None:
        """The process ends by itself; in fair weather it is looked first what it holds on to."""
        if process.dead:
            return
        if self.world.chance.fair:
            self.world.later(leaks.AT_REST, partial(self._end_at_rest, process))
        else:
            process.die("at its end")

    def _end_at_rest(self, process: Process) -> None:
        if process.dead:
            return
        self.world.coverage.sometimes("a process is at rest")
        for leak in leaks.of_process(process):
            self.world.fail("leak", leak)
        process.die("at its end")

    def left_over(self) -> list[str]:
        """What is left of it in the end, in a sentence each."""
        return []

    def died(self, process: Process) -> None:
        """Its process is gone, however; its user may start it again."""
        if process is not self._process:
            return
        self._process = None
        if self._is_content():
            self.over = True
            self.world.note(self._name, "is content")
            return
        if self.world.chance.fair:
            if self._fair_starts >= _FAIR_STARTS:
                self._complain()
            else:
                self.world.later(1000.0, self.start)
        elif self.starts_left > 0:
            chance = self.world.chance
            delay = chance.number("started again after", 0.0, 20.0)
            if chance.below("started again", 4) == 0:
                delay += 400.0
            self.world.later(delay, self.start)

    def stopped(self, process: Process) -> None:
        """Its process does nothing: its user may think that it is dead."""
        if process is not self._process or self.starts_left <= 0:
            return
        if self.world.chance.fault("a stopped process is taken for dead", 0.6):
            self.world.coverage.sometimes("a stopped process is taken for dead")
            self.world.note(self._name, f"takes {process.name} for dead")
            self.place.taken_for_dead.add(process)
            self._process = None
            self.world.later(self.world.chance.number("taken for dead", 1.0, 20.0), self.start)

    def _is_content(self) -> bool:
        """Whether the user wants no more: what failed by itself is not run for ever."""
        chance = self.world.chance
        for job in self.wanted:
            result = self.results.get(job.key)
            if result is None:
                return False
            if job.key in self._given_up or result.state == "succeeded":
                continue
            if result.state == "lost" and not chance.fair:
                return False
            if not chance.fair and chance.below("a user gives up", 2):
                return False
            if result.state == "lost" and self._fair_starts < _FAIR_STARTS:
                return False
            self._given_up.add(job.key)
        return True

    def _complain(self) -> None:
        missing = [job.key for job in self.wanted if job.key not in self.results]
        self.over = True
        if missing:
            said = self._errors[-1] if self._errors else "nothing"
            self.world.fail(
                "lost", f"{missing} have no result after {_FAIR_STARTS} fair starts: {said}"
            )

    def _must_be_over(self, process: Process) -> None:
        if not process.dead and self._process is process:
            self.world.fail(
                "stuck", f"{sorted(self._open)} have no end after {LONGEST:.0f} s without a fault"
            )

    # --- cancelling from outside

    def _cancel_by_command(self) -> None:
        """`hpc-prefect jobs cancel`, by another process on some machine."""
        process = self.place.new_process("jobs cancel")
        chosen = self.wanted[self.world.chance.below("which is cancelled", len(self.wanted))]
        process.loop.create_task(self._command(process, chosen))

    async def _command(self, process: Process, job: Wanted) -> None:
        try:
            snapshot = await asyncio.to_thread(self._chosen, process, job)
            if snapshot is not None:
                (done,) = await cancelled([snapshot])
                self._told(done)
        except HpcPrefectError as error:
            self.world.note("jobs cancel", f"fails: {type(error).__name__}")
        process.die("at its end")

    def _chosen(self, process: Process, job: Wanted) -> JobSnapshot | None:
        newest = max(numbers(process.mount, job.base), default=0)
        if not newest:
            return None
        self.place.programs.wishes.add(job.base)
        return read_job(f"{job.base}-{newest}", process.mount)

    def _told(self, done: Cancellation) -> None:
        self.world.note("jobs cancel", f"says {done.confirmed}: {done.words}")
        self.world.coverage.sometimes(
            f"a cancelling command says {'confirmed' if done.confirmed else 'unconfirmed'}"
        )
        folder = done.job.folder.path
        # It believes the scheduler, which may have forgotten a start: see docs/killed.md.
        jobs = [each for each in self.place.cluster.every_job if each.script.folder == folder]
        forgotten = any(len(each.runs) > 1 for each in jobs)
        if done.confirmed and self.place.programs.running(folder) and not forgotten:
            self.world.fail(
                "false", f"{folder} is told as gone ({done.words}), but its program runs"
            )


def final(result: JobResult) -> bool:
    """Whether nobody can find out more."""
    return result.verdict.reason is not Reason.LOST
