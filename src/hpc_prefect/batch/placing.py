"""Which held allocation a call's jobs go to, if any."""

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
        """The placing of jobs of this HPC profile."""


_around: ContextVar[HoldsNodes | None] = ContextVar("hpc_prefect_allocation", default=None)


@contextmanager
def calls_in(allocation: HoldsNodes) -> Iterator[None]:
    """Calls inside are made in this allocation, also those in asyncio's and Prefect's tasks and in
    `asyncio.to_thread` that are started inside. Other threads do not inherit it."""
    token = _around.set(allocation)
    try:
        yield
    finally:
        _around.reset(token)


def placing_of(given: HoldsNodes | None, hpc: str | HPCProfileBlock) -> Placing | None:
    """The placing of a call's jobs: by `given`, or by the allocation around the call."""
    allocation = given or _around.get()
    return None if allocation is None else allocation.placing(hpc)
