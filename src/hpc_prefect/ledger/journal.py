"""Appends lines to a journal whose last line a crash may have cut off."""

from __future__ import annotations

from hpc_prefect.transports.base import Transport


def append(transport: Transport, path: str, line: bytes, *, durable: bool) -> None:
    """Append a line, on a new line also after one that was cut off; `durable`: forced to disk."""
    if _torn(transport, path):
        line = b"\n" + line
    transport.append(path, line, durable=durable)


def _torn(transport: Transport, path: str) -> bool:
    """Whether the file's last line was cut off, by a crash or a full disk."""
    status = transport.status(path)
    if status is None or status.size == 0:
        return False
    return transport.read(path, status.size - 1, 1) != b"\n"
