"""A job's events and output in the log of its task run in Prefect."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import Any

from hpc_prefect.flow_runs.scopes import root_flow
from hpc_prefect.flow_runs.under_way import under_way
from hpc_prefect.job import folder as names

#: With more jobs than this at once, only ids and ends are logged.
BURST = 20
#: How many seconds a text then waits for the next one. Prefect sends records every two seconds.
GATHER = 1.0


class RunLog:
    """A `Listener` that writes to the task run's log in Prefect, and to the line in a terminal.

    Each record costs work in three threads. So in bursts a text waits a little for the next one,
    and both go into one record.
    """

    _active = 0

    def __init__(self, name: str, log: logging.Logger | logging.LoggerAdapter[Any]) -> None:
        self.name = name
        self.log = log
        #: How the job is, for a line: what was told last, or what a caller puts here.
        self.now: Callable[[], str] = lambda: self._last
        self._last = "begins"
        self.kept = {"send_to_api": root_flow() is not None}
        # The executor has no run context, whose settings say where logs go.
        self._context = copy_context()
        self._id_told = False
        self._waiting: deque[str] = deque()
        type(self)._active += 1
        under_way.begins(self)

    def close(self) -> None:
        type(self)._active -= 1
        under_way.ends(self)
        self._write()

    def state(
        self, text: str, *, warning: bool = False, minor: bool = False, job_id: str = ""
    ) -> None:
        self._last = text.partition("\n")[0]
        burst = self._active > BURST
        if burst and minor and (self._id_told or not job_id):
            return
        self._id_told = self._id_told or bool(job_id)
        if burst and not warning:
            if not self._waiting:
                asyncio.get_running_loop().call_later(GATHER, self._write)
            self._waiting.append(text)
            return
        self._write()
        self._record(logging.WARNING if warning else logging.INFO, f"{self.name}: {text}")

    def output(self, stream: str, text: str, path: str) -> None:
        self._write()
        level = logging.WARNING if stream == names.STDERR else logging.INFO
        self._record(level, f"{self.name} {stream} ({path}):\n{text}")

    def _write(self) -> None:
        """Log the waiting texts. Two threads call this; each text goes to one of them."""
        texts = []
        with suppress(IndexError):
            while True:
                texts.append(self._waiting.popleft())
        if texts:
            self._record(logging.INFO, f"{self.name}: {'; '.join(texts)}")

    def _record(self, level: int, text: str) -> None:
        tell = partial(self.log.log, level, "%s", text, extra=self.kept)
        self._context.copy().run(tell)  # a copy: two threads may log at once
