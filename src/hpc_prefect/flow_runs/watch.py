"""Finds out which flow runs of this process are cancelled in Prefect: asks every 5 s, for all at
once.

A run is watched from its first call to its end, also while no call waits. Its state is one `Run`,
which is dropped when the run has ended. The watch runs on the executor's loop, outside of any run's
context and with its own clients; it does not keep the process alive.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.context import FlowRunContext
from prefect.flows import Flow
from prefect.states import Cancelled

from hpc_prefect.executor.service import executor
from hpc_prefect.flow_runs import prefect_internals as internals
from hpc_prefect.flow_runs.hooks import hook_once

T = TypeVar("T")

logger = logging.getLogger("hpc_prefect.flow_runs.cancellation")

#: Seconds between two questions to Prefect whether runs are cancelled.
ASK_EVERY = 5.0
#: Seconds after which such a question, for which no call waits, has failed.
ASK_TIMEOUT = 30.0
#: How many seconds a run's first call waits for an answer about the run, if the last one is old: a
#: flow may compute for hours before its first call.
FIRST_ANSWER = 3.0
#: Seconds after which a request for which a call waits has failed.
REQUEST_TIMEOUT = 5.0
#: Seconds between two checks whether a run has ended while a thread of it still waits.
LOOK_EVERY = 1.0
#: How many seconds a cancelled run waits for the ends of its jobs; below Prefect's own 30 s grace.
CONFIRM = 22.0
#: The server's limit on the runs in one answer.
MOST_RUNS = 200

#: Prefect's names of the states that tell how an attempt of a flow began.
BEGUN = {"Running", "Retrying"}
CANCELLED = {"Cancelling", "Cancelled"}

MESSAGE = "The flow run was cancelled in Prefect, and its jobs with it."


class WaitingCall(Protocol):
    """A call that waits for its work."""

    @property
    def result(self) -> Future[Any]: ...

    def look(self) -> None:
        """End the call if the flow around it has ended."""

    def cancel(self) -> None:
        """Cancel the call's work; a second time does nothing."""

    def run_was_cancelled(self) -> None:
        """The run's work has been cancelled as far as possible: the call is to end."""


class Run:
    """A flow run of this process that made a call.

    Attributes:
        calls: the calls that wait for their work.
        cancelled: Prefect says that the run is, or is being, cancelled.
        answered: set when the server has answered about the run since its first call, or shortly
            before; in a later attempt also about how that attempt began.
        retried: it is in a later attempt, and the server was not asked yet how that began.
        reported: the server has been told that the run has ended as cancelled.
        gone_at: when the engine's last object of the run had gone.
    """

    def __init__(self, context: FlowRunContext, flow_run: FlowRun) -> None:
        self.id = flow_run.id
        self.name = flow_run.name
        self.flow: Flow[Any, Any] | None = context.flow
        self.server, self.profile, self.settings = internals.settings_here()
        self.calls: set[WaitingCall] = set()
        self.cancelled = False
        self.answered = asyncio.Event()
        self.retried = False
        if abs(internals.seconds_since_state(flow_run)) < ASK_EVERY:
            self.answered.set()
        self.reported = False
        self.gone_at: float | None = None
        self.reporting = asyncio.Lock()
        self._objects: list[weakref.ref[FlowRun]] = []

    def add_object(self, flow_run: FlowRun) -> None:
        """Add the engine's object of the run; there is a new one for each attempt."""
        if not any(known is flow_run for known in self.objects):
            self._objects = [weakref.ref(each) for each in (*self.objects, flow_run)]
            if flow_run.run_count > 1:
                self.retried = True
                self.answered.clear()
            self.cancelled = self.cancelled or says_cancelled(flow_run.state)

    @property
    def objects(self) -> list[FlowRun]:
        """The engine's objects of this run that still exist."""
        return [known for each in self._objects if (known := each()) is not None]

    @property
    def ended(self) -> bool:
        return bool(self.objects) and all(map(internals.has_ended, self.objects))

    def is_over(self, now: float) -> bool:
        """Whether the run can be dropped, since no call will ask about it again, as far as is
        known.

        Hooks at a run's end still ask whether it was cancelled. In other processes that run its
        tasks, an object lives only as long as a task.
        """
        if self.objects:
            self.gone_at = None
            return self.ended and not self.cancelled and not self.calls
        self.gone_at = self.gone_at or now
        return now - self.gone_at > ASK_EVERY and not self.calls

    def end_in(self, state: State[Any]) -> None:
        """Have the engine leave the run in this state, whatever its flow raises."""
        for each in self.objects:
            internals.end_in(each, state)


