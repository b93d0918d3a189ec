"""A register of the kinds of jobs besides batch jobs; users of the operations fill it.

The access to a quantum service is in Prefect's blocks, which are not known here.
"""

from __future__ import annotations

from typing import Protocol

from hpc_prefect.executor.request import Listener
from hpc_prefect.job.provider import Provider
from hpc_prefect.job.result import JobResult
from hpc_prefect.job.spec import Site
from hpc_prefect.operations.snapshot import JobSnapshot
from hpc_prefect.schedulers import scheduler_for


class JobKind(Protocol):
    """What the operations need of a kind of jobs. Both methods block."""

    def provider(self, site: Site) -> Provider:
        """The provider (service) that has the jobs of this site. Never raises."""

    def attach(self, job: JobSnapshot, listener: Listener, job_id: str) -> JobResult:
        """See `operations.attach.attach`."""


#: By `JobSnapshot.kind`.
KINDS: dict[str, JobKind] = {}


def provider_of(job: JobSnapshot) -> Provider:
    """The provider (scheduler or service) that has a job.

    Raises:
        KeyError: none of its name is known to this version or program.
    """
    assert job.spec is not None
    site = job.spec.site
    kind = KINDS.get(job.kind)
    return scheduler_for(site.scheduler) if kind is None else kind.provider(site)
