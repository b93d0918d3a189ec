"""The state folder of PJM: the queue and the history; no job is in both."""

from __future__ import annotations

import time

from hpc_rehearsal.common.state import PARTS, State
from hpc_rehearsal.pjm import bulk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Record = dict[str, Any]

_DAY_SECONDS = 86400.0


class Server(State):
    """The state folder. Beside its record a job has SC, its script, and sh, the engine's script."""

    DONE = frozenset({"EXT", "CCL", "RJT"})
    WAITING = frozenset({"ACC", "QUE", "RNA", "HLD"})
    DAEMON = "hpc_rehearsal.pjm.daemon"
    KINDS = ("SC", "sh")

    def queue(self) -> list[Record]:
        return self.alive()

    def history(self, days: float) -> list[Record]:
        """The jobs that ended in the last `days`, without those that have just left the queue."""
        if self.fault("no-history"):
            return []
        now = time.time()
        ended = [job for job in self.jobs() if job["state"] in self.DONE]
        return [
            job for job in ended if self.gone(job, now) and now - job["over"] < days * _DAY_SECONDS
        ]

    def shown(self, job: Record, *, expanded: bool) -> list[Record]:
        """Its rows: that of a bulk job, and with it those of its sub jobs."""
        if not job.get("bulk"):
            return [job]
        own = self.parts(job["n"])
        row = bulk.shown(job, own, self.DONE)
        return [row, *bulk.all_parts(job, own)] if expanded else [row]

    def sub_job(self, whole: Record, number: int) -> Record | None:
        if not whole.get("bulk") or number not in bulk.numbers(whole):
            return None
        own = self.job(whole["n"] * PARTS + number)
        parts = bulk.all_parts(whole, [own] if own else [])
        return parts[number - bulk.numbers(whole)[0]]

    def gone(self, job: Record, now: float) -> bool:
        """Whether an ended job is in the history already."""
        return job["state"] in self.DONE and now >= job["over"] + float(self.config["gap"])
