"""Kinds of paid work other than batch jobs, as whoever uses these operations makes them known.

How a quantum service is reached is in Prefect's blocks, of which nothing here knows.
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
    """What must be known of a kind to act on its jobs by their folders. Both block."""

    def provider(self, site: Site) -> Provider:
        """The other side that has the jobs of this place. Never raises."""

    def attach(self, job: JobSnapshot, listener: Listener, job_id: str) -> JobResult:
        """See `operations.attach.attach`."""


#: By `JobSnapshot.kind`.
KINDS: dict[str, JobKind] = {}


def provider_of(job: JobSnapshot) -> Provider:
    """The other side that has a job.

    Raises:
        KeyError: this version, or this program, knows none by its name.
    """
    assert job.spec is not None
    site = job.spec.site
    kind = KINDS.get(job.kind)
    return scheduler_for(site.scheduler) if kind is None else kind.provider(site)
