"""What must not be left over: of a process that has nothing to do any more, and of a world."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING

from hpc_prefect.job import folder as names
from hpc_prefect.job.members import ASKED
from hpc_prefect.schedulers.allocation.spool import AGENT
from simulation.file_server import FileServer

if TYPE_CHECKING:
    from simulation.process import Process

#: Seconds after which a process that has all of its results must be at rest.
AT_REST = 400.0
#: All that a job's folder may hold.
_KNOWN = {name for word, name in vars(names).items() if word.isupper() and isinstance(name, str)}
_CLAIM = re.compile(rf"{re.escape(names.CLAIM)}\d+")
#: What is made for a moment, by whom nothing has happened in that moment.
_FOR_A_MOMENT = re.compile(r".*\.[0-9a-f]{8}")
#: Faults after which nobody may be left to remove it, or nothing can be removed.
_EXCUSES = ("a process dies", "a process is stopped", "there is trouble")


def of_process(process: Process) -> list[str]:
    """Of one that has been at rest: tasks, and what it lets its neighbours know."""
    found = []
    if process.loop.waiting:
        found.append(f"{process.name} has {process.loop.waiting} tasks that nobody waits for")
    _, pid, start, _ = process.identity.split()
    told = [n for n in process.machine.meeting_place.files if n.endswith(f"-{pid}.{start}")]
    return found + [f"{process.name} lets its neighbours see {name}" for name in sorted(told)]


def of_world(files: FileServer, campaign: str, faults: Iterable[str]) -> list[str]:
    """Files of jobs that nobody knows, in the end."""
    excused = any(fault.startswith(_EXCUSES) for fault in faults)
    arrays = {path.rpartition("/")[0] for path in files.below(f"/{ASKED}")}
    spools = {path.rpartition("/")[0] for path in files.below(f".spool/{AGENT}")}
    found = []
    for path in sorted(files.below("")):
        folder, _, name = path.rpartition("/")
        if not path.startswith(f"{campaign}/") or any(
            path.startswith(f"{above}/") for above in arrays | spools
        ):
            continue
        known = name in _KNOWN or _CLAIM.fullmatch(name)
        if not known and not (excused and _FOR_A_MOMENT.fullmatch(name)):
            found.append(f"{folder} holds {name}")
    return found


def threads() -> set[threading.Thread]:
    """Those of the product: here all that would run in one is run inline.

    A process that ran other tests has some before a world begins.
    """
    return {each for each in threading.enumerate() if each.name.startswith("hpc-prefect")}
