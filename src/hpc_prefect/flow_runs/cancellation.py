"""Cancelled runs: how that is noticed, what happens to the jobs, and how the run ends.

    Prefect's UI or command, run is served   its process gets SIGTERM, the run is "Cancelling"
    Prefect's UI or command, ad-hoc run      nothing arrives: `flow_runs.watch` asks Prefect
    a timeout, a failed sibling              asyncio's CancelledError
    Ctrl-C                                   KeyboardInterrupt, or CancelledError
    SIGTERM, SIGHUP                          not a cancellation: the job runs on, unless the profile
    says otherwise
    SIGKILL of a served run's process        nothing: `hooks.cancel_jobs` does it afterwards

Prefect does not interrupt calls in threads when their run ends; `cancellable` does.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any, Protocol
from uuid import UUID

import anyio
from prefect.client.schemas.objects import State
from prefect.exceptions import TerminationSignal
from prefect.states import Cancelled

from hpc_prefect.errors import FlowRunCancelled
from hpc_prefect.flow_runs import prefect_internals as internals
from hpc_prefect.flow_runs.scopes import flow_contexts, task_runs
from hpc_prefect.flow_runs.signals import received_sigterm
from hpc_prefect.flow_runs.watch import (
    CONFIRM,
    FIRST_ANSWER,
    MESSAGE,
    REQUEST_TIMEOUT,
    Run,
    waited,
    watch,
)

#: How many seconds clearing up takes at most: a question, the ends of the jobs, and the report to
#: Prefect.
CLEARING_UP = CONFIRM + 2 * REQUEST_TIMEOUT


class Work(Protocol):
    """Something under way that can be cancelled."""

    @property
    def result(self) -> Future[Any]: ...

    def cancel(self, by: str = "user") -> None: ...


class LeftRunning(Exception):
    """The run has ended and the job runs on, with no process waiting for it."""


class RunCancelled(Exception):
    """A run around this call was cancelled in Prefect, and its work with it."""


class CancellableCall:
    """Work that a call waits for, and that ends when a flow run around the call does."""

    def __init__(self, work: Work, runs: list[Run]) -> None:
        self._work = work
        self._runs = runs
        self._cancelled = False
        self._end: Future[type[Exception]] = Future()
        self._abandoned = internals.abandoned_events(task_runs())

    @property
    def result(self) -> Future[Any]:
        return self._work.result

    def cancel(self) -> None:
        if not self._cancelled:
            self._cancelled = True
            self._work.cancel("user")

    def run_was_cancelled(self) -> None:
        self._finish(RunCancelled)

    def look(self) -> None:
        """If the flow around this thread ends by an error, end the thread's wait as well."""
        if not any(event.is_set() for event in self._abandoned):
            return
        why = _what_ends_the_flow()
        if isinstance(why, TerminationSignal):
            self._finish(LeftRunning)
        elif why is not None:
            self.cancel()

    def _finish(self, end: type[Exception]) -> None:
        if not self._end.done():
            self._end.set_result(end)

    async def outcome(self) -> Any:
        """The work's result.

        Raises:
            RunCancelled: instead, when a run around this call was cancelled.
            LeftRunning: the run around this thread has ended, and the job is left running.
        """
        # `wait` does not cancel the work when the caller is cancelled: others may wait for it too.
        result, end = asyncio.wrap_future(self.result), asyncio.wrap_future(self._end)
        await asyncio.wait([result, end], return_when=asyncio.FIRST_COMPLETED)
        if any(run.cancelled for run in self._runs):
            await asyncio.wait([end])  # until all work of the run has ended
        if end.done():
            raise end.result()
        return await result


@contextmanager
def cancellable(work: Work) -> Iterator[CancellableCall]:
    """Cancel this work when a flow run around this call is cancelled, in whatever way."""
    runs = watch().enter(flow_contexts())
    call = CancellableCall(work, runs)
    watch().join(runs, call)
    try:
        yield call
    finally:
        watch().leave(runs, call)


def _what_ends_the_flow() -> BaseException | None:
    """The exception that is ending the main thread, which waits for its other threads."""
    active: object = sys._current_exceptions().get(threading.main_thread().ident or 0)
    found = active[1] if isinstance(active, tuple) else active  # a tuple until Python 3.11
    return found if isinstance(found, BaseException) else None


async def raise_if_cancelled() -> None:
    """Raise `FlowRunCancelled` if the run was cancelled, so that it begins nothing more.

    Does not ask Prefect: from the first call on the run is watched, so that this is at most 5 s
    behind while Prefect answers.
    """
    runs = watch().enter(flow_contexts())
    cancelled = [number for number, run in enumerate(runs) if run.cancelled]
    if not cancelled:
        return
    for run in runs[: cancelled[-1] + 1]:  # a sub-flow ends with the run around it
        if not run.reported:
            await waited(watch().begin(watch().end(run)), CLEARING_UP)
        run.end_in(cancelled_state())
    raise FlowRunCancelled(MESSAGE)


async def run_is_cancelled() -> bool:
    """Whether a run around this call is cancelled; asked right before a submission.

    If the server has not answered about the run recently, waits for an answer, but not long.
    """
    runs = watch().enter(flow_contexts())
    if not all(run.answered.is_set() for run in runs):
        await waited(watch().begin(watch().first_answer(runs)), 2 * FIRST_ANSWER)
    return any(run.cancelled for run in runs)


def forget(flow_run_id: UUID) -> None:
    """A flow run that was cancelled in this process begins again."""
    watch().forget(flow_run_id)


def cancelled_state() -> State[Any]:
    """The state of a run whose work was cancelled with its flow run."""
    return Cancelled(message=MESSAGE)


async def interrupted(work: Work, on_sigterm: str) -> bool:
    """After a call was cancelled: cancel its work and wait for its end; True if it is left running.

    After SIGTERM, which comes when a login node shuts down, the job runs on and the next start
    takes it up. But Prefect also sends SIGTERM when the run is being cancelled.

    The caller re-raises its `CancelledError` afterwards. Further cancellations do not shorten the
    wait: an ending loop cancels all its tasks once more, and some jobs take a while to end.
    """
    runs = watch().enter(flow_contexts())
    left = watch().begin(_clear_up(work, on_sigterm, runs[-1] if runs else None))
    await outlasting(left, CLEARING_UP)
    return left.done() and left.result()


async def outlasting(work: Future[Any], seconds: float) -> None:
    """Wait for work on another loop, however often this task is cancelled."""
    ending, deadline = asyncio.wrap_future(work), time.monotonic() + seconds
    with anyio.CancelScope(shield=True):
        while not ending.done() and (patience := deadline - time.monotonic()) > 0:
            with suppress(asyncio.CancelledError):
                await asyncio.wait([ending], timeout=patience)


async def _clear_up(work: Work, on_sigterm: str, root: Run | None) -> bool:
    """Runs on the executor's loop, where it is not cancelled."""
    cancelled = False
    if received_sigterm():
        cancelled = root is not None and await watch().ask(root)
        if on_sigterm == "leave" and not cancelled:
            return True
    work.cancel("user")
    await asyncio.wait([asyncio.wrap_future(work.result)], timeout=CONFIRM)
    if cancelled and root is not None:
        await watch().end(root)  # the engine would force it to Crashed
    return False
