"""What the agent of a held allocation does, step by step, in its own order.

It is bash (`agent.sh`), so this is a model of it; `test_agent.py` runs the real one beside it.
"""

from __future__ import annotations

import re
import shlex
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, fields
from functools import partial
from typing import Protocol

from simulation.file_server import FileServer
from simulation.shell import Shell
from simulation.world import World

#: Seconds in which a failed job's end is kept back: the whole allocation may be ending.
_HELD_BACK = 1.0
#: One that has waited for so long is not overtaken any more.
_LONG_WAIT = 60.0
_LINE = re.compile(r"^'/bin/bash' ('\S*/agent\.sh' .*)$", re.M)


@dataclass(frozen=True, slots=True)
class Given:
    """The agent's arguments, in their order; seconds."""

    node_count: int
    node_cores: int
    node_memory: int
    node_gpus: int
    walltime: int
    margin: int
    idle_timeout: int
    orphan_timeout: int
    grace: int


def read_arguments(program: str) -> tuple[str, Given] | None:
    """The spool and the rest of an agent's arguments, of the text of `program.sh`; None where that
    starts no agent."""
    line = _LINE.search(program)
    if line is None:
        return None
    _, spool, _, *numbers = shlex.split(line[1])
    return spool, Given(*map(int, numbers[: len(fields(Given))]))


@dataclass(frozen=True, slots=True)
class Asked:
    """A file in `jobs/`."""

    nodes: int
    cores: int
    memory: int
    gpus: int
    walltime: int
    how: str
    ranks: int
    script: str
    out: str
    err: str
    work_dir: str

    @classmethod
    def read(cls, data: bytes | None) -> Asked | None:
        """None where not all is there."""
        words = (data or b"").decode().split("\0")
        if len(words) != 13 or words[0] != "1":
            return None
        numbers = map(int, words[1:6])
        return cls(*numbers, words[6], int(words[7]), *words[8:12])


class Child(Protocol):
    """A job that the agent has started."""

    def terminate(self) -> None:
        """SIGTERM to all of it."""

    def kill(self) -> None:
        """SIGKILL to all of it."""


#: Starts the job of a tag, and tells its exit code later.
Start = Callable[[str, Asked, Callable[[int], None]], Child]


@dataclass(slots=True)
class _Job:
    """One that was started: on which nodes, and what is to become of it."""

    asked: Asked
    nodes: list[int]
    ends_at: float
    child: Child | None = None
    code: int | None = None
    kill_at: float | None = None
    cause: str = ""


