"""Standard output and error for commands that do something, whether or not anybody reads on.

Python raises `BrokenPipeError` where another program would be ended by SIGPIPE. Both are wrong for
a command such as `blocks apply FILE | head -1`, which would stop half way. So from the first text
that nobody takes, what is written goes nowhere.
"""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

from hpc_prefect.terminal.watched import WatchedFile, on, raw_of

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class CannotWrite(OSError):
    """Standard output or error takes nothing, and not because its reader has gone: a full disk."""


class _Unread(WatchedFile):
    """A file whose reader may go away."""

    reader_is_gone = False

    def _write(self, data: ReadableBuffer) -> int:
        try:
            return super()._write(data)
        except BrokenPipeError:
            self.reader_is_gone = True
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            return memoryview(data).nbytes
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            raise CannotWrite(*error.args) from error


def outlive_their_readers() -> None:
    """From now on `sys.stdout` and `sys.stderr` take everything; once for a process."""
    sys.stdout, sys.stderr = _tolerant(_there(sys.stdout, 1)), _tolerant(_there(sys.stderr, 2))


def _there(stream: TextIO | None, number: int) -> TextIO:
    """The stream, or nowhere where the command was started without it (`>&-`).

    Its number is taken as well: the next file that is opened would have it, and what a child prints
    would be written into that file.
    """
    if stream is not None:
        return stream
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.fstat(number)
    except OSError:
        nowhere = os.dup2(nowhere, number)
    return open(nowhere, "w", closefd=False)  # the stream that takes its place writes to it too


def reader_is_gone() -> bool:
    """Whether somebody who read standard output or error has seen enough."""
    raws = (raw_of(stream) for stream in (sys.stdout, sys.stderr))
    return any(isinstance(raw, _Unread) and raw.reader_is_gone for raw in raws)


def _tolerant(stream: TextIO) -> TextIO:
    """The same stream on a file of ours; another one (a test's, an editor's) as it is."""
    if not (isinstance(stream, io.TextIOWrapper) and type(raw_of(stream)) is io.FileIO):
        return stream
    return on(_Unread(stream.fileno()), stream, _errors(stream))


def _errors(stream: TextIO) -> str | None:
    """How what cannot be encoded is printed: a path is bytes, and a locale may know ASCII alone."""
    if stream.errors != "strict":
        return stream.errors
    return "surrogateescape" if stream.encoding.lower() == "utf-8" else "backslashreplace"
