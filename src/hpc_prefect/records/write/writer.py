"""The one who appends to a run's record, in a thread of its own."""

from __future__ import annotations

import contextvars
import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from hpc_prefect.job.folder import journal_line, read_entries
from hpc_prefect.records import index
from hpc_prefect.records.fold import EVENTS, RUN, Record
from hpc_prefect.transports.local import LocalTransport

logger = logging.getLogger("hpc_prefect.records")

#: An event's name and what it says.
Event = tuple[str, dict[str, Any]]
#: Seconds between two renewals of run.json and the index, and how much of the time they may take.
_EVERY, _SHARE = 5.0, 0.02


class RunWriter:
    """Appends events to a record. Nobody waits for the file server; trouble is logged once.

    What is noted is written by a thread that lasts for as long as there is something to write: a
    process that ends is held up by what is still to be written, and no longer.
    """

    def __init__(self, folder: str) -> None:
        """Begin, or go on with, the record in this folder. Blocks."""
        self.folder = folder
        self.record = Record(folder=folder, with_jobs=False)
        self._transport = LocalTransport()
        self._transport.make_folder(folder)
        self._path = self._draw_file()
        self._waiting: deque[tuple[float, Callable[[], Iterable[Event]]]] = deque()
        self._lock = threading.Lock()
        self._under_way = False
        self._renew_at = float("-inf")
        self._complained = False

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
        # Not a daemon: a short script would end before it. In nobody's context: the run may end.
        thread = threading.Thread(target=self._work, name="hpc-prefect-record")
        try:
            contextvars.Context().run(thread.start)
        except RuntimeError:  # the interpreter is ending and starts none
            self._work()

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
        """A file of this process's own; what others have written so far counts for the totals."""
        number = 1
        while True:
            name = EVENTS if number == 1 else f"events-{number}.jsonl"
            path = f"{self.folder}/{name}"
            if self._transport.create(path, b""):
                return path
            for event in read_entries(self._transport.read(path)):
                self.record.add(event)
            number += 1

    def _work(self) -> None:
        while True:
            with self._lock:
                batch = list(self._waiting)
                self._waiting.clear()
                if not batch:
                    self._under_way = False
                    return
            try:
                self._write(batch)
            except Exception as error:  # noqa: BLE001 - the run itself does not need it
                self._complain(error)

    def _write(self, batch: list[tuple[float, Callable[[], Iterable[Event]]]]) -> None:
        lines = []
        for at, make in batch:
            try:
                for name, facts in make():
                    lines.append(journal_line(at, name, **facts))
            except Exception as error:  # noqa: BLE001 - the other events are written all the same
                self._complain(error)
        data = b"".join(lines)
        self._transport.append(self._path, data)
        for event in read_entries(data):
            self.record.add(event)
        self._renew()

    def _renew(self) -> None:
        """run.json and the index: now and then, and at the end."""
        started = time.monotonic()
        if started < self._renew_at and self.record.state == "running":
            return
        whole = json.dumps(self.record.as_dict(), indent=1, default=str).encode() + b"\n"
        self._transport.write_atomic(f"{self.folder}/{RUN}", whole)
        index.put(self.record.summary())
        now = time.monotonic()
        self._renew_at = now + max(_EVERY, (now - started) / _SHARE)

    def _complain(self, error: Exception) -> None:
        level = logging.DEBUG if self._complained else logging.WARNING
        self._complained = True
        logger.log(level, "the record of this run (%s) misses something: %s", self.folder, error)
