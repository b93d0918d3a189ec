"""Submits a job exactly once: slot, intent, submission, search by tag."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from hpc_prefect.errors import SchedulerError, TransportError
from hpc_prefect.executor.attempt import Attempt, at_site
from hpc_prefect.executor.connection import Connection
from hpc_prefect.executor.coordination.queue_slots import QueueSlot
from hpc_prefect.executor.coordination.search import Sought
from hpc_prefect.job.failure import Reason, Verdict, asked_for
from hpc_prefect.job.spec import Site
from hpc_prefect.job.state import JobState, Observation
from hpc_prefect.ledger.claim import TOUCH_EVERY
from hpc_prefect.schedulers.base import Accepted, NoAnswer, Refused

#: While the queue is full, each pause is so much longer than the last one, up to so many times
#: the poll interval.
_SLOW_DOWN = 1.5
_SLOWEST = 6.0
#: How many submissions of one attempt may have an unclear outcome.
_MOST_UNCLEAR = 3
#: During a search by name: seconds between two checks whether the script has started.
_LOOK_EVERY = 5.0


async def find_place(attempt: Attempt, connect: Callable[[Site], Connection]) -> None:
    """Choose the place to submit an attempt to, or find where it was submitted; see `Placing`."""
    placing = attempt.request.placing
    if placing is not None and not attempt.intended:
        site = await placing.site_for(attempt.request.spec)
        if site is not None:
            attempt.request = at_site(attempt.request, site)
    if attempt.request.provider is None:
        attempt.connection = connect(attempt.request.spec.site)


def slot_of(attempt: Attempt) -> QueueSlot:
    """The slot that the attempt's job takes in its queue."""
    request = attempt.request
    return QueueSlot(
        attempt.tag, attempt.folder.path, request.max_jobs_in_queue, request.poll_interval
    )


async def take_slot(attempt: Attempt, cancelled: asyncio.Event) -> bool:
    """Wait until the attempt's job may be in the queue; False when it was cancelled before."""
    request = attempt.request
    queue, most = request.spec.site.queue, request.max_jobs_in_queue
    slots, slot = attempt.connection.slots(queue), slot_of(attempt)
    if attempt.intended:  # it is in the queue, or may be
        await slots.occupy(slot)
        return True
    waiting = f"waiting for a slot: {most} jobs of your flows are in the queue {queue!r}"
    taking = asyncio.ensure_future(
        slots.take(slot, partial(request.listener.state, waiting, minor=True))
    )
    await asyncio.sleep(0)  # usually there is one at once
    try:
        while not taking.done() and not cancelled.is_set():
            await _pause(attempt, cancelled, TOUCH_EVERY, taking)
        return taking.done()
    except BaseException:  # such as JobHeld: the next one gets the slot
        if taking.done():
            slots.give_back(slot)
        raise
    finally:
        taking.cancel()


async def submit(
    attempt: Attempt, cancelled_by: Callable[[], str], cancelled: asyncio.Event
) -> Verdict | None:
    """Submit the attempt's job, if it was not submitted; a verdict if it will not be.

    Args:
        cancelled_by: who has cancelled the job; empty for nobody.
        cancelled: set when the job is cancelled.

    Raises:
        JobHeld, LedgerError, SchedulerError, TransportError: it may or may not be submitted.
    """
    request, connection = attempt.request, attempt.connection
    full = _FullQueue(attempt, cancelled)
    unclear = 0
    while unclear < _MOST_UNCLEAR:
        if attempt.may_be_there() and await _found_by_tag(attempt):
            return None
        if by := cancelled_by() or await connection.in_thread(attempt.cancel_request):
            summary = f"it was cancelled before it was submitted{full.words}"
            return Verdict(reason=asked_for(by), summary=summary)
        if request.attach_only:
            raise SchedulerError(
                f"job {request.spec.name}: {connection.scheduler.name} lists no job named"
                f" {attempt.tag}, so its submission seems to have failed. Nothing was submitted;"
                " start its flow again to run it"
            )
        if (preparation := attempt.preparation()) is not None:
            if verdict := await _prepared(attempt, preparation, cancelled):
                return verdict
            if cancelled.is_set():
                continue
        loop = asyncio.get_running_loop()
        outcome = await loop.run_in_executor(connection.pool, attempt.hand_over)
        if isinstance(outcome, Accepted):
            await attempt.look_for_twins()
            return None
        if isinstance(outcome, Refused):
            if outcome.full and await full.wait(outcome.said):
                continue
            reason = Reason.QUEUE_FULL if outcome.full else Reason.REJECTED
            return Verdict(reason=reason, summary=outcome.said, said=outcome.said)
        unclear += 1 if outcome.again else _MOST_UNCLEAR
        request.listener.state(
            f"it is not clear whether the job was submitted ({outcome.said}); looking for it"
        )
    if attempt.may_be_there() and await _found_by_tag(attempt):
        return None
    raise SchedulerError(
        f"job {request.spec.name}: it is not clear whether it was submitted, and no job named"
        f" {attempt.tag} was found. See whether {connection.scheduler.name} works, then start the"
        f" flow again: it looks for a job of that name before it submits another"
    )


