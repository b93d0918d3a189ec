"""What a shell on one machine does with files: the commands of `spool.py` and `agent.sh`.

Each method is a command, and returns whether it succeeds, or what it prints.
"""

from __future__ import annotations

from hpc_prefect.errors import TransportError
from simulation.file_server import File, FileServer, Link


class Shell:
    """Attributes:
    machine: whose memory of the file server it has.
    """

    def __init__(self, files: FileServer, machine: str) -> None:
        self.files = files
        self.machine = machine

    def write(self, path: str, data: bytes = b"") -> bool:
        """`printf … > path`: what was there is gone, also where there is no room for the new."""
        if not self._speaks(path):
            return False
        found = self.files.entry(path)
        can_grow = self._can_grow(path)
        if not can_grow and not isinstance(found, File):
            return False
        self.files.put(self.machine, path, data if can_grow else b"")
        return can_grow

    def overwrite(self, path: str, data: bytes) -> bool:
        """`printf … 1<> path`: of the same length always, so it takes no room."""
        if not self._speaks(path):
            return False
        found = self.files.entry(path)
        if not isinstance(found, File):
            return self.write(path, data)
        found.data, found.writer, found.synced = data, self.machine, len(data)
        found.modified = found.changed = self.files.time()
        found.written = self.files.world.now
        return True

    def append(self, path: str, data: bytes) -> bool:
        """`printf … >> path`: of what a full disk does not take a part may be there."""
        if not self._speaks(path):
            return False
        if self._can_grow(path):
            self.files.append(self.machine, path, data)
            return True
        if isinstance(self.files.entry(path), File) and (half := data[: len(data) // 2]):
            self.files.append(self.machine, path, half)
        return False

    def link(self, path: str, target: str) -> bool:
        """`ln -s -n`."""
        if not (self._speaks(path) and self._can_grow(path)):
            return False
        return self.files.link(self.machine, path, target)

    def hard_link(self, old: str, new: str) -> bool:
        """`ln`; two names have one content, which nobody changes afterwards."""
        found = self.files.entry(old)
        if not (self._speaks(new) and self._can_grow(new)) or not isinstance(found, File):
            return False
        if self.files.entry(new) is not None:
            self.files._forget(self.machine, new)
            return False
        self.files.put(self.machine, new, found.data)
        return True

    def remove(self, *paths: str) -> bool:
        """`rm -f`."""
        for path in paths:
            if not self._speaks(path):
                return False
            self.files.remove(self.machine, path)
        return True

    def read(self, path: str) -> bytes | None:
        """`cat`; None where it fails."""
        found = self._look(path)
        return found.data if isinstance(found, File) else None

    def read_link(self, path: str) -> str:
        """`readlink`; empty where it fails."""
        found = self._look(path)
        return found.target if isinstance(found, Link) else ""

    def modified(self, path: str) -> int | None:
        """`stat -c %Y`."""
        found = self._look(path)
        return int(found.modified) if isinstance(found, File) else None

    def names(self, folder: str) -> list[str]:
        """`folder/*`."""
        if not self._speaks(folder):
            return []
        return [name for name in self.files.listed(self.machine, folder) if name[0] != "."]

    def _look(self, path: str) -> File | Link | None:
        return self.files.look(self.machine, path) if self._speaks(path) else None

    def _speaks(self, path: str) -> bool:
        try:
            self.files.may_speak(path)
        except TransportError:
            return False
        return True

    def _can_grow(self, path: str) -> bool:
        if not self.files.is_folder(path.rpartition("/")[0]):
            return False
        try:
            self.files.may_write(path)
        except TransportError:
            return False
        return True
