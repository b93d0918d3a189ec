"""Jobs by their folders alone: without their flow, and without Prefect and its server.

list_jobs(work_dir)     what is known of each job; `ask` adds what their other sides say now
find_job(words)         the one that a person means
follow(job)             what it writes, as it is written
cancel_jobs(jobs)       the request first, then the scheduler; says what is not confirmed
cancel_jobs_of(run, …)  the same for all jobs of a flow run
attach(job)             take over from a dead claimant and follow to the verdict
"""

from hpc_prefect.operations.attach import attach
from hpc_prefect.operations.cancel import Cancellation, cancel_jobs, cancel_jobs_of
from hpc_prefect.operations.find import find_job, list_jobs
from hpc_prefect.operations.logs import follow
from hpc_prefect.operations.query import ask
from hpc_prefect.operations.snapshot import JobSnapshot, read_job

__all__ = [
    "Cancellation",
    "JobSnapshot",
    "ask",
    "attach",
    "cancel_jobs",
    "cancel_jobs_of",
    "find_job",
    "follow",
    "list_jobs",
    "read_job",
]
