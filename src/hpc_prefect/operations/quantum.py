"""Quantum jobs as their folders tell it: what was intended, posted, and how it ended.

Nobody asks the service here: that takes credentials, which are in Prefect's blocks. So the state
of a job is what its own process saw last.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from hpc_prefect.errors import LedgerError
from hpc_prefect.job.state import JobState
from hpc_prefect.ledger import claim as claims
from hpc_prefect.ledger.job_folder import JobFolder
from hpc_prefect.ledger.quantum_journal import JOURNAL, Journal, QuantumAttempt
from hpc_prefect.operations.completion import has_result
from hpc_prefect.operations.find import call_folders
from hpc_prefect.operations.snapshot import (
    NO_SENSE,
    JobSnapshot,
    holder_of,
    name_of_campaign,
    unreadable,
)
from hpc_prefect.operations.status import (
    NO_LONGER_WATCHED,
    NOT_SUBMITTED,
    SUBMITTED,
    UNREADABLE,
    WAITING,
    JobStatus,
    time_of,
)
from hpc_prefect.transports.base import Transport
from hpc_prefect.transports.local import LocalTransport, reader

#: The names of the folders of samplings and estimations.
KEY = re.compile(r"[^-]+")
_STATES = {"DONE": "succeeded", "CANCELLED": "cancelled", "REFUSED": NOT_SUBMITTED}


@dataclass(frozen=True, kw_only=True)
class QuantumSnapshot(JobSnapshot):
    """All that the folder of a sampling or estimation says of its newest job.

    Attributes:
        quantum: the newest attempt.
    """

    quantum: QuantumAttempt = field(default_factory=lambda: QuantumAttempt(0, {}))

    kind = "quantum"

    @property
    def name(self) -> str:
        """The name of its block, which is in its task run's name too."""
        return str(self.quantum.intent.get("block", ""))

    @property
    def provenance(self) -> dict[str, Any]:
        return dict(self.quantum.intent)

    @property
    def is_over(self) -> bool:
        return bool(self.quantum.ended)

    @property
    def ended_surely(self) -> bool:
        return self.is_over

    @property
    def submitted_at(self) -> float | None:
        return self.quantum.posted_at or None

    @property
    def started_at(self) -> float | None:
        """By the service's clock."""
        return _moment(self.quantum.ended, "running")

    @property
    def ended_at(self) -> float | None:
        """By the service's clock; where it says nothing, when its end was seen."""
        ended = self.quantum.ended
        return _moment(ended, "finished") or time_of(dict(ended)) or None

    @property
    def where(self) -> str:
        device = self.quantum.intent.get("device")
        return f"{self.quantum.service}:{device}" if device else ""

    @property
    def qpu_seconds(self) -> float | None:
        """What it has cost, or may cost as long as that is not known; None if it was not bought."""
        return self.quantum.seconds if self.quantum.job_id else None

    def facts(self) -> dict[str, Any]:
        intent = self.quantum.intent
        actual = self.quantum.ended.get("qpu_seconds")
        return {
            "device": intent.get("device", ""),
            "interface": intent.get("interface", ""),
            "shots": intent.get("shots"),
            "qpu_seconds": actual,
            "estimated_seconds": intent.get("estimated_seconds"),
            "duplicates": dict(self.quantum.duplicates),
        }


def _moment(facts: Mapping[str, Any], name: str) -> float | None:
    try:
        return datetime.fromisoformat(str(facts.get(name))).timestamp()
    except ValueError:
        return None


def list_quantum_jobs(
    folder: str | os.PathLike[str] = ".",
    *more: str | os.PathLike[str],
    campaign: str = "",
    transport: Transport | None = None,
) -> list[QuantumSnapshot]:
    """The quantum jobs of a folder, or of several, as `list_jobs` lists the batch jobs."""
    paths = [
        path
        for each in (folder, *more)
        for path in call_folders(each, KEY, transport)
        if os.path.lexists(f"{path}/{JOURNAL}")
    ]
    jobs = [read_quantum_job(path, transport) for path in dict.fromkeys(paths)]
    found = [job for job in jobs if not campaign or job.belongs_to(campaign)]
    return sorted(found, key=lambda job: (job.created_at, job.folder.path))


def read_quantum_job(path: str, transport: Transport | None = None) -> QuantumSnapshot:
    """What the folder of a sampling says. What cannot be read is a job too, with its `problem`."""
    transport = transport or reader(path)
    above, _, key = path.rpartition("/")
    job = QuantumSnapshot(
        folder=JobFolder(transport, path),
        campaign=os.path.basename(os.path.dirname(above)),
        key=key,
        attempt=0,
        status=JobStatus(UNREADABLE),
        user=transport.user if isinstance(transport, LocalTransport) else "",
    )
    try:
        return _read(job)
    except NO_SENSE as error:
        return unreadable(job, error)


def _read(job: QuantumSnapshot) -> QuantumSnapshot:
    transport, path = job.folder.transport, job.folder.path
    journal = Journal(Path(path), transport)
    last = journal.last()
    if last is None:
        raise LedgerError("its journal has no intent")
    everybody = claims.history(transport, path)
    known = replace(
        job,
        campaign_name=name_of_campaign(transport, path),
        attempt=last.number,
        quantum=last,
        tag=last.tag,
        ids=(last.job_id,) if last.job_id else (),
        claims=everybody,
        holder=holder_of(job.folder, everybody),
        events=tuple(journal.events()),
    )
    return replace(known, status=_status_of(known))


def _status_of(job: QuantumSnapshot) -> JobStatus:
    """What may be said of it without asking the service."""
    attempt = job.quantum
    at = max((time_of(entry) for entry in job.events), default=0.0)
    if attempt.ended:
        state = _STATES.get(str(attempt.ended.get("status", "")), "failed")
        reason = str(attempt.ended.get("reason") or "")
        if state == "succeeded" and not has_result(job.folder.transport, job.folder.path):
            reason = "its result is still at the service"  # it came although it was cancelled
        return JobStatus(state, reason, at)
    alive = job.holder is not None and job.holder.alive
    doubts = (
        "its cancellation was requested, and nobody has seen that it ended"
        if attempt.cancelled
        else ""
    )
    if not attempt.job_id:
        if alive:
            return JobStatus(WAITING, doubts, at)
        words = "it was about to be posted; whether it was is not known"
        return JobStatus(JobState.UNKNOWN, "; ".join(filter(None, [words, doubts])), at)
    if alive:
        return JobStatus(SUBMITTED, doubts, at)
    words = f"last known: {SUBMITTED}; {NO_LONGER_WATCHED}"
    return JobStatus(JobState.UNKNOWN, "; ".join(filter(None, [words, doubts])), at)
