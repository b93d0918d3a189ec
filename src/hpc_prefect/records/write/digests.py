"""Digests of files in bounded time: of a large file only samples are read, and that is recorded."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from typing import Any

#: Up to this size in bytes programs and inputs are read whole.
WHOLE = 256 << 20
#: A larger file is identified by its size and so many pieces of so many bytes, spread evenly.
PIECES, PIECE = 16, 64 << 10

_known: dict[tuple[str, int, int, int, int], tuple[str, bool]] = {}
_lock = threading.Lock()


def file_facts(path: str, *, whole_up_to: int = WHOLE, remember: bool = False) -> dict[str, Any]:
    """What identifies a file: path, size, mtime (seconds since 1970) and SHA-256.

    `sampled` is there, and true, if the digest is of samples: the size as eight bytes, the first
    and last 64 KiB, and 14 pieces between them. If there is no such file, only the path.

    Args:
        whole_up_to: up to so many bytes all of it is read.
        remember: keep the digest in memory as long as the file stays the same; for programs.
    """
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            seen = os.fstat(file.fileno())
            if not stat.S_ISREG(seen.st_mode):
                return {"path": path}
            key = (path, seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns)
            digest = _known.get(key) if remember else None
            if digest is None:
                digest = _digest(file, seen.st_size, whole_up_to)
    except OSError:
        return {"path": path}
    if remember:
        with _lock:
            _known[key] = digest
    found = {"path": path, "size": seen.st_size, "mtime": seen.st_mtime, "sha256": digest[0]}
    return found | ({"sampled": True} if digest[1] else {})


def _without_waiting(path: str, flags: int) -> int:
    """Open without blocking: a pipe in place of a file would wait for a writer."""
    return os.open(path, flags | os.O_NONBLOCK)


def _digest(file: Any, size: int, whole_up_to: int) -> tuple[str, bool]:
    if size <= max(whole_up_to, PIECES * PIECE):
        return hashlib.file_digest(file, "sha256").hexdigest(), False
    digest = hashlib.sha256(size.to_bytes(8, "big"))
    for number in range(PIECES):
        file.seek((size - PIECE) * number // (PIECES - 1))
        digest.update(file.read(PIECE))
    return digest.hexdigest(), True
