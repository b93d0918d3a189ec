"""Taking over the job of a dead claimant, to its verdict, from what its folder holds."""

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

    Its flow, started again later, finds the result. Whoever stops waiting (Ctrl-C) leaves the job
    running. Blocks.

    Args:
        listener: told of its states and its output; called on another thread.
        job_id: of a job that was submitted and whose id no reply told: a person has found it. Only
            of a kind that cannot be asked for its jobs by their tags.

    Returns:
        How it ended, whatever that is; at once when it has its verdict already.

    Raises:
        JobHeld: a living run works on it; the message names it.
        LedgerError, SchedulerError: there is no job to follow: it was never submitted.
        TransportError: its folder cannot be written.
    """
    if job.is_over and job.result is not None:
        return job.result
    listener = listener or Silence()
    if job.kind in KINDS:
        return KINDS[job.kind].attach(job, listener, job_id)
    if job_id:
        raise LedgerError(f"{job.folder.path}: its scheduler is asked for it by its tag, not by id")
    request = what_to_follow(job, listener)
    if not isinstance(request, ArrayRequest):
        return executor().start(request).result.result()
    executor().start(request, ArrayRun).result.result()
    ended = read_job(job.folder.path, job.folder.transport).result
    if ended is None:
        raise LedgerError(
            f"{job.folder.path}: its cancellation was requested, and nobody has seen that it ended"
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
    """The array of this submission; all of its submissions are followed to their ends."""
    folder = ArrayFolder(job.folder.transport, job.folder.path)
    return ArrayRequest(
        **{each.name: getattr(request, each.name) for each in fields(request)},
        members=tuple(asked.member for asked in folder.asked()),
    )


def must_be_ours(job: JobSnapshot) -> None:
    """Raise `LedgerError` or `NotOurs` where there is no job that this user can follow."""
    if job.problem:
        raise LedgerError(f"{job.folder.path} cannot be read: {job.problem}")
    if job.user:
        raise NotOurs(f"{job.folder.path} belongs to {job.user}, who alone can attach to it")
    if job.spec is None:
        raise LedgerError(
            f"{job.folder.path}: this job was never submitted, so there is nothing to attach to;"
            " start its flow again to have it run"
        )


def _request(job: JobSnapshot, listener: Listener) -> JobRequest:
    """What was asked of its first claimant, as far as the job can still need it."""
    must_be_ours(job)
    if job.members is None and (newest := newest_attempt(job)) > job.attempt:
        raise LedgerError(
            f"{job.folder.path}: attempt {newest} of this job is there, so this one is over"
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
