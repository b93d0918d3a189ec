"""The event loop of one process in the world: no thread, no selector, and the world's time.

Callbacks run in the order in which they were asked for, as asyncio promises. What is drawn is what
a machine decides: when a thread's work is done, and who of several processes is first.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections import deque
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from simulation.world import MOST_AT_ONCE

if TYPE_CHECKING:
    from simulation.process import Process

#: Seconds until a piece of work looks again for a thread, when there is none.
_ALL_BUSY = 1.0


class Killed(KeyboardInterrupt):
    """The process is dead. Of this kind, because no code of the product catches it."""


class _Call:
    """As `asyncio.TimerHandle`, as far as asyncio's own code needs one."""

    __slots__ = ("_args", "_callback", "_cancelled", "_context", "when_due")

    def __init__(
        self,
        callback: Callable[..., Any],
        args: tuple[Any, ...],
        context: contextvars.Context | None,
        when_due: float = 0.0,
    ) -> None:
        self._callback, self._args = callback, args
        self._context = contextvars.copy_context() if context is None else context
        self._cancelled = False
        self.when_due = when_due

    def cancel(self) -> None:
        self._cancelled = True

    def cancelled(self) -> bool:
        return self._cancelled

    def when(self) -> float:
        return self.when_due


class VirtualLoop(asyncio.AbstractEventLoop):
    """What the product and asyncio use of a loop."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._world = process.world
        self._ready: deque[_Call] = deque()
        self._is_due = False
        self._tasks: dict[asyncio.Task[Any], None] = {}

    # --- what asyncio asks for

    def time(self) -> float:
        return self._world.now

    #: It returns False; asyncio asks for it whenever it makes anything.
    get_debug = staticmethod(bool)

    def is_running(self) -> bool:
        return not self._process.dead

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self._process.dead:
            error = context.get("exception")
            self._world.fail("bug", f"{context.get('message')}: {error!r}")

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Coroutine[Any, Any, Any], **more: Any) -> asyncio.Task[Any]:
        task = asyncio.Task(coro, loop=self, **more)
        self._tasks[task] = None
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)

    def call_soon(
        self, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> Any:
        call = _Call(callback, args, context)
        if not self._process.dead:
            self._ready.append(call)
            if not self._is_due:
                self._come_due()
        return call

    call_soon_threadsafe = call_soon

    def call_later(
        self,
        delay: float,
        callback: Callable[..., Any],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> Any:
        call = _Call(callback, args, context, self._world.now + max(0.0, delay))
        if not self._process.dead:
            self._world.later(max(0.0, delay), lambda: self._timer(call))
        return call

    def call_at(
        self,
        when: float,
        callback: Callable[..., Any],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> Any:
        return self.call_later(when - self._world.now, callback, *args, context=context)

    def run_in_executor(
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        future = self.create_future()
        if not self._process.dead:
            self._world.later(self._process.thread_delay(), lambda: self._work(future, func, args))
        return future

    # --- how it goes on

    def _come_due(self) -> None:
        self._is_due = True
        self._world.later(self._process.stopped_for(), self._run_ready)

    def _timer(self, call: _Call) -> None:
        if not call._cancelled and not self._process.dead:
            self._ready.append(call)
            self._come_due_next()

    def _come_due_next(self) -> None:
        """As `_come_due`, where an event ends."""
        if not self._is_due:
            if self._process.stopped_for() > 0.0:
                self._come_due()
                return
            self._is_due = True
            self._world.next(self._run_ready)

    def _run_ready(self) -> None:
        self._is_due = False
        process = self._process
        if process.dead:
            return
        if process.stopped_for() > 0.0:
            self._come_due()
            return
        ready, world = self._ready, self._world
        # No other loop runs: on a loop nothing takes time, so it waits inside of none.
        asyncio._set_running_loop(self)
        process.on_loop = True
        try:
            with process.at_work():
                self._is_due = True  # what becomes ready meanwhile is run in this turn
                while ready and not process.dead:
                    world.at_once += 1
                    if world.at_once > MOST_AT_ONCE and world.stuck():
                        return
                    call = ready.popleft()
                    if not call._cancelled:
                        call._context.run(call._callback, *call._args)
        except Killed:
            process.die("killed")
        finally:
            self._is_due = process.on_loop = False
            asyncio._set_running_loop(None)

    def _work(
        self, future: asyncio.Future[Any], func: Callable[..., Any], args: tuple[Any, ...]
    ) -> None:
        """In a thread: what it asks for may take time, in which all others go on."""
        process = self._process
        if process.dead or future.cancelled():
            return
        wait = _ALL_BUSY if self._world.is_busy else process.stopped_for()
        if wait > 0.0:
            self._world.later(wait, lambda: self._work(future, func, args))
            return
        began, process.work_began = process.work_began, self._world.now
        result: Any = None
        error: BaseException | None = None
        try:
            with process.at_work():
                result = func(*args)
        except Killed:
            process.die("killed")
            return
        except Exception as trouble:  # noqa: BLE001 - it is the caller's
            error = trouble
        finally:
            process.work_began = began
        if not process.dead:
            self._ready.append(_Call(_settle, (future, result, error), None))
            self._come_due_next()

    def bury(self) -> None:
        """What a dead process was about to do is never done, also when it is cleared up."""
        self._ready.clear()
        before = asyncio._get_running_loop()
        asyncio._set_running_loop(self)
        try:
            while self._tasks:
                task, _ = self._tasks.popitem()
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                # Its `finally` may want to wait, or to do something: Killed.
                with contextlib.suppress(BaseException):
                    task.get_coro().close()  # type: ignore[union-attr]
        finally:
            asyncio._set_running_loop(before)

    @property
    def waiting(self) -> int:
        """Tasks that have not ended."""
        return len(self._tasks)


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.cancelled():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
