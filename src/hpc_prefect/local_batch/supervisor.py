"""Supervisors: each waits for a slot, starts the script, enforces the limits, records the end.

It sleeps in sigtimedwait and is woken by events: a child that ended, a free slot or a `cancel`
(both SIGUSR1), the next limit. It also looks at the queue every two seconds, because the supervisor
that should wake it may have been killed.
"""

from __future__ import annotations

import os
import time

from . import process
from .records import ending
from .script import Script
from .spool import WAKE

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal

    from .records import Record
    from .spool import QueueEntry, Spool
else:
    import _signal as signal

QUEUE_LOOK_SECONDS = 2.0
#: A cancel from another PID namespace cannot wake the supervisor.
CANCEL_LOOK_SECONDS = 2.0
MEMORY_LOOK_SECONDS = 0.25
STOP = signal.SIGTERM
_EVENTS = (signal.SIGCHLD, WAKE, STOP)
# A detached job has no terminal and nobody who would press a key.
_HELD = (*_EVENTS, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR2, signal.SIGALRM)


def hold_signals() -> None:
    """Block signals: from now on `wait` takes them. Call it before anybody can know the pid."""
    signal.pthread_sigmask(signal.SIG_SETMASK, _HELD)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # if inherited as ignored, it never comes


def wait(seconds: float | None) -> int:
    """The next event's signal, or 0 after `seconds`."""
    if seconds is None:
        return signal.sigwaitinfo(_EVENTS).si_signo
    got = signal.sigtimedwait(_EVENTS, max(0.0, seconds))
    return got.si_signo if got else 0


