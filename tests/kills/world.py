"""A scheduler, its nodes and a file server in memory, with a clock that jumps.

The executor's own code runs in it, from the call to the result; only processes, files and time are
not real. A process dies by `Killed`, which no code of ours catches; whatever it does after that has
no effect any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import json
import selectors
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from hpc_prefect.executor.connection import Connection
from hpc_prefect.executor.request import JobRequest
from hpc_prefect.executor.run import JobRun
from hpc_prefect.job import folder as names
from hpc_prefect.job.dialogue import Command, Dialogue, Reply
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.folder import read_exits, read_starts, word_digest
from hpc_prefect.job.outputs import FILE, Left, Stamp
from hpc_prefect.job.result import JobResult
from hpc_prefect.job.script import GUARD_CODE, Preamble
from hpc_prefect.job.spec import Executable, JobSpec, Resources, Site
from hpc_prefect.job.state import JobState, Observation, Patience
from hpc_prefect.ledger.claim import Claimant, this_process
from hpc_prefect.schedulers.base import (
    Accepted,
    Answer,
    Found,
    NoAnswer,
    Submission,
    Ticket,
    Told,
    Unclear,
)
from hpc_prefect.transports.base import FileStatus

#: What becomes of a submission: made and said; made, reply lost; made and answered with an error;
#: not made, reply lost; made, and nobody sees of it for long; accepted and forgotten while it
#: waits; the same, and it comes to light after all; made two times.
FATES = ("plain", "lost", "error", "nothing", "late", "forgotten", "risen", "twofold")
LONG = 40.0


class Killed(KeyboardInterrupt):
    """kill -9. Of this kind, because it ends an event loop at once."""


@dataclass(frozen=True)
class Fate:
    """What becomes of a submission, and of its job.

    Attributes:
        code, seconds: how the program ends, and when.
        again: the scheduler starts the job a second time without knowing that it has.
    """

    kind: str = "plain"
    code: int = 0
    seconds: float = 4.0
    again: bool = False


@dataclass
class Job:
    """One job of the scheduler, and what it has in store."""

    id: str
    tag: str
    folder: str
    fate: Fate
    shows_at: float
    state: JobState = JobState.QUEUED
    listed: bool = True
    ended_with: int | None = None


@dataclass
class Run:
    """One start of the program."""

    attempt: str
    code: int
    ended: bool = False


class World:
    """Everything outside of the process."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.files: dict[str, tuple[bytes, float]] = {}
        self.links: dict[str, str] = {}
        self.jobs: dict[str, Job] = {}
        self.runs: list[Run] = []
        self.fates: list[Fate] = []
        self.until = {"down": 0.0, "unlisted": 0.0, "forgetful": 0.0}
        self.lives = count(1)
        self._ids, self._order = count(1), count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []

    # Time

    def pass_to(self, when: float) -> None:
        while self._events and self._events[0][0] <= when:
            at, _, event = heapq.heappop(self._events)
            self.now = max(self.now, at)
            event()
        self.now = max(self.now, when)

    def later(self, seconds: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._order), event))

    # Jobs

    def submit(self, tag: str, folder: str) -> Reply:
        if self._is("down"):
            return Reply(1, stderr="no server")
        fate = self.fates.pop(0) if self.fates else Fate()
        kind = fate.kind
        if kind == "nothing":
            return Reply(None)
        made = [self._make(tag, folder, fate) for _ in range(1 + (kind == "twofold"))]
        if kind in ("lost", "late"):
            return Reply(None)
        return Reply(1, stderr="an error") if kind == "error" else Reply(0, made[0].id)

    def _make(self, tag: str, folder: str, fate: Fate) -> Job:
        delay = LONG if fate.kind in ("late", "risen") else 0.0
        n = next(self._ids)
        shows_at = self.now + (delay if fate.kind == "late" else 0.0)
        job = self.jobs[f"{n}.world"] = Job(f"{n}.world", tag, folder, fate, shows_at)
        job.listed = fate.kind not in ("forgotten", "risen")
        if fate.kind != "forgotten":
            self.later(delay + 1.0 + n % 3, lambda: self._start(job))
            if fate.again:
                self.later(delay + 3.5 + n % 3, lambda: self._start(job))
        return job

    def _start(self, job: Job) -> None:
        """As the script of `job/script.py` does it."""
        job.listed = True
        if self.links.setdefault(f"{job.folder}/{names.GUARD}", job.id) != job.id:
            self.append(f"{job.folder}/{names.DUPLICATES}", f"{job.id}\n".encode())
            self._ends(job, GUARD_CODE)
            return
        word = self.word(job.folder)
        exits = read_exits(self.read(f"{job.folder}/{names.EXIT}"), {word_digest(word)})
        starts = read_starts(self.read(f"{job.folder}/{names.START}"))
        if any(record.clean for record in exits):
            self._ends(job, 0)
        elif any(start.id == job.id for start in starts):
            self._ends(job, GUARD_CODE)  # the first start may run on
        else:
            job.state = JobState.RUNNING
            token = f"{self.now}.{job.id}"
            start = {"token": token, "id": job.id, "time": self.now}
            self.append(f"{job.folder}/{names.START}", json.dumps(start).encode() + b"\n")
            self._program(job, token)

    def _program(self, job: Job, token: str) -> None:
        earlier = [run for run in self.runs if run.attempt == job.folder]
        assert not earlier, f"the program of {job.folder} runs a second time"
        assert all(run.ended and run.code for run in self.runs), (
            "it runs beside, or after, a success"
        )
        run = Run(job.folder, job.fate.code)
        self.runs.append(run)

        def ends() -> None:
            run.ended = True
            word = self.word(job.folder)
            record = {"token": token, "word": word, "code": run.code, "time": self.now}
            self.append(f"{job.folder}/{names.EXIT}", json.dumps(record).encode() + b"\n")
            if job.state is not JobState.ENDED:
                self._ends(job, run.code)

        self.later(job.fate.seconds, ends)

    def word(self, folder: str) -> str:
        """The one that the script in the folder ends its record with."""
        return (self.read(f"{folder}/{names.SCRIPT}") or b"").decode().split()[-1]

    def _ends(self, job: Job, code: int) -> None:
        job.state, job.ended_with = JobState.ENDED, code

    def seen(self, job: Job) -> bool:
        hidden = self._is("unlisted") or self.now < job.shows_at or not job.listed
        return not hidden and not (job.state is JobState.ENDED and self._is("forgetful"))

    def _is(self, trouble: str) -> bool:
        return self.now < self.until[trouble]

    def ask(self, word: str) -> Reply:
        """All jobs with that id or name that are listed."""
        if self._is("down"):
            return Reply(1, stderr="no server")
        wanted = [job for job in self.jobs.values() if word in (job.id, job.tag) and self.seen(job)]
        rows = [[job.id, job.state.value, job.tag, job.ended_with] for job in wanted]
        return Reply(0, json.dumps(rows))

    # Files

    def append(self, path: str, data: bytes) -> None:
        self.files[path] = (self.files.get(path, (b"", 0.0))[0] + data, self.now)

    def read(self, path: str) -> bytes | None:
        return self.files[path][0] if path in self.files else None