class Watch:
    """Asks about all runs of this process that made a call; on the executor's loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._runs: dict[UUID, Run] = {}
        self._lock = threading.Lock()
        self._watching = False
        self._wake = asyncio.Event()
        self._inquiries: dict[internals.ServerAddress, _Inquiry] = {}

    def __len__(self) -> int:
        return len(self._runs)

    def enter(self, contexts: Iterable[FlowRunContext]) -> list[Run]:
        """Watch these flow runs from now on; returns their `Run`s in the same order."""
        return [self._enter(each, each.flow_run) for each in contexts if each.flow_run is not None]

    def _enter(self, context: FlowRunContext, flow_run: FlowRun) -> Run:
        with self._lock:
            run = self._runs.get(flow_run.id) or Run(context, flow_run)
            run.add_object(flow_run)
            self._add(run)
            return run

    def _add(self, run: Run) -> None:
        if run.id not in self._runs:
            self._runs[run.id] = run
            _hook_once(run, "cancellation")
        if not self._watching:
            self._watching = True
            self.begin(self._watch())
        elif not run.answered.is_set():
            self.loop.call_soon_threadsafe(self._wake.set)

    def begin(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Run something on the loop, outside of any run's context."""
        return contextvars.Context().run(asyncio.run_coroutine_threadsafe, work, self.loop)

    def find(self, flow_run_id: UUID) -> Run | None:
        return self._runs.get(flow_run_id)

    def forget(self, flow_run_id: UUID) -> None:
        """A flow run that was cancelled in this process begins again."""
        with self._lock:
            self._runs.pop(flow_run_id, None)

    def join(self, runs: Iterable[Run], call: WaitingCall) -> None:
        """Add a waiting call to these runs."""
        with self._lock:
            for run in runs:
                self._add(run)
                run.calls.add(call)
                if run.cancelled:  # it was cancelled after this call had checked
                    self.begin(self.end(run))

    def leave(self, runs: Iterable[Run], call: WaitingCall) -> None:
        with self._lock:
            for run in runs:
                run.calls.discard(call)

    # --- on the loop

    async def _watch(self) -> None:
        while runs := self._alive():
            try:
                self._look(runs)
            except Exception:  # one run's trouble must not stop the watch for the others
                logger.exception("looking for cancelled flow runs failed; it is tried again")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), LOOK_EVERY)
            self._wake.clear()

    def _alive(self) -> list[Run]:
        """Drop the runs that are over; returns the others."""
        now = time.monotonic()
        with self._lock:
            for run in [run for run in self._runs.values() if run.is_over(now)]:
                del self._runs[run.id]
            left = list(self._runs.values())
            self._watching = bool(left)
        for server in self._inquiries.keys() - {run.server for run in left}:
            self._inquiries.pop(server).close()
        return left

    def _look(self, runs: list[Run]) -> None:
        for call in {call for run in runs for call in run.calls}:
            call.look()
        asked = [run for run in runs if not run.cancelled and not run.ended]
        for server in {run.server for run in asked}:
            self._inquiry(server).ask_when_due([run for run in asked if run.server == server])

    def _inquiry(self, server: internals.ServerAddress) -> _Inquiry:
        return self._inquiries.setdefault(server, _Inquiry(self.note_cancelled))

    def note_cancelled(self, run: Run) -> None:
        """Note that for the server a run is, or is being, cancelled."""
        with self._lock:
            run.cancelled = True
            count = len(run.calls)
        # A flow that catches the exception and returns would be Completed without this hook.
        _hook_once(run, "completion")
        logger.info("flow run %s is cancelled in Prefect: cancelling its %d jobs", run.name, count)
        if count:  # otherwise it has not ended: its next call ends it, or its flow's end
            self.begin(self.end(run))

    async def end(self, run: Run) -> None:
        """Cancel the work of a run's calls, wait for its end, and report that to Prefect."""
        with self._lock:
            run.cancelled = True
            calls = list(run.calls)
        for call in calls:
            call.cancel()
        results = [asyncio.wrap_future(call.result) for call in calls]
        unconfirmed = (await asyncio.wait(results, timeout=CONFIRM))[1] if results else set()
        await self._report(run, unconfirmed=len(unconfirmed))
        for call in calls:
            call.run_was_cancelled()

    async def _report(self, run: Run, *, unconfirmed: int) -> None:
        """Report to the server, and to the engine, that a run has ended as cancelled."""
        doubt = f" {unconfirmed} of them did not end within {CONFIRM:g} s." if unconfirmed else ""
        state: State[Any] = Cancelled(message=MESSAGE + doubt)
        async with run.reporting:
            if not run.reported:
                try:
                    await self._inquiry(run.server).request(
                        run, lambda client: client.set_flow_run_state(run.id, state, force=True)
                    )
                    run.reported = True
                except Exception as error:  # noqa: BLE001 - its jobs tell what became of them
                    logger.warning(
                        "flow run %s has ended as cancelled, but Prefect could not be informed: %r",
                        run.name,
                        error,
                    )
        run.end_in(state)

    async def first_answer(self, runs: Iterable[Run]) -> None:
        """Wait until the server has answered about these runs, or `FIRST_ANSWER` has passed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_ANSWER):
                for run in runs:
                    await run.answered.wait()

    async def ask(self, run: Run) -> bool:
        """Ask the server now whether a run is cancelled; if it does not answer, what is known."""
        try:
            found = await self._inquiry(run.server).request(
                run, lambda client: client.read_flow_run(run.id)
            )
        except Exception as error:  # noqa: BLE001 - not known
            logger.warning(
                "Prefect did not answer whether flow run %s is cancelled: %r", run.name, error
            )
            return run.cancelled
        return run.cancelled or says_cancelled(found.state)


class _Inquiry:
    """The questions to one server, by a client of its own that is kept between them."""

    def __init__(self, on_cancelled: Callable[[Run], None]) -> None:
        self._on_cancelled = on_cancelled
        self._client: PrefectClient | None = None
        self._opening = asyncio.Lock()
        self._requests = 0
        self._drop = False  # close the client as soon as no request uses it
        self._asked_at = time.monotonic()
        self._asking: asyncio.Task[None] | None = None
        self._failed = False

    def ask_when_due(self, runs: list[Run]) -> None:
        """Begin a question, unless one is under way. Does not wait for the answer."""
        now = time.monotonic()
        due = now - self._asked_at >= ASK_EVERY or not all(run.answered.is_set() for run in runs)
        if due and (self._asking is None or self._asking.done()):
            self._asked_at = now
            self._asking = asyncio.get_running_loop().create_task(self._ask(runs))

    async def _ask(self, runs: list[Run]) -> None:
        by_id = {run.id: run for run in runs}
        wanted = FlowRunFilter(
            id=FlowRunFilterId(any_=list(by_id)),
            state=FlowRunFilterState(
                type=FlowRunFilterStateType(any_=[StateType.CANCELLING, StateType.CANCELLED])
            ),
        )
        retried = [run for run in runs if run.retried]
        for run in retried:
            run.retried = False

        async def question(client: PrefectClient) -> list[UUID]:
            found = await client.read_flow_runs(flow_run_filter=wanted, limit=MOST_RUNS)
            histories = [await history(client, run.id) for run in retried]
            between = [
                run.id
                for run, states in zip(retried, histories, strict=True)
                if cancelled_between_attempts(states)
            ]
            return [each.id for each in found] + between

        try:
            found = await self.request(runs[0], question, patience=ASK_TIMEOUT)
        except Exception as error:  # noqa: BLE001 - unknown; it is asked again
            if not self._failed:  # logged once, not every 5 s
                logger.warning(
                    "Prefect does not answer whether runs are being cancelled; it is"
                    " asked again: %r",
                    error,
                )
            self._failed = True
            for run in retried:
                run.retried = True
        else:
            self._failed = False
            for each in set(found):
                self._on_cancelled(by_id[each])
        for run in runs:
            run.answered.set()

    async def request(
        self,
        run: Run,
        question: Callable[[PrefectClient], Awaitable[T]],
        *,
        patience: float = REQUEST_TIMEOUT,
    ) -> T:
        """Send a request to the server with a run's settings. Raises what the client raises."""
        self._requests += 1
        try:
            async with asyncio.timeout(patience):
                return await question(await self._opened(run))
        except BaseException:
            self._drop = True
            raise
        finally:
            self._requests -= 1
            await self._dropped()

    async def _opened(self, run: Run) -> PrefectClient:
        async with self._opening:
            if self._client is None:
                client = await internals.own_client(run.profile, run.settings)
                self._client = await client.__aenter__()
            return self._client

    async def _dropped(self) -> None:
        if self._drop and not self._requests and self._client is not None:
            client, self._client, self._drop = self._client, None, False
            await client.__aexit__(None, None, None)

    def close(self) -> None:
        """Close the client; nothing more will be asked."""
        self._drop = True
        self._asking = asyncio.get_running_loop().create_task(self._dropped())


