"""Processes of their own in which Prefect is imported already.

An import of Prefect takes two seconds of CPU, most of what a small flow's process costs. These
processes are forked from one that has imported it and nothing of ours (see `imported.py`). Each has
its own pid, memory, environment, streams and end, can be killed like any other, and exits as Python
exits. What is about the start of a process itself starts one with `subprocess`.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT, CompletedProcess, TimeoutExpired
from typing import IO, Any, Self

#: What the processes have imported, by the name of the set: never this package itself, which notes
#: forks and has numbers of its own for each process.
IMPORTS = {
    "prefect": (
        *("prefect", "prefect.flow_engine", "prefect.task_engine", "prefect.task_runners"),
        *("prefect.blocks.system", "prefect.variables", "prefect.utilities.visualization"),
        *("fastapi", "pydantic.v1", "anyio._backends._asyncio"),  # Prefect's clients, when made
    ),
}
IMPORTS["qiskit"] = (*IMPORTS["prefect"], "qiskit_ibm_runtime", "qiskit.qpy", "qiskit.primitives")


class Process:
    """`subprocess.Popen` of Python in text mode: `words` are a file or `-c TEXT`, and arguments."""

    def __init__(
        self,
        words: Sequence[str],
        *,
        stdout: int | IO[Any] | None = None,
        stderr: int | IO[Any] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        start_new_session: bool = False,
        imports: str = "prefect",
    ) -> None:
        self.args = [sys.executable, *words]
        self.returncode: int | None = None
        own, (self.stdout, self.stderr) = _streams(stdout, stderr)
        environment = dict(os.environ if env is None else env)
        server, settings = _imported(imports)
        assert _settings(environment) == settings, "Prefect has read other settings"
        request = {
            "words": [str(word) for word in words],
            "environment": environment,
            "cwd": os.fspath(cwd or os.getcwd()),
            "session": start_new_session,
        }
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(server)
        data = json.dumps(request).encode() + b"\n"
        sent = socket.send_fds(self._socket, [data], own)
        self._socket.sendall(data[sent:])
        for stream in own:
            os.close(stream)
        self._told = self._socket.makefile("r")
        self.pid = int(self._told.readline())

    def poll(self) -> int | None:
        """The exit status, as of `subprocess.Popen`; None while it runs."""
        try:
            return self.wait(0)
        except TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._socket], [], [], timeout)[0]:
                raise TimeoutExpired(self.args, timeout or 0)
            self.returncode = int(self._told.readline())
            self._told.close()
            self._socket.close()
        return self.returncode

    def communicate(self, *, timeout: float | None = None) -> tuple[str, str]:
        """What it wrote, read to the end of both streams, and its end."""
        texts = ["", ""]

        def read(number: int, stream: IO[str]) -> None:
            with stream, suppress(ValueError):  # closed by `__exit__`: it took too long
                texts[number] = stream.read()

        readers = [
            threading.Thread(target=read, args=each, daemon=True)
            for each in enumerate((self.stdout, self.stderr))
            if each[1] is not None and not each[1].closed
        ]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(timeout)
            if reader.is_alive():
                raise TimeoutExpired(self.args, timeout or 0)
        self.wait(timeout)
        return texts[0], texts[1]

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):  # its end is about to be told
                os.kill(self.pid, number)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Its streams are closed and its end is waited for, as of `subprocess.Popen`."""
        for stream in (self.stdout, self.stderr):
            if stream is not None:
                stream.close()
        self.wait()

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


def run(
    words: Sequence[str],
    *,
    timeout: float | None = None,
    capture_output: bool = False,
    stdout: int | IO[Any] | None = None,
    stderr: int | IO[Any] | None = None,
    **more: Any,
) -> CompletedProcess[str]:
    """`subprocess.run` of Python in text mode."""
    if capture_output:
        stdout = stderr = PIPE
    process = Process(words, stdout=stdout, stderr=stderr, **more)
    try:
        said, errors = process.communicate(timeout=timeout)
    finally:
        process.kill()
    assert process.returncode is not None
    return CompletedProcess(process.args, process.returncode, said, errors)


def _streams(
    stdout: int | IO[Any] | None, stderr: int | IO[Any] | None
) -> tuple[list[int], tuple[IO[str] | None, IO[str] | None]]:
    """What the process gets as its stdin, stdout and stderr; what this one reads."""
    own, read = [os.open(os.devnull, os.O_RDONLY)], []
    for number, asked in enumerate((stdout, stderr), 1):
        reader = None
        if asked is None:
            given = os.dup(number)
        elif not isinstance(asked, int):
            given = os.dup(asked.fileno())
        elif asked == STDOUT:
            given = os.dup(own[1])
        elif asked == DEVNULL:
            given = os.open(os.devnull, os.O_WRONLY)
        else:
            assert asked == PIPE, asked
            end, given = os.pipe()
            reader = open(end)  # noqa: SIM115 - it is the caller's
        own.append(given)
        read.append(reader)
    return own, (read[0], read[1])


def _settings(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in environment.items() if name.startswith("PREFECT_")}


@functools.cache
def _imported(imports: str) -> tuple[str, dict[str, str]]:
    """The socket of the process that has these imports, and Prefect's settings there.

    It is started when it is first asked for.
    """
    at = Path(tempfile.mkdtemp(prefix="hpc-prefect-warm-"), "socket")
    server = Path(__file__).with_name("imported.py")
    process = subprocess.Popen(
        [sys.executable, str(server), str(at), *IMPORTS[imports]],
        stdin=PIPE, stdout=PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", "its imports failed"
    atexit.register(_end, process, at)
    return str(at), _settings(os.environ)


def _end(process: subprocess.Popen[str], at: Path) -> None:
    process.communicate()  # it ends with its stdin
    at.unlink()
    at.parent.rmdir()
