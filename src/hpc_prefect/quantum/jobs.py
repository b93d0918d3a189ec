"""Quantum jobs for `hpc_prefect.operations`, which knows neither Prefect's blocks nor any service.

What a job needs, such as Qiskit, is loaded when there is one.
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
    """Have the operations know quantum jobs."""
    KINDS[QuantumSpec.kind] = QuantumJobs()
