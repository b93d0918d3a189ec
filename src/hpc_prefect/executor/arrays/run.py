"""From the call to the results: follow what is there of an array, submit what is missing."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial

from hpc_prefect.errors import JobHeld, LedgerError, SchedulerError, TransportError
from hpc_prefect.executor.arrays.monitor import ArrayMonitor
from hpc_prefect.executor.arrays.opening import OpenedArray, open_array
from hpc_prefect.executor.arrays.request import ArrayRequest, Counts
from hpc_prefect.executor.arrays.submission import Submission, new_submission
from hpc_prefect.executor.attempt import at_site
from hpc_prefect.executor.cancelling import cancel_remote
from hpc_prefect.executor.connection import Connection
from hpc_prefect.executor.finalize import MAY_STILL_BE_THERE
from hpc_prefect.executor.submission import slot_of, submit, take_slot
from hpc_prefect.job.failure import Reason, Verdict
from hpc_prefect.job.members import Ended, MemberSpec
from hpc_prefect.job.result import JobResult
from hpc_prefect.job.retry import RetryPolicy, next_attempt
from hpc_prefect.job.spec import Resources, Site
from hpc_prefect.schedulers import is_allocation
from hpc_prefect.schedulers.base import Scheduler

#: How members end of which an end was asked for.
_CANCELLED = (Reason.CANCELLED, Reason.TIMED_OUT)


class ArrayRun:
    """An array under way, on the executor's event loop; what blocks runs in threads."""

    def __init__(
        self,
        request: ArrayRequest,
        connection: Connection,
        connect: Callable[[Site], Connection] | None = None,
    ) -> None:
        """`connect` gives the connection to a place: each submission may go to another one.
        Without it all are handed over by `connection`."""
        self._request = request
        self._connection = connection
        self._connect = connect or (lambda site: connection)
        self._members = {member.key: member for member in request.members}
        self._results: dict[str, JobResult] = {}
        self._tries: Counter[str] = Counter()
        self._following: dict[asyncio.Task[dict[int, Ended]], _Following] = {}
        self._opened = OpenedArray()
        self._cancelled_by = ""
        # One submission after another where only so many elements may run at once.
        at_once = request.at_once // self._most_elements(connection.scheduler, request.spec.site)
        self._turn = asyncio.Semaphore(max(1, at_once) if request.at_once else 1_000_000)

    async def carry_out(self) -> tuple[JobResult, ...]:
        """From the call to the results of all members, in their order.

        With `attach_only`, of those that were submitted.

        Raises:
            JobHeld, LedgerError, TransportError, SchedulerError: a submission could not be followed
                to its end; its members may be running, and another call finds them.
        """
        opened = self._opened = await self._connection.in_thread(
            partial(open_array, self._request, self._connection)
        )
        self._request.follower.begun(self.counts)
        self._take(opened.done)
        for whole, used in opened.collected:
            self._request.follower.submission_ended(whole, used)
        for submission in opened.under_way:
            self._tries.update(asked.member.key for asked in submission.asked)
            # What an earlier claimant has judged is looked at no more.
            self._on_end(submission, submission.ended.values())
            self._follow(submission)
        missing: dict[Resources, list[MemberSpec]] = {}
        followed = {submission.number for submission in opened.under_way}
        for key, member in self._members.items():
            if key not in opened.done and opened.last.get(key) not in followed:
                resources = opened.more.get(key, self._request.spec.resources)
                missing.setdefault(resources, []).append(member)
        try:
            if not self._request.attach_only:
                for resources, members in missing.items():
                    await self._submit(members, resources)
        finally:
            await self._follow_all()
        if self._request.attach_only:
            return tuple(self._results[key] for key in self._members if key in self._results)
        return tuple(self._results[key] for key in self._members)

    def counts(self) -> Counts:
        """How its members are; those that are between two submissions wait."""
        monitors = [each.monitor for each in [*self._following.values()]]
        running = sum(monitor.running for monitor in monitors if monitor is not None)
        results = [*self._results.values()]
        failed = sum(not result.succeeded for result in results)
        waiting = max(0, len(self._members) - running - len(results))
        return Counts(waiting, running, len(results), failed)

    def cancel(self, by: str) -> None:
        """Ask for the end of all members: `user` or `timeout`. Their results say how they ended."""
        if self._cancelled_by:
            return
        self._cancelled_by = by
        for following in self._following.values():
            following.cancel(by)

    # --- submissions

    async def _submit(self, members: Sequence[MemberSpec], resources: Resources) -> None:
        """Submit members, in as few submissions as the scheduler allows."""
        request = await self._placed(resources)
        connection = self._connect(request.spec.site)
        most = self._most_elements(connection.scheduler, request.spec.site)
        for part in _parts(members, most * request.per_element):
            submission = await connection.in_thread(
                partial(
                    new_submission,
                    request,
                    connection,
                    self._opened.number(),
                    part,
                    self._opened.tries,
                )
            )
            self._opened.tries.update(member.key for member in part)
            self._tries.update(member.key for member in part)
            self._opened.last.update((member.key, submission.number) for member in part)
            self._follow(submission)

    async def _placed(self, resources: Resources) -> ArrayRequest:
        """The request for members that are to be handed over now; see `Placing`.

        Args:
            resources: what they get; how they are launched is up to the place.
        """
        asked = self._request.spec
        resources = dataclasses.replace(resources, launch=asked.resources.launch)
        spec = dataclasses.replace(asked, resources=resources)
        request = dataclasses.replace(self._request, spec=spec)
        if request.placing is not None:
            site = await request.placing.site_for(spec)
            request = request if site is None else at_site(request, site)
        return request

    def _most_elements(self, scheduler: Scheduler, site: Site) -> int:
        """Of one submission."""
        at_once = self._request.at_once
        most = max(1, scheduler.array_limit(site.options))
        return min(most, at_once) if at_once and not scheduler.throttles_arrays else most

    def _follow(self, submission: Submission) -> None:
        submission.array_claim = self._opened.claim
        submission.connection = self._connect(submission.request.spec.site)
        following = _Following(submission, self._cancelled_by, self._on_end)
        task = asyncio.get_running_loop().create_task(self._in_turn(following))
        self._following[task] = following

    async def _in_turn(self, following: _Following) -> dict[int, Ended]:
        if following.submission.intended:  # it is there already, or may be
            return await following.to_end()
        waits = self._turn.locked()
        async with self._turn:
            if waits and not following.is_cancelled:
                await self._place_again(following.submission)
            return await following.to_end()

    async def _place_again(self, submission: Submission) -> None:
        """Choose the allocation when its turn has come: the one that was chosen before it waited
        may have ended since, or have no time left for it."""
        spec = submission.request.spec
        if not is_allocation(spec.site.scheduler):
            return
        request = await self._placed(spec.resources)
        submission.request = dataclasses.replace(
            submission.request,
            spec=dataclasses.replace(
                spec, site=request.spec.site, resources=request.spec.resources
            ),
            max_jobs_in_queue=request.max_jobs_in_queue,
        )
        submission.connection = self._connect(request.spec.site)

    async def _follow_all(self) -> None:
        """Until no submission is left; what is worth another try is submitted again."""
        failed: list[Exception] = []
        while self._following:
            try:
                done, _ = await asyncio.wait(self._following, return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError:
                for task in self._following:
                    task.cancel()
                raise
            for task in done:
                following = self._following.pop(task)
                try:
                    ended = task.result()
                    if not failed:
                        await self._after(following, ended)
                except Exception as error:  # noqa: BLE001 - the others are followed to their ends
                    failed.append(error)
        if failed:
            raise failed[0]

    async def _after(self, following: _Following, ended: dict[int, Ended]) -> None:
        """Keep the results of a submission, and submit again what is worth it."""
        submission = following.submission
        wanted: dict[Resources, list[MemberSpec]] = {}
        for index, each in ended.items():
            member = submission.asked[index].member
            if not self._tells_of(submission, member.key):
                continue
            if resources := self._again(following, member, each.result.verdict):
                wanted.setdefault(resources, []).append(self._members[member.key])
        if wanted and following.unconfirmed:
            raise SchedulerError(
                f"array {self._request.spec.name}: an earlier run asked for the end of"
                f" {submission.job_id}, which {self._connection.scheduler.name} still does not"
                f" confirm. Nothing more was submitted; start again when the job has left the queue"
            )
        for resources, members in wanted.items():
            await self._submit(members, resources)

    def _again(
        self, following: _Following, member: MemberSpec, verdict: Verdict
    ) -> Resources | None:
        """With which resources a member is submitted again; None if it is not."""
        if verdict.succeeded or self._cancelled_by or self._request.attach_only:
            return None
        if verdict.reason is Reason.LOST:
            return None  # it may run: another call looks at it again
        if following.is_left_over and verdict.reason in _CANCELLED:
            return self._request.spec.resources  # cancelled by an earlier run; this run asks for it
        handed_to = following.submission.request.spec.site.scheduler
        if verdict.reason is Reason.NEVER_STARTED and is_allocation(handed_to):
            self._tries[member.key] -= 1
            if self._request.placing is not None:
                self._request.placing.came_back(following.submission.request.spec.site)
            return self._request.spec.resources  # the allocation ended before its turn
        if self._tries[member.key] > self._request.retries or not self._request.retries:
            return None
        job = member.job(following.submission.request.spec)
        policy = self._request.retry or RetryPolicy()
        return next_attempt(policy, job, job.resources, verdict).resources

    # --- results

    def _on_end(self, submission: Submission, ended: Collection[Ended]) -> None:
        keys = {submission.asked[each.index].member.key: each.result for each in ended}
        self._take({key: keys[key] for key in keys if self._tells_of(submission, key)})

    def _tells_of(self, submission: Submission, key: str) -> bool:
        """Whether a member of this submission is asked for, and no later one has it.

        A submission with a lost member stays under way, when others of it have long run again.
        """
        return key in self._members and self._opened.last[key] == submission.number

    def _take(self, results: dict[str, JobResult]) -> None:
        self._results |= results
        if results:
            self._request.follower.ended(list(results.values()))


class _Following:
    """One submission, from wherever it is to the end of its last member.

    Attributes:
        is_left_over: an earlier run has asked for its end, not this one.
        unconfirmed: its end was asked for, and nobody has seen it.
        monitor: who watches it at this moment.
    """

    def __init__(
        self,
        submission: Submission,
        cancelled_by: str,
        on_end: Callable[[Submission, Collection[Ended]], object],
    ) -> None:
        self.submission = submission
        self.is_left_over = bool(submission.cancel) and not cancelled_by
        self.unconfirmed = False
        self._cancelled_by = cancelled_by or submission.cancel
        self._cancelled = asyncio.Event()
        if cancelled_by:
            self._cancelled.set()  # it waits for no slot
        self._on_end = partial(on_end, submission)
        self.monitor: ArrayMonitor | None = None
        self._cancelling: asyncio.Task[None] | None = None
        loop = asyncio.get_running_loop()
        submission.on_cancel_request = lambda by: loop.call_soon_threadsafe(
            self._cancel_requested, by
        )

    @property
    def is_cancelled(self) -> bool:
        """Whether somebody has asked for its end since it is followed."""
        return self._cancelled.is_set()

    def cancel(self, by: str) -> None:
        """Ask for the end of all of its members."""
        self.is_left_over = False
        if self._cancelled_by:
            return
        self._cancelled_by = by
        self._cancelled.set()
        if self.monitor is not None:
            self._begin_cancelling(self.monitor)

    def _cancel_requested(self, by: str) -> None:
        if not self._cancelled_by:
            self.cancel(by)

    async def to_end(self) -> dict[int, Ended]:
        """Submit it, unless that was done; watch it; write down how its members ended."""
        submission = self.submission
        listener = submission.request.listener
        if submission.job_id:
            listener.state(
                f"attached to {submission.job_id}, which {submission.taken_from} had submitted",
                job_id=submission.job_id,
            )
        slots = submission.connection.slots(submission.request.spec.site.queue)
        has_slot = await take_slot(submission, self._cancelled)
        try:
            await self._bring_to_end()
        finally:
            if has_slot:
                slots.give_back(slot_of(submission))
        return submission.ended

    async def _bring_to_end(self) -> None:
        submission, connection = self.submission, self.submission.connection
        verdict = None
        if not submission.job_id:
            verdict = await submit(submission, lambda: self._cancelled_by, self._cancelled)
        if verdict is not None:
            self._on_end(await connection.in_thread(partial(submission.not_submitted, verdict)))
        else:
            _tell_submitted(submission)
            await self._monitored(ask=bool(submission.taken_from))
        # An end that nobody has seen is none: nothing is closed, and nothing more is submitted.
        while not self.unconfirmed and (
            begun := await connection.in_thread(submission.close_ended)
        ):
            await self._follow_instead(begun)
            await self._monitored(ask=True)
        await self._conclude()

    async def _follow_instead(self, begun: Mapping[int, str]) -> None:
        """Another submission of this one, once in doubt, has begun members that were judged."""
        submission, connection = self.submission, self.submission.connection
        await connection.in_thread(partial(submission.reopen, begun))
        other = submission.whole_id(next(iter(begun.values())))
        if other == submission.job_id:
            return
        submission.request.listener.state(
            f"it was submitted twice; {other} started {len(begun)} of its members, and is"
            " followed now"
        )
        if submission.job_id:  # none of its own is left, but some of it may still wait
            await connection.cancel(submission.job_id, submission.tag)
        await connection.in_thread(partial(submission.submitted, other, 0.0))

    async def _monitored(self, *, ask: bool) -> None:
        connection = self.submission.connection
        monitor = ArrayMonitor(self.submission, lambda: self._cancelled_by, self._on_end, ask=ask)
        self.monitor = monitor
        connection.watch(monitor)
        try:
            if self._cancelled_by:
                self._begin_cancelling(monitor)
            await monitor.verdict
            await connection.in_thread(monitor.write_ended)
        finally:
            self.monitor = None
            connection.release(monitor)

    def _begin_cancelling(self, monitor: ArrayMonitor) -> None:
        self._cancelling = asyncio.get_running_loop().create_task(self._cancel_remote(monitor))

    async def _cancel_remote(self, monitor: ArrayMonitor) -> None:
        submission, connection = self.submission, self.submission.connection
        # What keeps us from looking for others keeps us from cancelling ours, and is told there.
        with contextlib.suppress(JobHeld, LedgerError, TransportError):
            for other in await connection.in_thread(submission.others_begun):
                await connection.cancel(other, submission.tag)
        confirmed = await cancel_remote(
            submission, monitor, self._cancelled_by, earlier=lambda: self.is_left_over
        )
        self.unconfirmed = not confirmed

    async def _conclude(self) -> None:
        submission, connection = self.submission, self.submission.connection
        left = await connection.in_thread(
            partial(submission.conclude, confirmed=not self.unconfirmed)
        )
        others = {submission.whole_id(each) for each in left} - {submission.job_id}
        ends = {each.result.verdict.reason for each in submission.ended.values()}
        # What is lost may be running, and its end is nobody's wish.
        left_over = Reason.LOST not in ends and not ends.isdisjoint(MAY_STILL_BE_THERE)
        if submission.job_id and left_over:
            others.add(submission.job_id)
        for job_id in sorted(others):
            await connection.cancel(job_id, submission.tag)
        submission.request.follower.submission_ended(submission.whole(), len(submission.asked))


def _tell_submitted(submission: Submission) -> None:
    count, array = len(submission.asked), submission.request.spec.array
    many = f"{count} members" + (f" in {array.size} elements" if array else "")
    if not submission.taken_from:
        submission.request.listener.state(
            f"submitted as {submission.job_id}: {many}", job_id=submission.job_id
        )


def _parts(members: Sequence[MemberSpec], most: int) -> Iterable[Sequence[MemberSpec]]:
    return (members[first : first + most] for first in range(0, len(members), most))
