"""Appends lines to a journal whose last line a crash may have cut off."""

from __future__ import annotations

from hpc_prefect.transports.base import Transport


def append(transport: Transport, path: str, line: bytes, *, durable: bool) -> None:
    """Append a line, or several, as lines of their own; `durable`: forced to disk.

    A newline goes before them, in the same write: the last line of the file may be cut off, also by
    another process at this moment, so that a look before the write is not enough. Readers skip the
    empty line that this usually makes.
    """
    transport.append(path, b"\n" + line if line else line, durable=durable)
