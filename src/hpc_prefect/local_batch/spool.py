"""The spool: every job's records, and who may start. All decisions are made under its lock.

The files are:

    lock  last                   the lock; the last job number
    jobs/<n>/script  job.json         what was submitted; job.json appears when the job is queued
             supervisor               the identity of its supervisor
             alive                    locked while its supervisor or its script lives
             start.json  end.json     when it started and as which process; how it ended
             cancel.json              a request to end it
             elements                 for an array: start, end and cancel of its elements
    queues/<queue, hex>/<n>-<cpus>-<slots>-<W|R>     a job that waits or runs: one listing shows who
                                                     is next; an array can have two, one for its
                                                     running elements and one for its next one
"""

from __future__ import annotations

import fcntl
import os
import time

from . import process
from .elements import Elements
from .records import dumps, element_id, ending

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Sequence

    from .records import Record
else:
    import _signal as signal

WAKE = signal.SIGUSR1
KEEP_SECONDS = 7 * 86400
_PRUNE_EVERY_SECONDS = 3600


class UnreadableError(Exception):
    """A record is there but cannot be read."""


class QueueEntry:
    """A job that waits or runs, as its file in the queue's folder is named."""

    __slots__ = ("cpus", "n", "running", "slots")

    def __init__(self, n: int, cpus: int, slots: int, *, running: bool = False) -> None:
        self.n, self.cpus, self.slots, self.running = n, cpus, slots, running

    @property
    def file(self) -> str:
        return f"{self.n}-{self.cpus}-{self.slots}-{'R' if self.running else 'W'}"


class Lock:
    def __init__(self, path: str) -> None:
        self.path = path

    def __enter__(self) -> None:
        self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self.fd, fcntl.LOCK_EX)

    def __exit__(self, *error: object) -> None:
        # Closing is not enough: a script about to start has inherited the open file.
        fcntl.flock(self.fd, fcntl.LOCK_UN)
        os.close(self.fd)


