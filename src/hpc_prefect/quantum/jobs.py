"""Makes quantum jobs known to `hpc_prefect.operations`, which has no access to blocks and services.

Qiskit and the like are imported only when there is such a job.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpc_prefect.job.quantum_spec import QuantumSpec
from hpc_prefect.operations.kinds import KINDS

if TYPE_CHECKING:
    from hpc_prefect.executor.request import Listener
    from hpc_prefect.job.provider import Provider
    from hpc_prefect.job.result import JobResult
    from hpc_prefect.job.spec import Site
    from hpc_prefect.operations.snapshot import JobSnapshot


class QuantumJobs:
    """A `JobKind`; see `quantum.by_folder`."""

    def provider(self, site: Site) -> Provider:
        from hpc_prefect.quantum.by_folder import provider_at

        return provider_at(site)

    def attach(self, job: JobSnapshot, listener: Listener, job_id: str) -> JobResult:
        from hpc_prefect.quantum.by_folder import attach

        return attach(job, listener, job_id)


def make_known() -> None:
    """Register quantum jobs with the operations."""
    KINDS[QuantumSpec.kind] = QuantumJobs()
