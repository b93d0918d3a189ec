"""Coordinates this user's processes on this host that use the same scheduler.

They share a folder that this host has for itself: home directories are often mounted on many hosts.
Decisions are made in it under one lock, which nobody keeps for longer than it takes to read and
write small files. What is in it:

    lock                     the lock, and in it who asked the scheduler last: `shared_poll.py`
    ids-PROCESS  answer      what a process asks about; what was answered: `shared_poll.py`
    slot-QUEUE-TAG-PROCESS   a job that has a slot of a queue, and its folder: `queue_slots.py`
    wait-QUEUE-PROCESS       a process whose jobs wait for a slot: `queue_slots.py`

Where it is, is decided anew for each decision, and by the same rule in all processes, so that they
meet: in the user's runtime directory, whether or not a process was told of it (a login is, a cron
job and a service are not); while there is none (nobody of this user is logged in), below the home.
What a process has published goes with it. They do not meet when one was given another
XDG_RUNTIME_DIR or HOME; and when a file system has no locks each process is on its own.

No verdict depends on it: information of others is only a hint. When it cannot be used, each process
works alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from hpc_prefect.local_batch import process
from hpc_prefect.schedulers.base import Scheduler
from hpc_prefect.transports import own
from hpc_prefect.transports.host import host

logger = logging.getLogger("hpc_prefect.executor")

T = TypeVar("T")

#: The size of the lock's file, in bytes.
_NOTE = 200
#: Seconds to wait for the lock. It is held for a millisecond; a longer holder was suspended.
_LOCK_PATIENCE = 10.0
#: Bytes of a file that are read at most. Of a thousand jobs an answer has some 300 kB.
_MOST = 16 << 20
#: Variables that say where a scheduler's server, or the laptop's spool, is.
_WHERE = ("SLURM_CONF", "PBS_CONF_FILE", "PBS_EXEC", "PBS_SERVER", "PBS_DEFAULT")
_WHERE_LOCAL = ("XDG_STATE_HOME", "HOME")


def shared_folders() -> Iterator[str]:
    """Folders that this user's processes on this host may share, the best first."""
    for runtime in (os.environ.get("XDG_RUNTIME_DIR", ""), f"/run/user/{os.geteuid()}"):
        # `su` leaves the variable of who called it.
        with contextlib.suppress(OSError):
            if os.path.isabs(runtime):
                os.close(own.open_folder(runtime))
                yield f"{runtime}/hpc-prefect"
    yield os.path.expanduser(f"~/.cache/hpc-prefect/{socket.gethostname()}")


