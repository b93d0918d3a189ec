"""A line at the end of a terminal that says what goes on, while there is nothing else to read.

It appears when nothing was printed for a second, is gone before anything else is printed, and comes
back. It is never in a pipe, a file or a log: only a terminal has it.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator

from hpc_prefect.terminal.texts import printable
from hpc_prefect.terminal.watched import screen, watch_own_streams

_AFTER, _EVERY = 1.0, 0.5

Words = Callable[[], str]


@contextlib.contextmanager
def shown(words: Words) -> Iterator[None]:
    """While this goes on, show these words and for how long; the innermost one's are shown.

    Args:
        words: called by a thread, twice a second while the line is shown.
    """
    entry = begin(words)
    try:
        yield
    finally:
        end(entry)


class GoingOn:
    """Something that goes on."""

    def __init__(self, words: Words) -> None:
        self.words, self.began = words, time.monotonic()


def begin(words: Words) -> GoingOn:
    """Something begins that lasts until `end`; see `shown`."""
    entry = GoingOn(words)
    if is_wanted():
        _line.add(entry)
    return entry


def end(entry: GoingOn) -> None:
    """It is over; a second time: nothing."""
    _line.remove(entry)


def is_wanted() -> bool:
    """Whether standard error is a terminal that can erase, and that nobody else uses.

    One who reads the output by a pipe, `less` for one, may have the terminal to itself; and whoever
    types at a prompt of Python's has it.
    """
    if os.environ.get("TERM", "dumb") == "dumb" or hasattr(sys, "ps1"):
        return False
    try:
        return os.isatty(2) and not stat.S_ISFIFO(os.fstat(1).st_mode)
    except OSError:  # there is none
        return False


class _Line:
    """What goes on in this process, and the thread that shows it."""

    def __init__(self) -> None:
        self._changed = threading.Condition(screen.lock)
        self._entries: list[GoingOn] = []
        self._thread: threading.Thread | None = None

    def add(self, entry: GoingOn) -> None:
        with self._changed:
            self._entries.append(entry)
            if self._thread is None:
                screen.quiet_since = max(screen.quiet_since, entry.began)
                self._thread = threading.Thread(
                    target=self._show, name="hpc-prefect-line", daemon=True
                )
                self._thread.start()

    def remove(self, entry: GoingOn) -> None:
        with self._changed:
            if entry not in self._entries:
                return
            self._entries.remove(entry)
            if not self._entries:
                screen.erase()
                self._thread = None
                self._changed.notify_all()

    def _show(self) -> None:
        me = threading.current_thread()
        with self._changed:
            while self._thread is me:
                if self._is_time():
                    watch_own_streams()
                    screen.draw(_fitting(self._entries[-1]))
                self._changed.wait(_EVERY)

    def _is_time(self) -> bool:
        quiet = time.monotonic() - screen.quiet_since >= _AFTER
        return quiet and not screen.in_a_line and is_in_front()


_line = _Line()


def _begin_anew() -> None:
    global _line
    _line = _Line()


os.register_at_fork(after_in_child=_begin_anew)  # threads do not survive a fork


def is_in_front() -> bool:
    """Whether the terminal is this process's, which one in the background of a shell has not."""
    try:
        return os.tcgetpgrp(2) == os.getpgrp()
    except OSError:
        return False


def _fitting(entry: GoingOn) -> str:
    """The line, not longer than the terminal is wide."""
    from rich.cells import set_cell_size  # late: most processes show no line

    text = f"{printable(entry.words())}, {lasting(time.monotonic() - entry.began)}"
    try:
        width = os.get_terminal_size(2).columns or 80
    except OSError:
        width = 80
    return text if len(text) < width // 2 else set_cell_size(text, width - 1).rstrip()


def lasting(seconds: float) -> str:
    """How long something has lasted, in few words."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, seconds = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {seconds:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"