class Spool:
    def __init__(self, path: str) -> None:
        self.path = os.path.realpath(path)
        self._jobs = os.path.join(self.path, "jobs")
        self._queues = os.path.join(self.path, "queues")
        self.lock = Lock(os.path.join(self.path, "lock"))

    def create(self) -> None:
        os.makedirs(self.path, mode=0o700, exist_ok=True)
        for folder in (self._jobs, self._queues):
            if not os.path.isdir(folder):
                os.makedirs(folder, mode=0o700, exist_ok=True)

    def exists(self) -> bool:
        """Whether anything was ever submitted here.

        Raises:
            OSError: that cannot be told.
        """
        try:
            os.listdir(self.path)
            os.listdir(self._jobs)
        except FileNotFoundError:
            return False
        return True

    def folder(self, n: int, *parts: str) -> str:
        return os.path.join(self._jobs, str(n), *parts)

    # Records

    def new(self) -> int:
        """Make the folder of a new job and return its number, which was never used before."""
        counter = os.path.join(self.path, "last")
        with self.lock:
            try:
                with open(counter) as file:
                    n = int(file.read())
            except (FileNotFoundError, ValueError):  # empty after a power cut
                n = max(self.numbers(), default=0)
            while True:
                n += 1
                try:
                    os.mkdir(self.folder(n), 0o700)
                    break
                except FileExistsError:
                    continue
            _replace(counter, f"{n}\n")
        return n

    def numbers(self) -> list[int]:
        return sorted(int(name) for name in os.listdir(self._jobs) if name.isdecimal())

    def write(self, n: int, name: str, record: Record) -> None:
        _replace(self.folder(n, f"{name}.json"), dumps(record))

    def has(self, n: int, name: str) -> bool:
        return _size(self.folder(n, f"{name}.json")) > 0  # a power cut leaves empty files

    def read(self, n: int, name: str, *, having: Sequence[bytes] = (b"",)) -> Record | None:
        """The record; None when there is none, or when its text contains none of `having`."""
        path = self.folder(n, f"{name}.json")
        try:
            with open(path, "rb") as file:
                text = file.read()
        except FileNotFoundError:
            return None
        if not text or not any(part in text for part in having):
            return None
        import json  # late: it takes 12 ms, and a submission does not need it

        try:
            record: Record = json.loads(text)
            record.items()
        except (ValueError, AttributeError) as error:
            raise UnreadableError(f"{path} is not a record: {error}") from None
        return record

    def set_supervisor(self, n: int, who: str) -> None:
        _replace(self.folder(n, "supervisor"), f"{who}\n")

    def supervisor(self, n: int) -> str | None:
        """The identity of the job's supervisor, dead or alive; None if there is none yet."""
        try:
            with open(self.folder(n, "supervisor")) as file:
                return file.read().strip() or None
        except FileNotFoundError:
            return None

    # Queues; the lock is held by the caller in all that follows

    def _queue(self, queue: str) -> str:
        return os.path.join(self._queues, os.fsencode(queue).hex())

    def enqueue(self, n: int, record: Record) -> QueueEntry:
        folder = self._queue(record["queue"])
        if not os.path.isdir(folder):
            os.mkdir(folder, 0o700)
        entry = QueueEntry(n, record["cpus"], record["slots"])
        os.close(os.open(os.path.join(folder, entry.file), os.O_CREAT | os.O_CLOEXEC, 0o600))
        self.write(n, "job", record)  # last: with it the job exists
        return entry

    def entries(self, queue: str) -> list[QueueEntry]:
        return _entries(self._queue(queue))

    def active(self) -> list[int]:
        """The jobs of all queues that wait or run."""
        folders = [os.path.join(self._queues, name) for name in os.listdir(self._queues)]
        return sorted({entry.n for folder in folders for entry in _entries(folder)})

    def may_start(self, queue: str, mine: QueueEntry) -> bool:
        """Whether it is this job's turn: no living job waits before it, and there is room."""
        entries = self.entries(queue)
        for other in entries:
            if other.n < mine.n and not other.running and not self.settle(other.n, queue):
                return False
        running = [entry for entry in entries if entry.running]
        if sum(entry.cpus for entry in running) + mine.cpus > mine.slots:
            running = [entry for entry in running if not self.settle(entry.n, queue)]
        return sum(entry.cpus for entry in running) + mine.cpus <= mine.slots

    def set_running(self, queue: str, entry: QueueEntry) -> None:
        before, folder = entry.file, self._queue(queue)
        entry.running = True
        os.rename(os.path.join(folder, before), os.path.join(folder, entry.file))

    def show(self, queue: str, n: int, *, uses: int, wants: int, slots: int) -> None:
        """Write into the queue how many cpus an array uses, and how many its next element wants."""
        wanted = {QueueEntry(n, uses, slots, running=True).file} if uses else set()
        wanted |= {QueueEntry(n, wants, slots).file} if wants else set()
        there = {entry.file for entry in self.entries(queue) if entry.n == n}
        folder = self._queue(queue)
        for name in wanted - there:
            file = os.path.join(folder, name)
            os.close(os.open(file, os.O_CREAT | os.O_CLOEXEC, 0o600))
        for name in there - wanted:
            os.unlink(os.path.join(folder, name))

    def wake_next(self, queue: str, *, but: int = 0) -> None:
        """Wake the supervisor of the first job that waits, if there is room for the job.

        `but`: the caller's own job, which is not woken.
        """
        entries = self.entries(queue)
        used = sum(entry.cpus for entry in entries if entry.running)
        for entry in entries:
            if entry.running:
                continue
            if used + entry.cpus > entry.slots or entry.n == but:
                return
            if process.send(self.supervisor(entry.n) or "", WAKE):
                return
            self.settle(entry.n, queue)

    def settle(self, n: int, queue: str) -> bool:
        """Whether the job is over. If its supervisor has died, its end is written here."""
        if self.has(n, "end") or not os.path.isdir(self.folder(n)):
            self._leave(n, queue)
            return True
        supervisor = self.supervisor(n)
        if self._lives(n, supervisor):
            return False
        record = self.read(n, "job")
        if record and record.get("array"):
            return self._settle_array(n, record, supervisor)
        start = self.read(n, "start")
        if start and self._lives(n, start["process"]):
            return False
        end = self._lost(n, supervisor, begun=start is not None)
        if start and process.is_of_this_boot(supervisor):
            # Its slots are free for other jobs now, so its remaining processes are ended.
            for who in self._left_by(start["id"], start):
                process.send(who, signal.SIGKILL)
        self.conclude(n, queue, end)
        return True

    def _settle_array(self, n: int, record: Record, supervisor: str | None) -> bool:
        """As `settle`, for an array without a supervisor: its waiting elements never run."""
        elements = self.elements(n, record)
        living, lost = [], []
        for index in elements.running():
            start = elements.start(index) or {"process": "", "started": None}
            if self._lives(n, start["process"]):
                living.append(index)
                continue
            lost.append((index, self._lost(n, supervisor, begun=True, of=elements.cancel(index))))
            if process.is_of_this_boot(supervisor):
                for who in self._left_by(element_id(record["id"], index), start):
                    process.send(who, signal.SIGKILL)
        unbegun = self._lost(n, supervisor, begun=False)
        for index in elements.waiting():
            of = elements.cancel(index)
            end = self._lost(n, supervisor, begun=False, of=of) if of else unbegun
            lost.append((index, end))
        elements.append("E", lost)
        if living:
            uses = len(living) * record["cpus"]
            self.show(record["queue"], n, uses=uses, wants=0, slots=record["slots"])
            return False
        begun = elements.begun() is not None
        self.conclude(n, record["queue"], self._lost(n, supervisor, begun=begun))
        return True

    def _lost(
        self, n: int, supervisor: str | None, *, begun: bool, of: Record | None = None
    ) -> Record:
        """The end of a job or element without a supervisor. `of`: a request to end the element."""
        end = ending("NODE_FAIL", message="its supervisor was killed")
        if not begun:
            end["message"] += " before the job started"
        if _size(self.folder(n, "supervisor.log")):
            end["message"] += "; supervisor.log in the job's folder of the spool says why"
        if cancel := self.read(n, "cancel") or of:
            end.update(end="CANCELLED", by=cancel["by"])
        if not process.is_of_this_boot(supervisor):
            end["message"] = "the machine was restarted while the job was in its queue or running"
        return end

    def hold(self, n: int) -> int:
        """Lock the file `alive` of a job; returns its descriptor.

        The kernel keeps the lock while the descriptor is open in any process.
        """
        held = os.open(self.folder(n, "alive"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(held, fcntl.LOCK_EX)
        return held

    def _lives(self, n: int, who: str | None) -> bool:
        """Whether a process of the job lives. In another PID namespace only its lock shows it."""
        if process.alive(who) or process.dead(who):
            return process.alive(who)
        try:
            held = os.open(self.folder(n, "alive"), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:  # of an older version
            return False
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(held)
        return False

    def elements(self, n: int, record: Record) -> Elements:
        """What is known of the elements of an array."""
        return Elements(self.folder(n, "elements"), record["array"])

    def orphans(self, n: int, record: Record, index: int | None = None) -> list[str]:
        """The remaining processes of a job, array or element that has lost its supervisor."""
        if not record.get("array"):
            return self._left_by(record["id"], self.read(n, "start") or {"process": ""})
        elements = self.elements(n, record)
        which = elements.running() if index is None else [index]
        starts = [(each, elements.start(each) or {"process": ""}) for each in which]
        return [
            who
            for each, start in starts
            for who in self._left_by(element_id(record["id"], each), start)
        ]

    def _left_by(self, job_id: str, start: Record) -> list[str]:
        return process.marked(self.marks(job_id), start["process"])

    def marks(self, job: str) -> dict[bytes, bytes]:
        """The environment variables that mark a process as one of this job in this spool."""
        return {b"HPC_LOCAL_JOBID": job.encode(), b"HPC_LOCAL_SPOOL": os.fsencode(self.path)}

    def conclude(self, n: int, queue: str, end: Record) -> None:
        """Write the job's end, unless it has one: an end is never changed."""
        if not self.has(n, "end"):
            self.write(n, "end", end)
        self._leave(n, queue)

    def _leave(self, n: int, queue: str) -> None:
        for entry in self.entries(queue):
            if entry.n == n:
                os.unlink(os.path.join(self._queue(queue), entry.file))

    # History

    def prune(self) -> None:
        """Remove jobs that ended a week ago; at most once an hour."""
        stamp, now = os.path.join(self.path, "pruned"), time.time()
        if _modified(stamp) > now - _PRUNE_EVERY_SECONDS:
            return
        _replace(stamp, "")
        for n in self.numbers():
            ended = self.has(n, "end") or not self.has(n, "job")  # not "job": it was never queued
            last = max(_modified(self.folder(n)), _modified(self.folder(n, "end.json")))
            if ended and last < now - KEEP_SECONDS:
                self.forget(n)

    def forget(self, n: int) -> None:
        try:
            for name in os.listdir(self.folder(n)):
                os.unlink(self.folder(n, name))
            os.rmdir(self.folder(n))
        except FileNotFoundError:  # another submission removes it as well
            pass


def _entries(folder: str) -> list[QueueEntry]:
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    parts = [name.split("-") for name in names]
    found = [QueueEntry(int(n), int(c), int(s), running=state == "R") for n, c, s, state in parts]
    return sorted(found, key=lambda entry: entry.n)


def _replace(path: str, text: str) -> None:
    temporary = f"{path}.{os.getpid()}.tmp"
    with open(temporary, "w") as file:
        file.write(text)
    os.rename(temporary, path)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _modified(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except FileNotFoundError:
        return 0.0
