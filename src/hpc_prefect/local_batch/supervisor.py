"""One job's supervisor: waits for a slot, starts the script, enforces the limits, records the end.

It sleeps in sigtimedwait and is woken by events: a child that ended, a free slot or a `cancel`
(both SIGUSR1), the next limit. A look every two seconds at the queue covers for a supervisor that
was killed before it could wake the next.
"""

from __future__ import annotations

import fcntl
import os
import time

from . import process
from .spool import WAKE, ending

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from typing import NoReturn

    from .spool import QueueEntry, Record, Spool
else:
    import _signal as signal

_QUEUE_LOOK_SECONDS = 2.0
#: A cancel from another PID namespace cannot wake the supervisor.
_CANCEL_LOOK_SECONDS = 2.0
_HELD_FROM = 100
_MEMORY_LOOK_SECONDS = 0.25
_STOP = signal.SIGTERM
_EVENTS = (signal.SIGCHLD, WAKE, _STOP)
# A detached job has no terminal and nobody who would press a key.
_HELD = (*_EVENTS, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR2, signal.SIGALRM)


def hold_signals() -> None:
    """From now on signals wait until `_wait` takes them. Before anybody can know the pid."""
    signal.pthread_sigmask(signal.SIG_SETMASK, _HELD)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # inherited as ignored it would hide the end


def _wait(seconds: float | None) -> int:
    """The next event's signal, or 0 when the time is over."""
    if seconds is None:
        return signal.sigwaitinfo(_EVENTS).si_signo
    got = signal.sigtimedwait(_EVENTS, max(0.0, seconds))
    return got.si_signo if got else 0