def says_cancelled(state: State[Any] | None) -> bool:
    return state is not None and (state.is_cancelling() or state.is_cancelled())


async def history(client: PrefectClient, flow_run_id: UUID) -> list[State[Any]]:
    """A run's states in the order in which they were set, as far as Prefect tells it.

    Prefect dates a state by when its request came. Of two requests that come at once the earlier
    one may be granted last, so the state that the run is in now is put last.
    """
    states = await client.read_flow_run_states(flow_run_id)
    now = (await client.read_flow_run(flow_run_id)).state
    return sorted(states, key=lambda each: (now is not None and each.id == now.id, each.timestamp))


def cancelled_between_attempts(history: list[State[Any]]) -> bool:
    """Whether a run was cancelled while it waited for a retry, and then begun all the same.

    Prefect's engine begins the next attempt whatever the run's state is, and further attempts may
    begin before we ask. A run that is started again on purpose becomes Pending first.
    """
    waited = cancelled = begun = False
    last = None
    for each in history:
        if each.name == "Pending":
            waited = cancelled = begun = False
        elif each.name in CANCELLED:
            cancelled = cancelled or waited
        else:
            begun = begun or (cancelled and each.name in BEGUN)
            waited, cancelled = each.name == "AwaitingRetry", False
            # An attempt that began as the run was cancelled: Prefect may show it the wrong way
            # round (see `history`), and that it went on is shown by its own retry.
            begun = begun or (waited and last in CANCELLED)
        last = each.name
    return begun


def _hook_once(run: Run, end: str) -> None:
    if run.flow:
        hook_once(run.flow, end_as_cancelled, end)


async def end_as_cancelled(flow: object, flow_run: FlowRun, state: State[Any]) -> None:
    """A hook for the end of a flow whose run is, or was being, cancelled.

    Prefect accepts no other state for a run that is being cancelled, and leaves it in that state.
    """
    the_watch = watch()
    run = the_watch.find(flow_run.id)
    if run is None or not (run.cancelled or says_cancelled(state)):
        return
    run.reported = run.reported and says_cancelled(state)
    await waited(the_watch.begin(the_watch.end(run)), CONFIRM + REQUEST_TIMEOUT)


async def waited(work: Future[Any], seconds: float) -> None:
    """Wait for work on the loop, at most so long; the work goes on."""
    await asyncio.wait([asyncio.wrap_future(work)], timeout=seconds)


_watch: Watch | None = None
_watch_lock = threading.Lock()


def watch() -> Watch:
    """This process's watch; a forked child gets its own, as it gets its own executor."""
    global _watch
    loop = executor().loop
    with _watch_lock:
        if _watch is None or _watch.loop is not loop:
            _watch = Watch(loop)
        return _watch
