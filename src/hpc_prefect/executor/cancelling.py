"""Cancels a submitted job: journals the request, asks the scheduler, waits for its word."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from hpc_prefect.errors import JobHeld, LedgerError, NotOurs, TransportError
from hpc_prefect.executor.attempt import Attempt
from hpc_prefect.executor.connection import Connection, Polled
from hpc_prefect.job.failure import Verdict, asked_for
from hpc_prefect.schedulers.base import NoAnswer

logger = logging.getLogger("hpc_prefect.executor")


class Watched(Polled, Protocol):
    """A job, or an array, that is watched up to its end."""

    @property
    def verdict(self) -> asyncio.Future[Any]:
        """Set once, when it is judged."""


class Judged(Watched, Protocol):
    """The same where we are the one that judges."""

    def give_up(self, verdict: Verdict) -> None:
        """Set this verdict without further evidence."""


async def cancel_remote(
    attempt: Attempt,
    watched: Judged,
    by: str,
    *,
    earlier: Callable[[], bool] = lambda: False,
) -> bool:
    """Journal the request, then ask the scheduler until it accepts; the verdict follows.

    Args:
        earlier: whether only an earlier run has cancelled it, and not this one.

    Returns:
        Whether its end was seen in time. If not, it has a verdict that says so.
    """
    connection = attempt.connection
    try:
        await connection.in_thread(partial(attempt.note_cancel, by))
    except (JobHeld, LedgerError, NotOurs) as error:  # it is not ours to cancel any more
        watched.broken(error)
        return True
    except TransportError as error:  # a full disk must not keep the job alive
        logger.warning(
            "the cancellation of %s could not be journalled; it goes on: %s", watched.job_id, error
        )
    attempt.request.listener.state(f"cancelling {watched.job_id} ({by})")
    clock = asyncio.get_running_loop().time
    patience = connection.scheduler.patience
    # A member of an array is looked at by itself once several answers have not listed it.
    answers = 4 * watched.poll_interval
    limit = max(patience.confirm_earlier, patience.confirm + patience.lost + answers)
    since = clock()

    def left() -> float:
        nonlocal limit, since
        if limit != patience.confirm and not earlier():
            limit, since = patience.confirm, clock()  # from now on somebody waits for it
        return since + limit - clock()

    if await bring_about(connection, watched, left):
        return True
    summary = (
        f"its cancellation was requested, but {connection.scheduler.name} did not confirm it"
        f" within {limit:g} s; it may still be queued or running"
    )
    watched.give_up(Verdict(reason=asked_for(by), summary=summary))
    return False


async def bring_about(
    connection: Connection,
    watched: Watched,
    left: Callable[[], float],
    on_answer: Callable[[NoAnswer | None], None] = lambda said: None,
) -> bool:
    """Repeat a cancellation until the scheduler accepts it, then wait until the job's end is seen.

    Args:
        left: for how many seconds more.
        on_answer: called after each cancellation with None if the scheduler accepted it, else with
            what it said.

    Returns:
        Whether its end was seen in time.
    """
    accepted = False
    while not watched.verdict.done():
        if not accepted:
            said = await connection.cancel(watched.job_id, watched.tag)
            accepted = said is None
            on_answer(said)
            watched.wants_answer = True
            connection.hurry(watched)
        seconds = left()
        await asyncio.wait([watched.verdict], timeout=max(0.0, min(seconds, 2.0)))
        if seconds <= 0:
            break
    return watched.verdict.done()
