"""Starting and stopping the service's process."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

from hpc_rehearsal.ibm_quantum import settings as _settings
from hpc_rehearsal.ibm_quantum.environment import api_url, environment
from hpc_rehearsal.ibm_quantum.settings import Settings

_LOOK_SECONDS = 0.02
_READY, _LOG = "ready.json", "service.log"


class NotStarted(Exception):
    """The service did not come up."""


@dataclass
class RunningService:
    """A service that listens.

    Attributes:
        environment: the variables that a client needs.
    """

    state: Path
    settings: Settings
    port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return api_url(self.port)

    @property
    def environment(self) -> dict[str, str]:
        return environment(self.settings, self.port)

    def stop(self) -> None:
        """End it; its jobs stay on disk."""
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Kill it, as a crash would."""
        self.process.kill()
        self.process.wait()

    def restarted(self) -> RunningService:
        """The same service again, on the same port, with the jobs it has kept."""
        return start(self.state, replace(self.settings, port=self.port))


def start(state: Path, settings: Settings, *, timeout_seconds: float = 120) -> RunningService:
    """Start a service in this state folder; it ends with the calling process.

    Raises:
        NotStarted: it ended or did not listen in time, or another service uses the folder.
    """
    state = state.resolve()
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = _lock(state)
    try:
        _settings.write(state, settings)
        (state / _READY).unlink(missing_ok=True)
        process = _process(state, lock)
    finally:
        os.close(lock)  # the service has its own
    until = time.monotonic() + timeout_seconds
    while not (state / _READY).exists():
        if process.poll() is not None or time.monotonic() > until:
            process.kill()
            process.wait()
            tail = (state / _LOG).read_text(errors="replace")[-2000:]
            raise NotStarted(f"the service did not start (see {state / _LOG}):\n{tail}")
        time.sleep(_LOOK_SECONDS)
    port = int(json.loads((state / _READY).read_text())["port"])
    return RunningService(state, settings, port, process)


def _lock(state: Path) -> int:
    """Take the folder's lock. The service inherits it, and holds it as long as it lives."""
    lock = os.open(state / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise NotStarted(f"another service works on {state}") from None
    return lock


def _process(state: Path, lock: int) -> subprocess.Popen[bytes]:
    with (state / _LOG).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "hpc_rehearsal.ibm_quantum.server", str(state)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(lock,),
            process_group=0,  # Ctrl-C is for the command: the service ends after it
        )
