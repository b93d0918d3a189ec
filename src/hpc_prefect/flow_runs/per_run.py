"""Values that this process keeps for each flow run, as long as the run lasts."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Generic, TypeVar

from prefect.context import FlowRunContext

T = TypeVar("T")

#: The flow runs that this process has seen and not yet found ended, by their contexts.
_contexts: dict[str, weakref.ref[FlowRunContext]] = {}
_kept: list[PerRun[object]] = []
_lock = threading.RLock()


class PerRun(Generic[T]):
    """A value for each flow run, made at its first use and dropped when the run has ended.

    A run has ended when nothing refers to Prefect's context of it any more. This is checked when
    another run begins. The empty id is the process itself.
    """

    def __init__(
        self, make: Callable[[], T], close: Callable[[T], object] = lambda _: None
    ) -> None:
        self._make, self._close = make, close
        self._values: dict[str, T] = {}
        _kept.append(self)  # type: ignore[arg-type]

    def of(self, run_id: str) -> T:
        """The run's value."""
        with _lock:
            if run_id not in self._values:
                self._values[run_id] = self._make()
            return self._values[run_id]

    def known(self, run_id: str) -> T | None:
        """The run's value, if it was asked for before."""
        return self._values.get(run_id)

    def drop(self, run_id: str) -> None:
        """The run has ended."""
        with _lock:
            if run_id in self._values:
                self._close(self._values.pop(run_id))

    def values(self) -> list[T]:
        """The values of all runs under way."""
        with _lock:
            return list(self._values.values())

    def __len__(self) -> int:
        return len(self._values)


def note_alive(run_id: str, context: FlowRunContext) -> None:
    """Note a run as under way, and drop the values of runs that have ended."""
    known = _contexts.get(run_id)
    if known is not None and known() is context:
        return
    with _lock:
        _contexts[run_id] = weakref.ref(context)
        if known is None:
            ended = [each for each, ref in _contexts.items() if ref() is None]
            for each in ended:
                del _contexts[each]
                for registry in _kept:
                    registry.drop(each)
