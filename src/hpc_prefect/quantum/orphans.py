"""Quantum jobs that another process bought: of a killed flow run, or named by a person."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import anyio

from hpc_prefect.errors import ConfigurationError, LedgerError
from hpc_prefect.executor.service import executor
from hpc_prefect.ledger import claim as claims
from hpc_prefect.ledger.quantum_journal import JOURNAL, RECORDS, Journal, QuantumAttempt
from hpc_prefect.operations.completion import has_result
from hpc_prefect.quantum.purchase.cancel import cancel
from hpc_prefect.quantum.purchase.errand import Errand, claimed
from hpc_prefect.quantum.purchase.look import PATIENCE, look_at, named, seconds_of, the_end
from hpc_prefect.quantum.purchase.run import collect
from hpc_prefect.quantum.resolve import resolve
from hpc_prefect.quantum.service import DeviceChoice, PurchaseTerms, QuantumService
from hpc_prefect.quantum.services import vendor
from hpc_prefect.transports.local import LocalTransport


async def cancel_left(flow_run_id: str, folders: Iterable[str], log: Any) -> None:
    """Cancel the quantum jobs that a flow run bought, that have not ended and are not to be kept.

    Args:
        folders: of its campaigns.
    """
    bought = await asyncio.to_thread(_bought, flow_run_id, folders)
    await asyncio.gather(*(_cancel_in(folder, flow_run_id, log) for folder in bought))


async def _cancel_in(folder: Path, flow_run_id: str, log: Any) -> None:
    attempt = Journal(folder).last()
    if attempt is None or attempt.ended:
        return
    if attempt.intent.get("on_cancel") == "keep":
        log.info("%s is kept", named(attempt))
        return
    try:
        await _cancel(folder, attempt, flow_run_id, log)
    except Exception as error:  # noqa: BLE001 - the others are to be cancelled too
        log.warning(
            "%s could not be cancelled (%s); cancel it at the service, or start the flow again",
            named(attempt),
            error or type(error).__name__,
        )


def _bought(flow_run_id: str, folders: Iterable[str]) -> list[Path]:
    """Where this run was the last to buy or wait, and nobody does any more."""
    transport = LocalTransport()
    found = []
    for journal in (path for each in folders for path in Path(each).glob(f"*/*/{JOURNAL}")):
        holder = claims.holder_of(transport, str(journal.parent))
        theirs = holder is not None and holder.flow_run == flow_run_id
        if theirs and not claims.is_held(transport, str(journal.parent)):
            found.append(journal.parent)
    return sorted(found)


async def _cancel(folder: Path, attempt: QuantumAttempt, flow_run_id: str, log: Any) -> None:
    await cancel(await _errand(folder, attempt, flow_run_id, log), attempt)


async def _errand(folder: Path, attempt: QuantumAttempt, flow_run_id: str, log: Any) -> Errand:
    """All that is needed to speak of a job that another process bought."""
    service, terms = await _service(attempt)
    estimated = await asyncio.to_thread((folder / RECORDS["estimator"]).exists)
    return Errand(
        kind="estimator" if estimated else "sampler",
        digest=str(attempt.intent["digest"]),
        folder=folder,
        claimant=claims.this_process(flow_run_id),
        terms=terms,
        service=service,
        log=log,
    )


async def _service(attempt: QuantumAttempt) -> tuple[QuantumService, PurchaseTerms]:
    """The service with the credentials of the job's block; those of the environment without it."""
    try:
        resolved = await resolve("sampler", str(attempt.intent["block"]), None, None)
    except Exception:  # Prefect has the block, and does not answer
        here = vendor(attempt.service).of_environment()
        if here is None:
            raise
        return here, PurchaseTerms(choice=DeviceChoice(name=attempt.device))
    backend: Any = resolved.backend
    if backend is None:
        raise ConfigurationError("; ".join(resolved.problems))
    return backend.service, backend.terms


async def cancel_job(folder: Path, log: Any, *, wait: float = PATIENCE) -> tuple[bool, str]:
    """Cancel the job of a folder, whoever bought it; whether it has surely ended, and in words how.

    The process that waits for it, if one lives, sees its end as it sees any other.

    Args:
        wait: seconds for which its end is waited for.

    Raises:
        Exception: the service, or Prefect for its credentials, cannot be asked.
    """
    attempt = await asyncio.to_thread(Journal(folder).last)
    if attempt is None:
        return True, "no job was ever posted"
    if attempt.ended:
        return True, f"it had ended: {attempt.ended.get('status')}"
    errand = await _errand(folder, attempt, "", log)
    if await asyncio.to_thread(claims.is_held, LocalTransport(), str(folder)):
        return await _ended_under(errand, attempt, wait)
    claim = await asyncio.to_thread(claimed, errand)
    try:
        look = await cancel(errand, attempt, wait)
    finally:
        executor().release(claim)
    if look is None:
        return False, "the service has been asked, and nobody has seen that it ended"
    return True, f"the service says {look.status}, {seconds_of(look)}"


async def _ended_under(errand: Errand, attempt: QuantumAttempt, wait: float) -> tuple[bool, str]:
    """Have a job end that a living process waits for: what it sees it writes down itself."""
    if not attempt.job_id:
        return False, "its process is about to post it; give the command again"
    what = f"cancelling {named(attempt)}"
    with anyio.move_on_after(wait):
        await errand.ask(partial(errand.service.cancel, attempt.job_id), what)
        look = await the_end(errand, attempt.job_id)
        return True, f"the service says {look.status}, {seconds_of(look)}"
    return False, "the service has been asked, and nobody has seen that it ended"


async def attach_job(folder: Path, log: Any, *, job_id: str = "") -> None:
    """Wait for the job of a folder and keep its result, as the process that bought it would.

    Nobody is asked when the result is there already.

    Args:
        job_id: of a job that was posted and whose id no reply told: a person has found it.

    Raises:
        JobHeld: that process lives.
        QuantumJobFailed, QuantumServiceError, LedgerError: as `fetch`.
    """
    attempt = await asyncio.to_thread(Journal(folder).last)
    if attempt is not None and job_id and not attempt.ended:
        attempt = await _told(folder, attempt, job_id, log)
    if attempt is None or not attempt.job_id:
        raise LedgerError(f"{folder}: no job is known, so there is nothing to attach to")
    if await asyncio.to_thread(has_result, LocalTransport(), str(folder)):
        return
    errand = await _errand(folder, attempt, "", log)
    # Who stops waiting does not mean to end it.
    await collect(replace(errand, terms=replace(errand.terms, on_cancel="keep")))


async def _told(folder: Path, attempt: QuantumAttempt, job_id: str, log: Any) -> QuantumAttempt:
    """Write down the id of an attempt's job, which the service is asked for first."""
    if attempt.job_id not in ("", job_id):
        raise LedgerError(f"{folder}: its job is {attempt.job_id}, and not {job_id}")
    errand = await _errand(folder, attempt, "", log)
    claim = await asyncio.to_thread(claimed, errand)
    try:
        await look_at(errand, job_id)
        await asyncio.to_thread(errand.journal.note, "posted", job_id=job_id, adopted=True)
    finally:
        executor().release(claim)
    return replace(attempt, job_id=job_id)
