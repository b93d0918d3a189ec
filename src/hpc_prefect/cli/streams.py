"""Standard output and error that let a command finish when nobody reads its output any more.

Python raises `BrokenPipeError` where another program would be ended by SIGPIPE. Both are wrong for
a command such as `blocks apply FILE | head -1`, which would stop half way. So once the reader has
gone, output is discarded.
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
    """Standard output or error cannot be written, such as on a full disk; its reader is there."""


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
    """Have `sys.stdout` and `sys.stderr` discard output when their reader has gone."""
    sys.stdout, sys.stderr = _tolerant(_there(sys.stdout, 1)), _tolerant(_there(sys.stderr, 2))


def _there(stream: TextIO | None, number: int) -> TextIO:
    """The stream, or `/dev/null` when the command was started without it (`>&-`).

    The stream's number is taken too: else the next file to be opened would get it, and a child's
    output would be written into that file.
    """
    if stream is not None:
        return stream
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.fstat(number)
    except OSError:
        nowhere = os.dup2(nowhere, number)
    return open(nowhere, "w", closefd=False)  # the stream that wraps this one writes to it too


def reader_is_gone() -> bool:
    """Whether the reader of standard output or error has gone."""
    raws = (raw_of(stream) for stream in (sys.stdout, sys.stderr))
    return any(isinstance(raw, _Unread) and raw.reader_is_gone for raw in raws)


def _tolerant(stream: TextIO) -> TextIO:
    """The stream on a file of our own; a test's or an editor's replacement is left as it is."""
    if not (isinstance(stream, io.TextIOWrapper) and type(raw_of(stream)) is io.FileIO):
        return stream
    return on(_Unread(stream.fileno()), stream, _errors(stream))


def _errors(stream: TextIO) -> str | None:
    """How to print what cannot be encoded: a path is bytes, and a locale may be plain ASCII."""
    if stream.errors != "strict":
        return stream.errors
    return "surrogateescape" if stream.encoding.lower() == "utf-8" else "backslashreplace"
