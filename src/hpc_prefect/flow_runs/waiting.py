"""Waits in a task run for the executor's work, and ends the wait when the run around it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from prefect.client.schemas.objects import State

from hpc_prefect.executor.service import Handle, executor
from hpc_prefect.flow_runs.cancellation import (
    LeftRunning,
    RunCancelled,
    cancellable,
    cancelled_state,
    interrupted,
)
from hpc_prefect.flow_runs.run_log import RunLog
from hpc_prefect.flow_runs.signals import noticing_sigterm

T = TypeVar("T")

LEFT = "this process received SIGTERM; the job is left running"


class Kept(Generic[T]):
    """Work that is not cancelled with its run: the wait ends, and it runs on."""

    def __init__(self, handle: Handle[T], listener: RunLog) -> None:
        self.result = handle.result
        self._handle, self._listener = handle, listener

    def cancel(self, by: str = "user") -> None:
        self._listener.state("the job is kept; running the same again attaches to it")
        self._handle.leave()


class Simulation(Generic[T]):
    """Work in a thread, which cannot be interrupted: cancelling only ends the wait for it."""

    def __init__(self, work: Callable[[], T]) -> None:
        self.result = asyncio.run_coroutine_threadsafe(asyncio.to_thread(work), executor().loop)

    def cancel(self, by: str = "user") -> None:
        self.result.cancel()


async def outcome_of(
    handle: Handle[T] | Kept[T] | Simulation[T], listener: RunLog, on_sigterm: str
) -> T | State[Any]:
    """The result of the work; a Cancelled state when a run around it was cancelled."""
    with noticing_sigterm(), cancellable(handle) as call:
        try:
            result: T = await call.outcome()
            return result
        except RunCancelled:
            return cancelled_state()
        except LeftRunning:
            listener.state(LEFT)
            raise asyncio.CancelledError(LEFT) from None
        except (asyncio.CancelledError, KeyboardInterrupt):
            if await interrupted(handle, on_sigterm):
                listener.state(LEFT)
            raise
        finally:
            listener.close()
