"""Follows a growing file: complete lines, in groups of limited size and rate."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from hpc_prefect.errors import NotOurs, TransportError
from hpc_prefect.executor.request import Listener
from hpc_prefect.job import folder as names
from hpc_prefect.ledger.job_folder import JobFolder
from hpc_prefect.transports.base import Transport

logger = logging.getLogger("hpc_prefect.executor")

#: Limits of a log record: its size, and one a second for each stream. A program with much output
#: then costs about 2 ms of CPU a second; all output is in the file anyway.
CHUNK = 64_000
EVERY = 1.0


@dataclass(slots=True)
class Follower:
    """Reads what was added to a file since the last time."""

    transport: Transport
    path: str
    offset: int = 0
    looked_at: float = field(default=float("-inf"))

    def news(self, now: float, *, last: bool = False) -> str:
        """New complete lines, or everything when it is the `last` time; empty when there are none.

        When the file has grown by more than one record may hold, its end is given, with a line
        that says how much was left out.
        """
        if not last and now - self.looked_at < EVERY:
            return ""
        self.looked_at = now
        status = self.transport.status(self.path)
        size = status.size if status else 0
        if size <= self.offset:
            return ""
        start = max(self.offset, size - CHUNK)
        try:
            data = self.transport.read(self.path, start, size - start) or b""
        except NotOurs:  # such as a FIFO in its place
            return ""
        skipped = start - self.offset
        if skipped:
            # To the start of a line, or of a character when one line is longer than all this.
            cut = data.index(b"\n") + 1 if b"\n" in data[:-1] else _continued(data)
            skipped, data = skipped + cut, data[cut:]
        if not last and b"\n" in data:
            data = data[: data.rindex(b"\n") + 1]
        elif not last and len(data) < CHUNK // 2:
            return ""  # a line that is still being written
        elif not last:
            data = data[: len(data) - _unfinished(data)]
        self.offset += skipped + len(data)
        text = data.decode(errors="replace").rstrip("\n")
        return f"… {skipped} bytes left out, see {self.path}\n{text}" if skipped else text


class Output:
    """Passes what a job's program writes to its two streams to a listener."""

    def __init__(self, folder: JobFolder, listener: Listener) -> None:
        self._listener = listener
        self._followers = {
            stream: Follower(folder.transport, folder.file(stream))
            for stream in (names.STDOUT, names.STDERR)
        }

    def show(self, now: float, *, last: bool = False) -> None:
        """Pass on what is new; everything when it is the `last` time."""
        for stream, follower in self._followers.items():
            try:
                text = follower.news(now, last=last)
            except TransportError as error:
                if not last:
                    raise
                logger.warning("the last output of the program cannot be shown: %s", error)
                continue
            if text:
                self._listener.output(stream, text, follower.path)


def _continued(data: bytes) -> int:
    """How many bytes at the start belong to a UTF-8 character that began before."""
    return next((n for n, byte in enumerate(data[:3]) if byte & 0xC0 != 0x80), 0)


def _unfinished(data: bytes) -> int:
    """How many bytes at the end are of a UTF-8 character whose other bytes are to come."""
    for back, byte in enumerate(reversed(data[-3:]), start=1):
        if byte & 0xC0 != 0x80:
            length = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1
            return back if length > back else 0
    return 0
