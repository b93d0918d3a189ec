"""Watching a submission of an array up to the end of its last member.

Most members show their start and end by their own files, which are looked for folder by folder. The
scheduler is asked about the array as a whole. A member that failed, or whose files and scheduler do
not agree, is watched like a single job (`JobMonitor`), by its own id.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Collection, Iterable
from functools import partial

from hpc_prefect.errors import TransportError
from hpc_prefect.executor.arrays.evidence import BegunMembers, MemberFiles
from hpc_prefect.executor.arrays.submission import Submission
from hpc_prefect.executor.monitor import JobMonitor, Records
from hpc_prefect.executor.output import Output
from hpc_prefect.executor.request import Silence
from hpc_prefect.job.failure import ADVICE, LOST_BEFORE_START, Reason, Verdict
from hpc_prefect.job.members import Ended
from hpc_prefect.job.state import Evidence, JobState, Observation, decide, may_have_begun
from hpc_prefect.transports.host import host

#: The share of one core that may be spent on looking at files; and the shortest and longest pause
#: after a look, in seconds.
_SHARE = 0.025
_SOONEST, _LATEST = 0.1, 10.0
#: While nothing is new each pause is so much longer than the last one, up to the longest that a
#: single job has. As long it is at most while there are news: such a part of the time that the
#: array has taken so far.
_SLOW_DOWN, _OF_AGE = 1.5, 0.002
#: Seconds between two writings of ended members. What a crash loses is judged again.
_WRITE_EVERY = 2.0
#: At most so many members that have left the queue without a trace are asked about one by one; of
#: more, only the start guards are read.
_MOST_ASKED = 500


class ArrayMonitor:
    """A submission, up to the verdict of its last member; see `Polled` and `Watched`.

    Attributes:
        verdict: set when no member is left; how they ended is in `submission.ended`.
    """

    def __init__(
        self,
        submission: Submission,
        cancelled_by: Callable[[], str],
        on_end: Callable[[Collection[Ended]], object],
        *,
        ask: bool,
    ) -> None:
        """Begin now; `on_end` is called with members that have ended."""
        loop = asyncio.get_running_loop()
        self.job_id = submission.job_id
        self.tag = submission.tag
        self.poll_interval = submission.request.poll_interval
        self.next_look = loop.time()
        self.wants_answer = ask
        self.verdict: asyncio.Future[Verdict] = loop.create_future()
        self._submission = submission
        self._cancelled_by = cancelled_by
        self._files = MemberFiles(submission, cancelled_by)
        self._begun_members = BegunMembers(submission.folder)
        self._pause = _SOONEST
        self._on_end = on_end
        every = range(len(submission.asked))
        self._waiting = {index for index in every if index not in submission.ended}
        self._running: dict[int, Records] = {}
        self._doubtful: dict[int, JobMonitor] = {}
        self._missed: set[int] = set()  # that the last answer should have listed, and did not
        self._given_up: set[int] = set()
        self._unwritten: list[Ended] = []
        self._began_at = self._written_at = loop.time()
        self._gone_since: float | None = None
        self._closings: set[asyncio.Task[None]] = set()
        self._closing: set[int] = set()  # whose guards are being closed
        self._asked_again: set[int] = set()  # those that may have begun after they were asked about
        self._shown: tuple[JobState, str] | None = None
        self._settle_if_done()

    @property
    def running(self) -> int:
        """How many members run, as far as it is known."""
        doubtful = sum(bool(each.evidence.starts) for each in [*self._doubtful.values()])
        return len(self._running) + doubtful

    # --- what the connection's loop calls

    def look(self, now: float) -> None:
        """Look for members that have begun and ended."""
        self._look(now)

    def _look(self, now: float, *, anew: bool = False) -> None:
        """`anew`: also in folders that do not seem to have changed."""
        if self.verdict.done():  # what is not written yet is being written in a thread
            self.next_look = now + _LATEST
            return
        began, before = host().monotonic(), len(self._submission.ended)
        self.next_look = now + self._pause  # also where the file server gives errors meanwhile
        begun = self._begun_members.among(self._waiting, now, anew=anew)
        for index in begun:
            self._begun(index, self._files.records(index))
        trouble = self._look_at_begun()
        if now - self._written_at >= _WRITE_EVERY:
            self._write(now)
        cost = host().monotonic() - began
        news = begun or len(self._submission.ended) > before
        soon = max(_SOONEST, _OF_AGE * (now - self._began_at))
        quiet = self._submission.connection.looks.latest
        self._pause = min(soon if news else _SLOW_DOWN * self._pause, quiet)
        self.next_look = now + min(max(self._pause, cost / _SHARE), _LATEST)
        if trouble is not None:
            raise trouble

    def _look_at_begun(self) -> TransportError | None:
        """The error of a member that could not be looked at; the others are still looked at."""
        news: list[Ended] = []
        trouble = None
        for index, records in [*self._running.items()]:
            try:
                ended = self._seen(index, records)
            except TransportError as error:
                trouble = error
            else:
                news += [] if ended is None else [ended]
        self._settle(news)
        for index, monitor in [*self._doubtful.items()]:
            if monitor.verdict.done() and index not in self._closing:
                try:
                    self._judged(index, monitor)
                except TransportError as error:
                    trouble = error
        return trouble

    def answered(self, now: float, seen: Observation | None, asked: float) -> None:
        """Take a useful answer about the array as a whole; None when it is not listed."""
        self.wants_answer = False
        if seen is not None and seen.tag and seen.tag != self.tag:
            seen = None  # another array under a number that was used again
        if seen is not None:
            self._note(seen)
        gone = seen is None or seen.state is JobState.ENDED
        self._gone_since = (self._gone_since or now) if gone else None
        trouble: TransportError | None = None
        try:
            self._look(now, anew=True)
        except TransportError as error:  # of one of them, which keeps us from no other
            trouble = error
        left = () if seen is None else seen.left
        unlisted = self._unlisted([*self._waiting, *self._running], left, gone=gone)
        for index in unlisted & self._waiting:
            # Opened by its name: NFS may list a folder's new files late.
            records = self._files.records(index)
            if records.refresh(starts=True):
                self._begun(index, records)
        self._end_cancelled(unlisted & self._waiting)
        self._doubt(sorted(unlisted & self._missed))
        self._missed = unlisted
        if gone:
            self._close_unstarted(asked)
        elif seen is not None:
            self._close_what_can_never_run(seen)
        if trouble is not None:
            raise trouble

    def heartbeat(self) -> None:
        """Renew the claim; notice when somebody has taken over."""
        self._submission.heartbeat()

    def broken(self, error: BaseException) -> None:
        """Watching it failed for good."""
        self._stop()
        if not self.verdict.done():
            self.verdict.set_exception(error)

    def give_up(self, verdict: Verdict) -> None:
        """Conclude this of all that have not ended."""
        left = {*self._waiting, *self._running, *self._doubtful}
        ended = [self._submission.unended(index, verdict) for index in sorted(left)]
        self._stop()
        self._given_up |= left
        self._settle(ended)

    def write_ended(self) -> None:
        """Have all that has ended in the folder, for good. Blocks.

        Raises:
            JobHeld: another run has taken the array over.
        """
        self._submission.claim.check()
        kept = [each for each in self._unwritten if each.index not in self._given_up]
        gone = self._submission.no_longer_written()
        self._submission.folder.note_ended([*gone, *kept], durable=True)
        self._unwritten = []

    # --- members

    def _begun(self, index: int, records: Records) -> None:
        self._waiting.discard(index)
        self._running[index] = records

    def _seen(self, index: int, records: Records) -> Ended | None:
        """A running member's end, if its own record is enough; else the scheduler is asked.

        A guard without a start record: the script ended there, or is about to write the record.
        """
        records.refresh(starts=not records.starts)
        if not records.exits and not records.spoiled:
            return None
        evidence = self._files.evidence(index, records)
        verdict = self._files.own_verdict(index, evidence)
        if verdict is None:
            if not self._is_to_wait(index):
                self._doubt([index])
            return None
        return self._submission.end(index, verdict, evidence)

    def _is_to_wait(self, index: int) -> bool:
        """Whether the member's element still runs, so that asking the scheduler is of no use yet.

        The element then begins its next member, or leaves the queue and `answered` has this member
        judged.
        """
        return index + 1 in self._waiting and self._files.is_followed(index)

    def _doubt(self, indices: Iterable[int]) -> None:
        """Look at members as at single jobs."""
        connection = self._submission.connection
        for index in indices:
            if index in self._waiting and len(self._doubtful) >= _MOST_ASKED:
                continue  # nothing is lost: its guard will be closed, or it begins
            attempt = self._submission.member(index, self._files.holder(index))
            monitor = JobMonitor(
                attempt,
                _Unshown(attempt.folder, Silence()),
                self._cancelled_by,
                ask=True,
                own=partial(self._files.of_its_own, index),
            )
            # Only now: after an error of the file server the member is looked at again.
            self._waiting.discard(index)
            self._running.pop(index, None)
            self._doubtful[index] = monitor
            monitor.verdict.add_done_callback(lambda _: self._look_soon())
            connection.watch(monitor)

    def _look_soon(self) -> None:
        self.next_look = asyncio.get_running_loop().time()
        self._submission.connection.hurry(self)

    def _judged(self, index: int, monitor: JobMonitor) -> None:
        """A member in doubt has its verdict."""
        if error := monitor.verdict.exception():
            self.broken(error)
            return
        verdict = monitor.verdict.result()
        evidence = monitor.final_look()
        self._submission.connection.release(monitor)
        if verdict.reason in (Reason.LOST, Reason.ALLOCATION_ENDED):
            if self._files.holder(index) not in ("", monitor.job_id):
                self._doubt([index])  # another submission of this one has begun it meanwhile
                return
            if not evidence.starts:
                self._begin_closing([index], _never_started(verdict), verdict, evidence)
                return
            if self._asks_again(index, verdict, evidence):
                return
        if not evidence.starts and (words := self._sibling_words(index, verdict)):
            verdict = dataclasses.replace(verdict, reason=Reason.NEVER_STARTED, summary=words)
        # Still in doubt if this cannot be read now: it is judged again at the next look.
        ended = self._submission.end(index, verdict, evidence)
        self._settle([ended])

    def _asks_again(self, index: int, verdict: Verdict, evidence: Evidence) -> bool:
        """Ask once more about a member that has begun, perhaps after it was asked about."""
        if index in self._asked_again or not may_have_begun(verdict, evidence):
            return False
        self._doubt([index])
        self._asked_again.add(index)
        return True

    def _sibling_words(self, index: int, verdict: Verdict) -> str:
        """Why a member of an element was not begun, if another member of it was."""
        element, size = self._submission.element(index), self._submission.per_element
        siblings = range(element * size, element * size + size)
        if size == 1 or verdict.reason in _CANCELLED:
            return ""
        if not any(each != index and self._files.holder(each) for each in siblings):
            return ""
        why = f"{verdict.reason}: {verdict.summary}"
        return f"its array element ended before this member began ({why})"

    # --- the array as a whole

    def _unlisted(
        self, indices: Collection[int], left: Collection[tuple[int, int]], *, gone: bool
    ) -> set[int]:
        """Those of which the queue does not say that they wait or run."""
        if gone:
            return set(indices)
        listed = {each for first, last in left for each in range(first, last + 1)}
        return {index for index in indices if self._submission.element(index) not in listed}

    def _end_cancelled(self, unlisted: Collection[int]) -> None:
        """Members that somebody cancelled one by one, and that have left the queue."""
        for index in unlisted:
            if by := self._submission.folder.member(index).cancel_request():
                self._begin_closing([index], _cancelled(by), None)

    def _close_unstarted(self, asked: float) -> None:
        """Close the members that have not begun, once the array has long left the queue or is
        cancelled.

        Some schedulers leave no trace of elements that are cancelled while they wait.
        """
        assert self._gone_since is not None
        by = self._cancelled_by() or self._submission.cancel_request()
        if not by and asked - self._gone_since < self._files.patience.absent:
            return
        unstarted = [i for i, each in self._doubtful.items() if not each.evidence.starts]
        verdict = _cancelled(by) if by else LOST_BEFORE_START
        self._begin_closing([*self._waiting, *unstarted], verdict, None)

    def _close_what_can_never_run(self, seen: Observation) -> None:
        """As of a single job: it would wait for ever. What has begun comes to its own end."""
        if seen.state is not JobState.ENDED and seen.cause in _NEVER:
            about = Evidence(job_id=self.job_id, walltime=0, observation=seen)
            if verdict := decide(about, self._files.patience):
                self._begin_closing([*self._waiting], verdict, None)

    def _begin_closing(
        self,
        indices: Collection[int],
        verdict: Verdict,
        otherwise: Verdict | None,
        evidence: Evidence | None = None,
    ) -> None:
        """`otherwise`: of those that have begun, by this `evidence`; None to go on with them."""
        indices = [index for index in indices if index not in self._closing]
        if not indices:
            return
        self._closing |= {*indices}
        closing = self._closed(indices, verdict, otherwise, evidence)
        task = asyncio.get_running_loop().create_task(closing)
        self._closings.add(task)
        task.add_done_callback(self._closings.discard)

    async def _closed(
        self,
        indices: Collection[int],
        verdict: Verdict,
        otherwise: Verdict | None,
        evidence: Evidence | None,
    ) -> None:
        """Close the guards of members; those that were free have never begun, and never will."""
        try:
            free = await self._submission.connection.in_thread(partial(self._close, indices))
        except Exception as error:  # noqa: BLE001 - whoever waits for the verdict is told
            self.broken(error)
            return
        self._closing -= {*indices}
        ended = []
        for index in indices:
            if index in self._submission.ended:
                continue
            if index in free:
                self._forget(index)
                ended.append(self._submission.unended(index, verdict))
            elif otherwise is not None and not self._goes_on(index, otherwise, evidence):
                self._forget(index)
                ended.append(self._submission.unended(index, otherwise))
        self._settle(ended)

    def _goes_on(self, index: int, verdict: Verdict, evidence: Evidence | None) -> bool:
        """Whether this is no verdict yet of a member that has begun."""
        try:
            return evidence is not None and self._asks_again(index, verdict, evidence)
        except TransportError:
            return True  # it is judged again at the next look

    def _close(self, indices: Collection[int]) -> set[int]:
        self._submission.claim.check()
        folder = self._submission.folder
        return {index for index in indices if folder.member(index).close_unstarted()}

    def _note(self, seen: Observation) -> None:
        if self._shown != (seen.state, seen.word):
            self._submission.folder.note("observed", state=seen.state, word=seen.word)
            self._report_waiting(seen)
        self._shown = (seen.state, seen.word)

    def _report_waiting(self, seen: Observation) -> None:
        """Log that the array waits. When members run, their own monitors log it."""
        if seen.state not in (JobState.QUEUED, JobState.HELD):
            return
        held = seen.state is JobState.HELD
        text = f"{seen.state} as {self.job_id}" + (f": {seen.message}" if seen.message else "")
        text += f"; {ADVICE[Reason.HELD].remedy}" if held else ""
        self._submission.request.listener.state(
            text, warning=held, minor=not held, job_id=self.job_id
        )

    # --- ends

    def _forget(self, index: int) -> None:
        self._waiting.discard(index)
        self._running.pop(index, None)
        monitor = self._doubtful.pop(index, None)
        if monitor is not None:
            self._submission.connection.release(monitor)

    def _settle(self, ended: Collection[Ended]) -> None:
        if ended:
            for each in ended:
                self._forget(each.index)
                self._submission.ended[each.index] = each
            self._unwritten += ended
            self._on_end(ended)
        self._settle_if_done()

    def _settle_if_done(self) -> None:
        if not (self._waiting or self._running or self._doubtful or self.verdict.done()):
            self.verdict.set_result(_ALL_ENDED)

    def _write(self, now: float) -> None:
        self._written_at = now  # a full disk is not tried again at once
        kept = [each for each in self._unwritten if each.index not in self._given_up]
        if kept:  # who has lost the array may not know each script's word, and judges wrongly
            self._submission.claim.check()
        self._submission.folder.note_ended(kept)
        self._unwritten = []

    def _stop(self) -> None:
        for monitor in self._doubtful.values():
            self._submission.connection.release(monitor)
        self._doubtful, self._waiting, self._running = {}, set(), {}


def _never_started(verdict: Verdict) -> Verdict:
    """The same of a member of which nobody knows whether it had begun, once that is excluded."""
    if verdict.reason is Reason.ALLOCATION_ENDED:
        return dataclasses.replace(verdict, reason=Reason.NEVER_STARTED)
    return LOST_BEFORE_START


def _cancelled(by: str) -> Verdict:
    reason = Reason.TIMED_OUT if by == "timeout" else Reason.CANCELLED
    return Verdict(reason=reason, summary="it was cancelled before it began")


#: What waits for ever, and ends that somebody wished.
_NEVER = (Reason.CAN_NEVER_RUN, Reason.DEPENDENCY_NEVER_MET)
_CANCELLED = (Reason.CANCELLED, Reason.CANCELLED_ELSEWHERE, Reason.TIMED_OUT)
_ALL_ENDED = Verdict(reason=Reason.SUCCEEDED, summary="all of its members have ended")


class _Unshown(Output):
    """A member's output stays in its files."""

    def show(self, now: float, *, last: bool = False) -> None: ...
