"""The one who appends to a run's record, in a thread of its own."""

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

#: An event's name and what it says.
Event = tuple[str, dict[str, Any]]
#: Seconds between two renewals of run.json and the index, and how much of the time they may take.
_EVERY, _SHARE = 5.0, 0.01
#: Seconds after which a write that failed is tried again; later with the next event.
_PAUSES = (0.1, 0.5, 0.0)
#: Seconds in which more may come, to be written at once: a write costs more than an event. It is
#: also what a process that is killed loses at most of what only its record knows.
_GATHER = 0.2
#: Bytes that are kept to be tried again.
_MOST_UNWRITTEN = 64 << 20
#: Seconds for which a process that ends waits for a file server that takes nothing.
PATIENCE = 30.0


class RecordFollower(Protocol):
    """Who shows the record while it grows."""

    def add(self, event: Mapping[str, Any]) -> None:
        """The record has taken this event in. Called with the writer's lock `folding` held."""

    def written(self) -> None:
        """What was waiting is written."""


class RunWriter:
    """Appends events to a record. Nobody waits for the file server; trouble is logged once.

    What is noted is written by a thread of its own. A process that ends waits for it for as long as
    something is being written, and no longer: see `leaving`.
    """

    def __init__(
        self, folder: str, transport: LocalTransport | None = None, *, patience: float = PATIENCE
    ) -> None:
        """Begin, or go on with, the record in this folder. Blocks.

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
        # Whoever waits is woken by what he waits for alone: the thread would else be so by each
        # event that it gathers, which costs more than to write it.
        lock = threading.RLock()
        self._arrived = threading.Condition(lock)  # the thread, without work, waits for some
        self._wanted = threading.Condition(lock)  # the thread, gathering, for somebody in a hurry
        self._changed = threading.Condition(lock)  # others, for the thread
        self._patience = patience
        self._at_work = False  # the thread is there
        self._under_way = False  # it has taken something that is not written yet
        self._aside = 0
        self._awaited = 0  # somebody waits until all is written
        self._closed = False
        self._moved_at = 0.0
        self._renew_at = float("-inf")
        self._complained = False
        self._unwritten = b""
        self._failed = False

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
        with self._changed:
            self._waiting.append((time.time(), make))
            self._arrived.notify()
            if self._at_work:
                return
            self._at_work = True
        self._start(self._work, "hpc-prefect-record")

    def _start(self, work: Callable[[], None], name: str) -> None:
        # A daemon, because a file server may never answer. In nobody's context: the run may end.
        thread = threading.Thread(target=work, name=name, daemon=True)
        try:
            contextvars.Context().run(thread.start)
        except RuntimeError as error:  # the interpreter ends, and takes no further thread
            self._complain(error)
        else:
            leaving.wait_for(self)

    def aside(self, make: Callable[[], Iterable[Event]]) -> None:
        """The same for what may take seconds, such as git: other events do not wait for it."""

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
        """Nothing more is expected: the thread ends when all is written."""
        with self._changed:
            self._closed = True
            self._arrived.notify()
            self._wanted.notify()

    def settle(self, seconds: float) -> bool:
        """Wait until what was noted is written, for so many seconds; whether it is."""
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
        """The process ends: wait for as long as something moves. Called again, it goes at once
        where a file server took nothing in all of its patience.
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
                "the record of this run (%s) misses its end: nothing could be written there for"
                " %g s, and this process does not wait for it any longer. The folders of the jobs"
                " have what they did, and the record is completed from them when it is read",
                self.folder, silent,
            )  # fmt: skip

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
        while batch := self._taken():
            lines = [line for at, make in batch for line in self._lines(at, make)]
            for pause in _PAUSES:
                try:
                    self._write(b"".join(lines))
                    break
                except Exception as error:  # noqa: BLE001 - the run itself does not need it
                    self._complain(error)
                    lines = []  # they are among what is still to be written
                    time.sleep(pause)

    def _taken(self) -> list[tuple[float, Callable[[], Iterable[Event]]]]:
        """What is to be written now, waiting for it; nothing when the thread is to end."""
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
        """Something was done, so that a process that ends goes on waiting."""
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
                # What was written before a failure may end in the middle of a line.
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
        """run.json and the index: now and then, and at the end."""
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
        logger.log(level, "the record of this run (%s) misses something: %s", self.folder, error)
