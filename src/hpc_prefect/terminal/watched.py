"""Standard output and error as streams that make way for the line at the terminal's end.

What is written goes where it went, byte for byte. A line that is shown is taken away before.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

ERASE = b"\r\033[K"


class Screen:
    """The end of the terminal: what stands there, and since when it has been left alone.

    One for a process. All is done under its lock, which the same thread may take again: the handler
    of a signal may write while its thread writes.
    """

    def __init__(self) -> None:
        self.begin_anew()

    def begin_anew(self) -> None:
        """As in a new process."""
        self.lock = threading.RLock()
        self.shown = False  # the line stands there
        self.quiet_since = 0.0
        self.in_a_line = False  # what was written last did not end its line

    def draw(self, text: str) -> None:
        """Show this as the line."""
        with self.lock:
            self.shown = True
            self._put(ERASE + text.encode(errors="replace"))

    def erase(self) -> None:
        """Take the line away, if it is there."""
        with self.lock:
            if self.shown:
                self._put(ERASE)
            self.shown = False

    def wrote(self, data: ReadableBuffer) -> None:
        """Somebody has written this."""
        self.quiet_since = time.monotonic()
        self.in_a_line = bytes(data)[-1:] != b"\n"

    @staticmethod
    def _put(data: bytes) -> None:
        with contextlib.suppress(OSError):  # the terminal was closed
            os.write(2, data)


screen = Screen()
os.register_at_fork(after_in_child=screen.begin_anew)  # a thread of the parent may have the lock


class WatchedFile(io.FileIO):
    """Standard output or error, with nothing in the way of what is written to a terminal."""

    def __init__(self, number: int) -> None:
        super().__init__(number, "wb", closefd=False)
        self._is_terminal = self.isatty()

    def write(self, data: ReadableBuffer, /) -> int:
        if not self._is_terminal:
            return self._write(data)
        with screen.lock:
            screen.erase()
            try:
                return self._write(data)
            finally:
                screen.wrote(data)

    def _write(self, data: ReadableBuffer) -> int:
        return super().write(data)


def watch_own_streams() -> None:
    """Have `sys.stdout`, `sys.stderr` and the logs that go there make way; again: nothing.

    A stream that is not Python's own, such as a notebook's, stays.
    """
    for name in ("stdout", "stderr"):
        old = getattr(sys, name)
        if can_be_watched(old) and not isinstance(raw_of(old), WatchedFile):
            new = on(WatchedFile(raw_of(old).fileno()), old, old.errors)  # type: ignore[attr-defined]
            setattr(sys, name, new)
            _move_logs(old, new)


def can_be_watched(stream: TextIO | None) -> bool:
    """Whether it is one of Python's own, on a file."""
    return isinstance(stream, io.TextIOWrapper) and isinstance(raw_of(stream), io.FileIO)


def on(raw: io.FileIO, stream: TextIO, errors: str | None) -> TextIO:
    """A stream on this file that is otherwise as the given one."""
    assert isinstance(stream, io.TextIOWrapper)
    stream.flush()
    unbuffered = stream.buffer is raw_of(stream)  # by PYTHONUNBUFFERED, as many containers have it
    return io.TextIOWrapper(
        raw if unbuffered else io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors=errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def raw_of(stream: object) -> object:
    """The file below the layers of a stream."""
    buffer = getattr(stream, "buffer", None)
    return getattr(buffer, "raw", buffer)


def _move_logs(old: TextIO, new: TextIO) -> None:
    """What logs to a stream has kept it, and would write below the line."""
    loggers = [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]
    for handler in {each for one in loggers for each in getattr(one, "handlers", ())}:
        if isinstance(handler, logging.StreamHandler) and handler.stream is old:
            handler.setStream(new)
        console = getattr(handler, "console", None)  # Prefect's handler prints by one of rich
        if getattr(console, "file", None) is old:
            console.file = new  # type: ignore[union-attr]
