"""The process that starts the jobs through the laptop's engine, and records their ends.

Only it does so: commands only change records and wake it. If it was killed, the next command that
changes something starts it again; it finds the running jobs in the engine's spool and continues.
"""

from __future__ import annotations

import io
import os
import select
import signal
import sys
import time

from hpc_prefect.local_batch import commands as verbs
from hpc_prefect.local_batch import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, NoReturn

    from hpc_rehearsal.common.state import State

    Record = dict[str, Any]

#: Seconds between two looks whether a fault was lifted.
FAULT_LOOK_SECONDS = 0.05
_SETTLED_SECONDS = 0.5


class BaseDaemon:
    """The part of the daemon that is the same for every scheduler.

    Attributes:
        QUEUE: the engine's queue in which all jobs run.
        RUNNING: the states of a job that the engine runs.
        BUSY: the states of a job whose next change the daemon waits for.
    """

    QUEUE: str
    RUNNING: frozenset[str]
    BUSY: frozenset[str]

    def __init__(self, server: State, wake: int) -> None:
        self.server, self.wake = server, wake
        self.done: set[int] = set()  # jobs that are over: their records never change again
        self.timers: list[float] = []
        self.read: dict[int, tuple[tuple[int, int], Record]] = {}

    @classmethod
    def live(cls, server: State, wake: int) -> NoReturn:
        """Run in the detached process."""
        try:
            log = os.open(server.path("daemon.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(log, 2)
            os.close(log)
            os.umask(0o022)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            # A job may have started this daemon; its process name shows that it is not part of it.
            process.become_supervisor()
            cls(server, wake).run()
        except FileNotFoundError:
            pass  # the state folder was removed
        finally:
            if sys.exc_info()[0] is not None:
                sys.excepthook(*sys.exc_info())
                sys.stderr.flush()
            os._exit(0)

    def run(self) -> None:
        while True:
            with self.server.lock:
                self.timers = []
                jobs = self.work(self._open())
                busy = [job for job in jobs if job["state"] in self.BUSY]
                if not busy and not self.timers:
                    os.close(self.wake)  # under the lock: the next command finds no reader
                    return
            self._sleep(busy)

    def _sleep(self, busy: list[Record]) -> None:
        """Sleep until something is changed, a job's supervisor ends, or a timer is over."""
        poll = select.poll()
        poll.register(self.wake, select.POLLIN)
        handles = []
        pause = min([1.0, *(max(0.0, timer - time.time()) for timer in self.timers)])
        for job in busy:
            if job["state"] not in self.RUNNING:
                continue
            who = self.server.spool.supervisor(number(job)) or "- 0 0 -"
            try:
                handles.append(os.pidfd_open(int(who.split()[1])))
                poll.register(handles[-1], select.POLLIN)
            except (OSError, AttributeError):  # it has ended, or this Python has no pidfd_open
                pause = min(pause, FAULT_LOOK_SECONDS)
        poll.poll(pause * 1000)
        for handle in handles:
            os.close(handle)
        try:
            while os.read(self.wake, 4096):
                pass
        except BlockingIOError:
            pass
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass

    def _open(self) -> list[Record]:
        """The jobs that are not over."""
        numbers = self.server.numbers()
        jobs = [job for n in numbers if n not in self.done and (job := self._record(n))]
        if self.server.fault("node-fails"):
            for job in jobs:
                if job["state"] in self.RUNNING and job["engine"]:
                    self._fail_node(job)
        return jobs

    def _fail_node(self, job: Record) -> None:
        """Kill the job's supervisor first, so that it cannot record the end, then the job."""
        supervisor = self.server.spool.supervisor(number(job))
        if supervisor and process.alive(supervisor):
            below = process.tree(int(supervisor.split()[1]))
            for who in (supervisor, *below):
                process.send(who, signal.SIGKILL)

    def _record(self, n: int) -> Record | None:
        """A job's record. It is parsed again only if its file was replaced: each change does that.

        A record that was just written is not cached: the next file could have its time and inode.
        """
        try:
            there = os.stat(self.server.file(n, "json"))
        except FileNotFoundError:
            return None
        which = (there.st_ino, there.st_mtime_ns)
        known = self.read.get(n)
        if known and known[0] == which:
            return known[1]
        job = self.server.job(n)
        if job and time.time() - there.st_mtime > _SETTLED_SECONDS:
            self.read[n] = (which, job)
        return job

    def work(self, jobs: list[Record]) -> list[Record]:
        """Do everything that can be done now; returns the jobs that are not over then."""
        raise NotImplementedError

    def left(self, jobs: list[Record]) -> list[Record]:
        over = [job["n"] for job in jobs if job["state"] in self.server.DONE]
        self.done.update(over)
        for n in over:
            self.read.pop(n, None)
        return [job for job in jobs if job["n"] not in self.done]

    def later(self, when: float) -> None:
        self.timers.append(when)

    # The engine

    def start(
        self,
        job: Record,
        script: str,
        environment: Mapping[str, str],
        options: Mapping[str, object],
    ) -> str:
        """Submit the job to the engine; returns the engine's id. The engine gives a job the
        environment of its submitter, so this process's environment is replaced."""
        os.environ.clear()
        os.environ.update(environment)
        given = {"spool": self.server.spool.path, "name": job["id"], "queue": self.QUEUE, **options}
        words = {f"--{name}": str(value) for name, value in given.items()}
        return _said(verbs.submit, words, [script]).strip()

    def in_spool(self, name: str) -> str | None:
        """The engine's id of a job that a killed daemon had started but not recorded."""
        spool = self.server.spool
        if not spool.exists():
            return None
        for n in spool.numbers():
            found = spool.read(n, "job")
            if found and found["name"] == name:
                return str(found["id"])
        return None

    def ended(self, job: Record) -> Record | None:
        """The engine's record of the job's end, even if its supervisor was killed."""
        server, spool, n = self.server, self.server.spool, number(job)
        if not job["session"] and (start := spool.read(n, "start")):
            job["session"] = int(start["process"].split()[1])
            server.save(job)
        end = spool.read(n, "end")
        if end is None and not process.alive(spool.supervisor(n)):
            with spool.lock:
                spool.settle(n, self.QUEUE)
            end = spool.read(n, "end")
        return end

    def cancel(self, job: Record) -> None:
        _said(verbs.cancel, {"--spool": self.server.spool.path}, [job["engine"]])


def number(job: Record) -> int:
    return int(job["engine"].partition(".")[0])


def _said(verb: Any, options: dict[str, str], operands: list[str]) -> str:
    """What one of the engine's commands prints."""
    kept, sys.stdout = sys.stdout, io.StringIO()
    try:
        verb(options, operands)
        return sys.stdout.getvalue()
    finally:
        sys.stdout = kept
