"""One job from the call to the verdict: open, claim, submit, watch, settle."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import logging
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from importlib.metadata import version
from typing import Any, Protocol

from hpc_prefect.errors import JobHeld, LedgerError, SchedulerError, TransportError
from hpc_prefect.executor import claim as claims
from hpc_prefect.executor.claim import Claim, Claimant
from hpc_prefect.executor.connection import Connection
from hpc_prefect.executor.follow import Follower
from hpc_prefect.executor.ledger import JobFolder
from hpc_prefect.job import folder as names
from hpc_prefect.job.failure import Reason, Verdict
from hpc_prefect.job.identity import job_tag
from hpc_prefect.job.script import render
from hpc_prefect.job.spec import JobSpec
from hpc_prefect.job.state import Evidence, JobResult, JobState, Observation, decide
from hpc_prefect.schedulers.base import Accepted, NoAnswer, Refused, Unclear

logger = logging.getLogger("hpc_prefect.executor")

#: After our own cancellation the scheduler's word is waited for so long; then the caller is told
#: that it is not confirmed.
CONFIRM = 20.0


class Listener(Protocol):
    """Who is told while a job runs. Called on the executor's thread; must not block."""

    def state(self, text: str) -> None:
        """The job came into another state."""

    def output(self, stream: str, text: str, path: str) -> None:
        """The program wrote `text` to `stdout` or `stderr`, which is the file `path`."""


class Silence:
    """A `Listener` that nobody listens to."""

    def state(self, text: str) -> None: ...

    def output(self, stream: str, text: str, path: str) -> None: ...


@dataclass(frozen=True, kw_only=True)
class JobRequest:
    """All that the executor must know to run one job.

    Attributes:
        base: `<work_dir>/.hpc-prefect/<campaign>/<2 hex>/<key>`; attempts are numbered after it.
        claimant: this process, and the flow run that it works for.
        poll_interval: seconds between two questions to the scheduler.
        timeout: seconds after which the job is cancelled, None for never.
        provenance: what the caller knows of where this job comes from; goes into the run record.
        is_over: whether Prefect says that another flow run has ended.
    """

    spec: JobSpec
    base: str
    key: str
    claimant: Claimant
    secrets: dict[str, str] = field(default_factory=dict, repr=False)
    poll_interval: float = 10.0
    timeout: float | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    is_over: Callable[[str], bool] = lambda flow_run: False
    listener: Listener = field(default_factory=Silence)


