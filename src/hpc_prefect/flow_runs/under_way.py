"""The jobs that this process waits for, as the terminal's last line shows them."""

from __future__ import annotations

import threading
from typing import Protocol

from hpc_prefect.terminal import line


class WaitedFor(Protocol):
    """A job that is waited for."""

    name: str

    def now(self) -> str:
        """How it is, in a few words."""


class UnderWay:
    """Those of one process. Many threads begin and end them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: dict[int, WaitedFor] = {}
        self._ended = 0
        self._entry: line.GoingOn | None = None

    def begins(self, job: WaitedFor) -> None:
        """A call waits for it from now on."""
        with self._lock:
            self._jobs[id(job)] = job
            if self._entry is None:
                self._ended = 0
                self._entry = line.begin(self.words)

    def ends(self, job: WaitedFor) -> None:
        """No call waits for it any more."""
        with self._lock:
            if self._jobs.pop(id(job), None) is None:
                return
            self._ended += 1
            if not self._jobs and self._entry is not None:
                line.end(self._entry)
                self._entry = None

    def words(self) -> str:
        """What goes on, in a line."""
        jobs = list(self._jobs.values())
        if len(jobs) == 1:
            return f"{jobs[0].name}: {jobs[0].now()}"
        return f"{len(jobs)} jobs under way, {self._ended} ended"


under_way = UnderWay()
