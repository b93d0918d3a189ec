"""All attempts of a run's jobs, for an export: a record in memory has only the newest of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import chain
from typing import Any

from hpc_prefect.records.fold import Record
from hpc_prefect.records.read import read_events

#: The state of a job of which no end was recorded.
WANTED = "wanted"


def attempts(record: Record) -> Iterator[list[dict[str, Any]]]:
    """Each job's attempts, in the order in which the jobs were first wanted.

    The events are read once more; the record's `completed_by` is added.

    A job without an end has the state `WANTED` and the attempt number 0. `collected` tells whether
    an earlier run did it, as in a record.
    """
    wanted: dict[str, dict[str, Any]] = {}
    ended: dict[str, dict[str, dict[str, Any]]] = {}
    for event in chain(read_events(record.folder), record.completed_by):
        with suppress(KeyError, TypeError, ValueError):  # it is invalid: as the record has it
            if event.get("event") == "job":
                wanted[str(event["key"])] = dict(event) | {"wanted_at": float(event["time"])}
            elif event.get("event") == "job-ended":
                facts = dict(event) | {"ended_at": float(event["time"])}
                facts["collected"] = record.is_reused(facts)
                ended.setdefault(str(event["key"]), {}).setdefault(_which(event), facts)
    for key in {**wanted, **ended}:
        called = wanted.pop(key, {})
        done = ended.pop(key, {})
        yield [called | facts for facts in done.values()] or [
            called | {"state": WANTED, "attempt": 0}
        ]


def _which(event: Mapping[str, Any]) -> str:
    return f"{event.get('attempt')} {event.get('job_id')}"
