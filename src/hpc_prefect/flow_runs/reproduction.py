"""In a reproduction: the original run's configuration, used instead of the stored blocks.

Calls ask `recorded()` before they load a block or a Variable, and loops before they draw a seed.
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
    """A run's configuration, from its record.

    Attributes:
        run_id: of the run that is reproduced.
        folder: of its record.
        blocks: the content of each, by kind and name; the newest of one that was edited during the
            run.
        loops: each by its place in the run.
    """

    run_id: str
    folder: str
    blocks: Mapping[tuple[str, str], Mapping[str, Any]]
    loops: Mapping[tuple[object, ...], Mapping[str, Any]]

    def block(self, kind: str, name: str) -> Mapping[str, Any] | None:
        """A block's fields or a Variable's content; None, with a warning, if it is not recorded."""
        found = self.blocks.get((kind, name))
        if found is None:
            logger.warning(
                "the record of run %s has no %s %r: the stored one is used", self.run_id, kind, name
            )
        return found

    def entropy(self, name: str, scope: tuple[str, ...], n: int) -> int | None:
        """The random seed of the loop at that place, if it was given none."""
        loop = self.loops.get((name, place_names(scope), n), {})
        drawn = str(loop.get("entropy") or "")
        return int(drawn) if drawn.isdecimal() else None


def recorded() -> RecordedConfiguration | None:
    """The run that is reproduced here; None outside of reproductions.

    Raises:
        LedgerError: its record is gone, or cannot be read.
    """
    folder = _chosen()
    return _read(folder) if folder else None


def _chosen() -> str:
    return _folder.get() or str(sent("reproduces") or "")


@contextmanager
def reproducing(folder: str) -> Iterator[None]:
    """Inside, the run with the record in `folder` is reproduced; none if that is empty."""
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
    """The configuration in a record. Pure."""
    return RecordedConfiguration(
        run_id=record.id,
        folder=record.folder,
        blocks={which: record.blocks[digest]["values"] for which, digest in record.newest.items()},
        loops={_place_of(each): each for each in record.loops.values()},
    )


def _place_of(loop: Mapping[str, Any]) -> tuple[object, ...]:
    return (loop["loop"], place_names(loop.get("scope")), loop.get("n"))