class Agent:
    """One start of it.

    Attributes:
        unwritten: what the log has not taken.
        log_is_full: until when the log cannot be written, whatever else can.
        refused: tags of jobs that it can never take, as it has said, whatever is left of its log.
        hidden_for: seconds for which it tries to read a job's file.
    """

    def __init__(
        self,
        world: World,
        files: FileServer,
        node: str,
        job_id: str,
        spool: str,
        given: Given,
        start: Start,
        ended: Callable[[int], None],
    ) -> None:
        self._world, self._shell = world, Shell(files, node)
        self._id, self._spool, self._given = job_id, spool, given
        self._start, self._ended = start, ended
        self.log_is_full: Callable[[], bool] = lambda: False
        self._longest = 3.0 if files.lag else 0.5
        self._is_nfs = bool(files.lag)
        self._gone = False
        self._turn = 0
        self._pausing = False
        self._hosts = [node] * given.node_count
        self._free = [
            [given.node_cores, given.node_memory, given.node_gpus] for _ in range(given.node_count)
        ]
        self._jobs_on = [0] * given.node_count
        self._known: set[str] = set()
        self.refused: set[str] = set()
        self.hidden_for = 120.0
        self._unread: dict[str, tuple[float, float]] = {}  # since when, and when to try again
        self._asked: dict[str, Asked] = {}
        self._came: dict[str, float] = {}
        self._waiting: list[str] = []
        self._jobs: dict[str, _Job] = {}
        self._held_back: dict[str, tuple[float, int]] = {}
        self._ends: deque[str] = deque()
        self._unwritten = self._torn = ""
        self._closing = self._ending = self._why = ""
        self._news = False
        self._used = self._counted = self._began_at = self._active = 0.0
        self._steps = self._life()
        self._then(0.0)

    # --- from outside

    def terminate(self) -> None:
        """SIGTERM to it alone."""
        if not self._gone:
            self._ending = self._ending or "signalled"

    def kill(self) -> None:
        """SIGKILL, or the node's end. Its jobs are its child processes, and go on."""
        self._gone = True
        self._steps.close()

    @property
    def why(self) -> str:
        """Why it has ended; empty while it has not."""
        return self._why

    @property
    def is_ending(self) -> bool:
        """Whether it has ended, or ends those that run."""
        return self._gone or bool(self._ending)

    # --- how it goes on

    def _then(self, seconds: float) -> None:
        self._turn += 1
        self._world.later(seconds, partial(self._go, self._turn))

    def _go(self, turn: int) -> None:
        if self._gone or turn != self._turn:
            return
        self._pausing = False
        try:
            seconds = next(self._steps)
        except StopIteration as stop:
            self._gone = True
            self._ended(stop.value)
            return
        self._then(seconds)

    def _instant(self) -> float:
        """What a command takes."""
        return self._world.chance.number("an agent's step", 0.001, 0.02)

    @property
    def _now(self) -> float:
        return self._world.now

    def _file(self, name: str) -> str:
        return f"{self._spool}/{name}"

    # --- its life

    def _life(self) -> Generator[float, None, int]:
        if not self._shell.link(self._file("agent"), self._id):
            self._world.coverage.sometimes("an agent finds another one's link")
            return 1
        yield self._instant()
        self._began_at = self._counted = self._active = self._now
        looked, beaten, checked = 0.0, -10_000.0, self._now
        idle_since, rung = 0.0, b""
        given = self._given
        while True:
            if self._ending:
                self._end_all()
            self._look_after_jobs()
            if self._now - beaten >= 5.0:
                self._beat()
                beaten, self._news = self._now, True
            self._write_notes()
            ring = self._shell.read(self._file("bell")) or b""
            if ring != rung or self._now - looked >= 30.0:
                rung, looked = ring, self._now
                yield from self._look_into_inbox()
            self._read_again()
            if (self._news or self._ending) and self._waiting:
                yield from self._start_what_fits()
            if self._jobs or self._held_back:
                idle_since = self._now
            elif self._closing and self._waiting:
                pass  # these were taken before it was told
            elif why := self._ending or self._closing:
                break
            elif self._now - idle_since >= given.idle_timeout and idle_since > 0:
                why = "idle"
                break
            idle_since = idle_since or self._now
            if not self._ending and self._now - checked >= 10.0:
                checked = self._now
                if self._is_orphan():
                    self._ending = "orphan"
                if self._left() <= 0 and not self._jobs:
                    self._ending = "walltime"
            yield from self._pause()
        yield self._instant()
        self._why, self._ending = why, self._ending or why
        yield from self._look_into_inbox()
        self._read_again()
        if self._waiting:
            yield from self._start_what_fits()
        self._count_used()
        self._beat()
        self._note(
            "X", "-", f"{why} {self._hundredths(self._held())} {self._hundredths(self._used)}"
        )
        for _ in range(10):
            if not self._unwritten:
                break
            yield 1.0
            self._write_notes()
        self._world.coverage.sometimes(f"an agent ends: {why}")
        return 0

    def _pause(self) -> Generator[float]:
        """Until a job ends, or for ever longer while nothing happens."""
        if not self._ends:
            self._pausing = True
            yield min(max((self._now - self._active) / 20, 0.1), self._longest)
        else:
            yield self._instant()
        if self._ends and (tag := self._ends.popleft()) in self._jobs:
            self._reap(tag)

    def _child_ended(self, tag: str, code: int) -> None:
        job = self._jobs.get(tag)
        if self._gone or job is None or job.code is not None:
            return
        job.code = code
        self._ends.append(tag)
        if self._pausing:
            self._then(self._instant())

    # --- its log

    def _note(self, event: str, tag: str, how: str) -> None:
        self._world.note("agent", f"{self._id}: {event} {tag} {how}")
        if event == "R" and how in ("size", "unreadable"):
            self.refused.add(tag)
        at = int(self._shell.files.time())
        self._unwritten += f"{event} {tag} {at} {how} .\n"
        self._write_notes()

    def _write_notes(self) -> None:
        if not self._unwritten:
            return
        data = (self._torn + self._unwritten).encode()
        path = self._file("log")
        if self.log_is_full():
            self._shell.append(path, data[: self._world.chance.below("room in a log", len(data))])
        elif self._shell.append(path, data):
            self._unwritten = self._torn = ""
            return
        self._torn = "\n"

    # --- jobs

    def _read_job(self, tag: str) -> Asked | None:
        return Asked.read(self._shell.read(self._file(f"jobs/{tag}")))

    def _take_in(self, tag: str) -> None:
        if tag in self._known:
            return
        if self._closing or self._ending:
            self._refuse(tag, "closed")
            return
        asked, given = self._read_job(tag), self._given
        if asked is None:
            self._try_later(tag)
        elif (
            asked.nodes > given.node_count
            or asked.cores > given.node_cores
            or asked.memory > given.node_memory
            or asked.gpus > given.node_gpus
        ):
            self._refuse(tag, "size")
        else:
            self._is_known(tag)
            self._asked[tag] = asked
            self._came.setdefault(tag, self._now)
            self._news = True
            self._waiting.append(tag)

    def _is_known(self, tag: str) -> None:
        self._known.add(tag)
        self._unread.pop(tag, None)

    def _refuse(self, tag: str, why: str) -> None:
        self._is_known(tag)
        self._note("R", tag, why)

    def _try_later(self, tag: str) -> None:
        since, _ = self._unread.get(tag, (self._now, 0.0))
        tried = self._now - since
        if tried >= self.hidden_for:
            self._refuse(tag, "unreadable")
        else:
            self._world.coverage.sometimes("an agent cannot read a job's file")
            self._unread[tag] = since, self._now + 0.1 + tried / 4

    def _read_again(self) -> None:
        at_once = bool(self._closing or self._ending)
        due = [tag for tag, (_, at) in self._unread.items() if at_once or self._now >= at]
        if not due:
            return
        self._look_anew("jobs")
        for tag in due:
            self._take_in(tag)

    def _left(self) -> int:
        given = self._given
        return int(self._began_at + given.walltime - given.margin - self._now)

    def _choose_nodes(self, asked: Asked) -> list[int]:
        """First fit; none where there is no room."""
        chosen: list[int] = []
        for i, free in enumerate(self._free):
            if len(chosen) == asked.nodes:
                break
            if asked.how == "alone" and self._jobs_on[i]:
                return []
            wanted = (asked.cores, asked.memory, asked.gpus)
            if all(f >= w for f, w in zip(free, wanted, strict=True)):
                chosen.append(i)
        return chosen if len(chosen) == asked.nodes else []

    def _give(self, job: _Job, sign: int) -> None:
        for i in job.nodes:
            wanted = (job.asked.cores, job.asked.memory, job.asked.gpus)
            self._free[i] = [f - sign * w for f, w in zip(self._free[i], wanted, strict=True)]
            self._jobs_on[i] += sign

    def _start_what_fits(self) -> Generator[float]:
        still: list[str] = []
        full: set[tuple[object, ...]] = set()
        left = self._left()
        for tag in self._waiting:
            asked = self._asked[tag]
            want = (asked.nodes, asked.cores, asked.memory, asked.gpus, asked.walltime, asked.how)
            if self._ending:
                self._note("R", tag, "closed")
            elif asked.walltime > left:
                self._note("R", tag, "walltime")
            elif (still and self._now - self._came[still[0]] > _LONG_WAIT) or want in full:
                still.append(tag)
            elif nodes := self._choose_nodes(asked):
                yield from self._start_job(tag, nodes)
                self._active = self._now
            else:
                full.add(want)
                still.append(tag)
        self._waiting = still
        self._news = False

    def _start_job(self, tag: str, nodes: list[int]) -> Generator[float]:
        asked = self._read_job(tag)
        if asked is None:
            self._known.discard(tag)
            self._try_later(tag)
            return
        turn = self._file(f"turns/{tag}")
        if not self._shell.link(turn, "started") and self._shell.read_link(turn) != "started":
            return
        yield self._instant()
        began = self._now
        job = _Job(asked, nodes, began + asked.walltime)
        self._count_used()
        self._give(job, 1)
        hosts = [self._hosts[i] for i in nodes]
        each = "".join(f"{host}\n" * asked.ranks for host in hosts)
        self._shell.write(self._file(f"turns/{tag}.hosts"), each.encode())
        self._note("S", tag, ",".join(hosts))
        yield self._instant()
        self._jobs[tag] = job
        ended = partial(self._child_ended, tag)
        # Where there is no place for its output bash goes on, and that goes where the agent's goes.
        if self._shell.append(asked.out, b""):
            self._shell.append(asked.err, b"")
        job.child = self._start(tag, asked, ended)

    def _drop(self, tag: str) -> None:
        if self._shell.read_link(self._file(f"turns/{tag}")) == "cancelled":
            self._is_known(tag)
            self._waiting = [each for each in self._waiting if each != tag]
            self._news = True

    def _end_job(self, job: _Job, why: str) -> None:
        if job.cause:
            return
        job.cause, job.kill_at = why, self._now + self._given.grace
        if job.child is not None:
            job.child.terminate()

    def _kill_job(self, tag: str, job: _Job) -> None:
        if job.child is not None:
            job.child.kill()
        job.kill_at = self._now + 5.0
        self._child_ended(tag, 137)

    def _end_all(self) -> None:
        for job in self._jobs.values():
            self._end_job(job, "allocation")

    def _reap(self, tag: str) -> None:
        job = self._jobs[tag]
        assert job.code is not None
        self._count_used()
        self._give(job, -1)
        del self._jobs[tag]
        self._shell.remove(self._file(f"turns/{tag}.hosts"))
        self._active, self._news = self._now, True
        if job.code == 0 or job.cause:
            self._note("E", tag, f"{job.cause or 'exit'} {job.code}")
        else:
            self._held_back[tag] = self._now + _HELD_BACK, job.code
            self._tell_held_back()

    def _tell_held_back(self) -> None:
        for tag, (at, code) in list(self._held_back.items()):
            if self._now >= at or self._ending:
                del self._held_back[tag]
                self._note("E", tag, f"{'allocation' if self._ending else 'exit'} {code}")

    def _look_after_jobs(self) -> None:
        for tag, job in list(self._jobs.items()):
            if job.code is not None:
                self._reap(tag)
            elif job.kill_at is not None:
                if self._now >= job.kill_at:
                    self._kill_job(tag, job)
            elif self._now >= job.ends_at:
                self._end_job(job, "walltime")
        self._tell_held_back()

    # --- the inbox

    def _look_anew(self, folder: str) -> None:
        if self._is_nfs:
            self._shell.write(self._file(f"{folder}/.look"))
            self._shell.remove(self._file(f"{folder}/.look"))

    def _look_into_inbox(self) -> Generator[float]:
        shell, inbox = self._shell, self._file("inbox")
        self._look_anew("inbox")
        there = sorted(shell.names(inbox), reverse=True)
        there.sort(key=lambda name: shell.modified(f"{inbox}/{name}") or 0)
        for name in there:
            if name == "CLOSE":
                self._closing = "closed"
                self._beat()
            elif name == "NOW":
                self._closing, self._ending = "closed", self._ending or "closed"
                self._beat()
            elif name.startswith("cancel."):
                tag = name.removeprefix("cancel.")
                if tag in self._jobs:
                    self._end_job(self._jobs[tag], "cancelled")
                else:
                    self._drop(tag)
            else:
                self._take_in(name)
        if there:
            yield self._instant()
            shell.remove(*(f"{inbox}/{name}" for name in there))
            self._active = self._now

    # --- what it tells of itself

    def _count_used(self) -> None:
        self._used += (self._now - self._counted) * sum(bool(each) for each in self._jobs_on)
        self._counted = self._now

    def _held(self) -> float:
        return (self._now - self._began_at) * self._given.node_count

    @staticmethod
    def _hundredths(seconds: float) -> int:
        return int(seconds * 100)

    def _beat(self) -> None:
        self._count_used()
        left = 0 if self._closing or self._ending else max(0, self._left())
        used, held = self._hundredths(self._used), self._hundredths(self._held())
        self._shell.overwrite(
            self._file("heartbeat"), f"{left:010d} {used:012d} {held:012d}\n".encode()
        )

    def _is_orphan(self) -> bool:
        theirs = self._shell.modified(self._file("renewed"))
        ours = self._shell.modified(self._file("heartbeat"))
        if theirs is None or ours is None:
            return False
        return ours - theirs > self._given.orphan_timeout
