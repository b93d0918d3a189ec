"""Cancels one member of an array, by the array's folder alone."""

from __future__ import annotations

import asyncio
from functools import partial

from hpc_prefect.errors import NotOurs, UnknownJob
from hpc_prefect.executor.cancelling import bring_about
from hpc_prefect.executor.service import executor
from hpc_prefect.job.state import Observation
from hpc_prefect.ledger.claim import this_process
from hpc_prefect.operations.end_watch import LATER, SOON, EndWatch
from hpc_prefect.operations.members import MemberState, read_members
from hpc_prefect.operations.query import connections
from hpc_prefect.operations.snapshot import JobSnapshot
from hpc_prefect.transports.host import host

_ENDED = ("succeeded", "failed")


def cancel_member(job: JobSnapshot, member: MemberState, *, wait: float) -> tuple[bool, str]:
    """Write the request into the array's folder, ask the scheduler, and wait for the end.

    Returns:
        Whether its end is confirmed, and in words how that is known, or what is not known.

    Raises:
        UnknownJob: it cannot be cancelled alone, or not yet; nothing was written or asked.
        NotOurs: the array belongs to another user.
    """
    work = cancelled_member(job, member, wait=wait)
    return asyncio.run_coroutine_threadsafe(work, executor().loop).result()


async def cancelled_member(
    job: JobSnapshot, member: MemberState, *, wait: float
) -> tuple[bool, str]:
    """`cancel_member` on an event loop, which nothing of it blocks."""
    if job.user:
        raise NotOurs(f"{job.folder.path} belongs to {job.user}: only this user can cancel it")
    if member.state in _ENDED:
        return True, f"it had ended: {member.reason or member.state}"
    _must_be_alone(job, member)
    _must_be_submitted(job, member)
    until = host().monotonic() + wait
    note = partial(job.folder.note_cancel_request, member=member.index, by="user")
    await asyncio.to_thread(note, who=this_process().describe())
    return await _bring_about_end(job, member, until)


def _must_be_alone(job: JobSnapshot, member: MemberState) -> None:
    """Refuse a member of an element with several, which is one job to the scheduler."""
    array = job.spec.array if job.spec is not None else None
    count = job.members.all if job.members is not None else 1
    if count > (array.size if array is not None else 1):
        raise UnknownJob(
            f"{member.name} shares its element of the array with other members, so it cannot be"
            " cancelled alone; cancel the whole array"
        )


def _must_be_submitted(job: JobSnapshot, member: MemberState) -> None:
    """Refuse a member of an array that has no id yet: the request would only lie in its folder,
    because the array's own process carries out requests about the whole array only."""
    if job.spec is None or not (job.job_id or member.job_id):
        raise UnknownJob(
            f"{member.name} cannot be cancelled alone yet: its array is not known to be submitted."
            " Try again when `hpc-prefect jobs` shows the array's id, or cancel the whole array"
        )


async def _bring_about_end(job: JobSnapshot, member: MemberState, until: float) -> tuple[bool, str]:
    assert job.spec is not None  # see `_must_be_submitted`
    found = await asyncio.to_thread(connections, [job], until)
    if not found:
        return False, "its scheduler is not known to this version of hpc-prefect"
    ((connection, _),) = found
    name, job_id = connection.scheduler.name, member.job_id or job.job_id
    if job.spec.array is not None and not member.job_id:
        job_id = connection.scheduler.element_id(job.job_id, member.index)
    words = ""

    def saw_end(watch: EndWatch, seen: Observation) -> None:
        nonlocal words
        # Before the cancellation, the answer may be about an earlier start of the element.
        if watch.accepted and not watch.verdict.done():
            words = f"{name} says {seen.word}"
            watch.verdict.set_result(None)

    loop = asyncio.get_running_loop()
    watch = EndWatch(name, job_id, job.tag, loop.create_future(), saw_end)
    connection.watch(watch)
    asking = loop.create_task(
        bring_about(connection, watch, lambda: until - host().monotonic(), watch.cancel_answered)
    )
    pause, is_last = SOON, False
    try:
        while not words and not is_last:
            is_last = asking.done()
            states = await connection.shortly(partial(read_members, job.folder))
            now = states[member.index]
            if now.state in _ENDED:
                return True, f"its process says: {now.reason or now.state}"
            await asyncio.wait([asking], timeout=pause)
            pause = min(LATER, 1.5 * pause)
    finally:
        asking.cancel()
        connection.release(watch)
    silence = f"{name} gave no answer ({connection.silence})" if connection.silence else ""
    not_seen = f"{name} was asked to cancel it, but its end was not seen"
    return bool(words), words or watch.silence or silence or not_seen