class Machine:
    """A `Transport` of one process, which dies at its nth operation, before it or after it."""

    def __init__(self, world: World, dies_at: int | None) -> None:
        self.world, self.dies_at, self.dead = world, dies_at, False
        self.count = 0

    def _do(self, act: Callable[[], Any]) -> Any:
        if self.dead:
            raise Killed
        self.count += 1
        at = self.dies_at is not None and self.count > self.dies_at // 2
        if at and self.dies_at and self.dies_at % 2:
            self.dead = True
            raise Killed
        found = act()
        if at:
            self.dead = True
            raise Killed
        return found

    def run(self, command: Command) -> Reply:
        verb, *words = command.argv
        found: Reply = self._do(
            lambda: {"submit": self.world.submit, "ask": self.world.ask}[verb](*words)
        )
        return found

    def root(self, work_dir: str) -> str:
        return f"{work_dir}/.hpc-prefect"

    def check_folder(self, path: str) -> None:
        """Nobody else is in this world."""

    def make_folder(self, path: str) -> None:
        self._do(lambda: None)

    def write_atomic(self, path: str, data: bytes, *, mode: int = 0o600) -> None:
        self._do(lambda: self.world.files.update({path: (data, self.world.now)}))

    def append(self, path: str, data: bytes, *, durable: bool = False) -> None:
        self._do(lambda: self.world.append(path, data))

    def create(self, path: str, data: bytes) -> bool:
        new = (data, self.world.now)
        return bool(self._do(lambda: self.world.files.setdefault(path, new) is new))

    def read(self, path: str, offset: int = 0, size: int = -1) -> bytes | None:
        data = self._do(lambda: self.world.read(path))
        return None if data is None else data[offset : None if size < 0 else offset + size]

    def status(self, path: str) -> FileStatus | None:
        found = self._do(lambda: self.world.files.get(path))
        return found and FileStatus(len(found[0]), found[1])

    def stamp(self, path: str, most: int) -> Stamp | None:
        found = self._do(lambda: self.world.files.get(path))
        when = int(found[1] * 1000) if found else 0
        return found and Stamp(FILE, [], 0, len(found[0]), when, when, 1)

    def left(self, path: str, since: int, most: int) -> dict[str, Left] | None:
        now = self.left_now(path, "")
        return None if now is None else {"": now}

    def left_now(self, path: str, name: str) -> Left | None:
        found = self._do(lambda: self.world.files.get(path))
        return found and Left(len(found[0]), int(found[1] * 1000), 0, 0)

    def digest(self, path: str, name: str) -> str:
        return ""

    def read_link(self, path: str) -> str | None:
        return self._do(lambda: self.world.links.get(path))  # type: ignore[no-any-return]

    def link(self, path: str, target: str) -> bool:
        known = path in self.world.links
        self._do(lambda: self.world.links.setdefault(path, target))
        return not known

    def relink(self, path: str, target: str) -> None:
        self._do(lambda: self.world.links.update({path: target}))

    def list(self, path: str) -> list[str]:
        every = [*self.world.files, *self.world.links]
        below = {
            each[len(path) + 1 :].split("/")[0] for each in every if each.startswith(f"{path}/")
        }
        return sorted(self._do(lambda: below))

    def touch(self, path: str) -> None:
        def act() -> None:
            self.world.files[path] = (self.world.files[path][0], self.world.now)

        self._do(act)

    def remove(self, path: str) -> None:
        self._do(lambda: self.world.files.pop(path, None))


