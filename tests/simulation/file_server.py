"""A file server and what its clients remember of it.

What is told to one machine may be old: a folder's names, and that a name is not there, for as many
seconds as the world's `lag`, unless that machine has changed something in the folder itself. A file
that is opened is as it is (NFS's promise from close to open). What was written and not forced to
disk is lost, from its end on, when the writer's machine loses its power within half a minute.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hpc_prefect.errors import TransportError
from simulation.world import EPOCH, World

if TYPE_CHECKING:
    from simulation.process import Process

#: Seconds after which what was written is on disk by itself.
_WRITTEN_BACK = 30.0


@dataclass(slots=True)
class File:
    """Content and times; `synced` bytes of it survive its writer's machine."""

    data: bytes
    inode: int
    modified: float
    changed: float
    synced: int = 0
    writer: str = ""
    links: int = 1
    written: float = 0.0
    made: float = 0.0


@dataclass(slots=True)
class Link:
    target: str


@dataclass(slots=True)
class _Seen:
    """What a machine remembers of a folder."""

    since: float
    names: list[str] | None = None
    modified: float | None = None
    absent: set[str] = field(default_factory=set)


class Lock:
    """A file's lock that a process has; it is gone with its holder."""

    def __init__(self, holder: Process) -> None:
        self._holder, self._given_back = holder, False

    @property
    def gone(self) -> bool:
        return self._given_back or self._holder.dead

    def give_back(self) -> None:
        self._given_back = True


