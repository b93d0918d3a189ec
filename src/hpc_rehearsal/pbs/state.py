"""What of the state folder is PBS's own: its ids and what can be seen of a job."""

from __future__ import annotations

from hpc_rehearsal.common.state import State
from hpc_rehearsal.pbs.formats import SERVER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Record = dict[str, Any]

DONE = "F"


class Server(State):
    """A job has beside its record: SC, its script; in, its shell's input; sh, what the engine runs;
    OU and ER, its output until it is delivered."""

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


def job_number(word: str) -> int | None:
    """Of 12, 12.opbs; None for what is no id of this server."""
    digits, dot, server = word.partition(".")
    if not (digits.isascii() and digits.isdecimal()) or (dot and server != SERVER):
        return None
    return int(digits)
