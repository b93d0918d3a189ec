"""What can be found out about a site: one probe for each dialect.

A probe is a dialogue of read-only commands that ends in findings; it submits nothing. To add one,
write a file in the dialect's folder and a line below. Without one, the doctor says "unknown"
of all that only a probe can find out.
"""

from __future__ import annotations

from collections.abc import Callable

from hpc_prefect.job.dialogue import Dialogue
from hpc_prefect.job.spec import JobSpec
from hpc_prefect.schedulers.base import Scheduler
from hpc_prefect.schedulers.finding import Finding
from hpc_prefect.schedulers.local import probe as local
from hpc_prefect.schedulers.pbs import probe as pbs
from hpc_prefect.schedulers.pjm import probe as pjm
from hpc_prefect.schedulers.probe import untold
from hpc_prefect.schedulers.slurm import probe as slurm

_PROBES: dict[str, Callable[[Scheduler, JobSpec], Dialogue[list[Finding]]]] = {
    "local": local.probe,
    "pbs": pbs.probe,
    "pjm": pjm.probe,
    "slurm": slurm.probe,
}


def probe(scheduler: Scheduler, spec: JobSpec) -> Dialogue[list[Finding]]:
    """Ask the site about what this job needs of it."""
    return _PROBES.get(scheduler.name, untold)(scheduler, spec)
