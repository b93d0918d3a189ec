"""What the rendered script does to the files and for the program, step by step, in its own order.

The script is bash, so this is a model of it; `test_job_script.py` runs the real one beside it. What
the model does it reads in the text that was submitted: a script without its guard has none here.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpc_prefect.errors import TransportError
from hpc_prefect.job import folder as names
from hpc_prefect.job.script import FOLDER_CODE, GUARD_CODE, RECORD_CODE
from simulation.file_server import File, Link

if TYPE_CHECKING:
    from simulation.cluster import BatchJob, Cluster
    from simulation.oracles import Start

# Each begins with plain characters, which are found ten times as fast as the beginning of a line.
_WORD = re.compile(r"\n_hp_end \$\? (\w*)\n")
_FOLDER = re.compile(r"\n_hp_dir='(.*)'\n")
_PER_ELEMENT = re.compile(r"\n_hp_first=\$\(\(_hp_element \* (\d+)\)\)\n")
_RESTART = re.compile(r'"restart":(\d+)')
_MEMBERS = re.compile(r"&& _hp_i < (\d+); _hp_i\+\+")


@dataclass(frozen=True, slots=True)
class ScriptText:
    """What of a script's text decides what it does.

    Attributes:
        guarded: it holds the start guard.
        again: it looks whether it has started before; `counted`: by the scheduler's own count.
        may_requeue: a start that the scheduler counts runs the program again.
        never: none counts, whatever the scheduler says.
        members, per_element: of an array's script, how many it has, and how many an element runs.
        keeps_refusal: an element that the start guard turned one member away from ends with that.
    """

    folder: str
    word: str
    guarded: bool
    again: bool
    counted: bool
    may_requeue: bool
    never: bool = False
    members: int = 0
    per_element: int = 0
    keeps_refusal: bool = False

    @classmethod
    def read(cls, text: str) -> ScriptText:
        folder, word = _FOLDER.search(text), _WORD.search(text)
        assert folder, "this is no job script"
        per_element, members = _PER_ELEMENT.search(text), _MEMBERS.search(text)
        return cls(
            folder[1],
            word[1] if word else "",
            guarded="\n_hp_guard || " in text,
            again="\n_hp_guard || _hp_again" in text,
            counted='[ "$_hp_restart" -gt ' in text,
            may_requeue='\n  ! [ "$_hp_restart" -gt ' in text,
            never="\n_hp_restart=0\n" in text,
            members=int(members[1]) if members else 0,
            per_element=int(per_element[1]) if per_element else 0,
            keeps_refusal=f'[ "$_hp_worst" != {GUARD_CODE} ] || continue' in text,
        )


@dataclass(frozen=True, slots=True)
class Program:
    """How a program behaves, each time it is started.

    Attributes:
        code: its exit code, 128 + n for a signal; `seconds`: how long it runs.
        writes: it writes its output, if it ends by itself.
        on_term: what it does when it is asked to end: `dies`, `slow`, `deaf`, or `zero`: it ends
            with 0, as if all were well.
    """

    code: int = 0
    seconds: float = 5.0
    writes: bool = True
    on_term: str = "dies"


class ScriptRun:
    """One start of a job's script on a node."""

    def __init__(self, cluster: Cluster, job: BatchJob, ended: Callable[[int], None]) -> None:
        self._world, self._files = cluster.world, cluster.files
        self._cluster, self._job = cluster, job
        self._text = job.script
        self._work = job.script.folder
        self._node = job.node
        self._restart = 0 if self._text.never else job.restarts  # as its environment says
        self._ended = ended
        self._gone = False
        self._token = ""
        self._signals: list[str] = []
        self._in_program = False
        self._phase = ""
        self._then(self._enter)

    @property
    def folder(self) -> str:
        """The job's."""
        return self._text.folder

    @property
    def in_program(self) -> bool:
        return self._in_program

    def kill(self) -> None:
        """SIGKILL, or the node's end: nothing more of it happens."""
        if self._in_program:
            self._cluster.programs.killed(self._work, self._job.id)
        self._gone, self._in_program = True, False

    def terminate(self) -> None:
        """SIGTERM to all of its processes. The script notes it; the program does what it does."""
        if self._gone or not self._token:
            if not self._gone:  # before its traps bash ends by it
                self._leave(143)
            return
        if "TERM" not in self._signals:
            self._signals.append("TERM")
        if self._in_program:
            on_term = self._program().on_term
            if on_term == "zero":
                self._then(lambda: self._program_ends(0, by_itself=False))
            elif on_term in ("dies", "slow"):
                delay = 4.0 if on_term == "slow" else 0.05
                self._then(lambda: self._program_ends(143, by_itself=False), delay)

    # --- what it runs; of a member of an array it is the member's

    def _program(self) -> Program:
        return self._cluster.program_of(self._job)

    def _outputs(self) -> tuple[str, ...]:
        return self._job.outputs

    def _start(self) -> Start:
        return self._job

    def _is_whole(self, inner: File | Link | None) -> bool:
        return isinstance(inner, File) and inner.data.endswith(b'\\builtin exit "$1"\n')

    # --- its steps

    def _then(self, step: Callable[[], None], seconds: float | None = None) -> None:
        if seconds is None:
            seconds = self._world.chance.number("a script's step", 0.001, 0.05)

        def go() -> None:
            if not self._gone:
                step()

        self._world.later(seconds, go)

    def _file(self, name: str) -> str:
        return f"{self._text.folder}/{name}"

    def _entry(self, name: str) -> File | Link | None:
        return self._files.look(self._node, self._file(name))

    def _leave(self, code: int) -> None:
        self._gone = True
        self._ended(code)

    def _refuse(self, code: int) -> None:
        self._world.coverage.sometimes(f"a script refuses with {code}")
        self._leave(code)

    def _enter(self) -> None:
        if not self._files.is_folder(self._text.folder):
            self._refuse(FOLDER_CODE)
        elif self._text.guarded:
            self._then(self._guard)
        else:
            self._then(self._begin)

    def _guard(self) -> None:
        if not isinstance(self._entry(names.PROGRAM), File):
            self._refuse(FOLDER_CODE)
            return
        try:
            self._may_write(names.GUARD)
            if self._files.link(self._node, self._file(names.GUARD), self._job.id):
                self._then(self._begin)
                return
        except TransportError:
            self._refuse(FOLDER_CODE)
            return
        holder = self._files.entry(self._file(names.GUARD))
        if not isinstance(holder, Link):
            self._refuse(FOLDER_CODE)
        elif holder.target != self._job.id:
            with contextlib.suppress(TransportError):
                self._append(names.DUPLICATES, f"{self._job.id}\n".encode())
            self._refuse(GUARD_CODE)
        elif self._text.again:
            self._then(self._again)
        else:
            self._then(self._begin)

    def _again(self) -> None:
        """`_hp_again`: it was here before."""
        mine = [line for line in self._lines(names.START) if f'"id":"{self._job.id}"' in line]
        restarts = [each[1] for line in mine if (each := _RESTART.search(line))]
        last = max([0, *map(int, restarts)])
        success = f'"word":"{self._text.word}","phase":"program","signals":"",'
        ended = any(
            success in line and '"code":0,"oom":0,' in line for line in self._lines(names.EXIT)
        )
        counted = self._restart > last
        if self._text.may_requeue and self._text.counted and counted:
            self._then(self._begin)
        elif ended:
            self._world.coverage.sometimes("a script finds its program's success")
            self._leave(0)
        elif self._text.counted and not counted:
            self._world.coverage.sometimes("a script finds a start that was not counted")
            self._refuse(GUARD_CODE)
        else:
            self._then(self._begin)

    def _lines(self, name: str) -> list[str]:
        entry = self._entry(name)
        return entry.data.decode().split("\n") if isinstance(entry, File) else []

    def _begin(self) -> None:
        now = self._cluster.machine(self._node).time()
        token = f"{now:.6f}.{self._world.steps}"
        start: dict[str, object] = {"token": token, "id": self._job.id}
        start |= {"host": self._node, "boot": "b", "time": now}
        start |= {"restart": self._restart} if self._text.counted else {}
        try:
            self._write(names.PHASE, b"setup\n")
            if not isinstance(self._entry(names.START), File):
                self._refuse(FOLDER_CODE)
                return
            self._append(names.START, _compact(start))
        except TransportError:
            self._refuse(FOLDER_CODE)
            return
        self._token, self._phase = token, "setup"
        self._then(self._run_program)

    def _run_program(self) -> None:
        inner = self._files.entry(self._file(names.PROGRAM))
        if not self._is_whole(inner):  # lost with the machine that had written it
            self._world.coverage.sometimes("a script's program.sh is not whole")
            self._end(0 if isinstance(inner, File) and not inner.data else 2)
            return
        try:
            self._append(names.PHASE, b"program\n")
        except TransportError:
            self._end(1)
            return
        self._phase = "program"
        self._in_program = True
        program = self._program()
        self._cluster.programs.started(self._work, self._start())
        self._begin_program(program)

    def _begin_program(self, program: Program) -> None:
        self._then(lambda: self._program_ends(program.code, by_itself=True), program.seconds)

    def _program_ends(self, code: int, *, by_itself: bool) -> None:
        if not self._in_program:
            return
        self._in_program = False
        program = self._program()
        told = True
        try:
            self._append(names.STDOUT, b"a line\n")
            if by_itself and program.writes:
                for output in self._outputs():
                    self._files.may_write(output)
                    self._files.put(self._node, output, b"result", synced=True)
            self._append(names.PHASE, f"code {code}\n".encode())
        except TransportError as error:
            self._world.note("program", f"cannot write: {error}")
            told = False
        self._cluster.programs.ended(self._work, self._job.id, code)
        if not told:
            # The last word is missing: a success is not told by half of it.
            self._phase = "program" if code else "untold"
        self._then(lambda: self._end(code))

    def _end(self, code: int) -> None:
        now = self._cluster.machine(self._node).time()
        record = {
            "token": self._token,
            "word": self._text.word,
            "phase": self._phase,
            "signals": " ".join(self._signals),
            "detail": "",
            "code": code,
            "oom": 0,
            "cpu": 1,
            "time": now,
        }
        try:
            if not isinstance(self._entry(names.EXIT), File):
                self._leave(code or RECORD_CODE)
                return
            before = self._files.entry(self._file(names.EXIT))
            begin = b"\n" if isinstance(before, File) and before.data else b""
            self._append(names.EXIT, begin + _compact(record))
        except TransportError:
            self._leave(code or RECORD_CODE)
            return
        wrote = self._program().writes or not self._outputs()
        if self._phase == "program" and not self._signals and code == 0 and wrote:
            self._cluster.programs.recorded(self._work, self._job.id)
        self._leave(code if self._phase == "program" else code or 1)

    def _may_write(self, name: str) -> None:
        self._files.may_speak(self._file(name))
        self._files.may_write(self._file(name))

    def _append(self, name: str, data: bytes) -> None:
        path = self._file(name)
        try:
            self._may_write(name)
        except TransportError:
            if len(data) > 8:
                self._files.append(self._node, path, data[: len(data) // 2], synced=True)
            raise
        self._files.append(self._node, path, data, synced=True)

    def _write(self, name: str, data: bytes) -> None:
        self._may_write(name)
        self._files.put(self._node, self._file(name), data, synced=True)


def _compact(record: dict[str, object]) -> bytes:
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"