class Supervisor:
    """The part that the supervisors of jobs and of arrays share."""

    def __init__(self, spool: Spool, n: int, record: Record) -> None:
        self.spool, self.n, self.record = spool, n, record
        self.queue: str = record["queue"]
        self.end: Record | None = None  # why it has to end or has ended, once that is known
        self.stopped = False  # by SIGTERM

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
        """The job's life, from its place in the queue to the end record."""
        raise NotImplementedError

    def mine(self) -> bool:
        """Whether the job is still this supervisor's. It is not if the spool was removed (and
        perhaps made again, with another job of this number), or if the job was given up."""
        return self.spool.supervisor(self.n) == self.me and not self.spool.has(self.n, "end")

    def asked_to_end(self) -> None:
        """Notice a request to end it as a whole."""
        if self.end is not None:
            return
        if self.spool.has(self.n, "cancel"):
            cancel = self.spool.read(self.n, "cancel") or {}
            self.end = ending("CANCELLED", by=cancel.get("by"))
        elif self.stopped:
            # Most likely the machine shuts down: nobody has cancelled this job by its id.
            self.end = ending("NODE_FAIL", message="its supervisor received SIGTERM")

    def reap(self) -> bool:
        """Collect processes that have ended. Returns False when none is left below this one."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            cpu_seconds = usage.ru_utime + usage.ru_stime
            self.collected(pid, status, usage.ru_maxrss * 1024, cpu_seconds)

    def collected(self, pid: int, status: int, max_rss: int, cpu_seconds: float) -> None:
        """A process has ended."""
        raise NotImplementedError

    def end_tree(self) -> None:
        """End the remaining processes: SIGTERM, then after the grace SIGKILL until all are gone."""
        if not self.reap():
            return
        for who in process.tree(os.getpid()):
            process.send(who, signal.SIGTERM)
        kill, pause = time.monotonic() + self.record["kill_grace"], 0.02
        while self.reap():
            left = process.tree(os.getpid())
            if not left:  # only supervisors of jobs that this job has submitted: they live on
                self.reap()
                return
            remaining = kill - time.monotonic()
            if remaining <= 0:
                reached = [who for who in left if process.send(who, signal.SIGKILL)]
                if not reached:  # set-uid programs: not ours to end
                    return
                remaining, pause = pause, min(1.0, pause * 2)
            wait(remaining)

    def conclude(self) -> None:
        """Write how it ended."""
        while True:
            try:
                with self.spool.lock:
                    if self.mine():
                        self.spool.conclude(self.n, self.queue, self.ending())
                        self.spool.wake_next(self.queue)
                return
            except FileNotFoundError:  # the spool was removed
                return
            except OSError:  # a full disk must not cost the verdict
                time.sleep(1)

    def ending(self) -> Record:
        """How it ended; called under the lock."""
        raise NotImplementedError


class JobSupervisor(Supervisor):
    """The supervisor of one job."""

    def __init__(self, spool: Spool, n: int, record: Record) -> None:
        super().__init__(spool, n, record)
        self.script: Script | None = None
        self.status: int | None = None  # as wait4 gives it, once the script is over
        self.over = 0.0  # when that was
        self.max_rss = 0
        self.cpu_seconds = 0.0
        self.peak = 0  # memory of the whole tree, by samples

    def run(self) -> None:
        while not self._start():
            if wait(QUEUE_LOOK_SECONDS) == STOP:
                self.stopped = True
        if self.script:
            self._watch()
            self.end_tree()
        self.conclude()

    # Starting

    def _start(self) -> bool:
        """Start the script if it is its turn. Returns False if it has to wait."""
        with self.spool.lock:
            self.asked_to_end()
            if self.end is not None or not self.mine():
                return True
            if not self.spool.may_start(self.queue, self.entry):
                return False
            script = self.script = Script(
                self.spool, self.n, self.record, held=self.held, rename=self.rename
            )
            start = {"id": self.record["id"], "process": process.identity(script.pid)}
            self.spool.write(self.n, "start", {**start, "started": time.time()})
            self.spool.set_running(self.queue, self.entry)
            self.spool.wake_next(self.queue)
        # Only now may it run: its process is on record.
        script.go()
        # The monotonic clock stops while the laptop sleeps, as the job does.
        self.started = time.monotonic()
        return True

    # Running

    def _watch(self) -> None:
        """Wait until the script is over or has to end."""
        walltime, limit = self.record["walltime"], self.record["memory"]
        deadline = None if walltime is None else self.started + walltime
        while True:
            self.reap()
            if self.status is not None:
                return
            self.asked_to_end()
            if self.end is None and deadline is not None and time.monotonic() >= deadline:
                self.end = ending("TIMEOUT", message=f"over its walltime of {walltime:g} s")
            if self.end is None and limit is not None:
                self._check_memory(limit)
            if self.end is not None:
                return
            pause = CANCEL_LOOK_SECONDS if limit is None else MEMORY_LOOK_SECONDS
            if deadline is not None:
                pause = min(pause, deadline - time.monotonic())
            if wait(pause) == STOP:
                self.stopped = True

    def _check_memory(self, limit: int) -> None:
        used = process.memory(os.getpid(), limit)
        self.peak = max(self.peak, used)
        if used > limit:
            self.end = ending("OUT_OF_MEMORY", message=f"used {used} of {limit} bytes of memory")

    def collected(self, pid: int, status: int, max_rss: int, cpu_seconds: float) -> None:
        self.max_rss = max(self.max_rss, max_rss)
        self.cpu_seconds += cpu_seconds
        if self.script and pid == self.script.pid:
            self.status, self.over = status, time.time()

    # Ending

    def ending(self) -> Record:
        # If `cancel` has said "cancelled", it ends as cancelled, even if it ended by itself since.
        self.asked_to_end()
        end = self.end or ending("EXITED")
        if self.status is None or self.script is None:
            return end
        end["max_rss"] = max(self.max_rss, self.peak)
        end["cpu_seconds"] = self.cpu_seconds
        fault = self.script.fault()
        return with_status(end, self.status, self.over, fault, forced=self.end is not None)


def with_status(end: Record, status: int, over: float, fault: str, *, forced: bool) -> Record:
    """How a script ended.

    Args:
        end: the record to complete.
        status: as wait4 gives it.
        over: when it ended.
        fault: why it could not be run; empty if it was.
        forced: it had to end; `end` already tells why.
    """
    end["ended"] = over
    if fault and not forced:
        return {**end, "end": "LAUNCH_FAILED", "message": fault}
    if os.WIFSIGNALED(status):
        end["signal"] = process.signal_name(os.WTERMSIG(status))
        if not forced:
            end["end"] = "SIGNALED"
    else:
        end["exit_code"] = os.WEXITSTATUS(status)
    return end


def stop_orphans(spool: Spool, n: int, record: Record, index: int | None = None) -> None:
    """End the processes of a cancelled job, in place of its dead supervisor.

    `index`: end only this element of an array.
    """
    hold_signals()
    process.become_supervisor()
    for number, seconds in ((signal.SIGTERM, record["kill_grace"]), (signal.SIGKILL, 60.0)):
        until = time.monotonic() + seconds
        for who in spool.orphans(n, record, index):
            process.send(who, number)
        while (left := spool.orphans(n, record, index)) and time.monotonic() < until:
            # They are not children of this process, so nothing tells that they have ended.
            wait(0.05)
            if number == signal.SIGKILL:
                for who in left:
                    process.send(who, number)
    with spool.lock:
        spool.settle(n, record["queue"])
        spool.wake_next(record["queue"])
