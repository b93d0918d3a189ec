"""Cancels one member of an array, by the array's folder alone."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from functools import partial

from hpc_prefect.errors import NotOurs, UnknownJob
from hpc_prefect.executor.cancelling import bring_about
from hpc_prefect.executor.connection import Connection
from hpc_prefect.executor.service import executor
from hpc_prefect.job.state import JobState, Observation
from hpc_prefect.ledger.array_folder import ArrayFolder
from hpc_prefect.ledger.claim import this_process
from hpc_prefect.operations.end_watch import LATER, SOON, EndWatch
from hpc_prefect.operations.members import MemberState, begun_as, read_members
from hpc_prefect.operations.query import connections
from hpc_prefect.operations.snapshot import JobSnapshot
from hpc_prefect.schedulers.base import NoAnswer
from hpc_prefect.transports.host import host

_ENDED = ("succeeded", "failed")
_GONE_BEFORE_START = "no longer lists it; it had not begun, and cannot begin any more"


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
    if member.state in (*_ENDED, JobState.ENDED):
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
    end = _MemberEnd(connection, job, member, until)
    pause, is_last = SOON, False
    try:
        while not is_last:
            is_last = end.is_seen or end.is_given_up  # what is read from now on is newer
            states = await connection.shortly(partial(read_members, job.folder))
            now = states[member.index]
            if now.state in _ENDED:
                return True, f"its process says: {now.reason or now.state}"
            if end.is_unlisted and await connection.shortly(partial(_closed, job, member)):
                return True, f"{connection.scheduler.name} {_GONE_BEFORE_START}"
            begun = await connection.shortly(partial(begun_as, job.folder, [member.index]))
            if end.also(begun):
                is_last = False
            await end.wait(pause)
            pause = min(LATER, 1.5 * pause)
    finally:
        end.release()
    return end.is_seen, end.words


def _closed(job: JobSnapshot, member: MemberState) -> bool:
    """Whether it has not begun, and cannot begin any more. Blocks."""
    return ArrayFolder(job.folder.transport, job.folder.path).member(member.index).close_unstarted()


class _MemberEnd:
    """The end of a member that is asked for, in each array that its submission may have made.

    One that has begun has one element: the start guard turns the others away. One that waits may
    begin in each array of the submission's name, of which the journal may know one alone.
    """

    def __init__(
        self, connection: Connection, job: JobSnapshot, member: MemberState, until: float
    ) -> None:
        self._connection, self._job, self._until = connection, job, until
        self._name = connection.scheduler.name
        self._words = ""
        self._watches: dict[str, EndWatch] = {}
        self._tasks: set[asyncio.Task[object]] = set()
        self._has_searched = bool(member.job_id)
        self._index = member.index
        self._let_in: set[str] = set()
        self._begin(member.job_id or self._element_of(job.job_id))
        if not self._has_searched:
            self._start(self._search())

    @property
    def is_seen(self) -> bool:
        """Whether all elements have ended, and no further one may be there. Of one that has begun,
        the start guard turns the others away."""
        if self._let_in:
            return all(self._watches[each].verdict.done() for each in self._let_in)
        return self._has_searched and all(each.verdict.done() for each in self._watches.values())

    @property
    def is_unlisted(self) -> bool:
        """Whether its scheduler lists none of the elements since it was told to cancel them. Slurm
        tells no end of an element that waited."""
        watches = self._watches.values()
        return all(each.unlisted or each.verdict.done() for each in watches)

    @property
    def is_given_up(self) -> bool:
        """Whether nobody asks any more."""
        return all(each.done() for each in self._tasks)

    @property
    def words(self) -> str:
        """How it ended, or what is not known."""
        if self.is_seen:
            return self._words
        silence = next((each.silence for each in self._watches.values() if each.silence), "")
        if silence or self._has_searched:
            unheard = self._connection.silence
            unheard = f"{self._name} gave no answer ({unheard})" if unheard else ""
            not_seen = f"{self._name} was asked to cancel it, but its end was not seen"
            return silence or unheard or not_seen
        return f"{self._name} did not say whether another array of its name is there"

    def also(self, begun: Iterable[str]) -> bool:
        """Ask for the end of further elements: those that have begun it, by its own record. Their
        array may be listed late. Returns whether there are any."""
        self._let_in |= {*begun}
        others = [job_id for job_id in self._let_in if job_id not in self._watches]
        for job_id in others:
            self._begin(job_id)
        return bool(others)

    async def wait(self, seconds: float) -> None:
        """Wait until something is answered, at most so long."""
        if left := [each for each in self._tasks if not each.done()]:
            await asyncio.wait(left, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)

    def release(self) -> None:
        """Ask no more."""
        for task in self._tasks:
            task.cancel()
        for watch in self._watches.values():
            self._connection.release(watch)

    def _element_of(self, array_id: str) -> str:
        assert self._job.spec is not None
        if self._job.spec.array is None:
            return array_id
        return self._connection.scheduler.element_id(array_id, self._index)

    def _start(self, work: Coroutine[object, object, object]) -> None:
        self._tasks.add(asyncio.get_running_loop().create_task(work))

    def _left(self) -> float:
        return self._until - host().monotonic()

    def _begin(self, job_id: str) -> None:
        """Ask for the end of one element, and look for it."""
        ended = asyncio.get_running_loop().create_future()
        watch = EndWatch(self._name, job_id, self._job.tag, ended, self._saw_end)
        self._watches[job_id] = watch
        self._connection.watch(watch)
        self._start(bring_about(self._connection, watch, self._left, watch.cancel_answered))

    def _saw_end(self, watch: EndWatch, seen: Observation) -> None:
        # Before the cancellation, the answer may be about an earlier start of the element.
        if watch.accepted and not watch.verdict.done():
            self._words = f"{self._name} says {seen.word}"
            watch.verdict.set_result(None)

    async def _search(self) -> None:
        """Ask for the end of the same member in each other array of the name."""
        while not self._has_searched:
            found = await self._connection.find(self._job.tag)  # paces itself
            if not isinstance(found, NoAnswer):
                going_on = [i for i, seen in found.items() if seen.state is not JobState.ENDED]
                for job_id in map(self._element_of, going_on):
                    if job_id not in self._watches:
                        self._begin(job_id)
                self._has_searched = True
            elif self._left() <= 0:
                return
