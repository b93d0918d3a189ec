"""A call that waits for the service, ended when the run around it is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextvars import copy_context
from typing import Any

from hpc_prefect.executor.service import executor
from hpc_prefect.flow_runs.cancellation import (
    CLEARING_UP,
    LeftRunning,
    RunCancelled,
    cancellable,
    cancelled_state,
    interrupted,
    outlasting,
    run_is_cancelled,
)
from hpc_prefect.flow_runs.signals import noticing_sigterm

#: The result of work that was cancelled, and has done what is to be done then.
_CANCELLED = object()


class _UnderWay:
    """Work under way, as `cancellable` takes it: its own handler cancels the quantum job.

    It is done on the executor's loop. A caller's loop that ends cancels all its tasks once more,
    this one among them while it waits for the end of its job.
    """

    def __init__(self, work: Callable[[], Awaitable[Any]]) -> None:
        self.result: Future[Any] = Future()
        self._loop = executor().loop
        self._task: asyncio.Task[None] | None = None
        copy_context().run(self._loop.call_soon_threadsafe, self._start, work)

    def _start(self, work: Callable[[], Awaitable[Any]]) -> None:
        self._task = self._loop.create_task(self._run(work))
        self._task.add_done_callback(self._ended)

    async def _run(self, work: Callable[[], Awaitable[Any]]) -> None:
        try:
            self.result.set_result(await work())
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - it is that of whoever waits for the result
            self.result.set_exception(error)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Also when it was cancelled before it began."""
        if task.cancelled():
            # Its error would look as if whoever waits for the result had been cancelled.
            self.result.set_result(_CANCELLED)

    def cancel(self, by: str = "user") -> None:
        self._loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()


async def attended(work: Callable[[Any], Awaitable[Any]], log: Any) -> Any:
    """The work's result; a Cancelled state when a run around the call was cancelled in Prefect."""
    if await run_is_cancelled():
        return cancelled_state()
    with noticing_sigterm():
        under_way = _UnderWay(lambda: work(log))
        with cancellable(under_way) as call:
            try:
                result = await call.outcome()
            except RunCancelled:
                return cancelled_state()
            except LeftRunning:
                await _left(under_way)
                raise asyncio.CancelledError("the run has ended") from None
            except (asyncio.CancelledError, KeyboardInterrupt):
                if await interrupted(under_way, "leave"):
                    await _left(under_way)
                raise
    if result is _CANCELLED:
        raise asyncio.CancelledError
    return result


async def _left(under_way: _UnderWay) -> None:
    """Its own handler sees the same signal, and leaves the job."""
    under_way.cancel()
    await outlasting(under_way.result, CLEARING_UP)
