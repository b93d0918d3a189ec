"""Runs one command at a rehearsed site: sets up its PATH, and cleans up afterwards."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import signal
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpc_rehearsal.launchers.install import install as install_site

KINDS = ("pbs", "pjm")
_SITE, _COMMANDS, _STATE, _FAULTS = "site", "bin", "state", "faults"
_FAULT_LINE = re.compile(r"^ {4}([a-z][a-z-]+) {2,}\S", re.MULTILINE)
_FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
_NOT_FOUND, _NOT_EXECUTABLE = 127, 126


@dataclass(frozen=True, kw_only=True)
class Session:
    """A rehearsal: the site and its options.

    Attributes:
        kind: the scheduler.
        scheduler: options of its `install`.
        launchers: the site's MPI launchers by their names, with their options.
        login_only: whether `module` is there in login shells only.
        mpi: the laptop's mpiexec; empty when there is none.
        state: where the queue is kept; None: it ends with the command.
        stops: whether all jobs are ended with the command.
    """

    site: str
    kind: str
    scheduler: dict[str, Any] = field(default_factory=dict)
    launchers: dict[str, Any] = field(default_factory=dict)
    modules: tuple[str, ...] = ()
    login_only: bool = False
    mpi: str = ""
    faults: tuple[str, ...] = ()
    state: Path | None = None
    stops: bool = True

    def run(self, command: list[str]) -> int:
        """Run the command with the site's on PATH; its exit status, 128 + N after a signal N.

        Raises:
            ValueError: a fault or an option that is not known, a folder of another site.
        """
        # No signal may end this process before the jobs: `_run` forwards signals to the command.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)
        folder = self.state or Path(tempfile.mkdtemp(prefix="hpc-prefect-rehearse-"))
        folder = folder.absolute()
        try:
            self.install(folder)
            print(f"rehearsal of {self._what()}; state in {folder}", file=sys.stderr, flush=True)
            status = _run(command, folder / _COMMANDS, before) if command else 0
            self._leave(folder)
        finally:
            if self.state is None:
                shutil.rmtree(folder, ignore_errors=True)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return status

    def install(self, folder: Path) -> None:
        """Install the commands, the site's launchers and its `module`, and switch faults on."""
        if unknown := [name for name in self.faults if name not in faults(self.kind)]:
            known = ", ".join(faults(self.kind))
            raise ValueError(f"there is no fault {unknown[0]!r}; there are {known}")
        mark = folder / _SITE
        if mark.exists() and (other := mark.read_text().strip()) != self.site:
            raise ValueError(f"{folder} is the queue of {other}")
        if not mark.exists() and folder.exists() and any(folder.iterdir()):
            raise ValueError(
                f"{folder} is no queue and has other files in it; name an empty folder"
            )
        folder.mkdir(parents=True, exist_ok=True)
        mark.write_text(f"{self.site}\n")
        to_jobs = install_site(
            folder, self.launchers, self.modules, login_only=self.login_only, mpi=self.mpi
        )
        try:
            _scheduler(self.kind).install(
                folder / _COMMANDS, folder / _STATE, **{**self.scheduler, **to_jobs}
            )
        except TypeError as error:
            raise ValueError(str(error)) from error
        there = folder / _STATE / _FAULTS
        for old in there.iterdir():
            old.unlink()
        for name in self.faults:
            (there / name).touch()

    def _what(self) -> str:
        commands = self.scheduler.get("commands") or [self.kind.upper()]
        names = " ".join([*commands, *self.launchers])
        wrong = f"; wrong: {' '.join(self.faults)}" if self.faults else ""
        return f"{self.site}, with {names}; jobs are processes of this machine{wrong}"

    def _leave(self, folder: Path) -> None:
        left = len(_alive(self.kind, folder / _STATE))
        if self.stops:
            try:
                _scheduler(self.kind).stop(folder / _STATE)
            except TimeoutError as error:
                _say(str(error))
            if left:
                _say(f"jobs that were still there, and were deleted: {left}")
        elif left:
            again = f"hpc-prefect rehearse {self.site} --state {folder}"
            _say(f"jobs that wait or run on: {left}; meet them with `{again} -- …`, end them with"
                 f" `{again} --stop`")  # fmt: skip


def _say(text: str) -> None:
    print(f"rehearsal: {text}", file=sys.stderr, flush=True)


def faults(kind: str) -> list[str]:
    """The names of all faults, read from the packages' docstrings, which explain each."""
    texts = [
        importlib.import_module(name).__doc__ or ""
        for name in ("hpc_rehearsal", f"hpc_rehearsal.{kind}")
    ]
    return [name for text in texts for name in _FAULT_LINE.findall(_after_faults(text))]


def _after_faults(text: str) -> str:
    return text.partition("a fault is in force")[2] or text.partition("A fault is in force")[2]


def _scheduler(kind: str) -> Any:
    return importlib.import_module(f"hpc_rehearsal.{kind}.install")


def _alive(kind: str, state: Path) -> list[str]:
    server = _scheduler(kind).Server(str(state))
    with server.lock:
        return [str(job["id"]) for job in server.alive()]


def _run(command: list[str], commands: Path, mask: set[int]) -> int:
    """In the foreground, with the terminal; signals that only this process gets are forwarded.

    `mask`: the signals that the command is to have blocked.
    """
    path = f"{commands}:{os.environ.get('PATH', os.defpath)}"
    program = shutil.which(command[0], path=path)
    if program is None:
        there = os.path.exists(command[0])
        why = "cannot be executed" if there else "was not found"
        _say(f"{command[0]!r} {why}")
        return _NOT_EXECUTABLE if there else _NOT_FOUND
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    try:
        pid = os.posix_spawn(
            program,
            command,
            {**os.environ, "PATH": path},
            setsigmask=mask,
            setsigdef=[signal.SIGPIPE],
        )
        return _await(pid)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})


def _await(pid: int) -> int:
    waited = {*_FORWARDED, signal.SIGCHLD}
    from_terminal = 0x80  # SI_KERNEL, see sigaction(2): the command has had it too
    while True:
        got = signal.sigwaitinfo(waited)
        if got.si_signo == signal.SIGCHLD:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
        elif got.si_code != from_terminal:
            os.kill(pid, got.si_signo)


def read_options(settings: list[str]) -> dict[str, Any]:
    """Of NAME=VALUE, where VALUE is as in TOML.

    Raises:
        ValueError: one is not.
    """
    import tomllib

    found: dict[str, Any] = {}
    for each in settings:
        try:
            found |= tomllib.loads(each)
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"{each!r} is no NAME=VALUE as in TOML: {error}") from error
    return found
