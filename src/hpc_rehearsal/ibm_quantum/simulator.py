"""The process that simulates: it can be stopped, and its crash does not end the service."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from typing import IO

from hpc_rehearsal.ibm_quantum.simulation import Outcome, Work

_LOOK_SECONDS = 0.05
_CHUNK = 1 << 20


class SimulationFailed(Exception):
    """The simulation ended without a result.

    Attributes:
        details: its traceback, or other text if there is none.
    """

    def __init__(self, reason: str, details: str) -> None:
        super().__init__(reason)
        self.details = details


class SimulationStopped(Exception):
    """It was told to stop before it ended."""


class Simulator:
    """A process that is started when it is first needed, and again after it has died.

    All devices share it: its import of Qiskit takes seconds, and a simulation uses all cores.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._in_use = threading.Lock()

    def run(self, work: Work, stopped: Callable[[], bool]) -> Outcome:
        """Simulate.

        Raises:
            SimulationFailed, SimulationStopped: there is no result.
        """
        while not self._in_use.acquire(timeout=_LOOK_SECONDS):
            if stopped():
                raise SimulationStopped
        try:
            return self._run(work, stopped)
        finally:
            self._in_use.release()

    def _run(self, work: Work, stopped: Callable[[], bool]) -> Outcome:
        process = self._process
        if process is None or process.poll() is not None:
            process = self._process = subprocess.Popen(
                [sys.executable, "-m", "hpc_rehearsal.ibm_quantum.simulation"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it has just died: there will be no answer
            process.stdin.write(json.dumps(asdict(work)).encode() + b"\n")
            process.stdin.flush()
        line = self._line(process.stdout, stopped)
        if not line.endswith(b"\n"):
            reason = f"the simulator's process ended with {process.wait()}"
            raise SimulationFailed(reason, f"{reason}; more memory than there is?")
        answer = json.loads(line)
        if "error" in answer:
            raise SimulationFailed(answer["error"], answer["traceback"])
        return Outcome(**answer)

    def _line(self, stream: IO[bytes], stopped: Callable[[], bool]) -> bytes:
        line = b""
        while not line.endswith(b"\n"):
            readable, _, _ = select.select([stream], [], [], _LOOK_SECONDS)
            if stopped():
                self._stop()
                raise SimulationStopped
            if readable:
                chunk = os.read(stream.fileno(), _CHUNK)
                if not chunk:
                    break
                line += chunk
        return line

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