class WorldScheduler:
    """`Scheduler` for the world."""

    name = "world"
    runs_here = False
    patience = Patience(absent=5, lost=15, record=5, outputs=1, silent=60, find=5, confirm=5)
    ids_per_question = 10
    hurry = 0.5

    def problems(self, spec: JobSpec) -> list[str]:
        return []

    def preamble(self, spec: JobSpec, ticket: Ticket) -> Preamble:
        return Preamble(id_expression="x")

    def submit(self, spec: JobSpec, ticket: Ticket) -> Dialogue[Submission]:
        reply = yield Command(("submit", ticket.tag, ticket.folder))
        return Accepted(reply.stdout) if reply.code == 0 else Unclear(reply.said)

    def observe(
        self, ids: Sequence[str], options: Mapping[str, object]
    ) -> Dialogue[Answer | NoAnswer]:
        answer: Answer = {}
        for job_id in ids:
            found = _read((yield Command(("ask", job_id))))
            if isinstance(found, NoAnswer):
                return found
            answer |= found
        return answer

    def find(
        self, tags: Sequence[str], options: Mapping[str, object]
    ) -> Dialogue[Found | NoAnswer]:
        found: Found = {}
        for tag in tags:
            found[tag] = _read((yield Command(("ask", tag))))
        return found

    def cancel(
        self, jobs: Mapping[str, str], options: Mapping[str, object]
    ) -> Dialogue[NoAnswer | None]:
        yield from ()
        return None

    def read_output(self, text: str) -> Told | None:
        return None


def _read(reply: Reply) -> dict[str, Observation] | NoAnswer:
    if reply.code != 0:
        return NoAnswer(reply.said)
    found = {}
    for job_id, state, tag, code in json.loads(reply.stdout):
        cause = Reason.PROGRAM_FAILED if code else Reason.SUCCEEDED if code == 0 else None
        found[job_id] = Observation(
            id=job_id, state=JobState(state), tag=tag, exit_code=code, cause=cause
        )
    return found


# --- one process in the world


class _AtOnce:
    """A pool that has done its work before it is asked for."""

    def submit(self, work: Callable[..., Any], *arguments: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(work(*arguments))
        except Exception as error:  # noqa: BLE001 - it is the caller's
            done.set_exception(error)
        return done


class _Jumping(selectors.SelectSelector):
    """Instead of waiting it lets the world's time pass."""

    def __init__(self, world: World, end: float) -> None:
        super().__init__()
        self.world, self.end = world, end

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        assert timeout is not None, "it waits for what never comes"
        self.world.pass_to(self.world.now + timeout)
        if self.world.now >= self.end:
            raise Killed
        return ready


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self, world: World, end: float) -> None:
        super().__init__(_Jumping(world, end))
        self.world = world

    def time(self) -> float:
        return self.world.now

    def bury(self) -> None:
        """End the loop of a process that is dead: what it was about to do is never done."""
        for task in asyncio.all_tasks(self):
            with contextlib.suppress(RuntimeError):  # it wants to wait for something
                task.get_coro().close()  # type: ignore[union-attr]
        self.close()


@dataclass
class Life:
    """A process that runs the job: until its result, an error, or its death."""

    world: World
    dies_at: int | None = None
    lasts: float = float("inf")
    elsewhere: bool = False
    killed: bool = field(default=False, init=False)

    def result(self) -> JobResult | None:
        """The job's result; None when the process was killed before."""
        world, loop = self.world, _Loop(self.world, self.world.now + self.lasts)
        loop.set_exception_handler(lambda *_: None)  # what is left of it was killed
        machine = Machine(world, self.dies_at)
        pool: Any = _AtOnce()
        connection = Connection(WorldScheduler(), machine, {}, pool, pool)
        run = JobRun(request(next(world.lives), elsewhere=self.elsewhere), connection)
        try:
            return loop.run_until_complete(run.carry_out())
        except Killed:
            self.killed = machine.dead = True
            return None
        finally:
            loop.bury()


def request(life: int, *, elsewhere: bool) -> JobRequest:
    """The one job, asked for by a process that is dead when the next one looks."""
    spec = JobSpec(
        name="job",
        command_name="program",
        executable=Executable(path="/program"),
        site=Site(scheduler="world"),
        resources=Resources(),
        work_dir="/w",
    )
    run = f"life-{life}"
    claimant = this_process(run)
    if elsewhere:
        claimant = Claimant(flow_run="", host=f"host-{life}", process=f"another-boot {life} 1 1")
    return JobRequest(
        spec=spec,
        base="/w/.hpc-prefect/c/ke/key",
        key="key",
        claimant=claimant,
        poll_interval=2.0,
        is_over=lambda other: other != run,
    )
