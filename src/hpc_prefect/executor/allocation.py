"""A held allocation: batch jobs, one after another, on whose nodes other jobs are run.

Each of these batch jobs, a *term*, is an ordinary job of the executor with a key of its own, so it
is submitted once and attached to whatever dies. Its spool lies beside its folder. All of it runs on
the executor's loop; what blocks runs in threads.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

from hpc_prefect.errors import TransportError
from hpc_prefect.executor.attempt import is_over, numbers
from hpc_prefect.executor.request import JobRequest, Listener
from hpc_prefect.executor.service import Executor, Handle
from hpc_prefect.job import folder as names
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.identity import job_key, spread
from hpc_prefect.job.result import JobResult
from hpc_prefect.job.spec import Executable, JobSpec, Site
from hpc_prefect.job.state import JobState
from hpc_prefect.ledger.claim import TOUCH_EVERY
from hpc_prefect.ledger.job_folder import JobFolder
from hpc_prefect.schedulers.allocation import spool as spools
from hpc_prefect.schedulers.allocation.scheduler import LATE, AllocationScheduler
from hpc_prefect.schedulers.allocation.share import Held
from hpc_prefect.schedulers.allocation.spool import SpoolLook
from hpc_prefect.schedulers.base import NoAnswer
from hpc_prefect.transports.base import Transport

logger = logging.getLogger("hpc_prefect.executor")

T = TypeVar("T")

#: How many seconds old the agent's last report of its time may be; it reports every five.
_OLD = 10
#: An agent that was told to end is given up after so many seconds without a sign of life.
_DEAF = 120.0
#: Seconds between SIGTERM and SIGKILL of a job in it.
_GRACE = 5
#: How many bytes at the end of an agent's log contain its last words.
_TAIL = 200
#: The agent counts in hundredths of a second.
_HOUR = 360_000
#: Ends that a person wanted.
_BY_A_PERSON = (Reason.CANCELLED, Reason.CANCELLED_ELSEWHERE)


@dataclass(frozen=True, kw_only=True)
class AllocationTerms:
    """How long an allocation lives.

    Attributes:
        idle_timeout: seconds without a job after which it ends.
        orphan_timeout: seconds after which it ends when it is not renewed, because its flow is
            gone.
        renew: whether the next one is submitted before this one is over.
    """

    idle_timeout: int
    orphan_timeout: int
    renew: bool = False


@dataclass(frozen=True, slots=True)
class AllocationUse:
    """What an allocation has cost so far, in node-hours; `used` is with a job on the node."""

    held: float = 0.0
    used: float = 0.0

    @property
    def idle(self) -> float:
        """Node-hours that were held and not used."""
        return max(0.0, self.held - self.used)

    def __add__(self, other: AllocationUse) -> AllocationUse:
        return AllocationUse(self.held + other.held, self.used + other.used)

    def __str__(self) -> str:
        return f"held {_hours(self.held)} node-hours, used {_hours(self.used)}"


def _hours(hours: float) -> str:
    return f"{hours:.1f}" if hours >= 1 else f"{hours:.3g}"


@dataclass(frozen=True, slots=True)
class Glance:
    """Whether a term is over, and its seconds left for jobs; None if it has not begun.

    `is_late`: its agent has given no sign of life for some time.
    """

    is_over: bool
    left: int | None
    is_late: bool = False


class Term:
    """One of an allocation's batch jobs.

    Attributes:
        found: an earlier process submitted it.
        job_id: of its batch job; empty while none is known.
        submitted: set once it has an id, or has ended without one.
        asked_to_end: it takes no more jobs.
        in_doubt: a job that was handed to it never started there.
    """

    def __init__(self, request: JobRequest, spool: str, transport: Transport, *, found: bool):
        self.request = request
        self.spool = spool
        self.found = found
        self.job_id = ""
        self.asked_to_end = False
        self.in_doubt = False
        self.submitted = asyncio.Event()
        self._transport = transport
        self._handle: Handle[JobResult] | None = None
        self.ended: asyncio.Future[JobResult] | None = None

    @property
    def folder(self) -> str:
        """As of a claim: what is renewed."""
        return self.spool

    def touch(self) -> None:
        """Tell the agent that its holder is alive."""
        self._transport.touch(f"{self.spool}/{spools.RENEWED}")

    @property
    def is_over(self) -> bool:
        return self.ended is not None and self.ended.done()

    @property
    def result(self) -> JobResult | None:
        """How it ended; None if it has not, or could not be followed."""
        if self.ended is None or not self.ended.done() or self.ended.exception():
            return None
        return self.ended.result()

    @property
    def began(self) -> bool:
        """Whether it ever held its nodes; for a term that is over."""
        return self.result is not None and bool(self.result.host)

    async def was_cancelled(self) -> bool:
        """Of one that ends: whether a person wanted that. Waits for its verdict."""
        if self.ended is not None:
            await asyncio.wait([self.ended])
        return self.result is not None and self.result.verdict.reason in _BY_A_PERSON

    def prepare(self) -> None:
        """Make the spool, or use what a killed process left of it. Blocks."""
        for name in spools.FOLDERS:
            self._transport.make_folder(f"{self.spool}/{name}")
        text = spools.agent_text().encode()
        self._transport.write_atomic(f"{self.spool}/{spools.AGENT}", text)
        for name in (spools.BELL, spools.LOG, spools.RENEWED):
            self._transport.create(f"{self.spool}/{name}", b"")
        self.touch()

    def begin(self, executor: Executor, on_end: Callable[[JobResult], object]) -> None:
        """Hand its batch job over, or attach to it."""
        listener = _JobIdListener(self.request.listener, self._has_id)
        self._handle = executor.start(dataclasses.replace(self.request, listener=listener))
        self.ended = asyncio.wrap_future(self._handle.result)
        self.ended.add_done_callback(partial(self._has_ended, executor, on_end))

    def cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()

    def look(self) -> SpoolLook | None:
        """The state of its spool; None if it cannot be read now. Blocks."""
        try:
            return spools.read_look(self._transport.run(spools.ask_to_look(self.spool, ())))
        except TransportError as error:
            logger.warning("the allocation's folder %s cannot be read now: %s", self.spool, error)
            return None

    def glance(self) -> Glance:
        """Its state, as needed before each job, from three small files. Blocks."""
        try:
            heartbeat = f"{self.spool}/{spools.HEARTBEAT}"
            beat = self._transport.read(heartbeat) or b""
            # By the file server's clock: of the agent, and of us, who touch it every half minute.
            theirs = self._transport.status(heartbeat)
            ours = self._transport.status(f"{self.spool}/{spools.RENEWED}")
            log = f"{self.spool}/{spools.LOG}"
            status = self._transport.status(log)
            start = max(0, (status.size if status else 0) - _TAIL)
            tail = self._transport.read(log, start) or b""
        except TransportError as error:
            logger.warning("the allocation's folder %s cannot be read now: %s", self.spool, error)
            return Glance(self.is_over, None)
        words = beat.split()
        left = int(words[0]) if len(words) == 3 and words[0].isdigit() else None
        late = theirs and ours and ours.modified - theirs.modified > LATE - TOUCH_EVERY
        is_over = self.is_over or spools.has_ended(tail.decode(errors="replace"))
        return Glance(is_over, left, bool(late))

    def tell_agent(self, word: str) -> bool:
        """Send `CLOSE` or `NOW`; returns whether that was possible. Blocks."""
        try:
            reply = self._transport.run(spools.ask_to_end(self.spool, word))
        except TransportError as error:
            logger.warning("an allocation could not be asked to end: %s", error)
            return False
        return reply.code == 0

    def ask_to_end(self) -> None:
        """Have it take no more jobs, and end when its last job has ended. Blocks."""
        self.asked_to_end = self.asked_to_end or self.tell_agent(spools.CLOSE)

    def use(self, look: SpoolLook | None) -> AllocationUse:
        """By the agent's last words, or if it was killed by its record and last heartbeat."""
        if look is not None and len(look.end) == 3:
            return AllocationUse(int(look.end[1]) / _HOUR, int(look.end[2]) / _HOUR)
        used, held = (look.used / _HOUR, look.held / _HOUR) if look else (0.0, 0.0)
        nodes = self.request.spec.resources.num_nodes
        seconds = (self.result.run_seconds if self.result is not None else None) or 0.0
        return AllocationUse(max(held, nodes * seconds / 3600), used)

    def _has_id(self, job_id: str) -> None:
        if job_id == self.job_id:
            return
        self.job_id = job_id
        try:  # a small file, once
            self._transport.write_atomic(f"{self.spool}/{spools.JOB}", job_id.encode() + b"\n")
        except TransportError as error:
            logger.warning("the id of an allocation could not be noted in its folder: %s", error)
        self.submitted.set()

    def _has_ended(
        self,
        executor: Executor,
        on_end: Callable[[JobResult], object],
        ended: asyncio.Future[JobResult],
    ) -> None:
        executor.release(self)
        self.submitted.set()
        if ended.cancelled():
            return
        if error := ended.exception():  # it may go on, or was never submitted
            text = f"the batch job of an allocation is not followed any more: {error}"
            self.request.listener.state(text, warning=True)
        else:
            on_end(ended.result())

    def note_end(self, result: JobResult) -> None:
        """Note that none of its jobs runs any more, for those who look for them. Blocks."""
        ledger = JobFolder(self._transport, result.folder).ledger()
        if not ledger.result or result.verdict.reason is Reason.LOST:
            return  # its end is not confirmed
        if ledger.facts.get(names.SECOND_START):
            return  # that of its script is; what its agent had started may be there for a while
        words = f"{result.verdict.reason}: {result.verdict.summary}".replace("\n", " ")
        text = spools.gone_text(result.job_id or self.job_id, words)
        self._transport.write_atomic(f"{self.spool}/{spools.GONE}", text.encode())


