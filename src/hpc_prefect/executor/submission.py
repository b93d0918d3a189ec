"""Submitting once, whatever it takes to know that: intent, submission, and the search by tag."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial

from hpc_prefect.errors import LedgerError, SchedulerError, TransportError
from hpc_prefect.executor.attempt import Attempt
from hpc_prefect.job.failure import Reason, Verdict
from hpc_prefect.job.state import JobState, Observation
from hpc_prefect.schedulers.base import Accepted, NoAnswer, Refused


async def submit(attempt: Attempt, cancelled_by: Callable[[], str]) -> Verdict | None:
    """Submit the attempt's job, unless it was; a verdict when it is not going to be.

    Args:
        cancelled_by: who has asked for the job's end so far; empty for nobody.

    Raises:
        JobHeld, LedgerError, SchedulerError, TransportError: whether it was submitted is not known.
    """
    request, connection = attempt.request, attempt.connection
    for _ in range(3):
        if attempt.intended and await _found_by_tag(attempt):
            return None
        if by := cancelled_by():
            reason = Reason.TIMED_OUT if by == "timeout" else Reason.CANCELLED
            return Verdict(reason=reason, summary="it was cancelled before it was submitted")
        outcome = await connection.in_thread(attempt.hand_over)
        if isinstance(outcome, Accepted):
            return None
        if isinstance(outcome, Refused):
            reason = Reason.QUEUE_FULL if outcome.full else Reason.REJECTED
            return Verdict(reason=reason, summary=outcome.said, said=outcome.said)
        request.listener.state(f"the submission's outcome is unclear ({outcome.said})")
    if await _found_by_tag(attempt):
        return None
    raise SchedulerError(
        f"job {request.spec.name}: three submissions had no clear outcome and no job named"
        f" {attempt.tag} can be found; look at the scheduler, then start again"
    )


async def _found_by_tag(attempt: Attempt) -> bool:
    """Look for a job of our name until it is found, or surely is not there.

    Only useful answers count: while the scheduler does not answer, nothing is submitted.
    """
    scheduler = attempt.connection.scheduler
    clock = asyncio.get_running_loop().time
    patience = scheduler.patience.find
    silent_until = clock() + 60 * patience
    first_no: float | None = None
    pause = scheduler.hurry
    while True:
        answer = await _find(attempt)
        if isinstance(answer, NoAnswer):
            if clock() > silent_until:
                raise SchedulerError(
                    f"job {attempt.request.spec.name}: whether it was submitted is not known, and"
                    f" {scheduler.name} does not answer ({answer.said})."
                    " Nothing more was submitted; start again when it does"
                )
        elif answer:
            await _adopt(attempt, answer)
            return True
        else:
            first_no = clock() if first_no is None else first_no
            if clock() - first_no >= patience:
                return False
        await asyncio.sleep(pause)
        pause = min(2 * pause, 10.0)
        with contextlib.suppress(TransportError):
            await attempt.connection.in_thread(attempt.keep)


async def _find(attempt: Attempt) -> dict[str, Observation] | NoAnswer:
    connection = attempt.connection
    guard = await connection.in_thread(attempt.folder.guard)
    if guard:  # its script has started, so it was submitted, whatever the scheduler says
        return {guard: Observation(id=guard, state=JobState.UNKNOWN)}
    try:
        return await connection.ask(connection.scheduler.find(attempt.tag, connection.options))
    except TransportError as error:
        return NoAnswer(str(error))


async def _adopt(attempt: Attempt, answer: dict[str, Observation]) -> None:
    if len(answer) > 1:
        raise LedgerError(
            f"job {attempt.request.spec.name}: the scheduler holds {len(answer)} jobs named"
            f" {attempt.tag}: {', '.join(sorted(answer))}. Cancel all but one and start again"
        )
    ((job_id, seen),) = answer.items()
    await attempt.connection.in_thread(partial(attempt.submitted, job_id, seen.queued_at))
    attempt.request.listener.state(f"found as {job_id}: it had been submitted")