async def _prepared(
    attempt: Attempt, preparation: Awaitable[Verdict | None], cancelled: asyncio.Event
) -> Verdict | None:
    """The result of a preparation, which is stopped when the job is cancelled meanwhile."""
    preparing = asyncio.ensure_future(preparation)
    try:
        while not preparing.done() and not cancelled.is_set():
            await _pause(attempt, cancelled, TOUCH_EVERY, preparing)
        return preparing.result() if preparing.done() else None
    finally:
        preparing.cancel()


class _FullQueue:
    """Repeats a submission while the scheduler says that too many jobs wait."""

    def __init__(self, attempt: Attempt, cancelled: asyncio.Event) -> None:
        self._attempt = attempt
        self._cancelled = cancelled
        self._clock = asyncio.get_running_loop().time
        self._since: float | None = None
        self._pause = attempt.request.poll_interval
        self.words = ""

    async def wait(self, said: str) -> bool:
        """Pause before the next try; False if the time for that is over."""
        request = self._attempt.request
        if self._since is None:
            self._since = self._clock()
            text = f"the queue is full ({said}); the submission is tried again until there is room"
            request.listener.state(text, warning=True)
            self.words = f"; the queue was full ({said})"
        elif 0 < request.queue_full_wait <= self._clock() - self._since:
            return False
        next_try = self._clock() + self._pause
        while (left := next_try - self._clock()) > 0 and not self._cancelled.is_set():
            await _pause(self._attempt, self._cancelled, min(left, TOUCH_EVERY))
        self._pause = min(_SLOW_DOWN * self._pause, _SLOWEST * request.poll_interval)
        return True


async def _pause(
    attempt: Attempt,
    cancelled: asyncio.Event,
    seconds: float,
    other: asyncio.Future[Any] | None = None,
) -> None:
    """Wait for a cancellation or for `other`, at most so long; renews the claim."""
    asked = asyncio.ensure_future(cancelled.wait())
    either: list[asyncio.Future[Any]] = [asked] if other is None else [asked, other]
    try:
        await asyncio.wait(either, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        asked.cancel()
    with contextlib.suppress(TransportError):
        await attempt.connection.in_thread(attempt.heartbeat)


async def _found_by_tag(attempt: Attempt) -> bool:
    """Search for a job of our name until it is found, or certainly does not exist.

    Only useful answers count: while the scheduler does not answer, nothing is submitted. And an
    answer is as old as its question: this process may have been stopped before it read it.
    """
    scheduler = attempt.connection.scheduler
    clock = asyncio.get_running_loop().time
    patience = scheduler.patience.find
    silent_until = clock() + 60 * patience
    first_no: float | None = None
    while True:
        asked = clock()
        answer = await _find(attempt)
        if isinstance(answer, NoAnswer):
            if answer.error is not None:
                raise answer.error
            if clock() > silent_until:
                raise SchedulerError(
                    f"job {attempt.request.spec.name}: it is not known whether it was submitted,"
                    f" and {scheduler.name} does not answer ({answer.said}). Nothing more was"
                    f" submitted; start the flow again when {scheduler.name} answers"
                )
        elif answer:
            await _adopt(attempt, answer)
            return True
        else:
            first_no = clock() if first_no is None else first_no
            if asked - first_no >= patience:
                return False


async def _find(attempt: Attempt) -> Sought:
    """The answer to the next question of all searches; renews the claim meanwhile."""
    connection = attempt.connection
    answer = asyncio.ensure_future(connection.find(attempt.tag))
    try:
        while True:
            guard = await connection.in_thread(attempt.guard)
            if guard:  # its script has started, so it was submitted
                return {guard: Observation(id=guard, state=JobState.UNKNOWN)}
            await asyncio.wait([answer], timeout=_LOOK_EVERY)
            with contextlib.suppress(TransportError):
                await connection.in_thread(attempt.heartbeat)
            if answer.done():
                return answer.result()
    finally:
        answer.cancel()


async def _adopt(attempt: Attempt, answer: dict[str, Observation]) -> None:
    job_id = await attempt.chosen(answer)
    queued_at = answer[job_id].queued_at
    await attempt.connection.in_thread(partial(attempt.adopted, job_id, queued_at))
    attempt.logged_id = job_id
    attempt.request.listener.state(
        f"found in the queue as {job_id}: it had been submitted", job_id=job_id
    )
