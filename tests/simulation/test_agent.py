"""The models of the agent and of the spool's shell texts do what these do, run by a real bash."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hpc_prefect.job.dialogue import Command, Reply
from hpc_prefect.schedulers.allocation import spool as spools
from hpc_prefect.schedulers.allocation.share import Share
from hpc_prefect.transports.local import LocalTransport
from simulation.agent import Agent, Asked, Given
from simulation.chance import Chance
from simulation.coverage import Coverage
from simulation.file_server import File, FileServer, Link
from simulation.job_script import Program
from simulation.spool_commands import SpoolCommands
from simulation.world import World

OWN_ID = "4711"
_SHORT = Program(seconds=0.1)
_LONG = Program(seconds=1000.0)
_DEAF = Program(seconds=1000.0, on_term="deaf")
#: Ends well when it is told to.
_HELD = Program(seconds=999.0)
_PATIENCE = 200.0
#: Of no meaning to anybody: other files stay below this size.
_PADDING = b"#" * 65536 + b"\n"


class Side(ABC):
    """An agent in its spool, whose one node has one core, and what is done to it."""

    def __init__(self, folder: str) -> None:
        # A name of its own, which marks the processes of its jobs: an agent ends all with its mark.
        self.folder, self.spool = folder, f"{folder}/{uuid.uuid4().hex[:10]}.spool"
        self.hidden_for = 12_000  # hundredths of a second

    def given(
        self, *, walltime: int = 600, idle: int = 600, orphan: int = 600, grace: int = 60
    ) -> Given:
        return Given(1, 1, 1024, 0, walltime, 3, idle, orphan, grace)

    # --- what a side can do

    @abstractmethod
    def write(self, name: str, data: bytes) -> None: ...

    @abstractmethod
    def read(self, name: str) -> bytes: ...

    @abstractmethod
    def link(self, name: str, target: str) -> None: ...

    @abstractmethod
    def entries(self, name: str) -> dict[str, str]:
        """The names in a folder, and where links point."""

    @abstractmethod
    def run(self, command: Command) -> Reply: ...

    @abstractmethod
    def start(self, **given: int) -> None: ...

    @abstractmethod
    def until(self, happened: Callable[[], bool]) -> None: ...

    @abstractmethod
    def term(self) -> None: ...

    @abstractmethod
    def grow_old(self, name: str) -> None: ...

    @abstractmethod
    def fill_log(self, *, full: bool) -> None: ...

    @abstractmethod
    def end(self) -> int: ...

    @abstractmethod
    def make_script(self, tag: str, program: Program) -> str: ...

    @abstractmethod
    def let_go(self) -> None:
        """Have the held program end."""

    @abstractmethod
    def wait_until_deaf(self, tag: str) -> None: ...

    # --- what is made of it

    def submit(self, tag: str, program: Program = _SHORT, **more: Any) -> Reply:
        asked = {"cores": 1, "walltime": 60, "err": f"{self.folder}/{tag}.err"} | more
        share = Share(
            nodes=1,
            cores=asked["cores"],
            memory=0,
            gpus=0,
            walltime=asked["walltime"],
            how="here",
            ranks=1,
        )
        files = (self.make_script(tag, program), f"{self.folder}/{tag}.out", asked["err"])
        return self.run(
            spools.ask_to_submit(self.spool, tag, (*share.fields(), *files, self.folder))
        )

    def look(self) -> spools.SpoolLook:
        look = spools.read_look(self.run(spools.ask_to_look(self.spool, "abcde")))
        assert look is not None
        return look

    def wait_for(self, event: str, tag: str) -> None:
        self.until(lambda: event in self.look().lines.get(tag, {}))

    def wait_until_taken(self) -> None:
        self.until(lambda: not self.entries("inbox"))

    def close(self, word: str = spools.CLOSE) -> None:
        assert self.run(spools.ask_to_end(self.spool, word)).code == 0

    def facts(self, code: int) -> dict[str, Any]:
        """What is left of it, without times."""
        look = self.look()
        return {
            "code": code,
            "ids": look.ids,
            "end": look.end[:1],
            "left": look.left if look.left in (None, 0) else "some",
            "there": look.there,
            "cancelled": look.cancelled,
            "lines": {
                tag: [(each.event, each.words * (each.event != "S")) for each in lines.values()]
                for tag, lines in look.lines.items()
            },
            "inbox": self.entries("inbox"),
            "jobs": sorted(self.entries("jobs")),
            "turns": self.entries("turns"),
        }


class Real(Side):
    """A bash on this machine."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder))
        self._spool = Path(self.spool)
        for name in spools.FOLDERS:
            (self._spool / name).mkdir(parents=True)

    def write(self, name: str, data: bytes) -> None:
        (self._spool / name).write_bytes(data)

    def read(self, name: str) -> bytes:
        return (self._spool / name).read_bytes()

    def link(self, name: str, target: str) -> None:
        (self._spool / name).symlink_to(target)

    def entries(self, name: str) -> dict[str, str]:
        found = (self._spool / name).iterdir()
        return {p.name: str(p.readlink()) if p.is_symlink() else "" for p in found}

    def run(self, command: Command) -> Reply:
        return LocalTransport().run(command)

    def start(self, **given: int) -> None:
        numbers = self.given(**given)
        values = [str(getattr(numbers, name)) for name in Given.__slots__]
        text = spools.agent_text()
        assert text.count("hidden_for=12000") == 1
        text = text.replace("hidden_for=12000", f"hidden_for={self.hidden_for}")
        self._agent = subprocess.Popen(
            ["/bin/bash", "-c", text, "agent.sh", self.spool, "local", *values],
            env={**os.environ, "HPC_LOCAL_JOBID": OWN_ID},
            cwd=self.folder,
            stderr=subprocess.DEVNULL,
        )

    def until(self, happened: Callable[[], bool]) -> None:
        end = time.monotonic() + _PATIENCE
        while not happened():
            assert time.monotonic() < end, self.read(spools.LOG)
            time.sleep(0.02)

    def term(self) -> None:
        self._agent.send_signal(signal.SIGTERM)

    def grow_old(self, name: str) -> None:
        os.utime(self._spool / name, (1, 1))

    def fill_log(self, *, full: bool) -> None:
        size = len(self.read(spools.LOG)) if full else resource.RLIM_INFINITY
        resource.prlimit(self._agent.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    def end(self) -> int:
        return self._agent.wait(_PATIENCE)

    def make_script(self, tag: str, program: Program) -> str:
        path, is_deaf = Path(self.folder) / f"{tag}.sh", f"{self.folder}/{tag}.deaf"
        deaf = f"trap '' TERM\ntouch {is_deaf}\n" if program.on_term == "deaf" else ""
        held = f"until [ -e {self.folder}/go ]; do sleep 0.05; done"
        waits = held if program is _HELD else f"sleep {program.seconds}"
        path.write_text(f"{deaf}{waits}\nexit {program.code}\n")
        return str(path)

    def let_go(self) -> None:
        Path(self.folder, "go").touch()

    def wait_until_deaf(self, tag: str) -> None:
        self.until(Path(self.folder, f"{tag}.deaf").exists)

    def stop(self) -> None:
        if hasattr(self, "_agent") and self._agent.poll() is None:
            self._agent.terminate()
            self._agent.wait(_PATIENCE)


class Modelled(Side):
    """The models, in a world without faults."""

    def __init__(self) -> None:
        super().__init__("/w")
        self._world = World(Chance(1, only=()), Coverage())
        self._files = FileServer(self._world, 0.0)
        for name in spools.FOLDERS:
            self._files.make_folder("", f"{self.spool}/{name}")
        self._programs: dict[str, Program] = {}
        self._held: list[Callable[[int], None]] = []
        self._codes: list[int] = []
        self._log_is_full = False

    def write(self, name: str, data: bytes) -> None:
        self._files.put("", f"{self.spool}/{name}", data)

    def read(self, name: str) -> bytes:
        entry = self._files.entry(f"{self.spool}/{name}")
        assert isinstance(entry, File)
        return entry.data

    def link(self, name: str, target: str) -> None:
        self._files.link("", f"{self.spool}/{name}", target)

    def entries(self, name: str) -> dict[str, str]:
        folder = f"{self.spool}/{name}"
        found = {each: self._files.entry(f"{folder}/{each}") for each in self._files.names(folder)}
        return {n: e.target if isinstance(e, Link) else "" for n, e in found.items()}

    def run(self, command: Command) -> Reply:
        return SpoolCommands(self._files, "", partial(self._world.pass_time, 0.01)).run(command)

    def start(self, **given: int) -> None:
        numbers = self.given(**given)
        self._agent = Agent(
            self._world, self._files, "n0", OWN_ID, self.spool, numbers,
            self._start, self._codes.append,
        )  # fmt: skip
        self._agent.log_is_full = lambda: self._log_is_full
        self._agent.hidden_for = self.hidden_for / 100

    def _start(self, tag: str, asked: Asked, ended: Callable[[int], None]) -> _Child:
        program = self._programs[asked.script]
        if program is _HELD:
            self._held.append(ended)
        return _Child(self._world, program, ended)

    def until(self, happened: Callable[[], bool]) -> None:
        end = self._world.now + _PATIENCE
        while not happened():
            assert self._world.now < end, self.read(spools.LOG)
            self._world.pass_time(0.02)

    def term(self) -> None:
        self._agent.terminate()

    def grow_old(self, name: str) -> None:
        entry = self._files.entry(f"{self.spool}/{name}")
        assert isinstance(entry, File)
        entry.modified = 1.0

    def fill_log(self, *, full: bool) -> None:
        self._log_is_full = full

    def end(self) -> int:
        self.until(lambda: bool(self._codes))
        return self._codes[0]

    def make_script(self, tag: str, program: Program) -> str:
        self._programs[f"/w/{tag}.sh"] = program
        return f"/w/{tag}.sh"

    def let_go(self) -> None:
        (ended,) = self._held
        self._world.later(0.0, lambda: ended(_HELD.code))

    def wait_until_deaf(self, tag: str) -> None: ...


class _Child:
    def __init__(self, world: World, program: Program, ended: Callable[[int], None]) -> None:
        self._ended, self._program = ended, program
        world.later(program.seconds, lambda: ended(program.code))

    def terminate(self) -> None:
        if self._program.on_term == "dies":
            self._ended(143)

    def kill(self) -> None: ...


# --- what happens to it


def _jobs_end_well_and_badly(side: Side) -> None:
    side.start()
    side.submit("a")
    side.wait_for("E", "a")
    side.submit("b", Program(3, 0.1))
    side.wait_for("E", "b")
    side.close()


def _a_job_is_handed_over_twice(side: Side) -> None:
    side.start()
    for _ in range(2):
        assert side.submit("a").code == 0
        assert side.run(spools.ask_to_ring_again(side.spool, ["a", "b"])).code == 0
        side.wait_for("E", "a")
    side.close()


def _one_is_cancelled_and_the_next_has_room(side: Side) -> None:
    side.start()
    side.submit("a", _LONG)
    side.wait_for("S", "a")
    side.submit("b")
    side.wait_until_taken()
    side.run(spools.ask_to_cancel(side.spool, ["a"]))
    side.wait_for("E", "b")
    side.close()


def _one_is_cancelled_before_its_turn(side: Side) -> None:
    side.start()
    side.submit("a", _LONG)
    side.wait_for("S", "a")
    side.submit("b")
    side.run(spools.ask_to_cancel(side.spool, ["b"]))
    side.wait_until_taken()
    side.run(spools.ask_to_cancel(side.spool, ["a"]))
    side.wait_for("E", "a")
    side.close()


def _it_is_told_to_end_while_one_waits(side: Side, word: str = spools.CLOSE) -> None:
    side.start()
    side.submit("a", _HELD if word == spools.CLOSE else _LONG)
    side.wait_for("S", "a")
    side.submit("b")
    side.wait_until_taken()
    side.close(word)
    side.wait_until_taken()
    if word == spools.CLOSE:
        side.submit("c")
        side.wait_for("R", "c")
        side.let_go()


def _a_deaf_job_is_killed(side: Side) -> None:
    side.start(grace=1)
    side.submit("a", _DEAF)
    side.wait_for("S", "a")
    side.wait_until_deaf("a")
    side.close(spools.CLOSE_NOW)


def _it_gets_a_signal(side: Side) -> None:
    side.start()
    side.submit("a", _LONG)
    side.wait_for("S", "a")
    side.submit("b")
    side.wait_until_taken()
    side.term()


def _a_job_runs_for_too_long(side: Side) -> None:
    side.start()
    side.submit("a", _LONG, walltime=1)
    side.wait_for("E", "a")
    side.close()


def _jobs_that_it_cannot_take(side: Side) -> None:
    side.hidden_for = 100
    side.start()
    side.submit("a", cores=2)
    side.submit("b", walltime=10_000)
    side.write("jobs/c", b"1\0001\000")
    side.run(spools.ask_to_ring_again(side.spool, ["c"]))
    side.submit("d", Program(), err="/nowhere/d.err")
    side.wait_for("R", "c")
    side.wait_for("E", "d")
    side.close()


def _hand_over_torn(side: Side, tag: str) -> bytes:
    """A job of whose file the agent sees the first half; returns the whole."""
    side.submit(tag)
    whole = side.read(f"jobs/{tag}")
    side.write(f"jobs/{tag}", whole[: len(whole) // 2])
    return whole


def _a_job_cannot_be_read_for_a_while(side: Side) -> None:
    files = {tag: _hand_over_torn(side, tag) for tag in ("a", "b")}
    side.start()
    side.wait_until_taken()
    side.submit("c")
    side.wait_for("E", "c")
    side.run(spools.ask_to_cancel(side.spool, ["b"]))
    side.wait_until_taken()
    for tag, data in files.items():
        side.write(f"jobs/{tag}", data)
    side.wait_for("E", "a")
    side.close()


def _it_is_told_to_end_while_one_cannot_be_read(side: Side) -> None:
    _hand_over_torn(side, "a")
    side.start()
    side.wait_until_taken()
    side.close()


def _what_was_handed_over_before_it_began(side: Side) -> None:
    side.submit("a")
    side.submit("b")
    side.run(spools.ask_to_cancel(side.spool, ["b"]))
    side.start()
    side.wait_for("E", "a")
    side.close()


def _its_log_is_full_for_a_while(side: Side) -> None:
    side.write(spools.LOG, _PADDING)
    side.start()
    side.submit("a", Program(seconds=0.5))
    side.wait_for("S", "a")
    side.fill_log(full=True)
    side.until(lambda: not any(n.endswith(".hosts") for n in side.entries("turns")))
    side.fill_log(full=False)
    side.wait_for("E", "a")
    side.close()


def _another_one_was_here(side: Side) -> None:
    side.link("agent", "4710")
    side.start()


def _nobody_has_anything_for_it(side: Side) -> None:
    side.start(idle=1)


def _its_holder_is_gone(side: Side) -> None:
    side.start()
    side.submit("a", _LONG)
    side.wait_for("S", "a")
    side.grow_old(spools.RENEWED)


def _its_time_is_over(side: Side) -> None:
    side.start(walltime=8)


CASES = {
    "jobs end well and badly": _jobs_end_well_and_badly,
    "a job is handed over twice": _a_job_is_handed_over_twice,
    "one is cancelled, and the next has room": _one_is_cancelled_and_the_next_has_room,
    "one is cancelled before its turn": _one_is_cancelled_before_its_turn,
    "it is told to end while one waits": _it_is_told_to_end_while_one_waits,
    "it is told to end now": partial(_it_is_told_to_end_while_one_waits, word=spools.CLOSE_NOW),
    "a deaf job is killed": _a_deaf_job_is_killed,
    "it gets a signal": _it_gets_a_signal,
    "a job runs for too long": _a_job_runs_for_too_long,
    "jobs that it cannot take": _jobs_that_it_cannot_take,
    "a job cannot be read for a while": _a_job_cannot_be_read_for_a_while,
    "it is told to end while one cannot be read": _it_is_told_to_end_while_one_cannot_be_read,
    "jobs come before it begins": _what_was_handed_over_before_it_began,
    "its log is full for a while": _its_log_is_full_for_a_while,
    "another one was here": _another_one_was_here,
    "nobody has anything for it": _nobody_has_anything_for_it,
    "its holder is gone": _its_holder_is_gone,
    "its time is over": _its_time_is_over,
}


def _facts(side: Side, case: Callable[[Side], None]) -> dict[str, Any]:
    for name in (spools.BELL, spools.LOG, spools.RENEWED):
        side.write(name, b"")
    case(side)
    return side.facts(side.end())


@contextmanager
def _real(folder: Path) -> Iterator[Real]:
    side = Real(folder)
    try:
        yield side
    finally:
        side.stop()


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_the_model_leaves_what_the_agent_leaves(
    case: Callable[[Side], None], tmp_path: Path
) -> None:
    with _real(tmp_path) as real:
        by_bash = _facts(real, case)
    assert _facts(Modelled(), case) == by_bash
    assert by_bash["code"] in (0, 1)


def test_without_a_spool_nothing_is_handed_over(tmp_path: Path) -> None:
    for side in (Real(tmp_path), Modelled()):
        side.spool = f"{side.folder}/nowhere.spool"
        assert spools.surely_refused(side.submit("a"))
