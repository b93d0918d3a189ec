"""Schedulers' dialects: pure, text in and text out. A new one is a folder here and a line below."""

from __future__ import annotations

from hpc_prefect.schedulers.allocation.scheduler import PREFIX, AllocationScheduler
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


def is_allocation(name: str) -> bool:
    """Whether a scheduler of that name is a held allocation."""
    return name.startswith(PREFIX)


def scheduler_for(name: str) -> Scheduler:
    """The dialect of that name; `allocation-<name>` for held allocations of that scheduler.

    Raises:
        KeyError: there is none.
    """
    if is_allocation(name):
        return AllocationScheduler(_SCHEDULERS[name.removeprefix(PREFIX)]())
    return _SCHEDULERS[name]()
