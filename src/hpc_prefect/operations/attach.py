"""Takes over the job of a dead claimant by its folder, and follows it to its verdict."""

from __future__ import annotations

from dataclasses import fields

from hpc_prefect.errors import LedgerError, NotOurs
from hpc_prefect.executor.arrays.request import ArrayRequest
from hpc_prefect.executor.arrays.run import ArrayRun
from hpc_prefect.executor.request import JobRequest, Listener, Silence
from hpc_prefect.executor.service import executor
from hpc_prefect.job.result import JobResult
from hpc_prefect.job.spec import JobSpec
from hpc_prefect.ledger.array_folder import ArrayFolder
from hpc_prefect.ledger.claim import this_process
from hpc_prefect.operations.find import newest_attempt
from hpc_prefect.operations.kinds import KINDS
from hpc_prefect.operations.snapshot import JobSnapshot, read_job


def attach(job: JobSnapshot, listener: Listener | None = None, *, job_id: str = "") -> JobResult:
    """Follow a job to its end and write its verdict, as its own process would have done.

    Its flow, started again later, finds the result. Ctrl-C stops the wait and leaves the job
    running. Blocks.

    Args:
        listener: receives its states and its output; called on another thread.
        job_id: the id of a job whose submission had no reply, which the user has found. Only for
            services that cannot be searched for jobs by tag.

    Returns:
        The result, also of a failed job; at once if it has its verdict already.

    Raises:
        JobHeld: a living run works on it, which the message names.
        LedgerError, SchedulerError: it was never submitted, so there is no job to follow.
        TransportError: its folder cannot be written.
    """
    if job.is_over and job.result is not None:
        return job.result
    listener = listener or Silence()
    if job.kind in KINDS:
        return KINDS[job.kind].attach(job, listener, job_id)
    if job_id:
        raise LedgerError(
            f"{job.folder.path}: --job-id is not possible here, since its scheduler"
            f" finds the job by its tag"
        )
    request = what_to_follow(job, listener)
    if not isinstance(request, ArrayRequest):
        return executor().start(request).result.result()
    executor().start(request, ArrayRun).result.result()
    ended = read_job(job.folder.path, job.folder.transport).result
    if ended is None:
        raise LedgerError(
            f"{job.folder.path}: its cancellation was requested, but its end is not confirmed"
        )
    return ended


def what_to_follow(job: JobSnapshot, listener: Listener) -> JobRequest | ArrayRequest:
    """A batch job, or the array of this submission, as the executor is asked to follow it.

    Raises:
        LedgerError, NotOurs: there is nothing that this user can follow.
    """
    request = _request(job, listener)
    return request if job.members is None else _array(job, request)


def _array(job: JobSnapshot, request: JobRequest) -> ArrayRequest:
    """The request for the whole array; all of its submissions are followed to their ends."""
    folder = ArrayFolder(job.folder.transport, job.folder.path)
    return ArrayRequest(
        **{each.name: getattr(request, each.name) for each in fields(request)},
        members=tuple(asked.member for asked in folder.asked()),
    )


def must_be_ours(job: JobSnapshot) -> None:
    """Raise `LedgerError` or `NotOurs` if there is no job that this user can follow."""
    if job.problem:
        raise LedgerError(f"{job.folder.path} cannot be read: {job.problem}")
    if job.user:
        raise NotOurs(f"{job.folder.path} belongs to {job.user}: only this user can attach to it")
    if job.spec is None:
        raise LedgerError(
            f"{job.folder.path}: this job was never submitted, so there is nothing to attach to;"
            " start its flow again to have it run"
        )


def _request(job: JobSnapshot, listener: Listener) -> JobRequest:
    """The first claimant's request, as far as it is still needed."""
    must_be_ours(job)
    if job.members is None and (newest := newest_attempt(job)) > job.attempt:
        raise LedgerError(
            f"{job.folder.path}: this attempt is over, since attempt {newest} of the job exists"
        )
    assert isinstance(job.spec, JobSpec)
    interval = job.intent.get("poll_interval")
    return JobRequest(
        spec=job.spec,
        base=job.folder.path.rpartition("-")[0],
        key=job.key,
        claimant=this_process(),
        poll_interval=float(interval) if isinstance(interval, int | float) else 10.0,
        attach_only=True,
        provenance=job.provenance,
        listener=listener,
    )
