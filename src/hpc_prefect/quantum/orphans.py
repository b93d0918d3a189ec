"""Quantum jobs of a flow run whose process was killed before it could cancel them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hpc_prefect.ledger import claim as claims
from hpc_prefect.ledger.quantum_journal import JOURNAL, Journal, QuantumAttempt
from hpc_prefect.quantum.resolve import resolve
from hpc_prefect.quantum.services.ibm.cancel import cancel
from hpc_prefect.quantum.services.ibm.client import client_of
from hpc_prefect.quantum.services.ibm.look import named
from hpc_prefect.quantum.services.ibm.post import Errand
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
    block = str(attempt.intent["block"])
    resolved = await resolve("sampler", block, None, None)
    backend: Any = resolved.backend
    if backend is None:
        raise ValueError("; ".join(resolved.problems))
    errand = Errand(
        kind="",
        digest=str(attempt.intent["digest"]),
        folder=folder,
        claimant=claims.this_process(flow_run_id),
        terms=backend.terms,
        client=client_of(backend.account),
        log=log,
    )
    await cancel(errand, attempt)
