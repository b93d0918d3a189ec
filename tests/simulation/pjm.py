"""What `pjsub`, `pjstat` and `pjdel` print, as Fujitsu's manuals have it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from hpc_prefect.job.dialogue import Command, Reply
from simulation import cluster as batch
from simulation.arrays import BatchArray, make_array
from simulation.cluster import BatchJob, Cluster
from simulation.job_script import ScriptText
from simulation.oracles import Submissions
from simulation.submissions import submit

if TYPE_CHECKING:
    from simulation.process import Process

_STATES = {batch.PENDING: "QUE", batch.HELD: "HLD", batch.RUNNING: "RUN", batch.ENDING: "RNE"}
_SUB_JOB = re.compile(r"\d+\[\d+\]")
#: PJM's own codes of ends that are not the program's.
_CODES = {batch.CANCELLED: 1, batch.TIMEOUT: 11, batch.NODE_FAIL: 20, batch.PREEMPTED: 7}
#: The columns of `--choose` with their widths; names are cut.
_COLUMNS = (
    *(("JOB_ID", 10), ("JOB_NAME", 10), ("MD", 2), ("ST", 3), ("LST", 3), ("EC", 3), ("PC", 3)),
    *(("SN", 3), ("REASON", 16)),
)


class PJMCommands:
    """A site's PJM."""

    name = "pjm"
    options: tuple[dict[str, object], ...] = ({}, {}, {"requeue": "yes"})

    def __init__(self, cluster: Cluster, submissions: Submissions) -> None:
        self._cluster, self._oracles = cluster, submissions
        cluster.gives_ids_again = cluster.starts_again = False

    def run(self, command: Command, process: Process, pause: Callable[[float], None]) -> Reply:
        """What a command of a process prints; `pause` is how long it takes."""
        program = command.argv[0]
        if self._cluster.has("hung"):
            pause(command.timeout)
            return Reply(None)
        if self._cluster.has("down"):
            return _error("0091", program, "The job manager does not answer.")
        words = list(command.argv[1:])
        if program == "pjsub":
            return self._pjsub(words, process)
        if program == "pjdel":
            return self._pjdel(words)
        reply = self._pjstat(words)
        if self._cluster.has("garbage"):
            return Reply(0, reply.stdout[: len(reply.stdout) // 2] + "\x00garbage")
        return reply

    def _pjsub(self, words: list[str], process: Process) -> Reply:
        tag = words[words.index("-N") + 1]
        text = self._cluster.script_at(words[-1])
        if text is None:
            return _error("0008", "pjsub", f"{words[-1]} cannot be opened.")
        walltime = re.search(r"elapse=(\d+):(\d+):(\d+)", text)
        assert walltime
        hours, minutes, seconds = map(int, walltime.groups())

        def make() -> str:
            number = self._cluster.next_number()
            in_all = (hours * 60 + minutes) * 60.0 + seconds
            if "--bulk" in words:
                last = int(words[words.index("--sparam") + 1].partition("-")[2])
                make_array(
                    self._cluster, number, str(number), lambda n: f"{number}[{n}]",
                    (last + 1, 0), tag, ScriptText.read(text), "/", in_all,
                )  # fmt: skip
                return str(number)
            self._cluster.make(
                number,
                str(number),
                tag,
                ScriptText.read(text),
                "/",
                in_all,
                requeues="\n#PJM --restart" in text,
            )
            return str(number)

        self._oracles.submits(tag, words[-1].rpartition("/")[0], process)
        refused = _error("0048", "pjsub", "The group is not permitted.")
        full = _error("0072", "pjsub", "Too many jobs are waiting.")
        reply = submit(
            self._cluster,
            make,
            accepted=lambda job_id: Reply(0, f"[INFO] PJM 0000 pjsub Job {job_id} submitted.\n"),
            refused=refused,
            full=full,
            error=_error("0090", "pjsub", "The job manager does not answer."),
        )
        if reply in (refused, full):
            self._oracles.refused(tag)
        return reply

    def _pjstat(self, words: list[str]) -> Reply:
        history = "-H" in words
        if history and self._cluster.has("forgetful"):
            return _error("0091", "pjstat", "The history cannot be read.")
        what, asked = "jid", [word for word in words if _SUB_JOB.fullmatch(word)]
        if "--filter" in words:
            what, _, values = words[words.index("--filter") + 1].partition("=")
            asked = values.split("+")
        rows: list[list[str]] = []
        shown: set[str] = set()
        for job in self._cluster.jobs.values():
            whole = job.array.id if job.array else job.id
            if ({job.tag} if what == "jnam" else {whole, job.id}).isdisjoint(asked):
                continue
            # With its bulk job a sub job that has ended stays in the queue.
            is_open = bool(job.array.open) if job.array else job.open
            if is_open is history or not self._cluster.seen(job):
                continue
            if job.array and whole not in shown and (what == "jnam" or whole in asked):
                shown.add(whole)
                rows.append(self._whole(job.array))
            if not job.array or "-E" in words or job.id in asked:
                rows.append(self._cells(job))
        if what == "jnam" and history and not self._cluster.has("garbage"):
            self._oracles.asked(asked)
        lines = [_line([name for name, _ in _COLUMNS])]
        lines += [_line(cells) for cells in rows]
        return Reply(0, "".join(lines))

    def _whole(self, array: BatchArray) -> list[str]:
        begun = any(each.runs for each in array.elements)
        state = "RUN" if begun else _STATES[array.elements[0].state] if array.open else "EXT"
        state = state if array.open else "EXT"
        return [array.id, array.tag, "BU", state, "-", "0", "0", "0", "-"]

    def _cells(self, job: BatchJob) -> list[str]:
        state = "CCL" if job.end == batch.CANCELLED else "EXT"
        ended = not job.open
        code = _CODES.get(job.end, 0)
        numbers = [str(job.code if ended and not code else 0), str(code if ended else 0), "0"]
        mode = "BU" if job.array else "NM"
        return [job.id, job.tag, mode, state if ended else _STATES[job.state], "-", *numbers, "-"]

    def _pjdel(self, words: list[str]) -> Reply:
        said = ""
        for word in words:
            if (array := self._cluster.arrays.get(word)) and array.open:
                for each in array.open:
                    self._oracles.cancels(each)
                    self._cluster.cancel(each, by="product")
                continue
            job = self._cluster.jobs.get(word)
            if job is None or job.forgotten or not job.open:
                said += f"[ERR.] PJM 0112 pjdel Job {word} does not exist.\n"
            else:
                self._oracles.cancels(job)
                self._cluster.cancel(job, by="product")
        return Reply(1 if said else 0, said)


def _line(cells: list[str]) -> str:
    named = zip(cells, _COLUMNS, strict=True)
    return " ".join(f"{cell[:width]:{width}}" for cell, (_, width) in named).rstrip() + "\n"


def _error(code: str, command: str, words: str) -> Reply:
    return Reply(1, f"[ERR.] PJM {code} {command} {words}\n")
