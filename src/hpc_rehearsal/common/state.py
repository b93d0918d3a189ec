"""The state folder of a scheduler that is rehearsed: its records, its faults, who works on them."""

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
#: A part of an array has a number too: that of the array times this, and its own index.
PARTS = 10**7
FOLDERS = ("jobs", "faults", "aux", "tmp")


class State:
    """The state folder.

    Attributes:
        DONE: the states of a job that is over.
        WAITING: those of a job that has not begun.
        KINDS: the files that a job has beside its record.
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
        """What every command does first."""
        self.blocks("hung")
        if self.fault("down"):
            raise refused

    def asked(self, refused: Refusal) -> None:
        """What every command that only asks does first."""
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
        """A file of the job: json, its record; the others are told by KINDS."""
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
        """Of all jobs, in the order of their ids; those of an array's parts follow its own."""
        names = os.listdir(self.path("jobs"))
        found = (int(name[:-5]) for name in names if name.endswith(".json"))
        return sorted(found, key=lambda n: (n, -1) if n < PARTS else divmod(n, PARTS))

    def jobs(self) -> list[Record]:
        """All that can be seen, in the order of their ids, but the parts of arrays."""
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
        """Those that can be seen and are not over."""
        return [job for job in self.jobs() if job["state"] not in self.DONE]

    def lose_answer(self, refused: Refusal) -> None:
        """What goes wrong between a submission and its answer; without the lock."""
        if self.fault("dies-after-submit"):
            os.kill(os.getpid(), signal.SIGKILL)
        self.blocks("hangs-after-submit")
        if self.fault("error-after-submit"):
            raise refused

    # The daemon

    def wake(self) -> None:
        """Let the daemon look at what has changed; start one if there is none.

        The pipe tells: it has a reader as long as a daemon lives, however it dies. It is open
        before the lock is given back, so that there is never a second one.
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
                pass  # it has enough to read already
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
        """The life of the daemon, in its process: another program, known by its name."""
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
