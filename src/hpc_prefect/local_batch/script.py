"""The process of a script: forked, prepared, and held until it may run."""

from __future__ import annotations

import fcntl
import os

from .records import element_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
    from typing import NoReturn

    from .records import Record
    from .spool import Spool
else:
    import _signal as signal

_HELD_FROM = 100


class Script:
    """A process that becomes the script of job `n`, or of an element of it, when `go` is called.

    Attributes:
        pid: of the process, the leader of a session of its own.
    """

    def __init__(
        self,
        spool: Spool,
        n: int,
        record: Record,
        *,
        held: int,
        rename: Callable[[str], object],
        index: int | None = None,
    ) -> None:
        self._spool, self._n, self._record, self._index = spool, n, record, index
        self._held, self._rename = held, rename
        self._said: str | None = None
        ready, self._go = os.pipe()
        self._fault, fault = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._go)
            self._become(ready, fault)
        os.close(ready)
        os.close(fault)

    def go(self) -> None:
        """Let the script run. Call it when its process is on record."""
        os.write(self._go, b"g")
        os.close(self._go)

    def drop(self) -> None:
        """Let the process end without running the script."""
        os.close(self._go)
        os.close(self._fault)

    def fault(self) -> str:
        """Why the script could not be run; empty if it was. Call it after its end."""
        if self._said is None:
            self._said = os.read(self._fault, 4096).decode(errors="replace")
            os.close(self._fault)
        return self._said

    def _become(self, ready: int, fault: int) -> NoReturn:
        record, what = self._record, "cannot start"
        try:
            self._rename("hpc-local-job")
            os.setsid()
            if not os.read(ready, 1):  # the supervisor was killed
                os._exit(127)
            what = f"cannot write its output to {record['out']!r}"
            out = self._output(record["out"])
            what = f"cannot write its output to {record['err']!r}"
            err = out if record["err"] == record["out"] else self._output(record["err"])
            os.dup2(out, 1)
            os.dup2(err, 2)
            what = f"cannot enter its folder {record['cwd']!r}"
            os.chdir(record["cwd"])
            what = "cannot run its script"
            # The script keeps the lock too, which shows in every PID namespace that it lives; under
            # a descriptor that no script uses for a file of its own.
            fcntl.fcntl(self._held, fcntl.F_DUPFD, _HELD_FROM)
            for number in range(1, 32):
                if number not in (signal.SIGKILL, signal.SIGSTOP):
                    signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            self._execute()
        except OSError as error:
            os.write(fault, f"{what}: {error.strerror}".encode(errors="backslashreplace"))
        finally:
            os._exit(127)

    def _output(self, path: str) -> int:
        # The elements of an array share their files.
        begin = os.O_TRUNC if self._index is None else 0
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | begin, 0o666)

    def _execute(self) -> None:
        script = self._spool.folder(self._n, "script")
        environment = dict(os.environb)
        job_id = self._record["id"]
        if self._index is not None:
            job_id = element_id(job_id, self._index)
            environment[b"HPC_LOCAL_ARRAY_INDEX"] = str(self._index).encode()
        environment.update(self._spool.marks(job_id))
        environment[b"HPC_LOCAL_RUN"] = b"1"
        environment[b"HPC_LOCAL_QUEUE"] = os.fsencode(self._record["queue"])
        try:
            os.execve(script, [script], environment)
        except OSError:
            # The script names no interpreter, or the spool's file system allows no programs: so an
            # interpreter is started by its path.
            with open(script, "rb") as file:
                line = file.readline(4096)
            words = line[2:].split(None, 1) if line.startswith(b"#!") else []
            words = [word.strip() for word in words] or [b"/bin/sh"]
            try:
                os.execve(words[0], [*words, os.fsencode(script)], environment)
            except OSError as error:
                error.strerror = f"{error.strerror}: {os.fsdecode(words[0])!r}"
                raise
