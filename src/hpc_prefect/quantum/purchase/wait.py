"""Waiting for a job that was bought, for days if need be."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from hpc_prefect.errors import BudgetExceeded, QuantumJobFailed
from hpc_prefect.ledger.quantum_journal import QuantumAttempt
from hpc_prefect.quantum import service as words
from hpc_prefect.quantum.purchase.cancel import until_ended
from hpc_prefect.quantum.purchase.errand import Errand
from hpc_prefect.quantum.purchase.look import (
    describe,
    look_at,
    note_end,
    pause,
    settle_duplicates,
)
from hpc_prefect.quantum.purchase.retry import first_line
from hpc_prefect.quantum.service import Look

Seen = Callable[[Look], None]


async def ended(errand: Errand, attempt: QuantumAttempt, seen: Seen) -> Look:
    """The job's last state. A question that fails is asked again; it says nothing of the job.

    Raises:
        QuantumJobFailed: it ended without a result.
        BudgetExceeded: by the service's estimate it would cost more than is left; it was cancelled.
        QuantumServiceError: the service does not know the job.
    """
    start = time.monotonic()
    told = ""
    while True:
        look = await look_at(errand, attempt.job_id)
        if look.status != told:
            errand.log.info("%s", describe(attempt, look))
            told = look.status
        seen(look)
        if look.ended:
            return await _judged(errand, attempt, look)
        await _check_price(errand, attempt, look)
        await asyncio.sleep(pause(time.monotonic() - start))


async def _judged(errand: Errand, attempt: QuantumAttempt, look: Look) -> Look:
    if look.status == words.DONE:
        return look
    await note_end(errand, attempt, look)
    why = f": {look.reason}" if look.reason else ""
    raise QuantumJobFailed(
        f"job {attempt.job_id} on {attempt.device} ended as {look.status}{why}. Running the same"
        f" again buys another job. What is known of it: {errand.folder}",
        attempt.job_id,
        look.status,
    )


async def _check_price(errand: Errand, attempt: QuantumAttempt, look: Look) -> None:
    """The service's own estimate is there once the job is; a queued job costs nothing yet."""
    allowed, price = attempt.intent.get("allowed_seconds"), look.facts.get("estimated_seconds")
    if allowed is None or price is None or look.status != words.QUEUED or price <= allowed:
        return
    errand.log.warning(
        "job %s is estimated at %g QPU seconds, and %g are left: cancelling it",
        *(attempt.job_id, price, allowed),
    )
    end = await until_ended(errand, attempt)
    if end is None or end.status != words.CANCELLED:
        return  # it has ended otherwise meanwhile
    raise BudgetExceeded(
        f"the service estimates job {attempt.job_id} at {price:g} QPU seconds, and {allowed:g} are"
        " left of the block's max_qpu_seconds; it was cancelled in the queue"
    )


async def note_done(errand: Errand, attempt: QuantumAttempt, look: Look) -> None:
    """Write down that the job is done and its result is on disk."""
    await note_end(errand, attempt, look)
    errand.service.drop(attempt.job_id)
    try:
        await settle_duplicates(errand)
    except Exception as error:  # noqa: BLE001 - the result is there; the estimate counts
        errand.log.warning("asking what a duplicate has cost: %s", first_line(error))


async def result_of(errand: Errand, attempt: QuantumAttempt) -> Any:
    """The result of a job that is done."""
    question = partial(errand.service.result, attempt)
    return await errand.ask(question, f"fetching the result of {attempt.job_id}")
