"""One daemon of a cluster: started, signalled and stopped as the process that it is, by its pid."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PATIENCE_SECONDS = 60.0


class Trouble(Exception):
    """Told to the user as a sentence."""


def wait_for(what: str, condition: Callable[[], bool], log: Path | None = None) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > end:
            raise Trouble(f"Gave up waiting for {what}.{tail(log)}")
        time.sleep(0.05)


def tail(log: Path | None) -> str:
    if log is None or not log.exists():
        return ""
    lines = log.read_text(errors="replace").splitlines()[-15:]
    return f" The last lines of {log}:\n" + "\n".join(f"    {line}" for line in lines)


def name_of(pid: int) -> str:
    """The program's name; empty when there is no such process."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def environment_of(pid: int) -> dict[str, str]:
    """What it was started with; empty for a process that has ended, a zombie too."""
    try:
        pairs = os.fsdecode(Path(f"/proc/{pid}/environ").read_bytes()).split("\0")
    except OSError:
        return {}
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def is_process(pid: int, program: str, conf: Path) -> bool:
    """Whether this pid lives and is this program of the cluster with this configuration."""
    return name_of(pid) == program and environment_of(pid).get("SLURM_CONF") == str(conf)


def send(pid: int, number: signal.Signals, program: str, conf: Path) -> bool:
    """Signal it if it is (still) that program: the handle cannot pass on to another process."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if not is_process(pid, program, conf):
            return False
        signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
    return True


@dataclass(frozen=True)
class Daemon:
    """One daemon of a cluster, known by its pid file.

    Attributes:
        name: of its pid file and its logs.
        argv: how it is started; it goes into the background by itself.
        conf: the cluster's slurm.conf, which is in the environment of each of its processes.
        environment: all that it gets.
    """

    name: str
    argv: tuple[str, ...]
    folder: Path
    conf: Path
    environment: dict[str, str]

    @property
    def program(self) -> str:
        return self.name.partition("-")[0]

    @property
    def log(self) -> Path:
        return self.folder / "log" / f"{self.name}.log"

    def pid(self) -> int | None:
        """Its process, or None when it does not run."""
        try:
            pid = int((self.folder / "run" / f"{self.name}.pid").read_text())
        except (OSError, ValueError):
            return None
        return pid if is_process(pid, self.program, self.conf) else None

    def launch(self) -> None:
        """Start it unless it runs, on files instead of the caller's pipes."""
        if self.pid() is not None:
            return
        with self.log.open("ab") as output:
            code = subprocess.run(
                self.argv,
                env=self.environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            ).returncode
        if code != 0:
            raise Trouble(f"{self.name} did not start (exit code {code}).{tail(self.log)}")

    def await_process(self) -> None:
        wait_for(f"the start of {self.name}", lambda: self.pid() is not None, self.log)

    def send(self, number: signal.Signals) -> None:
        """Signal it; after KILL it is gone when this returns."""
        pid = self.pid()
        if pid is None or not send(pid, number, self.program, self.conf):
            raise Trouble(f"{self.name} of {self.folder} does not run.")
        if number is signal.SIGKILL:
            self._await_end(pid)

    def stop(self) -> None:
        """End it; it removes its pid file before it has ended, so the pid is what counts."""
        pid = self.pid()
        if pid is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            send(pid, number, self.program, self.conf)
            send(pid, signal.SIGCONT, self.program, self.conf)
            with contextlib.suppress(Trouble):
                self._await_end(pid)
                return
        raise Trouble(f"{self.name} (pid {pid}) survived even SIGKILL: see ps.")

    def _await_end(self, pid: int) -> None:
        wait_for(
            f"the end of {self.name}",
            lambda: not is_process(pid, self.program, self.conf),
            self.log,
        )
