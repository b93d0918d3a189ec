"""Notes samplings and estimations in the run's record."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from hpc_prefect.flow_runs.campaigns import CallIdentity
from hpc_prefect.flow_runs.recording import end_by, note_blocks, note_event, noting
from hpc_prefect.records.job_folders import QuantumWork, is_open, quantum_ends
from hpc_prefect.records.write.writer import Event


def note_wanted(
    work: QuantumWork, place: CallIdentity, described: Mapping[str, Mapping[str, Any]]
) -> None:
    """Note that a call asks for this work."""
    given = note_blocks(described)
    note_event("job", **work._asdict(), scope=list(place.scope), n=place.n, blocks=given)


@contextmanager
def recorded(work: QuantumWork) -> Iterator[None]:
    """Note the end of the work inside, whichever it is."""
    asked_after, later = time.time(), noting()
    try:
        yield
    except BaseException as error:
        later(partial(_ends, work, asked_after, end_by(error)))
        raise
    later(partial(_ends, work, asked_after, {}))


def _ends(work: QuantumWork, asked_after: float, end: dict[str, Any]) -> Iterable[Event]:
    told = list(quantum_ends(work, asked_after))
    if end and not told and not is_open(work):
        told = [work._asdict() | end]
    for each in told:
        yield "job-ended", each
