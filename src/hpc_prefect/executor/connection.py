"""A connection to a scheduler, with one loop that asks about all of its jobs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Protocol, TypeVar

from hpc_prefect.errors import TransportError
from hpc_prefect.executor.coordination.host_coordination import HostPeers
from hpc_prefect.executor.coordination.queue_slots import QueueSlots
from hpc_prefect.executor.coordination.search import Search, Sought
from hpc_prefect.executor.coordination.shared_poll import SharedPoll, Turn
from hpc_prefect.executor.looks import USUAL, Looks
from hpc_prefect.job.dialogue import Dialogue
from hpc_prefect.job.state import JobState, Observation
from hpc_prefect.ledger.claim import TOUCH_EVERY
from hpc_prefect.schedulers.base import Answer, Found, NoAnswer, Scheduler
from hpc_prefect.transports.base import Transport
from hpc_prefect.transports.host import host

logger = logging.getLogger("hpc_prefect.executor")

T = TypeVar("T")

#: The longest pause between two questions, in poll intervals.
_BACK_OFF = 3.0
#: A random delay, up to this part of an interval, so that flows on a login node do not ask in step.
_DISORDER = 0.1
#: A job that seems to have ended is asked about less and less often until the scheduler says so
#: too: each pause is longer by this factor, up to so many times the first.
_SLOW_DOWN = 1.5
_SLOWEST = 20.0
_GOES_ON = (JobState.QUEUED, JobState.HELD, JobState.RUNNING, JobState.SUSPENDED)
#: While another process of this user asks: seconds after which to look for its answer.
_SOON = 1.0


class Polled(Protocol):
    """What the polling loop needs of a job."""

    job_id: str
    tag: str
    poll_interval: float
    next_look: float
    wants_answer: bool

    def look(self, now: float) -> None:
        """Read the job's own records and output."""

    def answered(self, now: float, seen: Observation | None, asked: float) -> None:
        """Take a useful answer; None if that does not list the job.

        It says how the job was at some moment since `asked`: this process may have been stopped
        before it read the answer.
        """

    def heartbeat(self) -> None:
        """Renew the claim."""

    def broken(self, error: BaseException) -> None:
        """Watching it failed for good."""


