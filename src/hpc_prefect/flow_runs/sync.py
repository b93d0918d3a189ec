"""Calls of this package from code without a loop, cancelled when their caller is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextvars import copy_context
from typing import TypeVar

from hpc_prefect.executor.service import executor
from hpc_prefect.flow_runs import cancellation
from hpc_prefect.flow_runs.signals import noticing_sigterm
from hpc_prefect.flow_runs.uncaught import forget_frames

T = TypeVar("T")

#: How many seconds an interrupted caller waits for the cancelled call, which gives up a little
#: sooner.
PATIENCE = cancellation.CLEARING_UP + 3


def run_sync(call: Callable[[], Awaitable[T]]) -> T:
    """Run a call on the executor's loop, with this caller's context, and wait for it here."""
    loop = executor().loop
    done: Future[T] = Future()
    started: list[asyncio.Task[None]] = []

    async def run() -> None:
        try:
            done.set_result(await call())
        except BaseException as error:  # noqa: BLE001 - it is the waiting caller's
            done.set_exception(error)

    def start() -> None:
        started.append(loop.create_task(run()))

    def cancel() -> None:
        started[0].cancel()

    with noticing_sigterm():
        copy_context().run(loop.call_soon_threadsafe, start)
        try:
            return done.result()
        except BaseException as error:
            if not done.done():  # interrupted here: KeyboardInterrupt, TerminationSignal …
                loop.call_soon_threadsafe(cancel)
                _wait_quietly(done)
            forget_frames(error)
            raise


def _wait_quietly(done: Future[T]) -> None:
    """Give the cancelled call the time to cancel its job."""
    try:
        done.exception(PATIENCE)
    except BaseException:  # noqa: BLE001 - whatever it is, the caller's own interruption counts
        return
