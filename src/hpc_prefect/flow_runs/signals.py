"""Noticing SIGTERM, which Prefect turns into a cancellation like any other."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class _Sigterm:
    """Whether this process received SIGTERM, however deep in other handlers that is hidden."""

    seen = False
    users = 0


class _Noting:
    """A handler of SIGTERM that notes it and then does what was done before."""

    def __init__(self, before: Callable[[int, FrameType | None], Any]) -> None:
        self.before = before

    def __call__(self, number: int, frame: FrameType | None) -> None:
        _Sigterm.seen = True
        self.before(number, frame)


@contextmanager
def noticing_sigterm() -> Iterator[None]:
    """Note SIGTERM before Prefect's handler turns it into a cancellation like any other.

    Only the main thread may look after signals, and only where somebody handles SIGTERM at all:
    otherwise the process is gone at once, and the job runs on. Jobs at once share one handler,
    which the last of them takes away.
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
    """Whether this process was told to end."""
    return _Sigterm.seen
