"""What was intended, posted and ended: the ledger of one quantum job, in its folder.

    quantum.jsonl   one line an event, appended by the folder's one claimant and forced to disk; a
                    torn last line is ignored: what it tells had not happened yet

The intent is there before the job is posted, with the tag that the job will have. The tag is the
digest of the work, its place in the experiment, the attempt and a random number that is drawn with
the intent: two experiments of one name, in two folders, never take each other's jobs.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hpc_prefect.job.identity import digest
from hpc_prefect.transports.local import LocalTransport

JOURNAL = "quantum.jsonl"


@dataclass(frozen=True)
class Attempt:
    """One intended job.

    Attributes:
        intent: what the journal says of it: tag, digest, device, estimated seconds …
        job_id: empty until it is known.
        ended: what the journal says of its end; empty until then.
    """

    number: int
    intent: Mapping[str, Any]
    job_id: str = ""
    ended: Mapping[str, Any] = field(default_factory=dict)

    @property
    def tag(self) -> str:
        return str(self.intent["tag"])

    @property
    def device(self) -> str:
        return str(self.intent["device"])

    @property
    def failed(self) -> bool:
        """Whether it ended without a result, so that the next attempt is another job."""
        return bool(self.ended) and self.ended.get("status") != "DONE"

    @property
    def seconds(self) -> float:
        """QPU seconds that it has cost, or else may cost; 0 if it was never bought."""
        actual = self.ended.get("qpu_seconds")
        if actual is not None:
            return float(actual)
        if self.ended and not self.job_id:
            return 0.0
        return float(self.intent.get("estimated_seconds") or 0.0)


@dataclass(frozen=True)
class Journal:
    """The journal of one folder."""

    folder: Path

    @property
    def path(self) -> str:
        return str(self.folder / JOURNAL)

    def attempts(self) -> list[Attempt]:
        """All attempts, the newest last."""
        found: list[Attempt] = []
        for event in self._events():
            what = event.get("event")
            if what == "intent":
                found.append(Attempt(len(found) + 1, event))
            elif found and what == "posted":
                found[-1] = Attempt(found[-1].number, found[-1].intent, str(event["job_id"]))
            elif found and what == "ended":
                last = found[-1]
                found[-1] = Attempt(last.number, last.intent, last.job_id, event)
        return found

    def last(self) -> Attempt | None:
        """The newest attempt."""
        attempts = self.attempts()
        return attempts[-1] if attempts else None

    def intend(self, work: str, place: list[Any], **facts: Any) -> Attempt:
        """Write down a job that is to be posted."""
        number = len(self.attempts()) + 1
        tag = "hp-" + digest([work, place, number, secrets.token_hex(16)])[:32]
        self.note("intent", tag=tag, digest=work, attempt=number, **facts)
        last = self.last()
        assert last is not None  # it was written a statement ago
        return last

    def note(self, event: str, **facts: Any) -> None:
        """Append an event, forced to disk."""
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"at": at, "event": event, **facts}).encode() + b"\n"
        transport = LocalTransport()
        before = transport.read(self.path) or b""
        torn = bool(before) and not before.endswith(b"\n")
        transport.append(self.path, b"\n" + line if torn else line, durable=True)

    def _events(self) -> list[dict[str, Any]]:
        events = []
        for line in (LocalTransport().read(self.path) or b"").splitlines():
            try:
                event = json.loads(line)
            except ValueError:  # torn off by a crash
                continue
            if isinstance(event, dict):
                events.append(event)
        return events
