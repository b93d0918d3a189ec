"""The elements of an array: one file of lines, which is only ever appended to, under the lock.

    <index> S {"process": …, "started": …}     it has started
    <index> C {"by": …, "at": …}               somebody has asked for its end
    <index> E {"end": …, "started": …, …}      it is over; the first such line counts

Files for each element, as jobs have them, would take more time than a small element.
"""

from __future__ import annotations

import errno
import os

from .records import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from .records import Record

WAITS, RUNS, OVER = b"WRO"


class Elements:
    """The elements of an array of `size`, as of the last `refresh`.

    Attributes:
        states: a byte for each element: WAITS, RUNS or OVER.
    """

    def __init__(self, path: str, size: int) -> None:
        self._path, self._size = path, size
        self.states = bytearray([WAITS]) * size
        self._read = 0
        self._lines: dict[bytes, dict[int, bytes]] = {b"S": {}, b"C": {}, b"E": {}}
        self.refresh()

    def refresh(self) -> None:
        """Read what was appended since the last look."""
        try:
            with open(self._path, "rb") as file:
                file.seek(self._read)
                text = file.read()
        except FileNotFoundError:
            return
        whole = text[: text.rfind(b"\n") + 1]  # the last line may be half written
        self._read += len(whole)
        for line in whole.split(b"\n"):
            self._take(line)

    def _take(self, line: bytes) -> None:
        number, _, rest = line.partition(b" ")
        kind, text = rest[:1], rest[2:]
        known = self._lines.get(kind)
        # After a power cut a line may hold anything.
        if known is None or not number.isdigit() or not text.endswith(b"}"):
            return
        index = int(number)
        if index < self._size and index not in known:
            known[index] = text
            if kind == b"E":
                self.states[index] = OVER
            elif kind == b"S" and self.states[index] == WAITS:
                self.states[index] = RUNS

    def append(self, kind: str, records: Iterable[tuple[int, Record]]) -> None:
        """Add lines of a kind to the file, and to this object.

        Raises:
            OSError: nothing was added.
        """
        lines = [f"{index} {kind} {dumps(record)}".encode() for index, record in records]
        if not lines:
            return
        file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(file).st_size
            if size and os.pread(file, 1, size - 1) != b"\n":  # left by a power cut
                lines.insert(0, b"\n")
            text = b"".join(lines)
            if os.write(file, text) < len(text):
                os.ftruncate(file, size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._path)
        finally:
            os.close(file)
        self.refresh()

    def start(self, index: int) -> Record | None:
        return self._record(b"S", index)

    def cancel(self, index: int) -> Record | None:
        return self._record(b"C", index)

    def end(self, index: int) -> Record | None:
        return self._record(b"E", index)

    def cancelled(self) -> list[int]:
        """The elements whose end was asked for and that are not over."""
        return [index for index in self._lines[b"C"] if self.states[index] != OVER]

    def running(self) -> list[int]:
        """The elements that have started and are not over."""
        return [index for index in self._lines[b"S"] if self.states[index] == RUNS]

    def waiting(self) -> list[int]:
        return [index for index, state in enumerate(self.states) if state == WAITS]

    def begun(self) -> float | None:
        """When the first element started; None if none has."""
        first = next(iter(self._lines[b"S"]), None)
        start = None if first is None else self.start(first)
        return start["started"] if start else None

    def left(self) -> list[list[int]]:
        """The elements that wait or run, as pairs of numbers (first, last)."""
        found: list[list[int]] = []
        for index, state in enumerate(self.states):
            if state == OVER:
                continue
            if found and found[-1][1] == index - 1:
                found[-1][1] = index
            else:
                found.append([index, index])
        return found

    def _record(self, kind: bytes, index: int) -> Record | None:
        text = self._lines[kind].get(index)
        if text is None:
            return None
        import json

        try:
            record: Record = json.loads(text)
        except ValueError:
            return None
        return record
