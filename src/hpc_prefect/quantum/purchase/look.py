"""How a job of the service is: asked, told in words, and its end written down."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from functools import partial

import anyio

from hpc_prefect.errors import QuantumServiceError
from hpc_prefect.ledger.quantum_journal import QuantumAttempt
from hpc_prefect.quantum import service as words
from hpc_prefect.quantum.purchase import tally
from hpc_prefect.quantum.purchase.errand import Errand
from hpc_prefect.quantum.purchase.retry import first_line
from hpc_prefect.quantum.service import Kind, Look

#: Seconds between two looks at a job: a tenth of the time that it has waited, within these.
SOONEST, LATEST = 1.0, 60.0
#: Seconds in which a cancelled job must be seen to end; below Prefect's own 30 s grace.
PATIENCE = 20.0


def pause(waited: float) -> float:
    """Seconds until the next look at a job that was waited for so long."""
    return min(max(SOONEST, 0.1 * waited), LATEST)


async def the_end(errand: Errand, job_id: str) -> Look:
    """The last state of a job, waiting for it."""
    start = time.monotonic()
    while True:
        look = await look_at(errand, job_id)
        if look.ended:
            return look
        await asyncio.sleep(pause(time.monotonic() - start))


async def look_at(errand: Errand, job_id: str) -> Look:
    """How a job is. A question that fails is asked again; it says nothing of the job.

    Raises:
        QuantumServiceError: the service does not know the job.
    """
    what = f"asking for job {job_id}"
    try:
        return await errand.ask(partial(errand.service.look, job_id), what)
    except Exception as error:
        if errand.service.kind_of(error) is not Kind.MISSING:
            raise
        raise QuantumServiceError(
            f"the service does not know job {job_id} ({first_line(error)}). Was it deleted,"
            " or is the instance of the credentials another one now? It is not bought again by"
            f" itself; if it is lost, remove {errand.journal.path} and run again"
        ) from error


async def note_end(errand: Errand, attempt: QuantumAttempt, look: Look) -> None:
    """Write down how the job ended and what it cost."""
    await asyncio.to_thread(
        errand.journal.note,
        "ended",
        job_id=attempt.job_id,
        status=look.status,
        reason=look.reason,
        **look.facts,
    )
    tally.count(attempt, look, errand.campaign)


async def settle_duplicates(errand: Errand) -> None:
    """Write down what other jobs of the tag have cost; what is not seen in time stays estimated."""
    last = await asyncio.to_thread(errand.journal.last)
    unknown = [] if last is None else [k for k, cost in last.duplicates.items() if cost is None]
    with anyio.move_on_after(PATIENCE):
        for job_id in unknown:
            look = await the_end(errand, job_id)
            cost = look.facts.get("qpu_seconds")
            await asyncio.to_thread(
                errand.journal.note, "duplicate", job_id=job_id, qpu_seconds=cost
            )
            errand.service.drop(job_id)


def place_of(scope: Sequence[str]) -> str:
    """Where in the experiment a call is, for people: `iter-3/walker-2`; empty at its top.

    The loop around an iteration has a name that only machines need.
    """
    loops = [i for i, name in enumerate(scope) if name.startswith("iter-")]
    return "/".join(scope[loops[-1] :] if loops else scope)[-60:]


def named(attempt: QuantumAttempt) -> str:
    return f"job {attempt.job_id or 'with the tag ' + attempt.tag}"


def describe(attempt: QuantumAttempt, look: Look) -> str:
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
