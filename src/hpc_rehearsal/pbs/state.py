"""The state folder of PBS: ids, and which jobs are visible."""

from __future__ import annotations

import re

from hpc_rehearsal.common.state import State
from hpc_rehearsal.pbs import arrays
from hpc_rehearsal.pbs.formats import SERVER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Record = dict[str, Any]

DONE = "F"


class Server(State):
    """The state folder. Beside its record a job has the files SC (its script), in (its shell's
    input), sh (what the engine runs), and OU and ER (its output until it is delivered)."""

    DONE = frozenset({DONE})
    WAITING = frozenset("QHW")
    DAEMON = "hpc_rehearsal.pbs.daemon"
    KINDS = ("SC", "in", "sh", "OU", "ER")

    def history(self) -> bool:
        return bool(self.config["history"]) and not self.fault("no-history")

    def visible(self, job: Record) -> bool:
        if job["state"] == DONE and not self.history():
            return False
        return super().visible(job)

    def named(self, word: str) -> Record | None:
        """The job, array or subjob of this id; None when there is none that can be seen.

        Raises:
            ValueError: it is no id of this server.
        """
        match = _ID.fullmatch(word)
        if match is None or match[3] not in (None, SERVER):
            raise ValueError(word)
        job = self.job(int(match[1]))
        if job is None or not self.visible(job) or bool(job.get("array")) != bool(match[2]):
            return None
        if match[2] in (None, "[]"):
            return job
        index = int(match[2][1:-1])
        return self.subjob(job, index) if index in arrays.indices_of(job) else None

    def subjob(self, whole: Record, index: int) -> Record:
        """A subjob as it is shown: in state X if it is over while its array is not."""
        job = self.job(arrays.number(whole, index))
        if job is None or (job["state"] == DONE and not self.history()):
            return arrays.copied(whole, index, DONE)
        over = job["state"] == DONE and whole["state"] != DONE
        return {**job, "state": "X"} if over else job

    def forget(self, n: int) -> None:
        if (job := self.job(n)) and job.get("array"):
            for part in self.parts(n):
                super().forget(part["n"])
        super().forget(n)


_ID = re.compile(r"(\d+)(\[\d*\])?(?:\.(.*))?", re.ASCII)


def job_number(word: str) -> int | None:
    """The number in `12` or `12.opbs`; None if this is no id of this server."""
    digits, dot, server = word.partition(".")
    if not (digits.isascii() and digits.isdecimal()) or (dot and server != SERVER):
        return None
    return int(digits)
