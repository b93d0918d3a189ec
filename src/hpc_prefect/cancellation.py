"""When a run is cancelled: who notices, what it means for the jobs, and how the run then ends.

    Prefect's UI or command, run is served   its process gets SIGTERM, the run is "Cancelling"
    Prefect's UI or command, ad-hoc run      nothing is delivered: `watched` asks for the state
    a timeout, a failed sibling              asyncio's CancelledError
    Ctrl-C                                   KeyboardInterrupt, or CancelledError
    SIGTERM, SIGHUP                          no wish: the job runs on, unless the profile says so
    SIGKILL of a served run's process        nothing: `hooks.cancel_jobs` does it afterwards

Calls in threads are told nothing by Prefect when their run ends; `watched` tells them too.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID

import anyio
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun, State
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import TerminationSignal
from prefect.states import Cancelled

from hpc_prefect.campaign_end import note_cancelled
from hpc_prefect.errors import FlowRunCancelled
from hpc_prefect.executor.service import executor
from hpc_prefect.flow_states import is_cancelled
from hpc_prefect.scopes import flow_runs, root_flow, task_runs
from hpc_prefect.sigterm import received_sigterm

logger = logging.getLogger("hpc_prefect.cancellation")

#: How long a cancelled call waits for the scheduler to confirm; below Prefect's own 30 s grace.
CONFIRM = 22.0
#: Seconds between two questions to Prefect whether runs are being cancelled: one question for all.
ASK_EVERY = 5.0
#: Seconds between two looks at whether a run has ended while a thread of it still waits.
LOOK_EVERY = 1.0
#: The server answers about no more runs at once.
MOST_RUNS = 200

MESSAGE = "The flow run was cancelled in Prefect, and its jobs with it."


class Work(Protocol):
    """Something under way that can be cancelled."""

    @property
    def result(self) -> Future[Any]: ...

    def cancel(self, by: str = "user") -> None: ...


class LeftRunning(Exception):
    """The run has ended and the job goes on; nobody waits for it any more."""


class RunCancelled(Exception):
    """A run around this call was cancelled in Prefect, and its work with it."""


class Watched:
    """Work that a call waits for, and that ends when a flow run around the call does."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self._end: Future[type[Exception]] = Future()
        self._abandoned = _abandoned()

    def tell(self, end: type[Exception]) -> None:
        """A run around the call has ended, and the call ends so."""
        if not self._end.done():
            self._end.set_result(end)

    def look(self) -> None:
        """When the flow ends around this thread by an error, so does what the thread waits for."""
        if not any(event.is_set() for event in self._abandoned):
            return
        why = _what_ends_the_flow()
        if isinstance(why, TerminationSignal):
            self.tell(LeftRunning)
        elif why is not None:
            self.work.cancel("user")

    async def outcome(self) -> Any:
        """The work's result.

        Raises:
            RunCancelled: instead, when a run around this call was cancelled.
            LeftRunning: the run around this thread has ended, and the job is to run on.
        """
        # `wait` cancels nothing when the caller goes away: others may wait for this work too.
        result, end = asyncio.wrap_future(self.work.result), asyncio.wrap_future(self._end)
        await asyncio.wait([result, end], return_when=asyncio.FIRST_COMPLETED)
        if any(run.cancelled for run in _watch.around(self)):
            await asyncio.wait([end])  # until all work of the run has ended
        if end.done():
            raise end.result()
        return await result


@contextmanager
def watched(work: Work) -> Iterator[Watched]:
    """Have this work cancelled when a flow run around this call is, however that is said."""
    call = Watched(work)
    for flow_run in flow_runs():
        _watch.enter(flow_run, call)
    try:
        yield call
    finally:
        _watch.leave(call)


@dataclass(eq=False)
class _Run:
    """A flow run of this process that waits for work.

    Attributes:
        flow_run: the object that Prefect's engine keeps the state of the run in.
    """

    flow_run: FlowRun
    calls: set[Watched] = field(default_factory=set)
    cancelled: bool = False


