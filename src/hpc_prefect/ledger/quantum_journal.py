"""What was intended, posted and ended: the ledger of one quantum job, in its folder.

    quantum.jsonl   one line an event, appended by the folder's one claimant and forced to disk; a
                    torn last line is ignored: what it tells had not happened yet

    intent        a job will be posted
    posted        the service has it, under this id
    duplicate     the service has another one of its tag, which is cancelled; later what it cost
    cancel        the service is asked to end it
    unconfirmed   nobody has seen that it ended: it may run on, and cost
    ended         how it ended, and what it cost

The intent is there before the job is posted, with the tag that the job will have. The tag is the
digest of the work, its place in the experiment, the attempt and a random number that is drawn with
the intent: two experiments of one name, in two folders, never take each other's jobs.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hpc_prefect.job.folder import journal_line, read_entries
from hpc_prefect.job.identity import digest
from hpc_prefect.ledger import journal
from hpc_prefect.transports.base import Transport
from hpc_prefect.transports.local import LocalTransport

JOURNAL = "quantum.jsonl"
#: The record beside it, by the kind of the work; `quantum.result_file` says what is in it.
RECORDS = {"sampler": "sampling.json", "estimator": "estimation.json"}
RESULT = "result.npz"


@dataclass(frozen=True)
class QuantumAttempt:
    """One intended job.

    Attributes:
        intent: what the journal says of it: tag, digest, device, estimated seconds …
        job_id: empty until it is known.
        ended: what the journal says of its end; empty until then.
        posting: whether a POST was begun, as far as it was written down: only for a service that
            cannot be asked for it afterwards.
        posted_at: seconds since 1970 at which its id became known; 0 for not known.
        cancelled: whether it was to end and nobody has seen yet that it has.
        duplicates: QPU seconds of other jobs of its tag, by id; None until they are known.
    """

    number: int
    intent: Mapping[str, Any]
    job_id: str = ""
    posting: bool = False
    posted_at: float = 0.0
    ended: Mapping[str, Any] = field(default_factory=dict)
    cancelled: bool = False
    duplicates: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def tag(self) -> str:
        return str(self.intent["tag"])

    @property
    def device(self) -> str:
        return str(self.intent["device"])

    @property
    def service(self) -> str:
        """The vendor's; the version before knew one, and did not say."""
        return str(self.intent.get("service") or "ibm")

    @property
    def intended_at(self) -> float:
        """Seconds since 1970."""
        return float(self.intent.get("time") or 0.0)

    @property
    def failed(self) -> bool:
        """Whether it ended without a result, so that the next attempt is another job."""
        return bool(self.ended) and self.ended.get("status") != "DONE"

    @property
    def seconds(self) -> float:
        """QPU seconds that it has cost, or else may cost; 0 if it was never bought."""
        estimated = float(self.intent.get("estimated_seconds") or 0.0)
        jobs = [cost for job_id, cost in self.duplicates.items() if job_id != self.job_id]
        if not self.ended or self.job_id:
            jobs.append(self.ended.get("qpu_seconds"))
        return sum(estimated if each is None else float(each) for each in jobs)

    def after(self, event: Mapping[str, Any]) -> QuantumAttempt:
        """The attempt when this event has happened too."""
        what = event.get("event")
        if what == "posted":
            at = float(event.get("time") or 0.0)
            return replace(self, job_id=str(event["job_id"]), posted_at=at, cancelled=False)
        if what == "posting":
            return replace(self, posting=True)
        if what == "duplicate":
            known = {**self.duplicates, str(event["job_id"]): event.get("qpu_seconds")}
            return replace(self, duplicates=known)
        if what in ("cancel", "unconfirmed"):
            return replace(self, cancelled=not self.ended)
        return replace(self, ended=event, cancelled=False) if what == "ended" else self


@dataclass(frozen=True)
class Journal:
    """The journal of one folder."""

    folder: Path
    transport: Transport = field(default_factory=LocalTransport)

    @property
    def path(self) -> str:
        return str(self.folder / JOURNAL)

    def attempts(self) -> list[QuantumAttempt]:
        """All attempts, the newest last."""
        found: list[QuantumAttempt] = []
        for event in self.events():
            if event.get("event") == "intent":
                found.append(QuantumAttempt(len(found) + 1, event))
            elif found:
                found[-1] = found[-1].after(event)
        return found

    def last(self) -> QuantumAttempt | None:
        """The newest attempt."""
        attempts = self.attempts()
        return attempts[-1] if attempts else None

    def intend(self, work: str, place: list[Any], **facts: Any) -> QuantumAttempt:
        """Write down a job that is to be posted."""
        number = len(self.attempts()) + 1
        tag = "hp-" + digest([work, place, number, secrets.token_hex(16)])[:32]
        self.note("intent", tag=tag, digest=work, attempt=number, **facts)
        last = self.last()
        assert last is not None  # it was written a statement ago
        return last

    def note(self, event: str, **facts: Any) -> None:
        """Append an event, forced to disk."""
        line = journal_line(time.time(), event, **facts)
        journal.append(self.transport, self.path, line, durable=True)

    def events(self) -> list[dict[str, Any]]:
        """All events in their order; a line that a crash tore off is left out."""
        return list(read_entries(self.transport.read(self.path)))
