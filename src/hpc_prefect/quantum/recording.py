"""What the run's record is told of a sampling or an estimation."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from hpc_prefect.errors import FlowRunCancelled
from hpc_prefect.flow_runs.campaigns import CallIdentity
from hpc_prefect.flow_runs.recording import first_line, note_blocks, note_event, note_later
from hpc_prefect.ledger.quantum_journal import RECORDS
from hpc_prefect.records.job_events import quantum_job
from hpc_prefect.records.write.writer import Event
from hpc_prefect.transports.local import read_private


def note_wanted(
    kind: str, name: str, place: CallIdentity, described: Mapping[str, Mapping[str, Any]]
) -> None:
    """A call wants this work."""
    note_event(
        "job",
        key=place.key,
        kind=kind,
        name=name,
        folder=str(place.folder),
        scope=list(place.scope),
        n=place.n,
        blocks=note_blocks(described),
    )


@contextmanager
def recorded(kind: str, name: str, folder: Path) -> Iterator[None]:
    """Have the end of the work inside recorded."""
    facts = {"kind": kind, "folder": str(folder), "key": folder.name, "name": name}
    asked_after = time.time()
    try:
        yield
    except Exception as error:
        state = "cancelled" if isinstance(error, FlowRunCancelled) else "failed"
        note_event("job-ended", **facts, state=state, summary=first_line(str(error)))
        raise
    note_later(partial(_ended, folder, facts, asked_after))


def _ended(folder: Path, facts: dict[str, Any], asked_after: float) -> Iterable[Event]:
    record = json.loads(read_private(folder / RECORDS[facts["kind"]]) or b"{}")
    yield "job-ended", quantum_job(record, **facts, asked_after=asked_after)
