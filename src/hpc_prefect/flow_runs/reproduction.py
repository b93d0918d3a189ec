"""The run whose configuration counts here, in place of what is stored: in a reproduction of it.

Calls ask `recorded()` before they load a block or a Variable, and before a loop draws a seed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from hpc_prefect.flow_runs.sent import send_along, sent
from hpc_prefect.records.fold import Record
from hpc_prefect.records.job_events import place_names
from hpc_prefect.records.read import read_run

logger = logging.getLogger("hpc_prefect.flow_runs.reproduction")

_folder: ContextVar[str] = ContextVar("hpc_prefect_reproduces", default="")


@dataclass(frozen=True)
class RecordedConfiguration:
    """What a run was given, as its record has it.

    Attributes:
        run_id: of the run that is reproduced.
        folder: of its record.
        blocks: the content of each, by kind and name; of one that was edited while the run went on
            the newest.
        loops: each by its place.
    """

    run_id: str
    folder: str
    blocks: Mapping[tuple[str, str], Mapping[str, Any]]
    loops: Mapping[tuple[object, ...], Mapping[str, Any]]

    def block(self, kind: str, name: str) -> Mapping[str, Any] | None:
        """A block's fields or a Variable's content; None, and a warning, where there is none."""
        found = self.blocks.get((kind, name))
        if found is None:
            logger.warning(
                "the record of run %s has no %s %r: the stored one is used", self.run_id, kind, name
            )
        return found

    def entropy(self, name: str, scope: tuple[str, ...], n: int) -> int | None:
        """What the loop at that place drew for a seed, when it was given none."""
        loop = self.loops.get((name, place_names(scope), n), {})
        drawn = str(loop.get("entropy") or "")
        return int(drawn) if drawn.isdecimal() else None


def recorded() -> RecordedConfiguration | None:
    """The run that is reproduced here; None, as a rule.

    Raises:
        LedgerError: its record is gone, or cannot be read.
    """
    folder = _chosen()
    return _read(folder) if folder else None


def _chosen() -> str:
    return _folder.get() or str(sent("reproduces") or "")


@contextmanager
def reproducing(folder: str) -> Iterator[None]:
    """The run with the record in `folder` is reproduced inside; empty: none is."""
    token = _folder.set(folder)
    try:
        yield
    finally:
        _folder.reset(token)


send_along("reproduces", lambda: _chosen() or None)


@lru_cache(maxsize=4)
def _read(folder: str) -> RecordedConfiguration:
    return of_record(read_run(folder, with_jobs=False))


def of_record(record: Record) -> RecordedConfiguration:
    """What the run was given. Pure."""
    return RecordedConfiguration(
        run_id=record.id,
        folder=record.folder,
        blocks={which: record.blocks[digest]["values"] for which, digest in record.newest.items()},
        loops={_place_of(each): each for each in record.loops.values()},
    )


def _place_of(loop: Mapping[str, Any]) -> tuple[object, ...]:
    return (loop["loop"], place_names(loop.get("scope")), loop.get("n"))
