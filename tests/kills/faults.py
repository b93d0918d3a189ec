"""What goes wrong below the scheduler's commands: the process dies, a file server errs.

A `Faulty` is the machine's own transport with one fault in it; the executor knows nothing of it.
What can go wrong at the scheduler is rehearsed by `hpc_rehearsal`, which lists it.

    step, when, nth    the process is killed at the nth step of that name: before it, after it, or
                       torn, in the middle: half a line is written, a command goes on without us
    lose               so many submissions are made and their replies lost
    full               no space from the nth write on (from 0): half of what is written arrives
    stale              for so many seconds an exit record does not show, as NFS may have it
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import signal
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from hpc_prefect.errors import TransportError
from hpc_prefect.job import folder as names
from hpc_prefect.job.dialogue import Command, Reply
from hpc_prefect.transports.local import LocalTransport

SUBMITS = ("sbatch", "qsub", "pjsub")
WRITES = ("make_folder", "write_atomic", "append", "create", "link", "relink")


def die() -> None:
    """What no code of ours can see coming."""
    os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()


class Faulty(LocalTransport):
    """This machine, with a fault; the module says which."""

    def __init__(
        self,
        *,
        step: str = "",
        when: str = "before",
        nth: int = 1,
        lose: int = 0,
        full: int | None = None,
        stale: float = 0.0,
    ) -> None:
        self.step, self.when, self.nth = step, when, nth
        self.lose, self.full, self.stale = lose, full, stale
        self.steps: list[str] = []
        self._met: Counter[str] = Counter()
        self._writes = itertools.count()
        self._first_shown: dict[str, float] = {}
        self._lock = threading.Lock()
        for name in WRITES:
            setattr(self, name, self._written(name, getattr(self, name)))

    def run(self, command: Command) -> Reply:
        here = self._reached(step := _verb(command))
        if here == "torn":
            environment = os.environ | command.environment
            cut: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
            subprocess.Popen(
                command.argv,
                env=environment,
                cwd=command.cwd or None,
                start_new_session=True,
                **cut,
            )
            die()
        reply = super().run(command)
        if here == "after":
            die()
        if step == "submit":
            with self._lock:
                lost, self.lose = self.lose > 0, self.lose - 1
            if lost:
                return Reply(None)
        return reply

    def read(self, path: str, offset: int = 0, size: int = -1) -> bytes | None:
        data = super().read(path, offset, size)
        if Path(path).name == names.EXIT and data:
            if self._reached("exit") == "after":
                die()
            now = time.monotonic()
            if now - self._first_shown.setdefault(path, now) < self.stale:
                return b""
        return data

    def _written(self, name: str, act: Any) -> Any:
        def written(path: str, *arguments: Any, **options: Any) -> Any:
            here = self._reached(_step(name, path, arguments))
            if self.full is not None and next(self._writes) >= self.full:
                if name == "append":
                    act(path, arguments[0][: len(arguments[0]) // 2])
                raise TransportError(f"cannot write {path}: {os.strerror(errno.ENOSPC)}")
            if here == "torn":
                act(path, arguments[0][: len(arguments[0]) // 2], **options)
                die()
            result = act(path, *arguments, **options)
            if here == "after":
                die()
            return result

        return written

    def _reached(self, step: str) -> str:
        """How the process is to die in this step; empty when it is not."""
        with self._lock:
            self.steps.append(step)
            self._met[step] += 1
            if step != self.step or self._met[step] != self.nth:
                return ""
        if self.when == "before":
            die()
        return self.when


def _verb(command: Command) -> str:
    """`submit`, or the name of another command or of a verb of the laptop's engine."""
    if command.argv[0] in SUBMITS:
        return "submit"
    return command.argv[4] if "-I" in command.argv else command.argv[0]


def _step(name: str, path: str, arguments: tuple[Any, ...]) -> str:
    """The event that is journalled, `claim` for the claim, else the file."""
    if name == "append" and arguments[0]:
        return str(json.loads(arguments[0])["event"])
    return "claim" if name == "create" else Path(path).name
