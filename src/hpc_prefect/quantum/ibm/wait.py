"""Waiting for a job that was bought, for days if need be; and cancelling it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import anyio

from hpc_prefect.errors import BudgetExceeded, QuantumJobFailed, QuantumServiceError
from hpc_prefect.flow_states import is_cancelled
from hpc_prefect.quantum.ibm import client as words
from hpc_prefect.quantum.ibm.budget import budget_of
from hpc_prefect.quantum.ibm.client import Look
from hpc_prefect.quantum.ibm.journal import Attempt
from hpc_prefect.quantum.ibm.kinds import Kind, kind_of
from hpc_prefect.quantum.ibm.patience import first_line, patiently
from hpc_prefect.quantum.ibm.post import BEFORE, Errand
from hpc_prefect.scopes import root_flow
from hpc_prefect.sigterm import received_sigterm

#: Seconds between two looks at a job: a tenth of the time that it has waited, within these.
SOONEST, LATEST = 1.0, 60.0
#: How long a cancelled call tries to cancel its job; below Prefect's own 30 s grace.
CONFIRM = 22.0

Seen = Callable[[Look], Awaitable[None]]


async def ended(errand: Errand, attempt: Attempt, seen: Seen) -> Look:
    """The job's last state. A question that fails is asked again; it says nothing of the job.

    Raises:
        QuantumJobFailed: it ended without a result.
        BudgetExceeded: by the service's estimate it would cost more than is left; it was cancelled.
        QuantumServiceError: the service does not know the job.
    """
    start = time.monotonic()
    told = ""
    while True:
        look = await _look(errand, attempt)
        if look.status != told:
            errand.log.info("%s", describe(attempt, look))
            told = look.status
        await seen(look)
        if look.ended:
            return await _judged(errand, attempt, look)
        await _check_price(errand, attempt, look)
        waited = time.monotonic() - start
        await asyncio.sleep(min(max(SOONEST, 0.1 * waited), LATEST))


async def _look(errand: Errand, attempt: Attempt) -> Look:
    what = f"asking for job {attempt.job_id}"
    try:
        return await patiently(partial(errand.client.look, attempt.job_id), what, errand.log)
    except Exception as error:
        if kind_of(error) is not Kind.MISSING:
            raise
        raise QuantumServiceError(
            f"the service does not know job {attempt.job_id} ({first_line(error)}). Was it deleted,"
            " or is the instance of the credentials another one now? It is not bought again by"
            f" itself; if it is lost, remove {errand.journal.path} and run again"
        ) from error


async def _judged(errand: Errand, attempt: Attempt, look: Look) -> Look:
    if look.status == words.DONE:
        return look
    await _note_end(errand, attempt, look)
    why = f": {look.reason}" if look.reason else ""
    raise QuantumJobFailed(
        f"job {attempt.job_id} on {attempt.device} ended as {look.status}{why}. Running the same"
        f" again buys another job. What is known of it: {errand.folder}",
        attempt.job_id,
        look.status,
    )


async def _check_price(errand: Errand, attempt: Attempt, look: Look) -> None:
    """The service's own estimate is there once the job is; a queued job costs nothing yet."""
    allowed, price = attempt.intent.get("allowed_seconds"), look.facts.get("estimated_seconds")
    if allowed is None or price is None or look.status != words.QUEUED or price <= allowed:
        return
    if not await cancel(errand, attempt):
        return  # it has ended meanwhile
    raise BudgetExceeded(
        f"the service estimates job {attempt.job_id} at {price:g} QPU seconds, and {allowed:g} are"
        " left of the block's max_qpu_seconds; it was cancelled in the queue"
    )


async def _note_end(errand: Errand, attempt: Attempt, look: Look) -> None:
    await asyncio.to_thread(
        errand.journal.note,
        "ended",
        job_id=attempt.job_id,
        status=look.status,
        reason=look.reason,
        **look.facts,
    )
    await asyncio.to_thread(budget_of(errand.campaign).settle, errand.folder)


async def note_done(errand: Errand, attempt: Attempt, look: Look) -> None:
    """Write down that the job is done and its result is on disk."""
    await _note_end(errand, attempt, look)
    errand.client.drop(attempt.job_id)


async def result_of(errand: Errand, attempt: Attempt) -> Any:
    """The result of a job that is done."""
    ask = partial(errand.client.result, attempt.job_id)
    return await patiently(ask, f"fetching the result of {attempt.job_id}", errand.log)


async def interrupted(errand: Errand) -> None:
    """The call was cancelled: cancel the job with it, unless it is to be kept.

    SIGTERM is how machines say that a login node goes down: the job waits on, and the next start
    attaches to it. When Prefect's run is being cancelled, SIGTERM is how that reaches us.
    """
    with anyio.CancelScope(shield=True):
        attempt = errand.journal.last()
        if attempt is None or attempt.ended:
            return
        if received_sigterm() and not await _run_is_cancelled():
            errand.log.info("this process was told to end; %s is left to run", named(attempt))
            return
        if errand.terms.on_cancel == "keep":
            errand.log.info("%s is kept; running the same again attaches to it", named(attempt))
            return
        with anyio.move_on_after(CONFIRM):
            await cancel(errand, attempt)
            return
        errand.log.warning("%s could not be cancelled in time", named(attempt))


def named(attempt: Attempt) -> str:
    return f"job {attempt.job_id or 'with the tag ' + attempt.tag}"


async def cancel(errand: Errand, attempt: Attempt) -> bool:
    """Cancel the attempt's job, or what the service has under its tag; False: it had ended."""
    jobs = [attempt.job_id]
    if not attempt.job_id:
        ask = partial(errand.client.find, attempt.tag)
        found = await patiently(ask, "asking for the job", errand.log, seconds=BEFORE)
        jobs = [job_id for job_id, status in found if status not in words.ENDS]
    for job_id in jobs:
        cancel = partial(errand.client.cancel, job_id)
        if not await patiently(cancel, f"cancelling job {job_id}", errand.log):
            return False
        errand.log.info("cancelled job %s", job_id)
    await asyncio.to_thread(errand.journal.note, "ended", status=words.CANCELLED, qpu_seconds=0)
    return True


async def _run_is_cancelled() -> bool:
    flow = root_flow()
    if flow is None or flow.flow_run is None:
        return False
    return await asyncio.to_thread(is_cancelled, str(flow.flow_run.id))


def describe(attempt: Attempt, look: Look) -> str:
    """A job's state in one line."""
    text = f"job {attempt.job_id} on {attempt.device}: {look.status.lower()}"
    position, starts = look.facts.get("position"), look.facts.get("starts_at")
    if look.status == words.QUEUED and position:
        text += f", number {position} in the queue"
    if look.status == words.QUEUED and starts:
        text += f", expected to start at {starts}"
    if look.status == words.DONE:
        text += f", {seconds_of(look)}"
    return text


def seconds_of(look: Look) -> str:
    """QPU seconds in words: actual, or estimated and said so."""
    actual, price = look.facts.get("qpu_seconds"), look.facts.get("estimated_seconds")
    if actual is not None:
        return f"{actual:g} QPU seconds"
    return "QPU seconds not known" if price is None else f"about {price:g} QPU seconds (estimated)"