class Supervisor:
    def __init__(self, spool: Spool, n: int, record: Record) -> None:
        self.spool, self.n, self.record = spool, n, record
        self.queue: str = record["queue"]
        self.end: Record | None = None  # why the job is to end or has ended, once that is known
        self.child = 0
        self.status: int | None = None  # as wait4 gives it, once the script is over
        self.over = 0.0  # when that was
        self.max_rss = 0
        self.cpu_seconds = 0.0
        self.peak = 0  # of the whole tree, as far as it was looked at
        self._stopped = False

    def enter(self) -> None:
        """Take the place in the queue."""
        hold_signals()
        self.rename = process.become_supervisor()
        self.me = process.identity(os.getpid()) or ""
        self.held = self.spool.hold(self.n)
        self.spool.set_supervisor(self.n, self.me)
        with self.spool.lock:
            self.entry: QueueEntry = self.spool.enqueue(self.n, self.record)

    def run(self) -> None:
        """Everything from the place in the queue to the end record."""
        while not self._start():
            if _wait(_QUEUE_LOOK_SECONDS) == _STOP:
                self._stopped = True
        if self.child:
            self._watch()
            self._stop()
        self._conclude()

    def _mine(self) -> bool:
        """False when the spool was removed, and perhaps made again with another job of this number,
        or when the job has been given up."""
        return self.spool.supervisor(self.n) == self.me and not self.spool.has(self.n, "end")

    # Starting

    def _start(self) -> bool:
        """Start the script if it is its turn. True when there is nothing left to wait for."""
        with self.spool.lock:
            self._asked_to_end()
            if self.end is not None or not self._mine():
                return True
            if not self.spool.may_start(self.queue, self.entry):
                return False
            go = self._fork()
            start = {"id": self.record["id"], "process": process.identity(self.child)}
            self.spool.write(self.n, "start", {**start, "started": time.time()})
            self.spool.set_running(self.queue, self.entry)
            self.spool.wake_next(self.queue)
        # Only now may it run: whoever sees the job started knows its process.
        os.write(go, b"g")
        os.close(go)
        # This clock stands still while the laptop sleeps, as the job does.
        self.started = time.monotonic()
        return True

    def _fork(self) -> int:
        """Fork the script's process, which waits for a byte on the pipe that is returned."""
        ready, go = os.pipe()
        self.fault, fault = os.pipe()
        self.child = os.fork()
        if self.child == 0:
            os.close(go)
            self._become_script(ready, fault)
        os.close(ready)
        os.close(fault)
        return go

    def _become_script(self, ready: int, fault: int) -> NoReturn:
        record, what = self.record, "cannot start"
        try:
            self.rename("hpc-local-job")
            os.setsid()
            if not os.read(ready, 1):  # the supervisor was killed
                os._exit(127)
            what = f"cannot write its output to {record['out']!r}"
            out = os.open(record["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o666)
            what = f"cannot write its output to {record['err']!r}"
            err = out
            if record["err"] != record["out"]:
                flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
                err = os.open(record["err"], flags, 0o666)
            os.dup2(out, 1)
            os.dup2(err, 2)
            what = f"cannot enter its folder {record['cwd']!r}"
            os.chdir(record["cwd"])
            what = "cannot run its script"
            # The script keeps the lock too, so that it is known to live, wherever one looks from;
            # under a number that no script uses for a file of its own.
            fcntl.fcntl(self.held, fcntl.F_DUPFD, _HELD_FROM)
            for number in range(1, 32):
                if number not in (signal.SIGKILL, signal.SIGSTOP):
                    signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            self._execute()
        except OSError as error:
            os.write(fault, f"{what}: {error.strerror}".encode(errors="backslashreplace"))
        finally:
            os._exit(127)

    def _execute(self) -> None:
        script = self.spool.folder(self.n, "script")
        environment = dict(os.environb)
        environment.update(self.spool.marks(self.record["id"]))
        environment[b"HPC_LOCAL_RUN"] = b"1"
        environment[b"HPC_LOCAL_QUEUE"] = os.fsencode(self.queue)
        try:
            os.execve(script, [script], environment)
        except OSError:
            # No interpreter named, or the spool's file system allows no programs: say which to run.
            with open(script, "rb") as file:
                line = file.readline(4096)
            words = line[2:].split(None, 1) if line.startswith(b"#!") else []
            words = [word.strip() for word in words] or [b"/bin/sh"]
            try:
                os.execve(words[0], [*words, os.fsencode(script)], environment)
            except OSError as error:
                error.strerror = f"{error.strerror}: {os.fsdecode(words[0])!r}"
                raise

    # Running

    def _watch(self) -> None:
        """Until the script is over or something says that it has to end."""
        walltime, limit = self.record["walltime"], self.record["memory"]
        deadline = None if walltime is None else self.started + walltime
        while True:
            self._reap()
            if self.status is not None:
                return
            self._asked_to_end()
            if self.end is None and deadline is not None and time.monotonic() >= deadline:
                self.end = ending("TIMEOUT", message=f"over its walltime of {walltime:g} s")
            if self.end is None and limit is not None:
                self._check_memory(limit)
            if self.end is not None:
                return
            pause = _CANCEL_LOOK_SECONDS if limit is None else _MEMORY_LOOK_SECONDS
            if deadline is not None:
                pause = min(pause, deadline - time.monotonic())
            if _wait(pause) == _STOP:
                self._stopped = True

    def _asked_to_end(self) -> None:
        if self.end is not None:
            return
        if self.spool.has(self.n, "cancel"):
            cancel = self.spool.read(self.n, "cancel") or {}
            self.end = ending("CANCELLED", by=cancel.get("by"))
        elif self._stopped:
            # Most likely the machine goes down: nobody asked for this job's end by its id.
            self.end = ending("NODE_FAIL", message="its supervisor was told to stop (SIGTERM)")

    def _check_memory(self, limit: int) -> None:
        used = process.memory(os.getpid(), limit)
        self.peak = max(self.peak, used)
        if used > limit:
            self.end = ending("OUT_OF_MEMORY", message=f"used {used} of {limit} bytes of memory")

    def _reap(self) -> bool:
        """Collect what has ended. False when there is no process left below this one."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            self.max_rss = max(self.max_rss, usage.ru_maxrss * 1024)
            self.cpu_seconds += usage.ru_utime + usage.ru_stime
            if pid == self.child:
                self.status, self.over = status, time.time()

    def _stop(self) -> None:
        """End what is left of the tree: SIGTERM, then after the grace SIGKILL until it is gone."""
        if not self._reap():
            return
        for who in process.tree(os.getpid()):
            process.send(who, signal.SIGTERM)
        kill, pause = time.monotonic() + self.record["kill_grace"], 0.02
        while self._reap():
            left = process.tree(os.getpid())
            if not left:  # the supervisors of jobs that this job has submitted live on
                self._reap()
                return
            remaining = kill - time.monotonic()
            if remaining <= 0:
                reached = [who for who in left if process.send(who, signal.SIGKILL)]
                if not reached:  # set-uid programs: not ours to end
                    return
                remaining, pause = pause, min(1.0, pause * 2)
            _wait(remaining)

    # Ending

    def _conclude(self) -> None:
        while True:
            try:
                with self.spool.lock:
                    if self._mine():
                        self.spool.conclude(self.n, self.queue, self._ending())
                        self.spool.wake_next(self.queue)
                return
            except FileNotFoundError:  # the spool was removed
                return
            except OSError:  # a full disk must not cost the verdict
                time.sleep(1)

    def _ending(self) -> Record:
        # Whoever was told "cancelled" finds it cancelled, even if it ended by itself meanwhile.
        self._asked_to_end()
        end = self.end or ending("EXITED")
        if self.status is None:
            return end
        end["ended"] = self.over
        end["max_rss"] = max(self.max_rss, self.peak)
        end["cpu_seconds"] = self.cpu_seconds
        fault = os.read(self.fault, 4096).decode(errors="replace")
        if fault and self.end is None:
            return {**end, "end": "LAUNCH_FAILED", "message": fault}
        if os.WIFSIGNALED(self.status):
            end["signal"] = process.signal_name(os.WTERMSIG(self.status))
            if self.end is None:
                end["end"] = "SIGNALED"
        else:
            end["exit_code"] = os.WEXITSTATUS(self.status)
        return end


def stop_orphans(spool: Spool, n: int, record: Record) -> None:
    """Do what `cancel` asks for in the place of a supervisor that is dead."""
    hold_signals()
    process.become_supervisor()
    start = spool.read(n, "start") or {"id": record["id"], "process": ""}
    for number, seconds in ((signal.SIGTERM, record["kill_grace"]), (signal.SIGKILL, 60.0)):
        until = time.monotonic() + seconds
        for who in spool.orphans(n, start):
            process.send(who, number)
        while (left := spool.orphans(n, start)) and time.monotonic() < until:
            # They are not children of this process, so nothing tells that they have ended.
            _wait(0.05)
            if number == signal.SIGKILL:
                for who in left:
                    process.send(who, number)
    with spool.lock:
        spool.settle(n, record["queue"])
        spool.wake_next(record["queue"])
