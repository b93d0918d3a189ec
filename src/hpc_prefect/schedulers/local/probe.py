"""The check of this machine's own batch system."""

from __future__ import annotations

from hpc_prefect.job.dialogue import Dialogue
from hpc_prefect.job.spec import JobSpec
from hpc_prefect.schedulers.base import NoAnswer, Scheduler
from hpc_prefect.schedulers.finding import Finding, ok, wrong
from hpc_prefect.schedulers.probe import QUEUE, STATUS, searched

_SPOOL = "set local.spool of the HPC profile to a folder on this machine that you may write"


def probe(scheduler: Scheduler, spec: JobSpec) -> Dialogue[list[Finding]]:
    """Ask the engine about a job that is not there."""
    answer = yield from scheduler.observe(["1"], spec.site.options)
    if isinstance(answer, NoAnswer):
        return [wrong(STATUS, answer.said, _SPOOL)]
    found = [ok(STATUS, "the local engine answers")]
    found += yield from searched(scheduler, spec)
    slots = spec.site.options.get("slots")
    queue = spec.site.queue or "local"
    return [*found, ok(QUEUE, f"{queue!r}, with {slots} slots; the first job makes it")]