class _JobIdListener:
    """A listener that also receives the job's id."""

    def __init__(self, listener: Listener, on_id: Callable[[str], object]) -> None:
        self._listener = listener
        self._on_id = on_id

    def state(
        self, text: str, *, warning: bool = False, minor: bool = False, job_id: str = ""
    ) -> None:
        if job_id:
            self._on_id(job_id)
        self._listener.state(text, warning=warning, minor=minor, job_id=job_id)

    def output(self, stream: str, text: str, path: str) -> None:
        pass  # the agent's words about itself


class TermListener(Protocol):
    """Receives the events of an allocation's batch jobs, on the executor's thread."""

    def begun(self, request: JobRequest) -> None:
        """This one is handed over, or attached to."""

    def ended(self, result: JobResult, use: AllocationUse) -> None:
        """It has ended, after this use."""


class _NoTermListener:
    def begun(self, request: JobRequest) -> None: ...

    def ended(self, result: JobResult, use: AllocationUse) -> None: ...


class HeldAllocation:
    """An allocation that this process holds; a `Placing` for the jobs of its flow.

    The coroutines run on the executor's loop.
    """

    def __init__(
        self,
        request: JobRequest,
        terms: AllocationTerms,
        executor: Executor,
        transport: Transport,
    ) -> None:
        """`request`: for its batch jobs, without program, arguments and key of each."""
        self._request = request
        self._terms = terms
        self._executor = executor
        self._transport = transport
        self.held = Held.of(request.spec)
        self._term: Term | None = None  # the newest
        self._others: list[Term] = []  # before it, while they run
        self._number = 0
        self._use = AllocationUse()
        self._lock = asyncio.Lock()
        self._closed = False
        self._warned: set[str] = set()
        self._tasks: set[asyncio.Task[object]] = set()
        self.resource_class = request.spec.resources.resource_class
        self.on_term: TermListener = _NoTermListener()

    # --- its life

    async def open(self) -> JobResult | None:
        """Attach to the batch jobs of an earlier run, or submit the first one.

        When the earlier ones are over, the next one is submitted only when a job needs it: the
        experiment may be finished.

        Returns:
            How it ended, if the scheduler did not accept it.

        Raises:
            JobHeld, LedgerError, SchedulerError, TransportError: it cannot be followed, or another
                flow holds it.
        """
        async with self._lock:
            left, known = await self._in_thread(self._find)
            if known and not left:
                self._number = known
                return None
            terms = []
            for number, found in left or [(1, False)]:
                self._number = number - 1
                terms.append(await self._begin_next(found=found))
            self._number = max(self._number, known)
        for term in terms:
            await term.submitted.wait()
            if term.ended is not None and term.ended.done():
                term.ended.result()  # raises what keeps it from being followed
        (first, *more) = terms
        return first.result if first.is_over and not first.found and not more else None

    async def close(self, *, now: bool = False) -> AllocationUse:
        """End it, and wait until its end is seen.

        Args:
            now: end the jobs that run in it, too.
        """
        async with self._lock:
            self._closed = True
            terms = [*self._others, *([self._term] if self._term else [])]
        for term in terms:
            await self._end(term, now=now)
        return self.use

    def leave(self) -> None:
        """Stop renewing it: it ends unless another process takes it up."""
        for term in [*self._others, *([self._term] if self._term else [])]:
            self._executor.release(term)

    @property
    def use(self) -> AllocationUse:
        """The cost of the terms that are over."""
        return self._use

    # --- where jobs are handed to

    async def site_for(self, spec: JobSpec) -> Site | None:
        """See `Placing`."""
        if refused := self.held.refuses(spec):
            self.warn_outside(spec, refused)
            return None
        async with self._lock:
            term = await self._term_for(spec)
        if term is not None and term.is_over:  # such as one that was refused
            self.warn_outside(spec, "the allocation has ended")
            return None
        return None if term is None else self.held.site(spec, term.spool)

    def came_back(self, site: Site) -> None:
        """See `Placing`."""
        for term in (*self._others, self._term):
            if term is not None and term.spool == site.options.get("spool"):
                term.in_doubt = True

    async def _term_for(self, spec: JobSpec) -> Term | None:
        if self._closed:
            self.warn_outside(spec, "the allocation is closed")
            return None
        for earlier in list(self._others):
            if await self._has_room(earlier, spec):
                return earlier
        term = self._term
        if term is None:
            return await self._begin_next()
        seen = await self._glance(term)
        if seen.is_over:
            if await term.was_cancelled():
                self.warn_outside(
                    spec, "the allocation was cancelled, so no other one is submitted"
                )
                return None
            return await self._next(spec, "the allocation has ended", again=term.found)
        if seen.left is None:  # it has not begun: all of its time is left
            return term
        if spec.resources.walltime + _OLD > seen.left:
            why = (
                f"its walltime of {spec.resources.walltime} s does not fit into the {seen.left} s"
                " that the allocation has left"
            )
            return await self._next(spec, why)
        if self._terms.renew and seen.left < 2 * spec.resources.walltime + _OLD:
            await self._begin_next()  # to wait in the queue while the last job of this one runs
        return term

    async def _has_room(self, earlier: Term, spec: JobSpec) -> bool:
        """Whether the job fits into a term that has a successor; if not, the term is ended."""
        seen = await self._glance(earlier)
        if seen.is_over or seen.left is None:  # or it is not known now
            return False
        if not earlier.asked_to_end and spec.resources.walltime + _OLD <= seen.left:
            return True
        await self._in_thread(earlier.ask_to_end)
        return False

    async def _glance(self, term: Term) -> Glance:
        """The state of a term. Its scheduler is asked if the agent is silent, or a job has come
        back: else one whose node is gone would be handed the same job again and again."""
        seen = await self._in_thread(term.glance)
        if seen.is_over or not (seen.is_late or term.in_doubt):
            return seen
        connection = self._executor.connection(self.held.site(term.request.spec, term.spool))
        scheduler = connection.scheduler
        assert isinstance(scheduler, AllocationScheduler)
        try:
            await self._in_thread(term.touch)  # if we were stopped for long, it looks like nobody's
            said = await connection.ask(scheduler.whole(connection.options))
        except TransportError as error:
            logger.warning("the allocation's folder %s cannot be read now: %s", term.spool, error)
            return seen
        if isinstance(said, NoAnswer):
            return seen
        has_ended = term.in_doubt = said.state is JobState.ENDED
        return dataclasses.replace(seen, is_over=has_ended)

    async def _next(self, spec: JobSpec, why: str, *, again: bool = False) -> Term | None:
        """Another term, if one is allowed; `again`: also without `renew`."""
        never_began = self._term is not None and self._term.is_over and not self._term.began
        if again or (self._terms.renew and not never_began):
            present = self._term
            following = await self._begin_next()
            if present is not None and not present.is_over:
                await self._in_thread(present.ask_to_end)
            return following
        self.warn_outside(spec, why)
        return None

    def warn_outside(self, spec: JobSpec, why: str) -> None:
        """Log, once, why a job is submitted outside of the allocation."""
        text = f"{spec.name} is submitted outside of the allocation: {why}"
        if text not in self._warned:
            self._warned.add(text)
            self._request.listener.state(text, warning=True)

    # --- terms

    def _find(self) -> tuple[list[tuple[int, bool]], int]:
        """The terms that are not over, by number, each with whether it was about to be submitted;
        and how many there are. Blocks.

        There may be two: the next one is submitted while the present one works.
        """
        left: list[tuple[int, bool]] = []
        number = 0
        while True:
            base, _ = self._base(number + 1)
            there = numbers(self._transport, base)
            if not there:
                return left, number
            number += 1
            folder = JobFolder(self._transport, f"{base}-{there[-1]}")
            ledger = folder.ledger()
            if not is_over(folder, ledger):
                left.append((number, ledger.intended))

    def _base(self, number: int) -> tuple[str, str]:
        """The base of a term's job folders, and its key."""
        campaign = self._request.base.rsplit("/", 2)[0]
        key = job_key(self._request.key, (), "allocation", number)
        return f"{campaign}/{spread(key)}/{key}", key

    async def _begin_next(self, *, found: bool = False) -> Term:
        self._number += 1
        base, key = self._base(self._number)
        spool = f"{base}.spool"
        request = dataclasses.replace(self._request, spec=self._agent(spool), base=base, key=key)
        term = Term(request, spool, self._transport, found=found)
        await self._in_thread(term.prepare)
        self._executor.keep(term)
        if self._term is not None and not self._term.is_over:
            self._others.append(self._term)
        self._term = term
        self.on_term.begun(request)
        term.begin(self._executor, partial(self._has_ended, term))
        return term

    def _agent(self, spool: str) -> JobSpec:
        """The batch job that holds the nodes."""
        spec, held, terms = self._request.spec, self.held, self._terms
        numbers_ = (
            held.num_nodes,
            held.cores_per_node,
            held.mib_per_node,
            held.gpus_per_node,
            held.walltime,
            held.margin,
            terms.idle_timeout,
            terms.orphan_timeout,
            _GRACE,
        )
        arguments = (f"{spool}/{spools.AGENT}", spool, held.scheduler, *map(str, numbers_))
        return dataclasses.replace(
            spec, executable=Executable(path="/bin/bash"), arguments=arguments
        )

    def _has_ended(self, term: Term, result: JobResult) -> None:
        """On the loop."""
        if term in self._others:
            self._others.remove(term)
        task = asyncio.get_running_loop().create_task(self._settle(term, result))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _settle(self, term: Term, result: JobResult) -> None:
        try:
            await self._in_thread(partial(term.note_end, result))
        except TransportError as error:
            logger.warning("the end of an allocation could not be noted in its folder: %s", error)
        use = term.use(await self._in_thread(term.look))
        self._use += use
        self.on_term.ended(result, use)

    async def _end(self, term: Term, *, now: bool) -> None:
        if term.ended is not None and not term.is_over:  # else it is over, or was never ours
            look = await self._in_thread(term.look)
            word = spools.CLOSE_NOW if now else spools.CLOSE
            waits = look is None or look.left is None  # in the queue; or not known
            if waits or not await self._in_thread(partial(term.tell_agent, word)):
                term.cancel()
            while not (await asyncio.wait([term.ended], timeout=_OLD))[0]:
                look = await self._in_thread(term.look)
                if look is not None and (look.beat_age or 0.0) > _DEAF:
                    term.cancel()  # its agent hangs and the nodes are held without use
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(None, work)
