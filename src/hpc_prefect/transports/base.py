"""The interface of a transport: commands and files on the machine where the scheduler is."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from hpc_prefect.job.dialogue import Command, Reply
from hpc_prefect.job.outputs import Left, Stamp


@dataclass(frozen=True, slots=True)
class FileStatus:
    """Size in bytes and modification time (seconds since 1970, by the file server's clock)."""

    size: int
    modified: float


class Transport(Protocol):
    """Commands and files at one place. Methods block, so they are called in threads.

    Paths are absolute. A missing file gives a value (None, b"", False), any other trouble raises
    `TransportError`, or `NotOurs` if a file is not this user's own, or others may change it.
    """

    def run(self, command: Command) -> Reply:
        """Run a command to its end or its time limit."""

    def root(self, work_dir: str) -> str:
        """The folder for all that is this user's below a `work_dir`; made when it is not there.

        It is `.hpc-prefect`, or where that is another user's one beside it with this user's number.
        """

    def make_folder(self, path: str) -> None:
        """Create a folder with its parents; one that is there is fine.

        From a root down they are made for this user alone (0700), whatever the umask is.
        """

    def check_folder(self, path: str) -> None:
        """See that a folder, and each on the way to it from its root, is still this user's own."""

    def write_atomic(
        self, path: str, data: bytes, *, mode: int = 0o600, durable: bool = False
    ) -> None:
        """Replace a file as a whole: a reader sees the old content or the new.

        Args:
            durable: force it to disk before returning.
        """

    def append(self, path: str, data: bytes, *, durable: bool = False) -> None:
        """Add to the end of a file in one write; `durable` forces it to disk before returning."""

    def create(self, path: str, data: bytes) -> bool:
        """Create a file exclusively, with its content; False when there is one already."""

    def read(self, path: str, offset: int = 0, size: int = -1) -> bytes | None:
        """Bytes of a file from an offset on; None when there is no such file.

        Raises:
            NotOurs: it is a FIFO, a link, a folder, a device, or somebody else's. Never blocks.
        """

    def read_private(self, path: str) -> bytes | None:
        """A file's content, if nobody but this user can have written it; None when there is none.

        Raises:
            NotOurs: it, or a folder on the way to it, is another user's, or others may change it.
        """

    def turn(self, path: str, *, patience: float) -> AbstractContextManager[bool]:
        """Be the only one who has a file's lock, of all threads and processes of all hosts.

        False inside when somebody else had it for `patience` seconds. Where the file system has no
        locks only the threads of this process take turns.
        """

    def status(self, path: str) -> FileStatus | None:
        """Size and time of a file; None when there is none."""

    def stamp(self, path: str, most: int) -> Stamp | None:
        """What is in the place of an output, and at most so many files below it; None for none.

        Our own folders below it (`.hpc-prefect`) are left out.
        """

    def left(self, path: str, since: int, most: int) -> dict[str, Left] | None:
        """The files of an output whose ctime is later (ns), up to `most`; None for no output.

        By their names below it; a file that is the output itself is `""`, however old it is.
        """

    def left_now(self, path: str, name: str) -> Left | None:
        """One of these files as it is now, without a digest; None for none."""

    def digest(self, path: str, name: str) -> str:
        """Of the content of one of these files, if it is small; empty when it cannot be read."""

    def read_link(self, path: str) -> str | None:
        """Where a symbolic link points; None when there is nothing, empty when it is no link."""

    def link(self, path: str, target: str) -> bool:
        """Make a symbolic link exclusively; False when there is something of that name already."""

    def relink(self, path: str, target: str) -> None:
        """Make a symbolic link point elsewhere, in one step."""

    def list(self, path: str) -> list[str]:
        """Names in a folder, sorted; empty when there is no such folder."""

    def touch(self, path: str) -> None:
        """Set a file's time to now, by the file server's clock."""

    def remove(self, path: str) -> None:
        """Remove a file; a missing one is fine."""
