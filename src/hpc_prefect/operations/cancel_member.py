"""Cancels one member of an array, by the array's folder alone."""

from __future__ import annotations

from hpc_prefect.errors import NotOurs, UnknownJob
from hpc_prefect.job.state import JobState
from hpc_prefect.ledger.claim import this_process
from hpc_prefect.operations.members import MemberState, read_members
from hpc_prefect.operations.query import SchedulerClient, at_each_scheduler
from hpc_prefect.operations.snapshot import JobSnapshot
from hpc_prefect.schedulers import scheduler_for
from hpc_prefect.schedulers.base import NoAnswer
from hpc_prefect.transports.host import host

_ENDED = ("succeeded", "failed")
#: Seconds between two looks: the first and the longest pause.
_SOON, _LATER = 0.1, 5.0


def cancel_member(job: JobSnapshot, member: MemberState, *, wait: float) -> tuple[bool, str]:
    """Write the request into the array's folder, ask the scheduler, and wait for the end.

    Returns:
        Whether its end is confirmed, and in words how that is known, or what is not known.

    Raises:
        UnknownJob: it cannot be cancelled alone.
        NotOurs: the array belongs to another user.
    """
    if job.user:
        raise NotOurs(f"{job.folder.path} belongs to {job.user}: only this user can cancel it")
    if member.state in _ENDED:
        return True, f"it had ended: {member.reason or member.state}"
    _must_be_alone(job, member)
    deadline = host().monotonic() + wait
    job.folder.note_cancel_request(member=member.index, by="user", who=this_process().describe())
    said = at_each_scheduler(lambda client, _: _end(client, job, member, deadline), [job])
    return said[0][1] if said else (False, "its scheduler is not known to this version")


def _must_be_alone(job: JobSnapshot, member: MemberState) -> None:
    """Refuse a member of an element with several, which is one job to the scheduler."""
    array = job.spec.array if job.spec is not None else None
    count = job.members.all if job.members is not None else 1
    if count > (array.size if array is not None else 1):
        raise UnknownJob(
            f"{member.name} shares its element of the array with other members, so it cannot be"
            " cancelled alone; cancel the whole array"
        )


def _end(
    client: SchedulerClient, job: JobSnapshot, member: MemberState, deadline: float
) -> tuple[bool, str]:
    assert job.spec is not None
    name, job_id = client.scheduler.name, job.job_id
    if job.spec.array is not None:
        scheduler = scheduler_for(job.spec.site.scheduler)
        job_id = member.job_id or scheduler.element_id(job.job_id, member.index)
    pause, words = max(_SOON, client.scheduler.hurry), ""
    heard = False
    while True:
        if not heard:
            refused = client.cancel({job_id: job.tag}, deadline)
            heard = refused is None
            if refused is None:
                words = ""
            else:
                words = f"{name} did not accept the cancellation ({refused.said})"
        now = read_members(job.folder)[member.index]
        if now.state in _ENDED:
            return True, f"its process says: {now.reason or now.state}"
        seen = client.observe([job_id], deadline)[job_id]
        if isinstance(seen, NoAnswer):
            words = words or f"{name} gave no answer ({seen.said})"
        elif seen is None:
            words = f"{name} no longer lists {job_id}, and its end was not seen"
        elif seen.state is JobState.ENDED and heard:
            return True, f"{name} says {seen.word}"
        if host().monotonic() >= deadline:
            return False, words or f"{name} was asked to cancel it, but its end was not seen"
        host().sleep(max(0.0, min(pause, deadline - host().monotonic())))
        pause = min(_LATER, 1.5 * pause)
