"""Writing a journal: lines that are appended, of which a crash may tear the last one off."""

from __future__ import annotations

from hpc_prefect.transports.base import Transport


def append(transport: Transport, path: str, line: bytes, *, durable: bool) -> None:
    """Append a line as a line, also behind one that was torn off; `durable`: forced to disk."""
    if _torn(transport, path):
        line = b"\n" + line
    transport.append(path, line, durable=durable)


def _torn(transport: Transport, path: str) -> bool:
    """Whether a crash or a full disk tore the file's last line off."""
    status = transport.status(path)
    if status is None or status.size == 0:
        return False
    return transport.read(path, status.size - 1, 1) != b"\n"
