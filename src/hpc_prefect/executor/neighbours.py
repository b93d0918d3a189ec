"""This user's other processes on this host that talk to the same scheduler.

They share a folder that this host has for itself: home directories are often mounted on many hosts,
and without locks. Decisions are made in it under one lock, which nobody keeps for longer than it
takes to read and write small files. What is in it:

    lock                            the lock, and in it who asked the scheduler last: `turns.py`
    ids-PROCESS  answer             what a process asks about; what was answered: `turns.py`
    place-QUEUE-TAG-PROCESS         a job that has a place in a queue, and its folder: `places.py`
    wait-QUEUE-PROCESS              a process whose jobs wait for a place: `places.py`

No job's fate depends on it. When it cannot be used, each process is on its own, as if alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from hpc_prefect.laptop import process
from hpc_prefect.schedulers.base import Scheduler

logger = logging.getLogger("hpc_prefect.executor")

T = TypeVar("T")

#: One path for all of a user's processes. XDG_RUNTIME_DIR and TMPDIR are not the same for a login,
#: a cron job and a service of one user, or are gone when the login ends.
ROOT = f"/tmp/hpc-prefect-{os.getuid()}"
#: Seconds for the lock. It is kept for a millisecond; who has it so long was stopped with it.
_LOCK_PATIENCE = 10.0
#: What tells a scheduler's commands where their server, or the laptop's spool, is.
_WHERE = ("SLURM_CONF", "PBS_CONF_FILE", "PBS_EXEC", "PBS_SERVER", "PBS_DEFAULT")
_WHERE_LOCAL = ("XDG_STATE_HOME", "HOME")


class Neighbours:
    """The folder that they share.

    Attributes:
        me: this process, as in the files' names.
    """

    def __init__(self, folder: str | None) -> None:
        """`folder`: inside one that is made for this user alone; None: without neighbours."""
        self._folder = folder
        self._boot, pid, start = (process.identity(os.getpid()) or "- - -").split()
        self.me = f"{pid}.{start}"

    @property
    def alone(self) -> bool:
        return self._folder is None

    def file(self, name: str) -> str:
        return f"{self._folder}/{name}"

    def names(self) -> list[str]:
        return os.listdir(self._folder)

    def is_alive(self, who: str) -> bool:
        pid, _, start = who.partition(".")
        return process.alive(f"{self._boot} {pid} {start}")

    def together(self, decide: Callable[[int], T], alone: T) -> T:
        """Decide under the lock, given its open file; `alone` when there is nobody to decide with.

        Blocks, shortly: call it in a thread.
        """
        if self._folder is None:
            return alone
        try:
            with self._locked() as lock:
                return decide(lock)
        except OSError as error:
            self._withdraw()
            self._folder = None
            logger.warning(
                "this process asks and counts for itself from now on, whatever your other processes"
                " on this host do: they cannot meet in %s (%s)",
                error.filename or ROOT,
                error.strerror or error,
            )
            return alone

    def _withdraw(self) -> None:
        """What we said and do not renew would hold up the others for as long as we live."""
        with contextlib.suppress(OSError):
            for name in self.names():
                if name.endswith(f"-{self.me}"):
                    os.unlink(self.file(name))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        lock = self._open()
        try:
            give_up = time.monotonic() + _LOCK_PATIENCE
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > give_up:
                        raise
                    time.sleep(0.002)
            yield lock
        finally:
            # Closing alone would not do: a forked child may have inherited the open file.
            fcntl.flock(lock, fcntl.LOCK_UN)
            os.close(lock)

    def _open(self) -> int:
        assert self._folder is not None
        path, how = self.file("lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        try:
            return os.open(path, how, 0o600)
        except FileNotFoundError:  # it is new, or /tmp was cleared up
            _make_private(os.path.dirname(self._folder))
            os.makedirs(self._folder, mode=0o700, exist_ok=True)
            return os.open(path, how, 0o600)


def neighbours_at(
    scheduler: Scheduler,
    options: Mapping[str, object],
    *,
    root: str = ROOT,
    host: str = "",
) -> Neighbours:
    """Those who talk to the same scheduler with the same options.

    Args:
        root: the user's own folder.
        host: another one than this, for a test.
    """
    names = [*_WHERE, *(_WHERE_LOCAL if scheduler.runs_here else ())]
    where = {name: os.environ.get(name, "") for name in names}
    # An answer of another scheduler's would make our jobs look lost, so the command counts too.
    command = next(scheduler.observe(["1"], options)).argv[0]
    where["command"] = "" if "/" in command else shutil.which(command) or ""
    # A host that is started again begins anew; in a container pids mean other processes.
    here = host or f"{process.boot_id()} {os.readlink('/proc/self/ns/pid')}"
    key = json.dumps([here, scheduler.name, dict(options), where], sort_keys=True)
    return Neighbours(f"{root}/{hashlib.sha256(key.encode()).hexdigest()[:16]}")


def _make_private(path: str) -> None:
    """Make a folder for this user alone, or see that the one that is there is that."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(1, "it is not a folder for you alone", path)
