"""Appends events to a run's record, in a thread of its own."""

from __future__ import annotations

import contextvars
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from hpc_prefect.job.folder import journal_line, read_entries, record_text
from hpc_prefect.records import index_files
from hpc_prefect.records.fold import EVENTS, RUN, Record
from hpc_prefect.records.write import leaving
from hpc_prefect.transports.local import LocalTransport

logger = logging.getLogger("hpc_prefect.records")

#: An event's name and its fields.
Event = tuple[str, dict[str, Any]]
#: Seconds between two updates of run.json and the index, and the share of time they may take.
_EVERY, _SHARE = 5.0, 0.01
#: Seconds after which a write that failed is tried again; later with the next event.
_PAUSES = (0.1, 0.5, 0.0)
#: Seconds in which events are gathered for one write, because a write costs more than an event. A
#: process that is killed loses at most the events of this time.
_GATHER = 0.2
#: The most bytes that are kept to be tried again.
_MOST_UNWRITTEN = 64 << 20
#: Seconds for which a process at its end waits for a file server that takes nothing.
PATIENCE = 30.0


class RecordFollower(Protocol):
    """Shows the record while it grows."""

    def add(self, event: Mapping[str, Any]) -> None:
        """The record has taken this event in. Called with the writer's lock `folding` held."""

    def written(self) -> None:
        """All waiting events have been written."""


