"""The files and commands of one process: the product's `Transport`, in the world.

Before each operation the process may die, or be stopped for a while; a write may be torn by that.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING

from hpc_prefect.errors import NotOurs, TransportError
from hpc_prefect.job import folder as names
from hpc_prefect.job.dialogue import Command, Reply
from hpc_prefect.job.outputs import FILE, FOLDER, Left, Stamp
from hpc_prefect.transports.base import FileStatus
from simulation.file_server import File, Link, Lock

if TYPE_CHECKING:
    from simulation.process import Process


class Mount:
    """What a process sees and does."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._server = process.site.files
        self._machine = process.machine.name
        self._commands = process.site.scheduler

    # --- commands

    def run(self, command: Command) -> Reply:
        return self._process.run_command(command)

    # --- changes

    def _change(
        self, what: str, path: str, act: Callable[[], object], torn: Callable[[], object]
    ) -> None:
        """One change, at which the process may die: before it, in its middle, or after it."""
        process = self._process
        how = process.step(f"{what} {path}")
        if how == "torn":
            torn()
            process.die(f"in the middle of: {what} {path}")
            process.check()
        self._server.may_speak(path)
        try:
            self._server.may_write(path)
        except TransportError:
            torn()
            raise
        act()
        if how == "after":
            process.die(f"after: {what} {path}")
            process.check()

    def root(self, work_dir: str) -> str:
        return f"{work_dir}/{names.ROOT}"

    def make_folder(self, path: str) -> None:
        if self._server.is_folder(path):
            self._process.check()
            return
        self._change("make", path, lambda: self._server.make_folder(self._machine, path), _nothing)

    def check_folder(self, path: str) -> None:
        self._process.check()
        if not self._server.is_folder(path):
            raise TransportError(f"cannot use {path}: No such file or directory")

    def write_atomic(
        self, path: str, data: bytes, *, mode: int = 0o600, durable: bool = False
    ) -> None:
        server, machine = self._server, self._machine
        put = partial(server.put, machine, path, data, synced=durable)
        self._change("write", path, put, _nothing)

    def append(self, path: str, data: bytes, *, durable: bool = False) -> None:
        server, machine = self._server, self._machine
        half = data[: len(data) // 2]
        self._change(
            "append" if data else "touch",
            path,
            lambda: server.append(machine, path, data, synced=durable),
            lambda: server.append(machine, path, half) if half else None,
        )

    def create(self, path: str, data: bytes) -> bool:
        made = False

        def act() -> None:
            nonlocal made
            made = self._server.entry(path) is None
            if made:
                self._server.put(self._machine, path, data)
            else:
                self._server._forget(self._machine, path)

        self._change("create", path, act, _nothing)
        return made

    def link(self, path: str, target: str) -> bool:
        made = False

        def act() -> None:
            nonlocal made
            made = self._server.link(self._machine, path, target)

        self._change(f"link to {target}", path, act, _nothing)
        return made

    def relink(self, path: str, target: str) -> None:
        self._change(
            f"relink to {target}",
            path,
            lambda: self._server.relink(self._machine, path, target),
            _nothing,
        )

    def touch(self, path: str) -> None:
        def act() -> None:
            file = self._server.entry(path)
            if not isinstance(file, File):
                raise TransportError(f"cannot touch {path}: No such file or directory")
            file.modified = file.changed = self._server.time()

        self._change("touch", path, act, _nothing)

    def remove(self, path: str) -> None:
        self._change("remove", path, lambda: self._server.remove(self._machine, path), _nothing)

    @contextlib.contextmanager
    def turn(self, path: str, *, patience: float) -> Generator[bool]:
        process, locks = self._process, self._server.locks
        process.check()
        self._server.may_speak(path)
        self._server.opened_to_write(self._machine, path)
        give_up = process.world.now + patience
        while (holder := locks.get(path)) is not None and not holder.gone:
            if process.world.now >= give_up:
                yield False
                return
            process.pause(0.05)
        mine = locks[path] = Lock(process)
        try:
            yield True
        finally:
            mine.give_back()

    # --- looks

    def _look(self, path: str) -> File | Link | None:
        self._process.check()
        server = self._server
        if server.world.now < server.silent_until:
            server.may_speak(path)
        return server.look(self._machine, path)

    def read(self, path: str, offset: int = 0, size: int = -1) -> bytes | None:
        found = self._look(path)
        if found is None:
            if self._server.is_folder(path):
                raise NotOurs(f"cannot read {path}: it is a folder")
            return None
        if isinstance(found, Link):
            raise NotOurs(f"cannot read {path}: it is a link")
        return found.data[offset : None if size < 0 else offset + size]

    def read_private(self, path: str) -> bytes | None:
        return self.read(path)

    def status(self, path: str) -> FileStatus | None:
        found = self._look(path)
        if isinstance(found, File):
            return FileStatus(len(found.data), found.modified)
        if not self._server.is_folder(path):
            return None
        return FileStatus(0, self._server.folder_modified(self._machine, path))

    def read_link(self, path: str) -> str | None:
        found = self._look(path)
        if found is None:
            return "" if self._server.is_folder(path) else None
        return found.target if isinstance(found, Link) else ""

    def list(self, path: str) -> list[str]:
        self._process.check()
        self._server.may_speak(path)
        return self._server.listed(self._machine, path)

    def stamp(self, path: str, most: int) -> Stamp | None:
        found = self._look(path)
        if isinstance(found, File):
            when = [_nanoseconds(found.modified), _nanoseconds(found.changed)]
            return Stamp(FILE, [], found.inode, len(found.data), *when, found.links)
        return Stamp(FOLDER, [], 1, 0, 0, 0, 1) if self._server.is_folder(path) else None

    def left(self, path: str, since: int, most: int) -> dict[str, Left] | None:
        now = self.left_now(path, "")
        return None if now is None else {"": now._replace(digest=self.digest(path, ""))}

    def left_now(self, path: str, name: str) -> Left | None:
        found = self._look(path)
        if not isinstance(found, File):
            return None
        when = _nanoseconds(found.modified), _nanoseconds(found.changed)
        return Left(len(found.data), *when, found.inode)

    def digest(self, path: str, name: str) -> str:
        found = self._look(path)
        return sha256(found.data).hexdigest() if isinstance(found, File) else ""


def _nothing() -> None: ...


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e6) * 1000