class JobRun:
    """A job under way. Lives on the executor's event loop, but for what runs `in_thread`."""

    def __init__(self, request: JobRequest, connection: Connection) -> None:
        self.request = request
        self.connection = connection
        self.spec = request.spec
        self.poll_interval = request.poll_interval
        self.job_id = ""
        self.next_look = 0.0
        self.wants_answer = False
        self.cancelled_by = ""
        self._cancelled_before = False
        self._unconfirmed = False
        self._cancelling: asyncio.Task[None] | None = None
        self._next: JobRun | None = None
        self._verdict: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self._attempt = 1
        self._folder = JobFolder(connection.transport, "")
        self._claim: Claim | None = None
        self._followers: dict[str, Follower] = {}
        self._seen: Observation | None = None
        self._watched_since = 0.0
        self._answered_at = 0.0
        self._absent_since: float | None = None
        self._ended_since: float | None = None
        self._record_since: float | None = None
        self._submitted_at = 0.0
        self._shown = ""

    # --- the life of a job

    async def carry_out(self) -> JobResult:
        """From the call to the result, whatever it is.

        Raises:
            JobHeld, LedgerError, TransportError, SchedulerError: the job could not be followed to
                its end; it may be running, and another call with the same identity finds it.
        """
        earlier = await self.connection.in_thread(self._open)
        if earlier is not None:
            self.request.listener.state(
                f"already done as {earlier.job_id} in attempt {earlier.attempt}: its result is used"
            )
            return earlier
        result = await self._settle(await self._end())
        if not self._cancelled_before or result.state in ("succeeded", "lost"):
            return result
        if self._unconfirmed:
            raise SchedulerError(
                f"job {self.spec.name}: an earlier run asked for the end of {self.job_id}, which"
                f" {self.connection.scheduler.name} still does not confirm. Nothing more was"
                " submitted; start again when it is gone"
            )
        # An earlier run asked for its end and did not see it; this one asked for the job.
        self._next = JobRun(self.request, self.connection)
        return await self._next.carry_out()

    async def _end(self) -> Verdict:
        """Submit the job, unless an earlier run has, and watch it to its end."""
        if not self.job_id:
            refused = await self._submit()
            if refused is not None:
                return refused
        self._begin_watching()
        try:
            if self.cancelled_by:  # by an earlier run, or while the submission was under way
                self._begin_cancelling()
            return await self._verdict
        finally:
            self.connection.release(self)

    def cancel(self, by: str) -> None:
        """Ask for the job's end: `user` or `timeout`. The result then tells how it ended."""
        if self._next is not None:
            self._next.cancel(by)
            return
        self._cancelled_before = False  # nobody wants it to run again any more
        if self.cancelled_by or self._verdict.done():
            return
        self.cancelled_by = by
        if self.job_id:
            self._begin_cancelling()

    def _begin_watching(self) -> None:
        now = asyncio.get_running_loop().time()
        self._watched_since = self._answered_at = now
        self.next_look = now
        self._followers = {
            stream: Follower(self.connection.transport, self._folder.file(stream))
            for stream in (names.STDOUT, names.STDERR)
        }
        self.connection.watch(self)

    # --- opening: which attempt, and is it ours (in a thread)

    def _open(self) -> JobResult | None:
        """Find or make this job's folder. Returns the result when it has already succeeded."""
        newest = self._newest_attempt()
        self._use(newest or 1)
        if newest:
            ledger = self._folder.ledger()
            earlier = self._result_of(ledger)
            if earlier is not None and earlier.succeeded and self._outputs_there(ledger):
                return earlier
            if earlier is not None and earlier.verdict.reason is not Reason.LOST:
                self._use(newest + 1)
        self._folder.transport.make_folder(self._folder.path)
        self._claim, predecessor = claims.take(
            self._folder.transport,
            self._folder.path,
            self.request.claimant,
            self.request.is_over,
        )
        self._attach(predecessor)
        return None

    def _newest_attempt(self) -> int:
        parent, _, key = self.request.base.rpartition("/")
        numbers = [
            name.removeprefix(f"{key}-")
            for name in self._folder.transport.list(parent)
            if name.startswith(f"{key}-")
        ]
        return max((int(number) for number in numbers if number.isdecimal()), default=0)

    def _use(self, attempt: int) -> None:
        self._attempt = attempt
        self._folder = JobFolder(self.connection.transport, f"{self.request.base}-{attempt}")

    def _result_of(self, ledger: names.Ledger) -> JobResult | None:
        if not ledger.result:
            return None
        try:
            return JobResult.from_dict(ledger.result | {"collected": True})
        except (KeyError, TypeError, ValueError) as error:
            raise LedgerError(
                f"{self._folder.path}/{names.JOURNAL} holds a verdict that cannot be read"
                f" ({error!r}); move the folder away to have the job run again"
            ) from error

    def _outputs_there(self, ledger: names.Ledger) -> bool:
        """Whether a finished job's files are still as it left them; False when one is gone."""
        now = self._folder.outputs(self.spec)
        if any(output not in now for output in self.spec.expected_outputs):
            return False
        changed = [name for name, was in ledger.outputs.items() if now.get(name) != was]
        if changed:
            raise LedgerError(
                f"job {self.spec.name} already ran ({self._folder.path}), but {', '.join(changed)}"
                " has changed since, so its result cannot be trusted. Restore the file, or remove"
                " it to have the job run again"
            )
        return True

    def _attach(self, predecessor: Claimant | None) -> None:
        """Take up what an earlier claimant left, if there was one."""
        ledger = self._folder.ledger()
        if not ledger.intended:
            return
        self._folder.note(
            "attached",
            by=self.request.claimant.describe(),
            from_=predecessor.describe() if predecessor else "this process",
        )
        self.job_id = ledger.job_id
        self._submitted_at = ledger.submitted_at
        self._cancelled_before = bool(ledger.cancel) and not self.cancelled_by
        self.cancelled_by = self.cancelled_by or ledger.cancel
        self.wants_answer = True
        if self.job_id:
            self.request.listener.state(
                f"taken up again as {self.job_id} from"
                f" {predecessor.describe() if predecessor else 'an earlier call'}"
            )

    # --- submitting: intent, act, id

    async def _submit(self) -> Verdict | None:
        """Submit once, whatever it takes to know that. Returns a verdict when it was refused."""
        doubt = (await self.connection.in_thread(self._folder.ledger)).intended
        for _ in range(3):
            if doubt and await self._found_by_tag():
                return None
            if self.cancelled_by:
                return _never_submitted(self.cancelled_by)
            outcome = await self.connection.in_thread(self._hand_over)
            if isinstance(outcome, Accepted):
                return None
            if isinstance(outcome, Refused):
                reason = Reason.QUEUE_FULL if outcome.full else Reason.REJECTED
                return Verdict(reason=reason, summary=outcome.said, said=outcome.said)
            self.request.listener.state(f"the submission's outcome is unclear ({outcome.said})")
            doubt = True
        if await self._found_by_tag():
            return None
        raise SchedulerError(
            f"job {self.spec.name}: three submissions had no clear outcome and no job named"
            f" {self._tag} can be found; look at the scheduler, then start again"
        )

    def _hand_over(self) -> Accepted | Refused | Unclear:
        """Intent, submission, id. In a thread, in one go: nothing may come between."""
        assert self._claim is not None
        self._claim.check()
        ticket = self._folder.ticket(self._tag)
        scheduler = self.connection.scheduler
        script = render(self.spec, self._folder.path, scheduler.preamble(self.spec, ticket))
        self._folder.prepare(self.spec, script, self.request.secrets)
        self._folder.note("intent", durable=True, tag=self._tag, attempt=self._attempt)
        outcome = self.connection.converse(scheduler.submit(self.spec, ticket))
        if isinstance(outcome, Accepted):
            self._submitted(outcome.id)
        return outcome

    def _submitted(self, job_id: str) -> None:
        self._submitted_at = time.time()
        self.job_id = job_id
        self._folder.note("submitted", durable=True, id=job_id)

    async def _found_by_tag(self) -> bool:
        """Look for a job of our name until it is found, or surely is not there.

        Only useful answers count: while the scheduler does not answer, nothing is submitted.
        """
        clock = asyncio.get_running_loop().time
        patience = self.connection.scheduler.patience.find
        silent_until = clock() + 60 * patience
        first_no: float | None = None
        pause = self.connection.scheduler.hurry
        while True:
            answer = await self._find()
            if isinstance(answer, NoAnswer):
                if clock() > silent_until:
                    raise SchedulerError(
                        f"job {self.spec.name}: whether it was submitted is not known, and"
                        f" {self.connection.scheduler.name} does not answer ({answer.said})."
                        " Nothing more was submitted; start again when it does"
                    )
            elif answer:
                await self.connection.in_thread(partial(self._adopt, answer))
                return True
            else:
                first_no = clock() if first_no is None else first_no
                if clock() - first_no >= patience:
                    return False
            await asyncio.sleep(pause)
            pause = min(2 * pause, 10.0)
            with contextlib.suppress(TransportError):
                await self.connection.in_thread(self.keep)

    async def _find(self) -> dict[str, Observation] | NoAnswer:
        guard = await self.connection.in_thread(self._folder.guard)
        if guard:  # its script has started, so it was submitted, whatever the scheduler says
            return {guard: Observation(id=guard, state=JobState.UNKNOWN)}
        try:
            return await self.connection.ask(
                self.connection.scheduler.find(self._tag, self.connection.options)
            )
        except TransportError as error:
            return NoAnswer(str(error))

    def _adopt(self, answer: dict[str, Observation]) -> None:
        if len(answer) > 1:
            raise LedgerError(
                f"job {self.spec.name}: the scheduler holds {len(answer)} jobs named {self._tag}:"
                f" {', '.join(sorted(answer))}. Cancel all but one and start again"
            )
        (job_id,) = answer
        self._submitted(job_id)
        self.request.listener.state(f"found as {job_id}: it had been submitted")

    @property
    def _tag(self) -> str:
        return job_tag(self.request.key, self._attempt)

    # --- watching (called by the connection's loop)

    def look(self, now: float) -> None:
        """Read start and exit records and the output's growth; judge when something is new."""
        self.next_look = now + min(1.0, max(0.03, 0.1 * (now - self._watched_since)))
        evidence = self._evidence(now)
        self._show(evidence)
        if evidence.exit is not None and self._record_since is None:
            self._record_since = now
        self._follow(now)
        self._judge(now)

    def answered(self, now: float, seen: Observation | None) -> None:
        """Take a useful answer of the scheduler; None when it does not list the job."""
        self._answered_at = now
        self.wants_answer = False
        if seen is not None and seen.tag and seen.tag != self._tag:
            seen = None  # another job under a number that was used again
        if seen is None:
            self._absent_since = now if self._absent_since is None else self._absent_since
        else:
            self._absent_since = None
            if self._seen is None or (self._seen.state, self._seen.word) != (seen.state, seen.word):
                self._folder.note("observed", state=seen.state, word=seen.word)
            self._seen = seen
            if seen.state is JobState.ENDED and self._ended_since is None:
                self._ended_since = now
        self._show(self._evidence(now))
        self._judge(now)

    def keep(self) -> None:
        """Renew the claim; notice when somebody has taken over."""
        if self._claim is not None:
            self._claim.check()
            self._claim.touch()

    def broken(self, error: BaseException) -> None:
        if not self._verdict.done():
            self._verdict.set_exception(error)

    def _evidence(self, now: float) -> Evidence:
        ended, record = self._ended_since, self._record_since
        evidence = Evidence(
            job_id=self.job_id,
            walltime=self.spec.resources.walltime,
            observation=self._seen,
            absent_for=0.0 if self._absent_since is None else now - self._absent_since,
            silent_for=now - self._answered_at,
            ended_for=None if ended is None else now - ended,
            record_for=None if record is None else now - record,
            starts=self._folder.starts(),
            exits=self._folder.exits(),
            cancel=self.cancelled_by,
        )
        if evidence.exit is None or not self.spec.expected_outputs:
            return evidence
        missing = self._folder.missing_outputs(self.spec)
        return dataclasses.replace(evidence, missing_outputs=missing)

    def _judge(self, now: float) -> None:
        if self._verdict.done():
            return
        evidence = self._evidence(now)
        verdict = decide(evidence, self.connection.scheduler.patience)
        if verdict is not None and verdict.reason is Reason.DUPLICATE and self._turn_to_first():
            return
        if verdict is not None:
            self._verdict.set_result(verdict)
            self.connection.release(self)
        elif evidence.exit is not None or self.cancelled_by or self._ended_since is not None:
            self.wants_answer = True  # it seems to have ended: only the scheduler knows why

    def _turn_to_first(self) -> bool:
        """Ours was the second job of this attempt: follow the one that the guard let in.

        A submission whose driver was killed can reach the scheduler after it was looked for.
        """
        first = self._folder.guard()
        if not first or first == self.job_id:
            return False
        self.request.listener.state(f"{self.job_id} was a second job; {first} is followed")
        self._submitted(first)
        self._seen = None
        self._absent_since = self._ended_since = self._record_since = None
        self.wants_answer = True
        return True

    def _show(self, evidence: Evidence) -> None:
        """Tell the listener of a new state, in the scheduler's word where there is one."""
        seen, start = evidence.observation, evidence.start
        if start is not None and evidence.exit is None:
            text = f"running as {self.job_id} on {start.host}"
        elif seen is not None and seen.state in (JobState.QUEUED, JobState.HELD):
            text = f"{seen.state} as {self.job_id}" + (f": {seen.message}" if seen.message else "")
        elif start is None:
            text = f"submitted as {self.job_id}"
        else:
            return
        if text != self._shown:
            self._shown = text
            self.request.listener.state(text)

    def _follow(self, now: float, *, last: bool = False) -> None:
        for stream, follower in self._followers.items():
            text = follower.news(now, last=last)
            if text:
                self.request.listener.output(stream, text, follower.path)

    # --- cancelling

    def _begin_cancelling(self) -> None:
        if self._cancelling is None:
            self._cancelling = asyncio.get_running_loop().create_task(self._cancel_remote())

    def _note_cancel(self) -> None:
        assert self._claim is not None
        self._claim.check()
        self._folder.note("cancel", durable=True, by=self.cancelled_by)

    async def _cancel_remote(self) -> None:
        """Journal the wish, then ask the scheduler until it listens; the verdict follows."""
        by = self.cancelled_by
        try:
            await self.connection.in_thread(self._note_cancel)
        except JobHeld as error:  # it is another run's now: not ours to cancel
            self.broken(error)
            return
        except TransportError as error:  # a full disk must not keep the job alive
            logger.warning("cancelling %s: %s", self.job_id, error)
        self.request.listener.state(f"cancelling {self.job_id} ({by})")
        deadline = asyncio.get_running_loop().time() + CONFIRM
        asked = ""
        while not self._verdict.done() and asyncio.get_running_loop().time() < deadline:
            if asked != self.job_id and await self._ask_to_cancel(self.job_id):
                asked = self.job_id
            self.wants_answer = True
            self.connection.hurry()
            await asyncio.wait([self._verdict], timeout=0.5 if asked else 2.0)
        if not self._verdict.done():
            reason = Reason.TIMED_OUT if by == "timeout" else Reason.CANCELLED
            summary = (
                f"its cancellation was asked for, but {self.connection.scheduler.name} did not"
                f" confirm it within {CONFIRM:.0f} s; it may still be there"
            )
            self._unconfirmed = True
            self._verdict.set_result(Verdict(reason=reason, summary=summary))

    async def _ask_to_cancel(self, job_id: str) -> bool:
        scheduler = self.connection.scheduler
        try:
            said = await self.connection.ask(scheduler.cancel([job_id], self.connection.options))
        except TransportError as error:
            said = NoAnswer(str(error))
        if isinstance(said, NoAnswer):
            logger.warning("cancelling %s: %s", job_id, said.said)
        return not isinstance(said, NoAnswer)

    # --- the end

    async def _settle(self, verdict: Verdict) -> JobResult:
        """Write the verdict and the run record, show the rest of the output, clear up."""
        evidence = self._evidence(asyncio.get_running_loop().time())
        result = self._result(verdict, evidence)
        self._follow(float("inf"), last=True)
        still_there = verdict.reason in (Reason.CAN_NEVER_RUN, Reason.DEPENDENCY_NEVER_MET)
        duplicates = await self.connection.in_thread(lambda: self._write_end(result))
        for job_id in [*duplicates, *([self.job_id] if still_there else [])]:
            await self._ask_to_cancel(job_id)
        self.request.listener.state(f"{verdict.reason}: {verdict.summary}")
        return result

    def _write_end(self, result: JobResult) -> list[str]:
        if self._claim is not None:
            self._claim.check()
        if self._unconfirmed:  # no end: the next call asks again, and must not submit before
            self._folder.note("unconfirmed", durable=True)
            return []
        self._folder.settle(result, self.spec, self._record(result))
        duplicates = [job_id for job_id in self._folder.duplicates() if job_id != self.job_id]
        if duplicates:
            logger.error(
                "job %s: %s were second jobs of the same attempt; the guard kept them from"
                " starting the program",
                self.spec.name,
                ", ".join(duplicates),
            )
        return duplicates

    def _result(self, verdict: Verdict, evidence: Evidence) -> JobResult:
        start, end, seen = evidence.start, evidence.exit, self._seen
        used = dict(seen.used) if seen else {}
        if end is not None:
            used.setdefault("cpu_seconds", end.cpu_seconds)
        queued_at = (seen.queued_at if seen else 0.0) or self._submitted_at
        return JobResult(
            job_id=self.job_id,
            name=self.spec.name,
            tag=self._tag,
            key=self.request.key,
            attempt=self._attempt,
            verdict=verdict,
            folder=self._folder.path,
            script_path=self._folder.file(names.SCRIPT),
            stdout_path=self._folder.file(names.STDOUT),
            stderr_path=self._folder.file(names.STDERR),
            host=start.host if start else "",
            queue_seconds=max(0.0, start.time - queued_at) if start and queued_at else None,
            run_seconds=end.time - start.time if start and end else None,
            resources_used=used,
        )

    def _record(self, result: JobResult) -> dict[str, Any]:
        """The run record: everything that this result came from. Secrets are named, not told."""
        script = self.connection.transport.read(self._folder.file(names.SCRIPT)) or b""
        return {
            "format": 1,
            "result": result.as_dict(),
            "job": self.spec.as_dict(),
            "key": self.request.key,
            "script_sha256": hashlib.sha256(script).hexdigest(),
            "claimant": self.request.claimant.describe(),
            "versions": versions(),
            **self.request.provenance,
        }


@cache
def versions() -> dict[str, str]:
    """The versions that a run record names."""
    found = {name: version(name) for name in ("hpc-prefect", "prefect")}
    return found | {"python": platform.python_version()}


def _never_submitted(by: str) -> Verdict:
    reason = Reason.TIMED_OUT if by == "timeout" else Reason.CANCELLED
    return Verdict(reason=reason, summary="it was cancelled before it was submitted")
