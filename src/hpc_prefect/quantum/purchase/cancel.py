"""Cancelling a job, which is done when the service shows that it has ended, and what it cost.

A service that accepts a cancel may run the job on; the result that comes then is as good as any. A
job whose end was not seen stays in the journal as unconfirmed: it counts as if it cost what was
estimated, and the next start sees to its end before it buys anything.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial

import anyio

from hpc_prefect.flow_runs.scopes import root_flow
from hpc_prefect.flow_runs.signals import received_sigterm
from hpc_prefect.flow_runs.states import is_cancelled
from hpc_prefect.ledger.quantum_journal import QuantumAttempt
from hpc_prefect.quantum import service as words
from hpc_prefect.quantum.purchase.errand import Errand
from hpc_prefect.quantum.purchase.look import PATIENCE, named, note_end, seconds_of, the_end
from hpc_prefect.quantum.purchase.post import BEFORE, adopted
from hpc_prefect.quantum.purchase.retry import first_line
from hpc_prefect.quantum.service import Kind, Look


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
        await cancel(errand, attempt)


async def cancel(errand: Errand, attempt: QuantumAttempt, wait: float = PATIENCE) -> Look | None:
    """Ask for the end of the attempt's job and look at it until it has ended.

    Returns:
        How it ended, which is written down; None if that was not seen within the patience.
    """
    trouble = ""
    with anyio.move_on_after(wait):
        try:
            look = await until_ended(errand, attempt)
        except Exception as error:  # noqa: BLE001 - whoever cancels wants to end, not to fail
            look, trouble = None, f": {first_line(error)}"
        if look is not None:
            return look
    await asyncio.to_thread(errand.journal.note, "unconfirmed")
    errand.log.warning(
        "%s was cancelled, but nobody has seen that it ended%s. It may run on and cost QPU"
        " seconds; the next start of this flow looks again and buys nothing before",
        named(errand.journal.last() or attempt),
        trouble,
    )
    return None


async def until_ended(errand: Errand, attempt: QuantumAttempt) -> Look | None:
    """The same without a limit of time; None if the service has no job of the attempt's tag."""
    if not attempt.job_id:
        job_id = await adopted(errand, attempt, lost=True)
        if not job_id:
            return None
        await asyncio.to_thread(errand.journal.note, "posted", job_id=job_id, adopted=True)
        attempt = replace(attempt, job_id=job_id)
    await asyncio.to_thread(errand.journal.note, "cancel", job_id=attempt.job_id)
    question, what = partial(errand.service.cancel, attempt.job_id), f"cancelling {named(attempt)}"
    try:
        await errand.ask(question, what, seconds=BEFORE)
    except Exception as error:
        if errand.service.kind_of(error) is Kind.FOREIGN:
            raise
        errand.log.warning("%s: %s; how it is will be asked", what, first_line(error))
    look = await the_end(errand, attempt.job_id)
    await note_end(errand, attempt, look)
    errand.service.drop(attempt.job_id)
    if look.status == words.DONE:
        errand.log.info("%s was done before it could be cancelled; its result counts, %s",
                        named(attempt), seconds_of(look))  # fmt: skip
    else:
        errand.log.info("cancelled %s, %s", named(attempt), seconds_of(look))
    return look


async def finish(errand: Errand) -> None:
    """See to the end of a job that an earlier call cancelled and whose end it did not see."""
    attempt = await asyncio.to_thread(errand.journal.last)
    if attempt is None or not attempt.cancelled:
        return
    errand.log.info(
        "%s was cancelled earlier, and nobody has seen that it ended: waiting for that before"
        " anything is bought",
        named(attempt),
    )
    await until_ended(errand, attempt)


async def _run_is_cancelled() -> bool:
    flow = root_flow()
    if flow is None or flow.flow_run is None:
        return False
    return await asyncio.to_thread(is_cancelled, str(flow.flow_run.id))