class RunWriter:
    """Appends events to a record. Callers do not wait for the file server; trouble is logged once.

    A thread of its own writes. At its end, the process waits for this thread as long as it makes
    progress: see `leaving`.
    """

    def __init__(
        self, folder: str, transport: LocalTransport | None = None, *, patience: float = PATIENCE
    ) -> None:
        """Begin the record in this folder, or continue it. Blocks.

        Args:
            patience: seconds; see `PATIENCE`.
        """
        self.folder = folder
        self.record = Record(folder=folder, with_jobs=False)
        self.pid = os.getpid()
        self.folding = threading.Lock()  # held while the record changes
        self._follower: RecordFollower | None = None
        self._transport = transport or LocalTransport()
        self._transport.make_folder(folder)
        self._read_to: dict[str, int] = {}
        self._path = self._draw_file()
        self._waiting: deque[tuple[float, Callable[[], Iterable[Event]]]] = deque()
        # One condition for each purpose: else each event would wake the thread while it gathers,
        # which costs more than writing the event.
        lock = threading.RLock()
        self._arrived = threading.Condition(lock)  # the idle thread waits for work
        self._wanted = threading.Condition(lock)  # the gathering thread waits for a hurried caller
        self._changed = threading.Condition(lock)  # others wait for the thread
        self._patience = patience
        self._at_work = False  # the thread runs
        self._under_way = False  # it has taken events that are not written yet
        self._aside = 0
        self._awaited = 0  # number of callers that wait until all is written
        self._closed = False
        self._moved_at = 0.0
        self._renew_at = float("-inf")
        self._complained = False
        self._unwritten = b""
        self._failed = False

    def follow(self, follower: RecordFollower) -> None:
        """Tell `follower` of all further events."""
        self._follower = follower

    @property
    def is_first(self) -> bool:
        """Whether this process began the record."""
        return self._path.endswith(f"/{EVENTS}")

    @property
    def has_others(self) -> bool:
        """Whether other processes have written to this record."""
        return bool(self._read_to)

    def note(self, event: str, **facts: Any) -> None:
        """Write an event, in the thread. Never raises."""
        self.later(lambda: [(event, facts)])

    def later(self, make: Callable[[], Iterable[Event]]) -> None:
        """Write events, in the thread, which calls `make` to get them."""
        with self._changed:
            self._waiting.append((time.time(), make))
            self._arrived.notify()
            if self._at_work:
                return
            self._at_work = True
        self._start(self._work, "hpc-prefect-record")

    def _start(self, work: Callable[[], None], name: str) -> None:
        # A daemon, because a file server may never answer. With an empty context, because the run
        # whose context this is may end before.
        thread = threading.Thread(target=work, name=name, daemon=True)
        try:
            contextvars.Context().run(thread.start)
        except RuntimeError as error:  # the interpreter is at its end, and starts no thread
            self._complain(error)
        else:
            leaving.wait_for(self)

    def aside(self, make: Callable[[], Iterable[Event]]) -> None:
        """As `later`, for a slow `make`, such as git: other events do not wait for it."""

        def look() -> None:
            try:
                events = list(make())
            except Exception as error:  # noqa: BLE001 - as in `_write`
                self._complain(error)
            else:
                self.later(lambda: events)
            finally:
                with self._changed:
                    self._aside -= 1
                    self._changed.notify_all()

        with self._changed:
            self._aside += 1
        self._start(look, "hpc-prefect-record-aside")

    def keep(self, name: str, data: bytes) -> None:
        """Write a file beside the record. Blocks."""
        self._transport.write_atomic(f"{self.folder}/{name}", data)

    def close(self) -> None:
        """Expect no more events: the thread ends when all is written."""
        with self._changed:
            self._closed = True
            self._arrived.notify()
            self._wanted.notify()

    def settle(self, seconds: float) -> bool:
        """Wait until all events are written, up to `seconds`; returns whether they are."""
        with self._changed:
            self._awaited += 1
            self._wanted.notify()
            try:
                return self._changed.wait_for(lambda: not self._has_work(), seconds)
            finally:
                self._awaited -= 1

    def _has_work(self) -> bool:
        return self._at_work and (self._under_way or bool(self._waiting))

    def leave(self) -> None:
        """At the end of the process: wait as long as progress is made. If the file server took
        nothing for `patience` seconds, a further call does not wait.
        """
        with self._changed:
            self._moved_at = time.monotonic()
            self._awaited += 1  # for good
            self._wanted.notify()
            while self._has_work() or self._aside:
                left = self._moved_at + self._patience - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            else:
                return
            silent, self._patience = self._patience, 0.0
        if silent:
            logger.warning(
                "the last entries of this run's record (%s) are lost: nothing could be written"
                " there for %g s, and this process ends without waiting longer. No job is lost: the"
                " record is completed from the jobs' folders when it is read",
                self.folder, silent,
            )  # fmt: skip

    def _draw_file(self) -> str:
        """Create the file of events of this process; returns its path."""
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
        """Take in what the run's other processes have written since. The lock is held."""
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
        while batch := self._taken():
            lines = [line for at, make in batch for line in self._lines(at, make)]
            for pause in _PAUSES:
                try:
                    self._write(b"".join(lines))
                    break
                except Exception as error:  # noqa: BLE001 - the run itself does not need it
                    self._complain(error)
                    lines = []  # they are in `_unwritten` now
                    time.sleep(pause)

    def _taken(self) -> list[tuple[float, Callable[[], Iterable[Event]]]]:
        """Wait for events, and return those to be written now; none if the thread is to end."""
        with self._changed:
            self._under_way = False
            self._moved()
            self._arrived.wait_for(lambda: self._waiting or self._closed)
            self._wanted.wait_for(lambda: self._closed or self._awaited, _GATHER)
            batch = list(self._waiting)
            self._waiting.clear()
            self._at_work = self._under_way = bool(batch)
            return batch

    def _moved(self) -> None:
        """Note progress, so that a process at its end goes on waiting."""
        with self._changed:
            self._moved_at = time.monotonic()
            self._changed.notify_all()

    def _lines(self, at: float, make: Callable[[], Iterable[Event]]) -> list[bytes]:
        try:
            return [journal_line(at, name, **facts) for name, facts in make()]
        except Exception as error:  # noqa: BLE001 - the other events are written all the same
            self._complain(error)
            return []
        finally:
            self._moved_at = time.monotonic()

    def _write(self, lines: bytes) -> None:
        data = self._unwritten = self._unwritten + lines
        if len(data) > _MOST_UNWRITTEN:
            self._unwritten = b""
        if data:
            try:
                # A write that failed may have ended in the middle of a line.
                self._transport.append(self._path, b"\n" * self._failed + data)
            except Exception:
                self._failed = True
                raise
            self._unwritten, self._failed = b"", False
            self._moved_at = time.monotonic()
            with self.folding:
                for event in read_entries(data):
                    self._take(event)
        self._renew()
        if self._follower is not None:
            self._follower.written()

    def _renew(self) -> None:
        """Update run.json and the index: now and then, and at the end."""
        started = time.monotonic()
        if started < self._renew_at and self.record.state == "running":
            return
        self._renew_at = started + _EVERY  # also when it fails
        with self.folding:
            self.read_others()
        whole = record_text(self.record.as_dict())
        self._transport.write_atomic(f"{self.folder}/{RUN}", whole)
        index_files.put(self.record.summary())
        now = time.monotonic()
        self._renew_at = now + max(_EVERY, (now - started) / _SHARE)

    def _complain(self, error: Exception) -> None:
        level = logging.DEBUG if self._complained else logging.WARNING
        self._complained = True
        logger.log(
            level,
            "something could not be written into this run's record (%s): %s",
            self.folder,
            error,
        )
