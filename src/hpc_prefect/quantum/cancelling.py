"""A call that waits for the service, ended when the run around it is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any

from hpc_prefect.cancellation import (
    LeftRunning,
    RunCancelled,
    cancelled_state,
    interrupted,
    watched,
)
from hpc_prefect.sigterm import noticing_sigterm

#: The result of work that was cancelled, and has done what is to be done then.
_CANCELLED = object()


class _UnderWay:
    """A coroutine under way, as `watched` takes it: its own handler cancels the quantum job."""

    def __init__(self, work: Awaitable[Any]) -> None:
        self.result: Future[Any] = Future()
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.ensure_future(self._run(work))

    async def _run(self, work: Awaitable[Any]) -> None:
        try:
            self.result.set_result(await work)
        except asyncio.CancelledError:
            # Its error would look as if whoever waits for the result had been cancelled.
            self.result.set_result(_CANCELLED)
        except BaseException as error:  # noqa: BLE001 - it is that of whoever waits for the result
            self.result.set_exception(error)

    def cancel(self, by: str = "user") -> None:
        self._loop.call_soon_threadsafe(self._task.cancel)


async def attended(work: Callable[[Any], Awaitable[Any]], log: Any) -> Any:
    """The work's result; a Cancelled state when a run around the call was cancelled in Prefect."""
    with noticing_sigterm():
        under_way = _UnderWay(work(log))
        with watched(under_way) as call:
            try:
                result = await call.outcome()
            except RunCancelled:
                return cancelled_state()
            except LeftRunning:
                under_way.cancel()
                raise asyncio.CancelledError("the run has ended") from None
            except (asyncio.CancelledError, KeyboardInterrupt):
                if await interrupted(under_way, "leave"):
                    under_way.cancel()  # it sees the same signal, and leaves the job
                raise
    if result is _CANCELLED:
        raise asyncio.CancelledError
    return result
