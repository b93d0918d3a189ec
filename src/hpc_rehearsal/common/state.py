"""The state folder of a rehearsed scheduler: its records, its faults, its daemon."""

from __future__ import annotations

import errno
import json
import os
import pwd
import signal
import sys
import time

from hpc_prefect.local_batch import process
from hpc_prefect.local_batch.spool import Lock, Spool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from hpc_rehearsal.common.text import Refusal

    Record = dict[str, Any]

_LOOK_SECONDS = 0.05
#: The number of a part of an array is the array's number times this, plus its index.
PARTS = 10**7
FOLDERS = ("jobs", "faults", "aux", "tmp")


class State:
    """The state folder.

    Attributes:
        DONE: the states of a job that is over.
        WAITING: the states of a job that has not begun.
        KINDS: endings of the files that a job has beside its record.
        DAEMON: the module of its daemon.
    """

    DONE: frozenset[str]
    WAITING: frozenset[str]
    KINDS: tuple[str, ...]
    DAEMON: str

    def __init__(self, state: str) -> None:
        self.state = os.path.realpath(state)
        with open(self.path("config.json")) as file:
            self.config: Record = json.load(file)
        self.lock = Lock(self.path("lock"))
        self.spool = Spool(self.path("spool"))

    def path(self, *parts: str) -> str:
        return os.path.join(self.state, *parts)

    def fault(self, name: str) -> bool:
        return os.path.exists(self.path("faults", name))

    def blocks(self, fault: str) -> None:
        """Wait as long as the fault is in force."""
        while self.fault(fault):
            time.sleep(_LOOK_SECONDS)

    def connect(self, refused: Refusal) -> None:
        """Apply the faults of all commands; every command calls it first."""
        self.blocks("hung")
        if self.fault("down"):
            raise refused

    def asked(self, refused: Refusal) -> None:
        """Apply the faults of commands that only ask; they call it first."""
        self.blocks("query-hangs")
        self.connect(refused)
        if self.fault("query-fails"):
            raise refused
        if self.fault("forgets"):
            with self.lock:
                for n in self.numbers():
                    if (job := self.job(n)) and job["state"] in self.WAITING:
                        self.forget(n)

    # Records; the lock is held by the caller in all that follows

    def new(self) -> int:
        try:
            with open(self.path("last")) as file:
                n = int(file.read()) + 1
        except FileNotFoundError:
            n = 1
        _replace(self.path("last"), f"{n}\n")
        return n

    def file(self, n: int, kind: str) -> str:
        """The path of a job's file; `kind` is `json` for its record, or one of KINDS."""
        return self.path("jobs", f"{n}.{kind}")

    def save(self, job: Record) -> None:
        _replace(self.file(job["n"], "json"), json.dumps(job))

    def add(self, job: Record, script: str) -> None:
        """A new job, with the copy of its script."""
        with open(self.file(job["n"], "SC"), "wb", opener=_private) as file:
            file.write(os.fsencode(script))
        self.save(job)
        self.wake()

    def job(self, n: int) -> Record | None:
        try:
            with open(self.file(n, "json")) as file:
                record: Record = json.load(file)
        except FileNotFoundError:
            return None
        return record

    def forget(self, n: int) -> None:
        for kind in ("json", *self.KINDS):
            try:
                os.unlink(self.file(n, kind))
            except FileNotFoundError:
                continue

    def numbers(self) -> list[int]:
        """The numbers of all jobs, in order; those of an array's parts follow its own."""
        names = os.listdir(self.path("jobs"))
        found = (int(name[:-5]) for name in names if name.endswith(".json"))
        return sorted(found, key=lambda n: (n, -1) if n < PARTS else divmod(n, PARTS))

    def jobs(self) -> list[Record]:
        """All visible jobs, in the order of their ids, without the parts of arrays."""
        found = [job for n in self.numbers() if n < PARTS and (job := self.job(n))]
        return [job for job in found if self.visible(job)]

    def parts(self, n: int) -> list[Record]:
        """The parts of an array that have records of their own, in the order of their indices."""
        numbers = (each for each in self.numbers() if each // PARTS == n)
        return [job for each in numbers if (job := self.job(each))]

    def visible(self, job: Record) -> bool:
        """Whether any command shows it."""
        return not (self.fault("unlisted") or (job["late"] and self.fault("late")))

    def alive(self) -> list[Record]:
        """The visible jobs that are not over."""
        return [job for job in self.jobs() if job["state"] not in self.DONE]

    def lose_answer(self, refused: Refusal) -> None:
        """Apply the faults between a submission and its answer. Called without the lock."""
        if self.fault("dies-after-submit"):
            os.kill(os.getpid(), signal.SIGKILL)
        self.blocks("hangs-after-submit")
        if self.fault("error-after-submit"):
            raise refused

    # The daemon

    def wake(self) -> None:
        """Wake the daemon, because something has changed; start one if there is none.

        The pipe tells whether there is one: it has a reader as long as a daemon lives. It is opened
        before the lock is released, so that there is never a second daemon.
        """
        pipe = self.path("wake")
        try:
            writer = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno not in (errno.ENXIO, errno.ENOENT):
                raise
        else:
            try:
                os.write(writer, b".")
            except BlockingIOError:
                pass  # the pipe is full: the daemon is woken already
            finally:
                os.close(writer)
            return
        if not os.path.exists(pipe):
            os.mkfifo(pipe, 0o600)
        reader = os.open(pipe, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        if process.detach(keep=reader):
            self.live(reader)
        os.close(reader)

    def live(self, wake: int) -> NoReturn:
        """Run the daemon, in its own process."""
        __import__(self.DAEMON)
        sys.modules[self.DAEMON].Daemon.live(self, wake)
        raise AssertionError


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o700)


def user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _replace(path: str, text: str) -> None:
    temporary = f"{path}.{os.getpid()}.tmp"
    with open(temporary, "w") as file:
        file.write(text)
    os.rename(temporary, path)
