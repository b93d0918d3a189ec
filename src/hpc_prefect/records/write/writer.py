"""The one who appends to a run's record, in a thread of its own."""

from __future__ import annotations

import contextvars
import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from hpc_prefect.job.folder import journal_line, read_entries
from hpc_prefect.records import index
from hpc_prefect.records.fold import EVENTS, RUN, Record
from hpc_prefect.transports.local import LocalTransport

logger = logging.getLogger("hpc_prefect.records")

#: An event's name and what it says.
Event = tuple[str, dict[str, Any]]
#: Seconds between two renewals of run.json and the index, and how much of the time they may take.
_EVERY, _SHARE = 5.0, 0.02
#: Seconds after which a write that failed is tried again; later with the next event.
_PAUSES = (0.1, 0.5, 0.0)
#: Bytes that are kept to be tried again.
_MOST_UNWRITTEN = 64 << 20


class RecordFollower(Protocol):
    """Who shows the record while it grows."""

    def add(self, event: Mapping[str, Any]) -> None:
        """The record has taken this event in. Called with the writer's lock `folding` held."""

    def written(self) -> None:
        """What was waiting is written."""


class RunWriter:
    """Appends events to a record. Nobody waits for the file server; trouble is logged once.

    What is noted is written by a thread that lasts for as long as there is something to write: a
    process that ends is held up by what is still to be written, and no longer.
    """

    _inline = False

    def __init__(self, folder: str, transport: LocalTransport | None = None) -> None:
        """Begin, or go on with, the record in this folder. Blocks."""
        self.folder = folder
        self.record = Record(folder=folder, with_jobs=False)
        self.folding = threading.Lock()  # held while the record changes
        self._follower: RecordFollower | None = None
        self._transport = transport or LocalTransport()
        self._transport.make_folder(folder)
        self._read_to: dict[str, int] = {}
        self._path = self._draw_file()
        self._waiting: deque[tuple[float, Callable[[], Iterable[Event]]]] = deque()
        self._lock = threading.Lock()
        self._under_way = False
        self._renew_at = float("-inf")
        self._complained = False
        self._unwritten = b""
        self._failed = False

    @classmethod
    def threads_end(cls) -> None:
        """The interpreter is ending, and waits for no thread: from now on callers write."""
        cls._inline = True

    def follow(self, follower: RecordFollower) -> None:
        """Have somebody told of what is taken in from now on."""
        self._follower = follower

    @property
    def is_first(self) -> bool:
        """Whether no other process had begun this record."""
        return self._path.endswith(f"/{EVENTS}")

    @property
    def has_others(self) -> bool:
        """Whether other processes have written to this record."""
        return bool(self._read_to)

    def note(self, event: str, **facts: Any) -> None:
        """Have an event written. Never raises."""
        self.later(lambda: [(event, facts)])

    def later(self, make: Callable[[], Iterable[Event]]) -> None:
        """Have events written whose facts are looked for by the writing thread."""
        with self._lock:
            self._waiting.append((time.time(), make))
            if self._under_way:
                return
            self._under_way = True
        if self._inline:
            self._work()
            return
        # Not a daemon: a short script would end before it. In nobody's context: the run may end.
        thread = threading.Thread(target=self._work, name="hpc-prefect-record")
        contextvars.Context().run(thread.start)

    def aside(self, make: Callable[[], Iterable[Event]]) -> None:
        """The same for what may take seconds, such as git: other events do not wait for it."""

        def look() -> None:
            try:
                events = list(make())
            except Exception as error:  # noqa: BLE001 - as in `_write`
                self._complain(error)
            else:
                self.later(lambda: events)

        thread = threading.Thread(target=look, name="hpc-prefect-record-aside")
        contextvars.Context().run(thread.start)

    def keep(self, name: str, data: bytes) -> None:
        """Write a file beside the record. Blocks."""
        self._transport.write_atomic(f"{self.folder}/{name}", data)

    def _draw_file(self) -> str:
        """A file of this process's own."""
        number = 1
        while True:
            name = EVENTS if number == 1 else f"events-{number}.jsonl"
            path = f"{self.folder}/{name}"
            if self._transport.create(path, b""):
                return path
            number += 1

    def _take(self, event: Mapping[str, Any]) -> None:
        self.record.add(event)
        if self._follower is not None:
            try:
                self._follower.add(event)
            except Exception as error:  # noqa: BLE001 - anybody may have written anything there
                self._complain(error)

    def read_others(self) -> None:
        """What the run's other processes have written since counts too. The lock is held."""
        for name in self._transport.list(self.folder):
            path = f"{self.folder}/{name}"
            if path == self._path or not (name.startswith("events") and name.endswith(".jsonl")):
                continue
            at = self._read_to.get(path, 0)
            lines, end, _ = (self._transport.read(path, at) or b"").rpartition(b"\n")
            self._read_to[path] = at + len(lines + end)
            for event in read_entries(lines + end):
                self._take(event)

    def _work(self) -> None:
        while True:
            with self._lock:
                batch = list(self._waiting)
                self._waiting.clear()
                if not batch:
                    self._under_way = False
                    return
            lines = [line for at, make in batch for line in self._lines(at, make)]
            for pause in _PAUSES:
                try:
                    self._write(b"".join(lines))
                    break
                except Exception as error:  # noqa: BLE001 - the run itself does not need it
                    self._complain(error)
                    lines = []  # they are among what is still to be written
                    time.sleep(pause)

    def _lines(self, at: float, make: Callable[[], Iterable[Event]]) -> list[bytes]:
        try:
            return [journal_line(at, name, **facts) for name, facts in make()]
        except Exception as error:  # noqa: BLE001 - the other events are written all the same
            self._complain(error)
            return []

    def _write(self, lines: bytes) -> None:
        data = self._unwritten = self._unwritten + lines
        if len(data) > _MOST_UNWRITTEN:
            self._unwritten = b""
        if data:
            try:
                # What was written before a failure may end in the middle of a line.
                self._transport.append(self._path, b"\n" * self._failed + data)
            except Exception:
                self._failed = True
                raise
            self._unwritten, self._failed = b"", False
            with self.folding:
                for event in read_entries(data):
                    self._take(event)
        self._renew()
        if self._follower is not None:
            self._follower.written()

    def _renew(self) -> None:
        """run.json and the index: now and then, and at the end."""
        started = time.monotonic()
        if started < self._renew_at and self.record.state == "running":
            return
        self._renew_at = started + _EVERY  # also when it fails
        with self.folding:
            self.read_others()
        whole = json.dumps(self.record.as_dict(), indent=1, default=str).encode() + b"\n"
        self._transport.write_atomic(f"{self.folder}/{RUN}", whole)
        index.put(self.record.summary())
        now = time.monotonic()
        self._renew_at = now + max(_EVERY, (now - started) / _SHARE)

    def _complain(self, error: Exception) -> None:
        level = logging.DEBUG if self._complained else logging.WARNING
        self._complained = True
        logger.log(level, "the record of this run (%s) misses something: %s", self.folder, error)
