"""Acts on jobs by their folders alone, without their flow and without Prefect.

list_jobs(work_dir)     what is known of each job; `ask` adds what schedulers and services say now
find_job(words)         the job with this id, name, key or folder
follow(job)             its output, as it is written
cancel_jobs(jobs)       writes the request, asks the schedulers, and reports unconfirmed ends
cancel_jobs_of(run, …)  the same for all jobs of a flow run
attach(job)             takes over from a dead claimant and follows the job to its verdict
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