class _Watch:
    """Asks about all runs of this process that wait for something; on the executor's loop."""

    def __init__(self) -> None:
        self._runs: dict[UUID, _Run] = {}
        self._lock = threading.Lock()
        self._watching = False

    def enter(self, flow_run: FlowRun, call: Watched) -> None:
        with self._lock:
            run = self._runs.setdefault(flow_run.id, _Run(flow_run))
            run.calls.add(call)
            if not self._watching:
                self._watching = True
                asyncio.run_coroutine_threadsafe(self._watch(), executor().loop)

    def leave(self, call: Watched) -> None:
        with self._lock:
            for run in list(self._runs.values()):
                run.calls.discard(call)
                if not run.calls and not run.cancelled:
                    del self._runs[run.flow_run.id]

    def around(self, call: Watched) -> list[_Run]:
        """The runs that wait for a call."""
        with self._lock:
            return [run for run in self._runs.values() if call in run.calls]

    def cancelled(self, flow_run: FlowRun) -> _Run | None:
        with self._lock:
            run = self._runs.get(flow_run.id)
            return run if run is not None and run.cancelled else None

    def forget(self, flow_run_id: UUID) -> None:
        with self._lock:
            self._runs.pop(flow_run_id, None)

    async def _watch(self) -> None:
        clock = asyncio.get_running_loop().time
        asked_at = clock()
        while True:
            await asyncio.sleep(LOOK_EVERY)
            with self._lock:
                runs = [run for run in self._runs.values() if run.calls and not run.cancelled]
                if not any(run.calls for run in self._runs.values()):
                    self._watching = False
                    return
            for call in {call for run in runs for call in run.calls}:
                call.look()
            if runs and clock() - asked_at >= ASK_EVERY:
                await self._ask(runs)
                asked_at = clock()

    async def _ask(self, runs: list[_Run]) -> None:
        by_id = {run.flow_run.id: run for run in runs[:MOST_RUNS]}
        wanted = FlowRunFilter(id=FlowRunFilterId(any_=list(by_id)))
        try:
            async with get_client() as client:
                found = await client.read_flow_runs(
                    flow_run_filter=wanted, sort=FlowRunSort.START_TIME_ASC, limit=MOST_RUNS
                )
                ended = [by_id[each.id] for each in found if _is_cancelled(each.state)]
                await asyncio.gather(*(self._cancel(run, client) for run in ended))
        except Exception as error:  # noqa: BLE001 - not known; it is asked again
            logger.warning("asking Prefect whether runs are being cancelled: %s", error)

    async def _cancel(self, run: _Run, client: PrefectClient) -> None:
        """Cancel all work of a run, and when it has ended, tell Prefect that the run has."""
        with self._lock:
            run.cancelled = True
            calls = list(run.calls)
        note_cancelled(str(run.flow_run.id))
        logger.info("flow run %s is cancelled: so are its %d jobs", run.flow_run.name, len(calls))
        for call in calls:
            call.work.cancel("user")
        await asyncio.wait(
            [asyncio.wrap_future(call.work.result) for call in calls], timeout=CONFIRM
        )
        try:
            await client.set_flow_run_state(run.flow_run.id, Cancelled(message=MESSAGE), force=True)
        finally:
            for call in calls:
                call.tell(RunCancelled)


def _is_cancelled(state: State[Any] | None) -> bool:
    return state is not None and (state.is_cancelling() or state.is_cancelled())


def _abandoned() -> list[threading.Event]:
    """Events that Prefect sets when a flow run ends around a thread that runs a task of it.

    They are private, and the only word of it; without them a thread waits for its job's end.
    """
    events = []
    for task, flow in task_runs():
        known = getattr(flow.task_runner, "_cancel_events", None)
        event = known.get(task.task_run.id) if isinstance(known, dict) else None
        if isinstance(event, threading.Event):
            events.append(event)
    return events


def _what_ends_the_flow() -> BaseException | None:
    """The exception that the main thread, which waits for its other threads, is passing on."""
    active: object = sys._current_exceptions().get(threading.main_thread().ident or 0)
    found = active[1] if isinstance(active, tuple) else active  # a tuple until Python 3.11
    return found if isinstance(found, BaseException) else None


_watch = _Watch()


def raise_if_cancelled() -> None:
    """Raise `FlowRunCancelled` in a run that was cancelled: nothing more is begun in it."""
    for flow_run in flow_runs():
        if _watch.cancelled(flow_run) is not None:
            # Prefect's engine takes this for a crash, unless the run is already over.
            flow_run.state = Cancelled(message=MESSAGE)
            raise FlowRunCancelled(MESSAGE)


def forget(flow_run_id: UUID) -> None:
    """A flow run that was cancelled in this process begins anew."""
    _watch.forget(flow_run_id)
    note_cancelled(str(flow_run_id), cancelled=False)


def cancelled_state() -> State[Any]:
    """The state of a task run whose work was cancelled with its flow run."""
    return Cancelled(message=MESSAGE)


async def interrupted(work: Work, on_sigterm: str) -> bool:
    """A call was cancelled: cancel its work and wait for the end; True when it is left running.

    SIGTERM is how machines say that a login node goes down; the job runs on and the next start
    takes it up. When Prefect's run is being cancelled, SIGTERM is how that reaches us.
    """
    with anyio.CancelScope(shield=True):
        run = await _cancelled_root() if received_sigterm() else None
        if received_sigterm() and on_sigterm == "leave" and run is None:
            return True
        work.cancel("user")
        with anyio.move_on_after(CONFIRM):
            await asyncio.wait([asyncio.wrap_future(work.result)])
        if run is not None:
            await _end(run)
    return False


async def _cancelled_root() -> FlowRun | None:
    """The outermost flow run, when Prefect says that it is, or is being, cancelled."""
    flow = root_flow()
    if flow is None or not isinstance(flow.flow_run, FlowRun):
        return None
    cancelled = await asyncio.to_thread(is_cancelled, str(flow.flow_run.id))
    return flow.flow_run if cancelled else None


async def _end(run: FlowRun) -> None:
    """Have a run end as cancelled: its engine would force it to Crashed."""
    note_cancelled(str(run.id))
    run.state = Cancelled(message=MESSAGE)
    try:
        async with get_client() as client:
            await client.set_flow_run_state(run.id, run.state, force=True)
    except Exception as error:  # noqa: BLE001 - whoever serves it says it too
        logger.warning("telling Prefect that flow run %s is cancelled: %s", run.name, error)
