"""The state folder: its configuration, its jobs' records, its faults, and who works on them."""

from __future__ import annotations

import errno
import json
import os
import pwd
import time

from hpc_prefect.laptop import process
from hpc_prefect.laptop.spool import Lock, Spool

from .words import SERVER, Refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Record = dict[str, Any]

_LOOK_SECONDS = 0.05
DONE = "F"


class Server:
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

    def history(self) -> bool:
        return bool(self.config["history"]) and not self.fault("no-history")

    def connect(self, refused: Refusal) -> None:
        """What every command does first."""
        while self.fault("hung"):
            time.sleep(_LOOK_SECONDS)
        if self.fault("down"):
            raise refused

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
        """A file of the job: json, SC (its script), in (its shell's input), OU, ER (output)."""
        return self.path("jobs", f"{n}.{kind}")

    def save(self, job: Record) -> None:
        _replace(self.file(job["n"], "json"), json.dumps(job))

    def job(self, n: int) -> Record | None:
        try:
            with open(self.file(n, "json")) as file:
                record: Record = json.load(file)
        except FileNotFoundError:
            return None
        return record

    def forget(self, n: int) -> None:
        for kind in ("json", "SC", "in", "sh", "OU", "ER"):
            try:
                os.unlink(self.file(n, kind))
            except FileNotFoundError:
                continue

    def jobs(self) -> list[Record]:
        """All that can be seen, in the order of their ids."""
        names = os.listdir(self.path("jobs"))
        numbers = sorted(int(name[:-5]) for name in names if name.endswith(".json"))
        found = [job for n in numbers if (job := self.job(n))]
        return [job for job in found if self.visible(job)]

    def visible(self, job: Record) -> bool:
        if job["state"] == DONE and not self.history():
            return False
        return not (job["late"] and self.fault("late"))

    # The mom

    def wake(self) -> None:
        """Let the mom look at what has changed; start one if there is none.

        The pipe tells: it has a reader as long as a mom lives, however it dies. It is open before
        the lock is given back, so that there is never a second one.
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
            from .mom import live

            live(self.state, reader)
        os.close(reader)


def user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def job_number(word: str) -> int | None:
    """Of 12, 12.opbs; None for what is no id of this server."""
    digits, dot, server = word.partition(".")
    if not (digits.isascii() and digits.isdecimal()) or (dot and server != SERVER):
        return None
    return int(digits)


def _replace(path: str, text: str) -> None:
    temporary = f"{path}.{os.getpid()}.tmp"
    with open(temporary, "w") as file:
        file.write(text)
    os.rename(temporary, path)
