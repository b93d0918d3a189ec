"""Notices SIGTERM, which Prefect turns into an ordinary cancellation."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class _Sigterm:
    """Whether this process received SIGTERM, whichever handlers are installed."""

    seen = False
    users = 0


class _Noting:
    """A handler of SIGTERM that notes it and then calls the former handler."""

    def __init__(self, before: Callable[[int, FrameType | None], Any]) -> None:
        self.before = before

    def __call__(self, number: int, frame: FrameType | None) -> None:
        _Sigterm.seen = True
        self.before(number, frame)


@contextmanager
def noticing_sigterm() -> Iterator[None]:
    """Note SIGTERM before Prefect's handler turns it into an ordinary cancellation.

    Only in the main thread, which alone may set handlers, and only if SIGTERM has a handler:
    without one the process ends at once, and the job runs on. Concurrent jobs share one handler,
    which the last of them removes.
    """
    before = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    if not isinstance(before, _Noting):
        signal.signal(signal.SIGTERM, _Noting(before))
    _Sigterm.users += 1
    try:
        yield
    finally:
        _Sigterm.users -= 1
        now = signal.getsignal(signal.SIGTERM)
        if not _Sigterm.users and isinstance(now, _Noting):
            signal.signal(signal.SIGTERM, now.before)


def received_sigterm() -> bool:
    """Whether this process received SIGTERM."""
    return _Sigterm.seen
