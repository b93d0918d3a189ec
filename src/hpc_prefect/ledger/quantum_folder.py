"""The folders of a sampling or an estimation: its record, and its jobs with what they cost.

    <key>/      what was asked and what came of it: sampling.json or estimation.json, result.npz
    <key>-<n>/  one job of a quantum service that was bought for it, in the form of every job's
                folder: journal, claims, requests to cancel; see `hpc_prefect.job.folder`

What its journal has beside that of a batch job:

    posting     a job is being posted to a service that cannot be asked for it afterwards
    duplicate   the service has another job of its tag, which is cancelled; later what it cost
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hpc_prefect.errors import LedgerError
from hpc_prefect.job.folder import Ledger
from hpc_prefect.ledger.job_folder import JobFolder
from hpc_prefect.transports.base import Transport

#: The record of a work, by its kind; `quantum.result_file` says what is in it.
RECORDS = {"sampler": "sampling.json", "estimator": "estimation.json"}
RESULT = "result.npz"
#: Of the version before, which had all jobs of a work in one.
OLD_JOURNAL = "quantum.jsonl"


def refuse_old(transport: Transport, work: str) -> None:
    """Raise `LedgerError` where the jobs of a work are in a journal of the version before."""
    if transport.status(f"{work}/{OLD_JOURNAL}") is not None:
        raise LedgerError(
            f"{work}/{OLD_JOURNAL} was written by an earlier version of this package, and is not"
            f" read. Its jobs may be queued, or have cost something: look at the service, then"
            f" move the file away to have the work done again"
        )


def attempts(transport: Transport, work: str) -> Iterator[JobFolder]:
    """The folders of the jobs that were bought for a work, the newest last.

    Args:
        work: `<campaign>/<2 hex>/<key>`.

    Raises:
        LedgerError: its jobs are in a journal of the version before.
    """
    refuse_old(transport, work)
    above, _, key = work.rpartition("/")
    tails = [name.removeprefix(f"{key}-") for name in transport.list(above)]
    for number in sorted(int(tail) for tail in tails if tail.isdecimal() and tail != key):
        yield JobFolder(transport, f"{work}-{number}")


def qpu_seconds(ledger: Ledger, ended: Mapping[str, Any] | None = None) -> float:
    """What an attempt has cost, or may cost as long as that is not known; 0 if it was not bought.

    Args:
        ended: what was used, where only somebody outside of its process has seen its end.
    """
    estimated = float(ledger.job.get("estimated_seconds") or 0.0)
    own, others, costs = ledger.job_id, dict(ledger.duplicates), []
    if ledger.result:
        own = str(ledger.result.get("job_id", ledger.job_id))
        used = ledger.result.get("resources_used") or {}
        costs += [used.get("qpu_seconds")] * bool(own)
        if ledger.job_id:  # another one is that of a process that was stopped, noted since
            others.setdefault(ledger.job_id, None)
    elif ledger.intended:
        costs.append((ended or {}).get("qpu_seconds"))
    costs += [cost for job_id, cost in others.items() if job_id != own]
    return sum(estimated if cost is None else float(cost) for cost in costs)