class HostPeers:
    """The folder that they share.

    Attributes:
        me: this process, as in the files' names.
    """

    def __init__(
        self, name: str = "", folders: Callable[[], Iterator[str]] = shared_folders
    ) -> None:
        """`name`: of the folder in the first of `folders` that can be used; "": no peers."""
        self._name = name
        self._folders = folders
        self._boot, pid, start, self._namespace = (host().identity(host().pid) or "").split()
        self.me = f"{pid}.{start}"
        self._published: dict[str, bytes] = {}
        self._at = -1  # the open folder, while a decision is made in it
        self._was_at: tuple[int, int] | None = None

    @property
    def alone(self) -> bool:
        return not self._name

    def is_alive(self, who: str) -> bool:
        pid, _, start = who.partition(".")
        return host().alive(f"{self._boot} {pid} {start} {self._namespace}")

    def together(self, decide: Callable[[int], T], alone: T) -> T:
        """Decide under the lock, given its open file; returns `alone` if there is no folder to
        share. Blocks briefly: call it in a thread.
        """
        if not self._name:
            return alone
        try:
            with self._locked() as lock:
                return decide(lock)
        except OSError as error:
            self._name = ""
            logger.warning(
                "your flows on this host cannot share %s (%s): from now on this process asks the"
                " scheduler by itself, and max_jobs_in_queue counts its own jobs only",
                error.filename or "/".join(self._folders()),
                error.strerror or error,
            )
            return alone

    # --- in a decision

    def noted(self, lock: int) -> bytes:
        """What stands in the lock's file."""
        return os.pread(lock, _NOTE, 0)

    def note(self, lock: int, text: str) -> None:
        """Write it there, in the place of what was."""
        os.pwrite(lock, text.ljust(_NOTE).encode(), 0)

    def names(self) -> list[str]:
        return os.listdir(self._at)

    def read(self, name: str) -> bytes:
        """A file's content.

        Raises:
            FileNotFoundError: it is not there.
        """
        file = own.open_file(name, folder=self._at)
        try:
            return os.read(file, _MOST)
        finally:
            os.close(file)

    def write(self, name: str, data: bytes) -> None:
        """Replace a file as a whole: a kill during the write leaves no partial file."""
        new = f".{name}"
        self.remove(new)
        file = own.open_file(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, folder=self._at)
        with open(file, "wb") as stream:
            stream.write(data)
        os.rename(new, name, src_dir_fd=self._at, dst_dir_fd=self._at)

    def remove(self, name: str) -> None:
        self._published.pop(name, None)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._at)

    def publish(self, name: str, data: bytes) -> None:
        """Write a file that is to be there, wherever the peers meet, until it is removed."""
        self.write(name, data)
        self._published[name] = data

    # --- the lock

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        folder, lock = self._open()
        try:
            own.lock(lock, patience=_LOCK_PATIENCE, every=0.002)
            self._at = folder
            try:
                self._move_in()
                yield lock
            except OSError:
                # Files that we do not renew would delay the others as long as we live.
                with contextlib.suppress(OSError):
                    self._move_out(keep=())
                raise
            finally:
                self._at = -1
                # Closing alone would not do: a forked child may have inherited the open file.
                fcntl.flock(lock, fcntl.LOCK_UN)
        finally:
            os.close(lock)
            os.close(folder)

    def _open(self) -> tuple[int, int]:
        """The folder and its lock, in the first place that can be used."""
        trouble: OSError | None = None
        for above in self._folders():
            path = f"{above}/{self._name}"
            try:
                folder = own.make_folders(path, above.count("/"))
                try:
                    return folder, own.open_file("lock", os.O_RDWR | os.O_CREAT, folder=folder)
                except OSError:
                    os.close(folder)
                    raise
            except OSError as error:
                error.filename = error.filename if error.filename != "lock" else f"{path}/lock"
                trouble = trouble or error
        raise trouble or OSError("there is no folder to meet in")

    def _move_in(self) -> None:
        """Take along what is published when the peers meet in another folder than before."""
        found = os.fstat(self._at)
        here = (found.st_dev, found.st_ino)
        if here != self._was_at:
            self._move_out(keep=self._published)
            for name, data in self._published.items():
                self.write(name, data)
            self._was_at = here

    def _move_out(self, keep: Mapping[str, bytes] | tuple[()]) -> None:
        for name in self.names():
            if name.endswith(f"-{self.me}") and name not in keep:
                os.unlink(name, dir_fd=self._at)


def peers_at(
    scheduler: Scheduler,
    options: Mapping[str, object],
    *,
    folders: Callable[[], Iterator[str]] = shared_folders,
    host: str = "",
) -> HostPeers:
    """Those who talk to the same scheduler with the same options.

    Args:
        folders: where they may meet.
        host: another one than this, for a test.
    """
    names = [*_WHERE, *(_WHERE_LOCAL if scheduler.runs_here else ())]
    where = {name: os.environ.get(name, "") for name in names}
    # An answer of another scheduler's would make our jobs look lost, so the command counts too.
    command = next(scheduler.observe(["1"], options)).argv[0]
    where["command"] = "" if "/" in command else shutil.which(command) or ""
    # A host that is started again begins anew; in a container pids mean other processes.
    here = host or f"{process.boot_id()} {process.namespace()}"
    key = json.dumps([here, scheduler.name, dict(options), where], sort_keys=True)
    return HostPeers(hashlib.sha256(key.encode()).hexdigest()[:16], folders)
