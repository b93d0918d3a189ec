"""PJM before a job is submitted: the commands, and what every dialect's questions tell.

Queues and groups are told by site commands (`pjstat --rsc`, `pjacl`) whose answers nobody here has
seen, so these cannot be told.
"""

from __future__ import annotations

from hpc_prefect.job.dialogue import Dialogue
from hpc_prefect.job.finding import Finding, Outcome
from hpc_prefect.job.spec import JobSpec
from hpc_prefect.schedulers.base import Scheduler
from hpc_prefect.schedulers.probes.base import (
    PROJECT,
    QUEUE,
    SEARCH,
    missing_commands,
    not_asked,
    untold,
)

_COMMANDS = ("pjsub", "pjstat", "pjdel")


def probe(scheduler: Scheduler, spec: JobSpec) -> Dialogue[list[Finding]]:
    found = yield from missing_commands(_COMMANDS)
    if found[0].outcome is Outcome.WRONG:
        return found + not_asked((SEARCH, QUEUE, PROJECT), "commands are missing")
    return found + (yield from untold(scheduler, spec))