class Connection:
    """A scheduler at one place. All its questions go out from one loop, in turns with the user's
    other processes on this host, which share the answers.

    Everything runs on the executor's event loop, but for what is said to block.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        transport: Transport,
        options: Mapping[str, object],
        pool: ThreadPoolExecutor,
        asking: ThreadPoolExecutor | None = None,
        *,
        peers: HostPeers | None = None,
        looks: Looks = USUAL,
        until: float = float("inf"),
    ) -> None:
        """`pool` is for submissions, which may take minutes, `asking` for questions.

        Args:
            peers: the processes that the pace and the slots are shared with; None: with none.
            looks: how often the jobs' own records are looked at.
            until: on the host's monotonic clock, when a command that hangs is ended at the latest.
        """
        self.scheduler = scheduler
        self.transport = transport
        self.options = options
        self.looks = looks
        self.pool = pool
        self.silence = ""  # why the last question had no useful answer; empty when it had one
        self._asking = asking or pool
        self._until = until
        self._peers = peers or HostPeers()
        self._turns = SharedPoll(self._peers)
        self._slots: dict[str, QueueSlots] = {}
        self._search = Search(scheduler, self._find)
        self._to_cancel: dict[str, str] = {}  # names by ids, for the next command
        self._cancelling: asyncio.Future[dict[str, NoAnswer | None]] | None = None
        self._jobs: dict[Polled, None] = {}
        self._wake = asyncio.Event()
        self._loop_task: asyncio.Task[None] | None = None
        self._asked_at = float("-inf")  # when the last answer came, whoever asked
        self._asked_from = float("-inf")  # when that question was sent
        self._not_before = float("-inf")
        self._pause = 0.0  # to be kept after the last answer
        self._answers_alike = 0
        self._failures = 0
        self._disorder = host().uniform(0, _DISORDER)
        self._wanting: dict[Polled, float] = {}  # since when they want an answer
        self._told_at: dict[Polled, float] = {}  # when they had their last answer
        self._hurried_pause = scheduler.hurry

    def slots(self, queue: str) -> QueueSlots:
        """The slots that jobs take in a queue."""
        if queue not in self._slots:
            self._slots[queue] = QueueSlots(queue, self._peers, self)
        return self._slots[queue]

    def converse(self, dialogue: Dialogue[T]) -> T:
        """Run a dialogue's commands and return its result. Blocks: call it in a thread."""
        try:
            command = next(dialogue)
            while True:
                left = max(1.0, self._until - host().monotonic())
                if left < command.timeout:
                    command = replace(command, timeout=left)
                command = dialogue.send(self.transport.run(command))
        except StopIteration as stop:
            result: T = stop.value
            return result

    async def ask(self, dialogue: Dialogue[T]) -> T:
        """`converse` in a thread."""
        return await self.shortly(partial(self.converse, dialogue))

    async def shortly(self, work: Callable[[], T]) -> T:
        """Run in a thread that is not used by submissions."""
        return await asyncio.get_running_loop().run_in_executor(self._asking, work)

    async def in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self.pool, work)

    @property
    def watched(self) -> int:
        """How many jobs it looks after."""
        return len(self._jobs)

    def watch(self, job: Polled) -> None:
        """Begin to watch a job."""
        self._jobs[job] = None
        self._wake.set()
        if self._loop_task is None or self._loop_task.done():
            loop = asyncio.get_running_loop()
            self._asked_at = loop.time()  # a new job shows its start and end by its own records
            self._loop_task = loop.create_task(self._watch_all())

    def release(self, job: Polled) -> None:
        """Stop watching a job."""
        self._jobs.pop(job, None)
        self._wanting.pop(job, None)
        self._told_at.pop(job, None)

    def hurry(self, job: Polled) -> None:
        """Ask soon, since something happened to a job that needs an answer."""
        self._wanting.pop(job, None)  # from now on it needs a newer answer
        self._wake.set()

    async def find(self, tag: str) -> Sought:
        """The jobs of that name; asked in one question with all others that are looked for.

        Paces itself: a caller may ask again at once.
        """
        return await self._search.find(tag)

    async def _find(self, tags: Sequence[str]) -> Found:
        found: Found = {}
        for chunk in _chunks(tags, self.scheduler.ids_per_question):
            question = partial(self._put, partial(self.scheduler.find, chunk, self.options))
            said = await self.shortly(question)
            found |= dict.fromkeys(chunk, said) if isinstance(said, NoAnswer) else said
        return found

    async def cancel(self, job_id: str, tag: str) -> NoAnswer | None:
        """Ask for the end of a job, in one command with all for which that is asked at this time;
        what was answered instead where the scheduler did not take that in."""
        if not self._to_cancel or self._cancelling is None:
            self._cancelling = asyncio.ensure_future(self._cancel_all())
        self._to_cancel[job_id] = tag
        return (await asyncio.shield(self._cancelling))[job_id]

    async def _cancel_all(self) -> dict[str, NoAnswer | None]:
        await asyncio.sleep(0)  # whoever asks in this turn of the loop is in
        jobs, self._to_cancel = self._to_cancel, {}
        chunks = [*_chunks([*jobs], self.scheduler.ids_per_question)]
        said = await asyncio.gather(*(self._cancel({i: jobs[i] for i in ids}) for ids in chunks))
        return {i: each for ids, each in zip(chunks, said, strict=True) for i in ids}

    async def _cancel(self, jobs: Mapping[str, str]) -> NoAnswer | None:
        question = partial(self.scheduler.cancel, jobs, self.options)
        said = await self.shortly(partial(self._put, question))
        if said is not None:
            logger.warning("cancelling %s: %s", ", ".join(jobs), said.said)
        return said

    async def _watch_all(self) -> None:
        """The loop: own records often, the scheduler seldom, claims every half minute."""
        clock = asyncio.get_running_loop().time
        kept_at = clock()
        while self._jobs:
            now = clock()
            for job in [job for job in self._jobs if job.next_look <= now]:
                self._guarded(job, lambda job=job, now=now: job.look(now))  # type: ignore[misc]
            due = self._next_question(now) if self._jobs else None
            if due is not None and now >= due:
                await self._question(now)
                due = None
            if now - kept_at >= TOUCH_EVERY:
                kept_at, due = now, None
                for job in list(self._jobs):
                    self._guarded(job, job.heartbeat)
            await self._rest(due)
        if self._turns.known_to_others:
            # Not awaited: a job that arrives meanwhile must find that this loop has ended.
            asyncio.get_running_loop().run_in_executor(self._asking, self._turns.leave)

    async def _rest(self, due: float | None) -> None:
        """Sleep until the next job wants a look, a question is `due`, or something happened."""
        if not self._jobs:
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        looks = min(job.next_look for job in self._jobs)
        # With many jobs several looks are taken at one waking.
        least = max(0.01, 0.0005 * len(self._jobs))
        due = self._next_question(now) if due is None else due
        pause = max(least, min(looks, due) - now)
        # A timer of its own: `wait_for` would make a task at each waking.
        timer = loop.call_later(pause, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            timer.cancel()
        self._wake.clear()

    def _guarded(self, job: Polled, action: Callable[[], None]) -> None:
        try:
            action()
        except TransportError as error:
            # A file server that does not answer now changes nothing; the next look may succeed.
            logger.warning("the files of job %s cannot be read now: %s", job.job_id, error)
        except Exception as error:  # noqa: BLE001 - one job's trouble must not stop the loop for the others
            self.release(job)
            job.broken(error)

    def _next_question(self, now: float) -> float:
        interval = min(job.poll_interval for job in self._jobs)
        back_off = min(_BACK_OFF, 1 + 0.1 * (self._answers_alike + self._failures))
        self._pause = interval * (back_off + self._disorder)
        self._wanting = {job: self._wanting.get(job, now) for job in self._jobs if job.wants_answer}
        if self._wanting:
            # While the scheduler fails, a further job is no reason to ask it more often.
            if not self._failures and max(self._wanting.values()) >= self._asked_from:
                self._hurried_pause = self.scheduler.hurry
            self._pause = max(self.scheduler.hurry, min(interval, self._hurried_pause))
        return max(self._asked_at + self._pause, self._not_before)

    async def _question(self, now: float) -> None:
        """Ask about all jobs, or take another process's answer, and pass it to each job."""
        jobs = [job for job in self._jobs if job.job_id and self._is_due(job, now)]
        if not jobs:
            self._not_before = now + self.scheduler.hurry
            return
        ids = [job.job_id for job in jobs]
        turn = await self.shortly(partial(self._take_turn, ids, self._pause))
        clock = asyncio.get_running_loop().time
        if turn.answer is not None:
            self._asked_from = now if turn.mine else clock() - turn.old
            about = [job for job in jobs if job.job_id in turn.about]
            if not turn.mine:
                about = self._believed(about, turn.answer)
            self._use(about, turn.answer, clock(), now if turn.mine else self._asked_from)
            for job in jobs:
                if job in self._wanting and job.job_id not in turn.about:
                    self._wanting[job] = clock()  # the other process did not know of it yet
        if turn.under_way:
            self._not_before = clock() + min(self._pause, _SOON)
        else:
            late = host().uniform(0, _DISORDER) * self.scheduler.hurry
            self._asked_at = max(self._asked_at, clock() - turn.idle + late)

    def _is_due(self, job: Polled, now: float) -> bool:
        """If each job needs its own question, older jobs are asked about less often."""
        together = self.scheduler.ids_per_question > 1
        waited = now - self._told_at.get(job, float("-inf"))
        return together or job in self._wanting or waited >= job.poll_interval

    def _believed(self, jobs: Sequence[Polled], answer: Answer) -> list[Polled]:
        """The jobs for which another process's answer can be used: it does not end them.

        For the others it is only a hint to ask: we conclude an end only from the scheduler's answer
            to us.
        """
        believed = [job for job in jobs if _goes_on(job, answer.get(job.job_id))]
        for job in set(jobs).difference(believed):
            job.wants_answer = True
            self.hurry(job)
        return believed

    def _take_turn(self, ids: Sequence[str], pause: float) -> Turn:
        """Ask about our jobs and our peers', in chunks, if it is our turn. Blocks."""
        turn = self._turns.take(ids, pause)
        if not turn.mine:
            return turn
        answer = self.observe(turn.ids)
        self._turns.end(turn, answer)
        return replace(turn, answer=answer, about=frozenset(ids))

    def observe(self, ids: Sequence[str]) -> Answer:
        """What the scheduler says of jobs now, in chunks. Blocks."""
        answer: Answer = {}
        for chunk in _chunks(ids, self.scheduler.ids_per_question):
            said = self._put(partial(self.scheduler.observe, chunk, self.options))
            answer |= dict.fromkeys(chunk, said) if isinstance(said, NoAnswer) else said
        return answer

    def _use(self, jobs: Sequence[Polled], answer: Answer, now: float, asked: float) -> None:
        """Pass an answer, whichever process asked, to each job; choose the next pause."""
        told = [answer.get(job.job_id) for job in jobs]
        self._count_failures([each for each in told if isinstance(each, NoAnswer)])
        changed = self._deliver(jobs, answer, now, asked)
        self._answers_alike = 0 if changed else self._answers_alike + 1
        longest = _SLOWEST * self.scheduler.hurry
        self._hurried_pause = min(_SLOW_DOWN * self._hurried_pause, longest)
        self._disorder = host().uniform(0, _DISORDER)

    def _count_failures(self, failed: Sequence[NoAnswer]) -> None:
        """Note whether a question had no useful answer about some jobs; say so now and then."""
        self.silence = failed[0].said if failed else ""
        if not failed:
            self._failures = 0
            return
        self._failures += 1
        logger.log(
            logging.WARNING if self._failures in (1, 10, 100) else logging.DEBUG,
            "%s gave no useful answer about %d jobs (%s); their states stay as they were, and the"
            " question is repeated",
            self.scheduler.name,
            len(failed),
            failed[0].said,
        )

    def _put(self, question: Callable[[], Dialogue[T | NoAnswer]]) -> T | NoAnswer:
        """Ask once; any error counts as no answer. Blocks."""
        try:
            return self.converse(question())
        except TransportError as error:
            return NoAnswer(str(error))
        except Exception as error:  # an error in a dialect must not end the loop that all jobs need
            logger.exception("%s: an answer could not be read", self.scheduler.name)
            return NoAnswer(repr(error))

    def _deliver(self, jobs: Sequence[Polled], answer: Answer, now: float, asked: float) -> bool:
        before = len(self._jobs)
        for job in jobs:
            seen = answer.get(job.job_id)
            if job not in self._jobs:
                continue
            if isinstance(seen, NoAnswer):
                if seen.error is not None:
                    self.release(job)
                    job.broken(seen.error)
            else:
                self._told_at[job] = now
                self._guarded(job, partial(job.answered, now, seen, asked))
        return len(self._jobs) != before


def _goes_on(job: Polled, said: Observation | NoAnswer | None) -> bool:
    if isinstance(said, NoAnswer):
        return True
    return said is not None and said.state in _GOES_ON and said.tag in ("", job.tag)


def _chunks(ids: Sequence[str], size: int) -> Iterator[list[str]]:
    remaining = iter(ids)
    while chunk := list(islice(remaining, size)):
        yield chunk
