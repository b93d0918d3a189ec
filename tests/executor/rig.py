"""What the executor's tests share: jobs on the laptop's engine, and stand-ins for what goes wrong.

Nothing here knows Prefect; `driver.py` uses the same in a process that may be killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hpc_prefect.executor.arrays.request import ArrayRequest
from hpc_prefect.executor.arrays.run import ArrayRun
from hpc_prefect.executor.connection import Connection
from hpc_prefect.executor.looks import USUAL, Looks
from hpc_prefect.executor.request import JobRequest
from hpc_prefect.executor.run import JobRun
from hpc_prefect.job import folder as names
from hpc_prefect.job.dialogue import Command, Reply
from hpc_prefect.job.members import MemberSpec
from hpc_prefect.job.result import JobResult
from hpc_prefect.job.spec import Executable, JobSpec, Resources, Site
from hpc_prefect.ledger.claim import Claimant, this_process
from hpc_prefect.local_batch import process
from hpc_prefect.schedulers.local.scheduler import LocalScheduler
from hpc_prefect.transports.local import LocalTransport

DRIVER = Path(__file__).with_name("driver.py")
PATIENCE = 200.0


async def until(predicate: Callable[[], Any], what: str = "the condition") -> Any:
    """Wait for what must come true; how long it takes is not judged."""
    end = time.monotonic() + PATIENCE
    while not (value := predicate()):
        assert time.monotonic() < end, f"{what} did not come true"
        await asyncio.sleep(0.01)
    return value


@contextlib.contextmanager
def living_process() -> Iterator[Claimant]:
    """A claimant of this host whose process ends with the block."""
    with subprocess.Popen(["sleep", "600"]) as child:
        who = process.identity(child.pid)
        assert who is not None
        try:
            yield Claimant(flow_run="", host=socket.gethostname(), process=who)
        finally:
            child.kill()


@functools.cache
def dead_process() -> Claimant:
    """A claimant of this host whose process has ended."""
    with living_process() as claimant:
        return claimant


class Told:
    """A listener that remembers, and may act on a state."""

    def __init__(self, on_state: Callable[[str], None] = lambda text: None) -> None:
        self.states: list[str] = []
        self.warnings: list[str] = []
        self.outputs: list[tuple[str, str]] = []
        self.on_state = on_state

    def state(self, text: str, *, warning: bool = False, **_: object) -> None:
        self.states.append(text)
        if warning:
            self.warnings.append(text)
        self.on_state(text)

    def output(self, stream: str, text: str, path: str) -> None:
        self.outputs.append((stream, text))

    def text(self, stream: str = "stdout") -> str:
        return "\n".join(text for where, text in self.outputs if where == stream)


class Counting(LocalTransport):
    """Keeps the commands that were run."""

    def __init__(self) -> None:
        self.commands: list[Command] = []

    def run(self, command: Command) -> Reply:
        self.commands.append(command)
        return super().run(command)

    def verbs(self) -> list[str]:
        return [command.argv[4] for command in self.commands]


class Rig:
    """Jobs in one folder on an engine of their own; programs count their own runs."""

    def __init__(self, folder: Path, slots: int = 2) -> None:
        self.folder = folder
        self.work = folder / "work"
        self.work.mkdir(exist_ok=True)
        self.options: dict[str, Any] = {
            "slots": slots,
            "spool": str(folder / "spool"),
            "kill_grace": 1.0,
        }
        self.pool = ThreadPoolExecutor(8)
        self._connections: list[Connection] = []
        self.left_by = dead_process()

    def program(self, text: str, name: str = "program") -> str:
        """A shell program that first notes, in the file `runs`, that it was started."""
        path, new = self.folder / name, self.folder / f"{name}.new"
        new.write_text(f'#!/bin/bash\necho "{name} $*" >> {self.folder}/runs\n{text}\n')
        new.chmod(0o700)
        new.replace(path)  # whole at any moment: a job of before may be about to read it
        return str(path)

    def python(self, text: str, name: str = "program") -> str:
        """The same for a Python program."""
        (self.folder / f"{name}.py").write_text(text)
        return self.program(f'exec {sys.executable} -I -S {self.folder}/{name}.py "$@"', name)

    def runs(self) -> list[str]:
        """One line for each start of a program."""
        path = self.folder / "runs"
        return path.read_text().splitlines() if path.exists() else []

    def spec(self, text: str = "exit 0", **changes: Any) -> JobSpec:
        """A job that runs this shell text; `resources`, `site` are changes to the defaults."""
        program = changes.pop("program", None) or self.program(text)
        resources = Resources(**changes.pop("resources", {}))
        site = Site(scheduler="local", options=self.options, **changes.pop("site", {}))
        return JobSpec(
            name=changes.pop("name", "job"),
            command_name="command",
            executable=Executable(path=program),
            site=site,
            resources=resources,
            work_dir=str(self.work),
            **changes,
        )

    def request(self, spec: JobSpec, key: str = "k", **changes: Any) -> JobRequest:
        given: dict[str, Any] = {"claimant": this_process(), "poll_interval": 0.5, **changes}
        base = f"{self.work}/{names.ROOT}/campaign/ab/{key}"
        return JobRequest(spec=spec, base=base, key=key, **given)

    def array(self, spec: JobSpec, lines: Sequence[str], **changes: Any) -> ArrayRequest:
        """An array whose members run these arguments of the spec's program; keys as they are."""
        given: dict[str, Any] = {"claimant": this_process(), "poll_interval": 0.5, **changes}
        members = tuple(
            MemberSpec(key=line, name=line, arguments=tuple(line.split()), work_dir=spec.work_dir)
            for line in lines
        )
        base = f"{self.work}/{names.ROOT}/campaign/ab/k"
        given = {"members": members} | given
        return ArrayRequest(spec=spec, base=base, key="k", **given)

    async def run_array(
        self, request: ArrayRequest, connection: Connection | None = None
    ) -> dict[str, JobResult]:
        """The members' results by their keys."""
        results = await ArrayRun(request, connection or self.connection()).carry_out()
        return {member.key: result for member, result in zip(request.members, results, strict=True)}

    def connection(
        self, scheduler: Any = None, transport: Any = None, peers: Any = None, looks: Looks = USUAL
    ) -> Connection:
        scheduler, transport = scheduler or LocalScheduler(), transport or LocalTransport()
        connection = Connection(
            scheduler, transport, self.options, self.pool, peers=peers, looks=looks
        )
        self._connections.append(connection)
        return connection

    async def run(self, request: JobRequest, connection: Connection | None = None) -> JobResult:
        return await JobRun(request, connection or self.connection()).carry_out()

    @contextlib.contextmanager
    def under_way(
        self, request: JobRequest, connection: Connection | None = None
    ) -> Iterator[tuple[JobRun, asyncio.Task[JobResult]]]:
        """The job's life in a task that ends, as in a crash, with the block."""
        run = JobRun(request, connection or self.connection())
        task = asyncio.get_running_loop().create_task(run.carry_out())
        try:
            yield run, task
        finally:
            task.cancel()

    async def abandon(self, request: JobRequest, state: str = "running") -> str:
        """Let a claimant bring the job so far, and die (`left_by`); returns the job's id."""
        told = Told()
        with living_process() as claimant:
            self.left_by = claimant
            left = dataclasses.replace(request, claimant=claimant, listener=told)
            with self.under_way(left) as (run, task):
                await until(
                    lambda: task.done() or any(state in said for said in told.states), state
                )
                assert not task.done(), task
            with contextlib.suppress(asyncio.CancelledError):
                await task
        return run.job_id

    def attempt(self, number: int = 1, key: str = "k") -> Path:
        """The folder of an attempt."""
        return self.work / names.ROOT / "campaign" / "ab" / f"{key}-{number}"

    def journal(self, number: int = 1, key: str = "k") -> list[dict[str, Any]]:
        """The entries so far; a line that a killed writer tore off is none."""
        found, path = [], self.attempt(number, key) / names.JOURNAL
        for line in path.read_text().splitlines() if path.exists() else ():
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
        return found

    def events(self, number: int = 1, key: str = "k") -> list[str]:
        return [entry["event"] for entry in self.journal(number, key)]

    def engine(self, verb: str, *words: str) -> list[str]:
        dialogue = {
            "jobs": lambda: LocalScheduler().observe(words, self.options),
            "cancel": lambda: LocalScheduler().cancel(dict.fromkeys(words, ""), self.options),
        }[verb]()
        reply = LocalTransport().run(next(dialogue))
        assert reply.code == 0, reply
        return reply.stdout.splitlines()

    def active(self) -> list[str]:
        """Ids of the jobs that wait or run."""
        return [json.loads(line)["id"] for line in self.engine("jobs")]

    async def emptied(self) -> None:
        """Wait until no job waits or runs.

        A job's own record tells its end a moment before the queue knows of it.
        """
        await until(lambda: not self.active(), "an empty queue")

    async def close(self) -> None:
        """End what a test left in the queue."""
        if left := self.active():
            self.engine("cancel", *left)
            await self.emptied()
        self.pool.shutdown()


def drive(rig: Rig, jobs: list[dict[str, Any]], **trap: Any) -> subprocess.CompletedProcess[str]:
    """Run jobs in a bare process to their ends, or to its own by a trap; see `driver.py`."""
    return subprocess.run(
        [sys.executable, str(DRIVER), str(rig.folder), json.dumps(jobs), json.dumps(trap)],
        capture_output=True,
        text=True,
        timeout=120,
    )


def was_killed(done: subprocess.CompletedProcess[str]) -> bool:
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode != 0


def die() -> None:
    """What no code of ours can see coming."""
    os.kill(os.getpid(), signal.SIGKILL)


class Overtaken(LocalTransport):
    """This process is stopped right before it writes of an event; another one takes over then."""

    def __init__(self, other: Claimant, event: bytes = b'"intent"') -> None:
        super().__init__()
        self.other, self.event = other, event

    def append(self, path, data, *, durable=False):
        if self.event in data:
            Path(path).with_name("claim-2").write_text(json.dumps(dataclasses.asdict(self.other)))
        super().append(path, data, durable=durable)
