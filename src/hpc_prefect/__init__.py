"""Quantum-centric supercomputing experiments as one Prefect flow.

The names below are loaded when they are first used, so that the job model can be had without
Prefect, and Prefect without Qiskit.
"""

from importlib import import_module
from typing import TYPE_CHECKING

import hpc_prefect.flow_runs.inherited  # noqa: F401 - before any flow of the program begins

if TYPE_CHECKING:
    from hpc_prefect.batch.allocation import allocation
    from hpc_prefect.batch.arrays.member import Member
    from hpc_prefect.batch.arrays.results import JobResults, JobsFailed
    from hpc_prefect.batch.arrays.task import run_jobs_from_blocks, run_jobs_from_blocks_sync
    from hpc_prefect.batch.single import run_job, run_job_sync
    from hpc_prefect.batch.task import run_job_from_blocks, run_job_from_blocks_sync
    from hpc_prefect.block_files.project import ensure_ready
    from hpc_prefect.blocks import CommandBlock, ExecutionProfileBlock, HPCProfileBlock
    from hpc_prefect.convergence import Convergence, Iteration, Plot, StopRule, converge
    from hpc_prefect.errors import InvalidJob, JobFailed
    from hpc_prefect.flow_runs import runs
    from hpc_prefect.flow_runs.cache_policy import ONCE
    from hpc_prefect.flow_runs.campaigns import campaign
    from hpc_prefect.flow_runs.recording import record_measures
    from hpc_prefect.flow_runs.scopes import scope
    from hpc_prefect.job.failure import Reason, Verdict
    from hpc_prefect.job.result import JobResult
    from hpc_prefect.job.retry import RetryPolicy
    from hpc_prefect.lifecycle.hooks import cancel_jobs
    from hpc_prefect.lifecycle.resume import resume
    from hpc_prefect.quantum import QuantumBackendBlock, estimate, sample, sample_sync

_HOME = {
    "ensure_ready": "block_files.project",
    "run_job": "batch.single",
    "run_job_sync": "batch.single",
    "allocation": "batch.allocation",
    "CommandBlock": "blocks",
    "ExecutionProfileBlock": "blocks",
    "HPCProfileBlock": "blocks",
    "campaign": "flow_runs.campaigns",
    "cancel_jobs": "lifecycle.hooks",
    "scope": "flow_runs.scopes",
    "Convergence": "convergence",
    "Iteration": "convergence",
    "Plot": "convergence",
    "StopRule": "convergence",
    "converge": "convergence",
    "InvalidJob": "errors",
    "JobFailed": "errors",
    "Reason": "job.failure",
    "Verdict": "job.failure",
    "JobResult": "job.result",
    "RetryPolicy": "job.retry",
    "ONCE": "flow_runs.cache_policy",
    "QuantumBackendBlock": "quantum",
    "estimate": "quantum",
    "sample": "quantum",
    "sample_sync": "quantum",
    "record_measures": "flow_runs.recording",
    "resume": "lifecycle.resume",
    "runs": "flow_runs.runs",
    "JobResults": "batch.arrays.results",
    "JobsFailed": "batch.arrays.results",
    "Member": "batch.arrays.member",
    "run_jobs_from_blocks": "batch.arrays.task",
    "run_jobs_from_blocks_sync": "batch.arrays.task",
    "run_job_from_blocks": "batch.task",
    "run_job_from_blocks_sync": "batch.task",
}

#: Names that are modules, not in one.
_MODULES = {"runs"}

__all__ = [
    "ONCE",
    "CommandBlock",
    "Convergence",
    "ExecutionProfileBlock",
    "HPCProfileBlock",
    "InvalidJob",
    "Iteration",
    "JobFailed",
    "JobResult",
    "JobResults",
    "JobsFailed",
    "Member",
    "Plot",
    "QuantumBackendBlock",
    "Reason",
    "RetryPolicy",
    "StopRule",
    "Verdict",
    "allocation",
    "campaign",
    "cancel_jobs",
    "converge",
    "ensure_ready",
    "estimate",
    "record_measures",
    "resume",
    "run_job",
    "run_job_from_blocks",
    "run_job_from_blocks_sync",
    "run_job_sync",
    "run_jobs_from_blocks",
    "run_jobs_from_blocks_sync",
    "runs",
    "sample",
    "sample_sync",
    "scope",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'hpc_prefect' has no attribute {name!r}")
    module = import_module(f"hpc_prefect.{_HOME[name]}")
    value = module if name in _MODULES else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, loaded or not: what completion offers."""
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
