"""One job from the call to the result: open an attempt, submit it, monitor it, finalize it."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from functools import partial
from typing import ClassVar

from hpc_prefect.errors import SchedulerError
from hpc_prefect.executor.attempt import Attempt, open_attempt
from hpc_prefect.executor.cancelling import cancel_remote
from hpc_prefect.executor.connection import Connection
from hpc_prefect.executor.finalize import finalize
from hpc_prefect.executor.monitor import JobMonitor
from hpc_prefect.executor.output import Output
from hpc_prefect.executor.request import JobRequest, JobSubmitted
from hpc_prefect.executor.submission import find_place, slot_of, submit, take_slot
from hpc_prefect.job.failure import LOST_BEFORE_START, Reason, Verdict
from hpc_prefect.job.result import JobResult
from hpc_prefect.job.spec import Site
from hpc_prefect.job.state import Evidence, may_have_begun
from hpc_prefect.schedulers import is_allocation

#: After so many jobs that vanished before they started, something is wrong at the site.
_FORGOTTEN = 3
#: Reasons that leave it open whether the job had begun.
_UNSEEN = (Reason.LOST, Reason.ALLOCATION_ENDED)
#: Reasons that may apply before the script has done anything.
_NOT_BEGUN = (Reason.FOLDER_NOT_WRITABLE, Reason.SETUP_FAILED)


class JobRun:
    """A job under way, on the executor's event loop; what blocks runs in threads.

    A `JobMonitor` reads small files on the loop: see there. Other kinds of jobs derive from this
    class, with their own attempt, monitor and end.
    """

    attempt_type: ClassVar[type[Attempt]] = Attempt

    def __init__(
        self,
        request: JobRequest,
        connection: Connection,
        connect: Callable[[Site], Connection] | None = None,
    ) -> None:
        """`connect` gives the connection to a place: each attempt may be handed to another one.
        Without it all are handed over by `connection`."""
        self._request = request
        self._connection = connection
        self._connect = connect or (lambda site: connection)
        self._attempt: Attempt | None = None
        self._monitor: JobMonitor | None = None  # while there is a job to watch
        self._cancelled_by = ""
        self._cancelled = asyncio.Event()
        self._cancel_is_left_over = False  # an earlier run cancelled it; this one asked for the job
        self._unconfirmed = False  # the present job was cancelled, and its end was not seen
        self._cancelling: asyncio.Task[None] | None = None
        self._began = False  # the newest attempt's script has left a start record
        self._forgotten = 0  # jobs that vanished from the scheduler before they started

    @property
    def job_id(self) -> str:
        """The scheduler's id; empty while none is known."""
        return self._attempt.job_id if self._attempt else ""

    async def carry_out(self) -> JobResult | JobSubmitted:
        """From the call to the result, whatever it is; with `submit_only`, to the submission.

        Raises:
            JobHeld, LedgerError, TransportError, SchedulerError: the job could not be followed to
                its end; it may be running, and another call with the same identity finds it.
        """
        while True:
            attempt = await self._connection.in_thread(
                partial(open_attempt, self._request, self._connection, self.attempt_type)
            )
            if isinstance(attempt, JobResult):
                self._report(
                    f"already done as {attempt.job_id} in attempt {attempt.attempt}:"
                    " its result is used"
                )
                return attempt
            self._take(attempt)
            await find_place(attempt, self._connect)
            self._connection = attempt.connection
            slots = self._connection.slots(attempt.request.spec.site.queue)
            has_slot = await take_slot(attempt, self._cancelled)
            try:
                verdict = None
                if not attempt.job_id:
                    canceller = self._cancelled_by_if_not_found
                    verdict = await submit(attempt, canceller, self._cancelled)
                    # If a job that is found later could still run, this is no end.
                    in_doubt = attempt.intended and not attempt.guarded
                    self._unconfirmed = verdict is not None and in_doubt
                if attempt.job_id and self._request.submit_only and not self._cancelled_by:
                    return JobSubmitted(attempt.job_id)
                result = await self._brought_to_end(attempt, verdict)
            finally:
                if has_slot:
                    slots.give_back(slot_of(attempt))
            if not self._runs_again(attempt, result):
                return result

    def cancel(self, by: str) -> None:
        """Ask for the job's end: `user` or `timeout`. Its result says how it ended."""
        self._cancel_is_left_over = False  # it must not run again
        if self._cancelled_by:
            return
        self._cancelled_by = by
        self._cancelled.set()
        if self._monitor is not None:
            self._begin_cancelling(self._monitor)

    def _cancel_requested(self, by: str) -> None:
        """Cancel the job at the request of another process, such as `hpc-prefect jobs cancel`."""
        if not self._cancelled_by:  # an earlier run's cancellation under way is not ours
            self.cancel(by)

    def _take(self, attempt: Attempt) -> None:
        """From now on this is the job's attempt, from wherever it is."""
        self._attempt = attempt
        loop = asyncio.get_running_loop()
        attempt.on_cancel_request = lambda by: loop.call_soon_threadsafe(self._cancel_requested, by)
        self._cancel_is_left_over = bool(attempt.cancel) and not self._cancelled_by
        self._cancelled_by = self._cancelled_by or attempt.cancel
        if attempt.job_id:
            attempt.logged_id = attempt.job_id
            self._report(
                f"attached to {attempt.job_id}, which {attempt.taken_from} had submitted",
                job_id=attempt.job_id,
            )
        if attempt.raised:
            self._report(f"attempt {attempt.number}: {attempt.raised}")

    async def _brought_to_end(self, attempt: Attempt, verdict: Verdict | None) -> JobResult:
        """Monitor and finalize an attempt; a `verdict` is there when it was not submitted."""
        output = Output(attempt.folder, self._request.listener)
        evidence = Evidence(job_id="", walltime=0)
        ask, asked_again = bool(attempt.taken_from), False
        while True:
            if verdict is None:
                monitor = self._monitor_for(attempt, output, ask=ask)
                verdict = await self._monitored(monitor)
                evidence = monitor.final_look()
            self._began = bool(evidence.starts)
            if not evidence.starts:
                verdict = await self._never_started(attempt, verdict) or verdict
            if may_have_begun(verdict, evidence) and not asked_again:
                # It has begun, perhaps after it was asked about; who is asked now knows of that.
                verdict, ask, asked_again = None, True, True
                continue
            other = await self._other_job(attempt, verdict)
            if not other:
                confirmed = not self._unconfirmed
                return await self._finalize(attempt, verdict, evidence, confirmed=confirmed)
            await self._follow_instead(attempt, other)
            verdict, ask = None, True

    def _runs_again(self, attempt: Attempt, result: JobResult) -> bool:
        """Whether the job is to be submitted anew, after an attempt that has ended.

        Raises:
            SchedulerError: an earlier run asked for the attempt's end, which nobody confirms.
        """
        if self._was_forgotten(result):
            self._report(f"{result.job_id} never started; it is submitted again")
            if self._request.placing is not None:
                self._request.placing.came_back(attempt.request.spec.site)
            return True
        if self._could_not_start(attempt, result):
            self._report(
                f"{result.job_id}, of an earlier run, could not start its program"
                f" ({result.verdict.summary}); it is submitted again"
            )
            return True
        if not self._cancel_is_left_over or result.state in ("succeeded", "lost"):
            return False
        if self._unconfirmed:
            raise SchedulerError(
                f"job {self._request.spec.name}: an earlier run asked for the end of"
                f" {self.job_id}, which {self._connection.scheduler.name} still does not confirm."
                f" Nothing more was submitted; start again when the job has left the queue"
            )
        if self._request.attach_only:
            return False
        # The cancellation of the earlier run is done; now submit the job that this run asked for.
        self._cancelled_by = ""
        return True

    def _monitor_for(self, attempt: Attempt, output: Output, *, ask: bool) -> JobMonitor:
        return JobMonitor(attempt, output, lambda: self._cancelled_by, ask=ask)

    async def _finalize(
        self, attempt: Attempt, verdict: Verdict, evidence: Evidence, *, confirmed: bool
    ) -> JobResult:
        return await finalize(attempt, verdict, evidence, confirmed=confirmed)

    def _cancelled_by_if_not_found(self) -> str:
        """Who has cancelled the job, if the scheduler has no such job; empty for nobody.

        A cancellation by an earlier run counts only if a late job could still be kept from starting
        (`guarded`). Elsewhere nothing more can be cancelled, and the job that this run asks for may
        be the one that turns up late.
        """
        assert self._attempt is not None
        if self._cancel_is_left_over and not self._attempt.guarded:
            self._cancelled_by, self._cancel_is_left_over = "", False
        return self._cancelled_by

    async def _follow_instead(self, attempt: Attempt, other: str) -> None:
        """Follow another job of the attempt from now on, and cancel the one followed so far."""
        if attempt.job_id:
            self._report(
                f"{attempt.job_id} was a duplicate of {other}: {other} is followed, and"
                f" {attempt.job_id} cancelled"
            )
            # The second job may still wait in the queue.
            await self._connection.cancel(attempt.job_id, attempt.tag)
        else:
            self._report(f"it had been submitted after all, as {other}, which is followed now")
        await self._connection.in_thread(partial(attempt.adopted, other, 0.0))

    async def _never_started(self, attempt: Attempt, verdict: Verdict) -> Verdict | None:
        """Close the start guard of a lost job; if it was free, the job has never run.

        A job that appears later finds the guard closed, and does not start the program. A job may
        also have found it closed already, by a process that was killed before it wrote a verdict.
        """
        unseen = verdict.reason in _UNSEEN
        turned_away = verdict.reason is Reason.DUPLICATE
        look = attempt.close_unstarted if unseen else attempt.is_closed
        if not ((unseen or turned_away) and await self._connection.in_thread(look)):
            return None
        if verdict.reason is Reason.ALLOCATION_ENDED:
            return dataclasses.replace(LOST_BEFORE_START, summary=verdict.summary)
        if turned_away:
            by_other = "another process had closed the job folder before a job began in it"
            return dataclasses.replace(LOST_BEFORE_START, summary=by_other)
        return LOST_BEFORE_START

    def _was_forgotten(self, result: JobResult) -> bool:
        """Whether a job is to be submitted again because it vanished from the scheduler."""
        if result.verdict.reason is not Reason.NEVER_STARTED:
            return False
        # Jobs of an allocation that ended before their turn do not count.
        handed_to = self._attempt.request.spec.site.scheduler if self._attempt else ""
        self._forgotten += not is_allocation(handed_to)
        wanted = not (self._cancelled_by or self._request.attach_only)
        return wanted and self._forgotten < _FORGOTTEN

    def _could_not_start(self, attempt: Attempt, result: JobResult) -> bool:
        """Whether an earlier run's job could not start its program, such as on a full disk, so that
        this run submits it again."""
        kept = result.verdict.reason in _NOT_BEGUN and not self._began
        wanted = not (self._cancelled_by or self._request.attach_only)
        return kept and wanted and bool(attempt.taken_from)

    async def _other_job(self, attempt: Attempt, verdict: Verdict) -> str:
        """The id of a job of this attempt that was let in instead of ours; empty for none.

        A verdict after which the next attempt may run closes the attempt for good. LOST is none,
        and an end that is not confirmed is none either. After a success the script itself does not
        start the program again, but where the scheduler may requeue the job it would.
        """
        if verdict.succeeded and not attempt.request.spec.may_requeue:
            return ""
        close = verdict.reason is not Reason.LOST and not self._unconfirmed
        return await self._connection.in_thread(partial(attempt.job_inside, close=close))

    async def _monitored(self, monitor: JobMonitor) -> Verdict:
        self._monitor, self._unconfirmed = monitor, False
        self._connection.watch(monitor)
        try:
            if self._cancelled_by:  # by an earlier run, or while the submission was under way
                self._begin_cancelling(monitor)
            return await monitor.verdict
        finally:
            self._monitor = None
            self._connection.release(monitor)

    def _begin_cancelling(self, monitor: JobMonitor) -> None:
        self._cancelling = asyncio.get_running_loop().create_task(self._cancel_remote(monitor))

    async def _cancel_remote(self, monitor: JobMonitor) -> None:
        assert self._attempt is not None
        self._unconfirmed = not await cancel_remote(
            self._attempt, monitor, self._cancelled_by, earlier=lambda: self._cancel_is_left_over
        )

    def _report(self, text: str, *, job_id: str = "") -> None:
        self._request.listener.state(text, job_id=job_id)
