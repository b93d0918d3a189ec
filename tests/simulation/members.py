"""What an element of an array does: its members one after another, each as a job of its own.

As `job_script.py` a model of the script's text. Which members are an element's is read in that
text, and what they are in the list that was submitted with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpc_prefect.errors import TransportError
from hpc_prefect.job import folder as names
from hpc_prefect.job import members as layout
from hpc_prefect.job.script import GUARD_CODE
from simulation.file_server import File
from simulation.job_script import Program, ScriptRun

if TYPE_CHECKING:
    from simulation.cluster import BatchJob, Cluster

#: A member's start and end are in one file.
_ONE_RECORD = (names.START, names.EXIT)


def work_of(array_folder: str, key: str) -> str:
    """The name of a member's work in one submission, as `Programs` counts it: no folder on disk."""
    base, _, number = array_folder.rpartition("-")
    return f"{base}/m/{key}-{number}"


def keys_of(files_entry: object) -> list[str]:
    """The members' keys, of a submission's `asked.jsonl`; none where it is not whole."""
    if not isinstance(files_entry, File):
        return []
    try:
        return [each.member.key for each in layout.read_asked(files_entry.data)]
    except (KeyError, TypeError, ValueError):
        return []


@dataclass(frozen=True, slots=True)
class _Start:
    """A member's start: its scheduler never may start it again."""

    id: str
    requeues: bool = False
    restarts: int = 0


class MemberRun(ScriptRun):
    """One start of one member."""

    def __init__(
        self,
        cluster: Cluster,
        job: BatchJob,
        index: int,
        key: str,
        ended: Callable[[int], None],
    ) -> None:
        self._index, self._key = index, key
        super().__init__(cluster, job, ended)
        self._work = work_of(job.script.folder, key)

    def _file(self, name: str) -> str:
        if name == names.PROGRAM:
            return super()._file(name)
        own = layout.RECORD if name in _ONE_RECORD else name
        return super()._file(f"{layout.prefix(self._index)}{own}")

    def _program(self) -> Program:
        number = int(self._work.rpartition("-")[2])
        listed = self._cluster.behaviour[self._key]
        return listed[min(number - 1, len(listed) - 1)]

    def _outputs(self) -> tuple[str, ...]:
        return self._cluster.outputs[self._key]

    def _start(self) -> _Start:
        return _Start(self._job.id)

    def _begin(self) -> None:
        super()._begin()
        if self._token:
            self._cluster.begun_members.add(self._work)

    def _run_program(self) -> None:
        path = f"{self._text.folder}/{layout.shard(self._index)}/{layout.MEMBERS}"
        lines = self._files.entry(path)
        whole = isinstance(lines, File) and lines.data.endswith(b"esac\n")
        if whole or not self._is_whole(self._files.entry(self._file(names.PROGRAM))):
            super()._run_program()
            return
        # Cut off anywhere it is a syntax error, and empty it is refused.
        self._world.coverage.sometimes("the lines of an array's members are not whole")
        code = 2 if isinstance(lines, File) and lines.data else 1
        try:
            self._append(names.PHASE, f"program\ncode {code}\n".encode())
        except TransportError:
            self._end(1)
            return
        self._phase = "program"
        self._end(code)


class ElementRun:
    """One start of an element on a node, as `ScriptRun` is one of a job."""

    def __init__(self, cluster: Cluster, job: BatchJob, ended: Callable[[int], None]) -> None:
        self._cluster, self._job, self._ended = cluster, job, ended
        self._member: MemberRun | None = None
        self._gone = self._stopped = False
        self._worst = 0
        self._text = text = job.script
        first = job.index * text.per_element
        self._left = list(range(first, min(first + text.per_element, text.members)))
        self._next()

    @property
    def in_program(self) -> bool:
        return self._member is not None and self._member.in_program

    def kill(self) -> None:
        """SIGKILL, or the node's end."""
        self._gone = True
        if self._member is not None:
            self._member.kill()

    def terminate(self) -> None:
        """SIGTERM to all of its processes: the member that runs is the last one."""
        self._stopped = True
        if self._member is not None:
            self._member.terminate()

    def _next(self) -> None:
        if self._gone:
            return
        if self._stopped or not self._left:
            if self._left:
                self._cluster.world.coverage.sometimes("members of an element are not begun")
            self._gone = True
            self._cluster.world.later(0.0, lambda: self._ended(self._worst))
            return
        index = self._left.pop(0)
        keys = keys_of(self._cluster.files.entry(f"{self._job.script.folder}/{layout.ASKED}"))
        key = keys[index] if index < len(keys) else ""
        if not key:  # lost with the machine that had written it: the script ends at its folder
            self._cluster.world.coverage.sometimes("the list of an array's members is not whole")
            self._worst, self._left = max(self._worst, 2), []
            self._next()
            return
        self._member = MemberRun(self._cluster, self._job, index, key, self._member_ended)

    def _member_ended(self, code: int) -> None:
        stays = self._text.keeps_refusal and GUARD_CODE in (code, self._worst)
        self._worst = GUARD_CODE if stays else max(self._worst, code)
        self._member = None
        self._next()
