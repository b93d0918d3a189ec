"""What the shell texts of `spool.py` do, step by step, when a process runs one of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hpc_prefect.job.dialogue import Command, Reply
from hpc_prefect.schedulers.allocation import spool as spools
from simulation.file_server import FileServer, Link
from simulation.shell import Shell

_SUBMIT, _CANCEL, _LOOK, _RING_AGAIN, _END = (
    command.argv[2]
    for command in (
        spools.ask_to_submit("", "", ()),
        spools.ask_to_cancel("", ()),
        spools.ask_to_look("", ()),
        spools.ask_to_ring_again("", ()),
        spools.ask_to_end("", ""),
    )
)
_OK, _FAILS, _NO_SPOOL, _NOT_WRITTEN = (Reply(0), Reply(1), Reply(3), Reply(5))


class SpoolCommands:
    """The texts, on a machine; `pause` lets time pass between two of their commands."""

    def __init__(self, files: FileServer, machine: str, pause: Callable[[], None]) -> None:
        self._files = files
        self._shell = Shell(files, machine)
        self._pause = pause
        self._number = files.world.steps

    @staticmethod
    def knows(command: Command) -> bool:
        """Whether it is one of these texts."""
        return command.argv[0] == "/bin/sh"

    def run(self, command: Command) -> Reply:
        """What it prints, and its status."""
        text, spool, rest = command.argv[2], command.argv[4], command.argv[5:]
        if not self._files.is_folder(spool):
            return _NO_SPOOL
        if text == _SUBMIT:
            return self._submit(spool, rest[0], rest[1:])
        act = {
            _CANCEL: self._cancel,
            _LOOK: self._look,
            _RING_AGAIN: self._ring_again,
            _END: self._end,
        }[text]
        return act(spool, rest)

    def _submit(self, spool: str, tag: str, fields: Sequence[str]) -> Reply:
        shell, new, job = self._shell, f"{spool}/jobs/.{tag}.{self._number}", f"{spool}/jobs/{tag}"
        if not shell.write(new, "".join(f"{each}\0" for each in fields).encode()):
            return _NOT_WRITTEN
        self._pause()
        shell.hard_link(new, job)
        self._pause()
        shell.remove(new)
        if shell.read(job) is None or not shell.write(f"{spool}/inbox/{tag}"):
            return _NOT_WRITTEN
        self._pause()
        return _OK if self._ring(spool, tag) else _NOT_WRITTEN

    def _cancel(self, spool: str, tags: Sequence[str]) -> Reply:
        shell = self._shell
        for tag in tags:
            shell.link(f"{spool}/turns/{tag}", "cancelled")
            self._pause()
            is_link = bool(shell.read_link(f"{spool}/turns/{tag}"))
            if not (is_link and shell.write(f"{spool}/inbox/cancel.{tag}")):
                return _FAILS
        self._pause()
        return _OK if self._ring(spool, "cancel") else _FAILS

    def _look(self, spool: str, tags: Sequence[str]) -> Reply:
        shell, mine = self._shell, f"{spool}/.look.{self._number}"
        if not shell.write(mine) or (now := shell.modified(mine)) is None:
            return _FAILS
        shell.remove(mine)
        self._pause()
        lines = [f"now {now}"]
        if (beat := shell.read(f"{spool}/{spools.HEARTBEAT}")) is not None:
            lines.append(f"beat {shell.modified(f'{spool}/{spools.HEARTBEAT}')} {beat.decode()}")
        if (renewed := shell.modified(f"{spool}/{spools.RENEWED}")) is not None:
            lines.append(f"renewed {renewed}")
        if agent := shell.read_link(f"{spool}/agent"):
            lines.append(f"agent {agent}")
        for name in (spools.JOB, spools.GONE):
            if (data := shell.read(f"{spool}/{name}")) is not None:
                lines.append(f"{name} {data.decode()}")
        self._pause()
        lines += [f"there {tag}" for tag in tags if shell.read(f"{spool}/jobs/{tag}") is not None]
        for name in shell.names(f"{spool}/turns"):
            entry = self._files.entry(f"{spool}/turns/{name}")
            if isinstance(entry, Link) and entry.target == "cancelled":
                lines.append(f"cancelled {name}")
        self._pause()
        log = (shell.read(f"{spool}/{spools.LOG}") or b"").decode().split("\n")
        lines += [line for line in log if line.startswith("X")]
        lines += [line for line in log if any(f" {tag} " in line for tag in tags)]
        return Reply(0, "".join(f"{line}\n" for line in lines))

    def _ring_again(self, spool: str, tags: Sequence[str]) -> Reply:
        shell = self._shell
        for tag in tags:
            is_there = shell.read(f"{spool}/jobs/{tag}") is not None
            if is_there and not shell.write(f"{spool}/inbox/{tag}"):
                return _FAILS
        self._pause()
        return _OK if self._ring(spool, "again") else _FAILS

    def _end(self, spool: str, words: Sequence[str]) -> Reply:
        if not self._shell.write(f"{spool}/inbox/{words[0]}"):
            return _FAILS
        self._pause()
        return _OK if self._ring(spool, words[0]) else _FAILS

    def _ring(self, spool: str, word: str) -> bool:
        return self._shell.write(f"{spool}/{spools.BELL}", f"{word} {self._number}\n".encode())
