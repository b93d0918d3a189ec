"""In which held allocation a call is made, if any."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from hpc_prefect.blocks import HPCProfileBlock
from hpc_prefect.executor.request import Placing


class HoldsNodes(Protocol):
    """An allocation that is held, as calls see it."""

    def placing(self, hpc: str | HPCProfileBlock) -> Placing:
        """Where a job of this HPC profile is handed to."""


_around: ContextVar[HoldsNodes | None] = ContextVar("hpc_prefect_allocation", default=None)


@contextmanager
def calls_in(allocation: HoldsNodes) -> Iterator[None]:
    """Calls inside are made in this allocation; so are those of what is begun there with a copy of
    the context: asyncio's and Prefect's tasks, `asyncio.to_thread`. Other threads begin without."""
    token = _around.set(allocation)
    try:
        yield
    finally:
        _around.reset(token)


def placing_of(given: HoldsNodes | None, hpc: str | HPCProfileBlock) -> Placing | None:
    """Where a call's jobs may be handed to: `given`, or the allocation around the call."""
    allocation = given or _around.get()
    return None if allocation is None else allocation.placing(hpc)