class FileServer:
    """Attributes:
    locks: by their paths.
    lag: seconds for which a machine may believe what it remembers.
    full_until, silent_until: until when there is no space, and no answer.
    """

    def __init__(self, world: World, lag: float) -> None:
        self.world = world
        self.lag = lag
        self.full_until = self.silent_until = -1.0
        self._entries: dict[str, File | Link] = {}
        self._folders: dict[str, dict[str, None]] = {"": {}}
        self.locks: dict[str, Lock] = {}
        self._changed: dict[str, float] = {}
        self._inodes = 0
        self._sorted: dict[str, list[str]] = {}  # names of folders, until one changes
        self._seen: dict[tuple[str, str], _Seen] = {}

    def time(self) -> float:
        return EPOCH + self.world.now

    # --- as it is

    def entry(self, path: str) -> File | Link | None:
        return self._entries.get(path)

    def names(self, folder: str) -> list[str]:
        found = self._sorted.get(folder)
        if found is None:
            found = self._sorted[folder] = sorted(self._folders.get(folder, ()))
        return found

    def below(self, ending: str) -> list[str]:
        """All paths that end so."""
        return [path for path in self._entries if path.endswith(ending)]

    def is_folder(self, path: str) -> bool:
        return path in self._folders

    # --- as a machine sees it

    def look(self, machine: str, path: str) -> File | Link | None:
        """What is there, or what the machine remembers: that there is nothing."""
        found = self._entries.get(path)
        if not self.lag:
            return found
        folder, _, name = path.rpartition("/")
        seen = self._remembered(machine, folder)
        if name in seen.absent:
            if found is not None:
                self.world.coverage.sometimes("a name is remembered as absent")
            return None
        if found is None:
            seen.absent.add(name)
        return found

    def listed(self, machine: str, folder: str) -> list[str]:
        """The names in it, perhaps as they were."""
        if not self.lag:
            return self.names(folder)
        seen = self._remembered(machine, folder)
        now = self.names(folder)
        if seen.names is None:
            seen.names = now
        elif seen.names != now:
            self.world.coverage.sometimes("a listing is late")
        return seen.names

    def folder_modified(self, machine: str, folder: str) -> float:
        """When its names changed, in whole seconds, perhaps as it was: as old as its listing."""
        now = float(int(self._changed.get(folder, 0.0)))
        if not self.lag:
            return now
        seen = self._remembered(machine, folder)
        if seen.modified is None:
            seen.names, seen.modified = self.names(folder), now
        return seen.modified

    def _remembered(self, machine: str, folder: str) -> _Seen:
        seen = self._seen.get((machine, folder))
        if seen is None or self.world.now - seen.since >= self.lag:
            seen = self._seen[machine, folder] = _Seen(self.world.now)
        return seen

    # --- changes

    def may_write(self, path: str) -> None:
        """Raises:
        TransportError: there is no space now."""
        if self.world.now < self.full_until and not self.world.chance.fair:
            self.world.coverage.sometimes("no space is left")
            raise TransportError(f"cannot write {path}: No space left on device")

    def may_speak(self, path: str) -> None:
        """Raises:
        TransportError: it gives errors now."""
        if self.world.now < self.silent_until and not self.world.chance.fair:
            self.world.coverage.sometimes("the file server errs")
            raise TransportError(f"cannot use {path}: Input/output error")

    def put(
        self, machine: str, path: str, data: bytes, *, synced: bool = False, links: int = 1
    ) -> File:
        """A file with this content, in the place of what was there."""
        self._inodes += 1
        now = self.time()
        synced_size = len(data) if synced else 0
        file = File(
            data,
            self._inodes,
            now,
            now,
            synced_size,
            machine,
            links,
            self.world.now,
            self.world.now,
        )
        self._enter(machine, path, file)
        return file

    def append(self, machine: str, path: str, data: bytes, *, synced: bool = False) -> None:
        file = self._entries.get(path)
        if not isinstance(file, File):
            self.put(machine, path, data, synced=synced)
            return
        if file.writer != machine or self.world.now - file.written > _WRITTEN_BACK:
            file.synced = len(file.data)
        file.data += data
        file.writer = machine
        file.modified = file.changed = self.time()
        file.written = self.world.now
        if synced:
            file.synced = len(file.data)

    def opened_to_write(self, machine: str, path: str) -> None:
        """Opened with O_CREAT: made where it is not there, and seen where it is."""
        if path in self._entries:
            self._forget(machine, path)
        else:
            self.put(machine, path, b"")

    def link(self, machine: str, path: str, target: str) -> bool:
        """A symbolic link, made exclusively."""
        if path in self._entries:
            self._forget(machine, path)
            return False
        self._enter(machine, path, Link(target))
        return True

    def relink(self, machine: str, path: str, target: str) -> None:
        self._enter(machine, path, Link(target))

    def remove(self, machine: str, path: str) -> None:
        folder, _, name = path.rpartition("/")
        if self._entries.pop(path, None) is not None:
            self._folders[folder].pop(name, None)
            self._sorted.pop(folder, None)
            self._changed[folder] = self.time()
        self._forget(machine, path)

    def make_folder(self, machine: str, path: str) -> None:
        if path in self._folders:
            return
        above, _, name = path.rpartition("/")
        self.make_folder(machine, above)
        self._folders[path] = {}
        self._folders[above][name] = None
        self._sorted.pop(path, None)
        self._sorted.pop(above, None)
        self._changed[path] = self._changed[above] = self.time()
        self._forget(machine, path)

    def _enter(self, machine: str, path: str, what: File | Link) -> None:
        folder, _, name = path.rpartition("/")
        if folder not in self._folders:
            raise TransportError(f"cannot write {path}: No such file or directory")
        if path not in self._entries:
            self._folders[folder][name] = None
            self._sorted.pop(folder, None)
        self._entries[path] = what
        self._changed[folder] = self.time()
        self._forget(machine, path)

    def _forget(self, machine: str, path: str) -> None:
        """Who changes a folder sees it as it is."""
        if self.lag:
            self._seen.pop((machine, path.rpartition("/")[0]), None)

    def power_lost_at(self, machine: str) -> None:
        """What that machine wrote and did not force to disk is lost, from its end on."""
        for path, file in self._entries.items():
            if not isinstance(file, File) or file.writer != machine:
                continue
            age = self.world.now - file.written
            if age < _WRITTEN_BACK and file.synced < len(file.data):
                # Drawn as a part of it: a record's size has to do with versions' names.
                part = self.world.chance.number("part that survives")
                left = file.synced + int(part * (len(file.data) - file.synced + 1))
                if left < len(file.data):
                    self.world.coverage.sometimes("an unsynced write is lost")
                    self.world.note(machine, f"loses the end of {path}")
                    file.data = file.data[:left]
