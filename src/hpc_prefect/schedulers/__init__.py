"""Schedulers: pure text in, text out. Adding one is one folder here and one line below."""

from __future__ import annotations

from hpc_prefect.schedulers.base import Scheduler
from hpc_prefect.schedulers.local.scheduler import LocalScheduler
from hpc_prefect.schedulers.pbs.scheduler import PBSScheduler
from hpc_prefect.schedulers.pjm.scheduler import PJMScheduler
from hpc_prefect.schedulers.slurm.scheduler import SlurmScheduler

_SCHEDULERS: dict[str, type[Scheduler]] = {
    "local": LocalScheduler,
    "pbs": PBSScheduler,
    "pjm": PJMScheduler,
    "slurm": SlurmScheduler,
}


def scheduler_for(name: str) -> Scheduler:
    """The dialect of that name.

    Raises:
        KeyError: there is none.
    """
    return _SCHEDULERS[name]()
