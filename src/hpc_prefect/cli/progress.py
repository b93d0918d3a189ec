"""A progress line in a terminal, while a command has printed nothing yet.

It appears when a command has printed nothing for a second, and is gone before the first output. It
is never in a pipe, a file or a log, only in a terminal.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
import time
from collections.abc import Iterator

from hpc_prefect.cli import streams

_AFTER, _EVERY = 1.0, 0.5
_ERASE = b"\r\033[K"


@contextlib.contextmanager
def shown() -> Iterator[None]:
    """Show the line while nothing is printed inside."""
    if not is_wanted():
        yield
        return
    line = _Line()
    streams.before_output(line.end)
    try:
        yield
    finally:
        line.end()


def is_wanted() -> bool:
    """Whether standard error is a terminal that can erase, and the output goes into no pipe.

    A pager behind the pipe, such as `less`, may use the whole terminal.
    """
    if os.environ.get("TERM", "dumb") == "dumb":
        return False
    try:
        return os.isatty(2) and not stat.S_ISFIFO(os.fstat(1).st_mode)
    except OSError:  # there is none
        return False


class _Line:
    def __init__(self) -> None:
        self._over, self._lock, self._is_there = threading.Event(), threading.Lock(), False
        threading.Thread(target=self._show, daemon=True).start()

    def _show(self) -> None:
        began = time.monotonic()
        wait = _AFTER
        while not self._over.wait(wait):
            with self._lock:
                if self._over.is_set():
                    return
                self._is_there = True
                _write(_ERASE + f"hpc-prefect: at work, {time.monotonic() - began:.0f} s".encode())
            wait = _EVERY

    def end(self) -> None:
        """Erase the line for good; further calls do nothing."""
        with self._lock:
            if not self._over.is_set() and self._is_there:
                _write(_ERASE)
            self._over.set()


def _write(text: bytes) -> None:
    with contextlib.suppress(OSError):  # the terminal was closed
        os.write(2, text)
