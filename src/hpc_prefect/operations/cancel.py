"""Cancels jobs by their folders alone, without their flow, its process, or Prefect."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from hpc_prefect.errors import NotOurs, TransportError
from hpc_prefect.executor.cancelling import bring_about
from hpc_prefect.executor.connection import Connection
from hpc_prefect.executor.service import executor
from hpc_prefect.job.quantum_spec import QuantumSpec
from hpc_prefect.job.script import GUARD_CODE
from hpc_prefect.job.spec import JobSpec
from hpc_prefect.job.state import JobState, Observation
from hpc_prefect.ledger.claim import this_process
from hpc_prefect.operations.end_watch import LATER, SOON, EndWatch
from hpc_prefect.operations.find import list_jobs
from hpc_prefect.operations.members import begun_as
from hpc_prefect.operations.query import connections
from hpc_prefect.operations.snapshot import NO_SENSE, JobSnapshot, read_job
from hpc_prefect.operations.status import NOT_SUBMITTED
from hpc_prefect.schedulers import scheduler_for
from hpc_prefect.schedulers.base import NoAnswer, Scheduler
from hpc_prefect.transports.host import host

#: As a service calls what it charges.
_QPU = "qpu_seconds"
#: How many seconds to wait for an end.
CONFIRM = 20.0


@dataclass(frozen=True, kw_only=True)
class Cancellation:
    """The outcome of a request to cancel a job.

    Attributes:
        confirmed: it has ended, or was never submitted.
        words: how that is known, or what is not known.
        job: the job afterwards, by its folder.
    """

    job: JobSnapshot
    confirmed: bool
    words: str


@dataclass
class _CancelRequest:
    """A job that is being cancelled.

    Attributes:
        ids: what is to be cancelled; found by its tag when its submission was in doubt.
        turned_away: ids that ended with the start guard's code.
        started_as: the id by which it has begun, by its own record; never of a quantum job.
        has_searched: a useful answer has told which jobs of its tag there are.
        members_told: since all known ids have ended, the members of an array have told by their
            records that no other one has begun any of them.
        watches: one for each of the ids.
        ended: ids whose end has been seen.
        ended_words: how the last of these ended.
        words: how it ended; empty until then.
        silence: the message if its end is not seen in time.
        used_by: the resources that each of the ids used, by the scheduler.
    """

    job: JobSnapshot
    ids: list[str]
    has_searched: bool = False
    members_told: bool = False
    watches: dict[str, EndWatch] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    ended_words: str = ""
    turned_away: set[str] = field(default_factory=set)
    started_as: str = ""
    words: str = ""
    silence: str = ""
    used_by: dict[str, dict[str, float]] = field(default_factory=dict)
    over: asyncio.Future[None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    @property
    def is_to_search(self) -> bool:
        """Whether it may have jobs that are not known, and that may run.

        One submission may have made two. Once one has begun, the start guard turns the other away;
        until then each may begin. Of two arrays each may run some of the members. A quantum job has
        no guard.
        """
        begun = bool(self.started_as) and self.job.members is None
        return self.is_hidden or not (self.has_searched or begun)

    @property
    def is_hidden(self) -> bool:
        """Whether the start guard has turned away all that is known of a single job: another one
        has begun, which may be listed late. (An array's code tells of one element alone.)"""
        known = set(self.ids) if self.job.members is None else set()
        return bool(known) and self.turned_away >= known and self.started_as not in known

    @property
    def all_ended(self) -> bool:
        """Whether the end of each known id has been seen."""
        return self.ended >= set(self.ids)

    @property
    def used(self) -> dict[str, float]:
        """What it has used. Each quantum job is charged; what its journal knows of a duplicate
        counts by itself."""
        used = {name: value for each in self.used_by.values() for name, value in each.items()}
        if isinstance(self.job.spec, QuantumSpec):
            known = self.job.ledger.duplicates
            own = [each for job_id, each in self.used_by.items() if job_id not in known]
            used.pop(_QPU, None)
            if len(own) > 1 or any(_QPU in each for each in own):
                estimate = self.job.spec.estimated_seconds
                used[_QPU] = sum(each.get(_QPU, estimate) for each in own)
        return used

    def conclude(self) -> None:
        """Let everybody who waits for its end know, if it is there."""
        alone = self.members_told or self.job.members is None
        if alone and not self.is_to_search and self.all_ended:
            self.words = self.words or self.ended_words
        if self.words and not self.over.done():
            self.over.set_result(None)

    def saw_end(self, watch: EndWatch, seen: Observation, scheduler: str) -> None:
        """The scheduler says that one of its ids has ended."""
        self.ended.add(watch.job_id)
        if seen.exit_code == GUARD_CODE:
            self.turned_away.add(watch.job_id)
        self.used_by[watch.job_id] = seen.used
        self.ended_words = f"{scheduler} says {seen.word}"
        self.conclude()


def cancel_jobs_of(
    flow_run_id: str,
    folders: Iterable[str | os.PathLike[str]],
    *,
    by: str = "user",
    wait: float = CONFIRM,
) -> list[Cancellation]:
    """Cancel all jobs of a flow run that have no verdict yet and are not to be kept.

    Args:
        flow_run_id: of the outermost flow run, as claims name it. A job that another run took over
            is not among them.
        folders: folders of work_dirs, campaigns or jobs, in any mixture.
        by: `user` or `timeout`: the cause in the job's verdict.
        wait: how many seconds to wait for their ends.
    """
    found = {job.folder.path: job for folder in folders for job in list_jobs(folder)}
    theirs = [job for job in found.values() if job.flow_run == flow_run_id and not job.is_over]
    return cancel_jobs([job for job in theirs if not job.is_kept], by=by, wait=wait)


def cancel_jobs(
    jobs: Sequence[JobSnapshot], *, by: str = "user", wait: float = CONFIRM
) -> list[Cancellation]:
    """Write the request into each job's folder, ask the schedulers, and wait for the ends.

    A living claimant ends its job as cancelled. A job without one gets its verdict when somebody
    attaches to it or starts its flow again; these, or another call, also repeat a cancellation
    whose end is not confirmed in time.
    """
    work = cancelled(jobs, by=by, wait=wait)
    return asyncio.run_coroutine_threadsafe(work, executor().loop).result()


async def cancelled(
    jobs: Sequence[JobSnapshot], *, by: str = "user", wait: float = CONFIRM
) -> list[Cancellation]:
    """`cancel_jobs` on an event loop, which nothing of it blocks."""
    until = host().monotonic() + wait
    done: dict[str, Cancellation] = {}
    asked = []
    nothing = await asyncio.to_thread(lambda: [_nothing_to_cancel(job) for job in jobs])
    for job, words in zip(jobs, nothing, strict=True):
        if words:
            confirmed = not (job.problem or job.user)
            done[job.folder.path] = Cancellation(job=job, confirmed=confirmed, words=words)
        else:
            asked.append(job)
    troubles = await asyncio.to_thread(lambda: [_write_request(job, by) for job in asked])
    requests = {
        job.folder.path: _CancelRequest(
            job, list(job.ids), started_as=job.start.id if job.start else "", silence=trouble
        )
        for job, trouble in zip(asked, troubles, strict=True)
    }
    # In a thread: a quantum service is resolved on this loop, and its credentials are read.
    asks = await asyncio.to_thread(connections, asked, until)
    await asyncio.gather(
        _await_claimants([each for each in requests.values() if each.job.spec is None], until),
        *(
            _bring_about_all(connection, [requests[job.folder.path] for job in theirs], until)
            for connection, theirs in asks
        ),
    )
    told = await asyncio.to_thread(lambda: [_told(request) for request in requests.values()])
    done |= dict(zip(requests, told, strict=True))
    return [done[job.folder.path] for job in jobs]


def _nothing_to_cancel(job: JobSnapshot) -> str:
    """Why there is nothing to cancel; empty if there is, or may be, a job. Blocks."""
    if job.problem:
        return f"its folder cannot be read: {job.problem}"
    if job.user:
        return f"it belongs to {job.user}: only this user can cancel it"
    if job.ended_surely and not _may_go_on(job):
        return f"it had ended: {job.status.state if job.is_over else job.status.reason}"
    if job.status.state == NOT_SUBMITTED:
        return "it was never submitted"
    return ""


def _may_go_on(job: JobSnapshot) -> bool:
    """Whether the end in its journal may not be that of all that its submission has made. Blocks.

    That of a single job may be that of a second one, which the start guard has turned away; NFS may
    hide for a minute that the other one has started. Of an array there may be another one.
    """
    if job.kind != "batch" or job.is_over or job.end_was_told:
        return False
    if job.members is None:
        return job.exit is None
    assert job.spec is not None  # it has members
    try:
        return bool(_others_begun(job, scheduler_for(job.spec.site.scheduler), job.ids))
    except NO_SENSE:
        return True


def _others_begun(job: JobSnapshot, scheduler: Scheduler, known: Iterable[str]) -> set[str]:
    """The arrays in which members have begun, besides those that are known. Blocks.

    Raises: as `begun_as`.
    """
    begun = begun_as(job.folder)
    if isinstance(job.spec, JobSpec) and job.spec.array is not None:
        begun = {scheduler.array_of(each) for each in begun}
    return begun.difference(known)


def _write_request(job: JobSnapshot, by: str) -> str:
    """Write it down first: whoever takes the job up then knows of it, also if we die now.

    Returns what to tell when that failed.
    """
    try:
        job.folder.note_cancel_request(by=by, who=this_process().describe())
    except (TransportError, NotOurs) as error:  # a full disk must not keep a job alive
        return f"; the request could not be written into its folder ({error})"
    return ""


async def _await_claimants(requests: Sequence[_CancelRequest], until: float) -> None:
    """Jobs that were not submitted yet: nobody but their living claimants can say more."""
    for request in requests:
        request.silence = "it is not submitted yet; its process was asked not to submit it"
    pause, first = SOON, True
    while requests and (first or host().monotonic() < until):
        first = False
        await asyncio.to_thread(_look, requests)
        requests = [request for request in requests if not request.words]
        if requests:
            await asyncio.sleep(max(0.0, min(pause, until - host().monotonic())))
        pause = min(LATER, 1.5 * pause)


async def _bring_about_all(
    connection: Connection, requests: Sequence[_CancelRequest], until: float
) -> None:
    """The ends of some jobs of one scheduler, until all are seen or it is time."""

    def left() -> float:
        return until - host().monotonic()

    loop = asyncio.get_running_loop()
    for request in requests:  # where nothing can be found, what is known is all that there is
        request.has_searched = bool(request.ids) and not connection.scheduler.searchable
    searches: dict[str, asyncio.Task[None]] = {}
    endings: list[asyncio.Task[bool]] = []
    all_over = loop.create_task(asyncio.wait([request.over for request in requests]))
    pause = SOON
    try:
        while True:
            for request in requests:
                path = request.job.folder.path
                if request.is_to_search and (path not in searches or searches[path].done()):
                    searches[path] = loop.create_task(_search(connection, request, left))
                for job_id in request.ids:
                    if job_id not in request.watches and not request.words:
                        endings.append(_begin(connection, request, job_id, left))
            running = {each for each in searches.values() if not each.done()}
            seconds = max(0.0, min(pause, left()))
            first = asyncio.FIRST_COMPLETED
            await asyncio.wait({all_over, *running}, timeout=seconds, return_when=first)
            await connection.shortly(partial(_look, requests, connection.scheduler))
            for request in requests:
                request.conclude()
            if all(request.words for request in requests) or left() <= 0:
                break
            pause = min(LATER, 1.5 * pause)
        await asyncio.gather(*endings)  # each has asked once, however short the time
    finally:
        for task in (all_over, *searches.values(), *endings):
            task.cancel()
        for request in requests:
            _release(connection, request)


def _begin(
    connection: Connection, request: _CancelRequest, job_id: str, left: Callable[[], float]
) -> asyncio.Task[bool]:
    """Ask for the end of one id, and look for it."""
    name = connection.scheduler.name
    on_end = partial(request.saw_end, scheduler=name)
    watch = EndWatch(name, job_id, request.job.tag, request.over, on_end)
    request.watches[job_id] = watch
    connection.watch(watch)
    work = bring_about(connection, watch, left, watch.cancel_answered)
    return asyncio.get_running_loop().create_task(work)


def _release(connection: Connection, request: _CancelRequest) -> None:
    """Look after a request no more; keep what is not known of it."""
    for watch in request.watches.values():
        connection.release(watch)
        request.silence = watch.silence or request.silence
    if request.ids and not request.silence and connection.silence:
        request.silence = f"{connection.scheduler.name} gave no answer ({connection.silence})"


async def _search(
    connection: Connection, request: _CancelRequest, left: Callable[[], float]
) -> None:
    """Look for jobs of its name, until it is known which of them may run."""
    name = connection.scheduler.name
    while request.is_to_search:
        found = await connection.find(request.job.tag)
        if isinstance(found, NoAnswer):
            what = "it has another job of its name" if request.ids else "it was submitted"
            request.silence = f"{name} did not say whether {what} ({found.said})"
        elif found or request.ids:
            going_on = [i for i, seen in found.items() if seen.state is not JobState.ENDED]
            # A quantum job that has ended was charged, too.
            known = request.ids and request.job.kind == "batch"
            theirs = going_on if known else [*found]
            request.ids += [each for each in theirs if each not in request.ids]
            request.has_searched = True
        else:
            request.silence = f"whether it was submitted is not known; {name} lists no such job"
        if left() <= 0:
            return


def _look(requests: Iterable[_CancelRequest], scheduler: Scheduler | None = None) -> None:
    """What their folders say by now; those of arrays only with their scheduler. Blocks."""
    for request in requests:
        if request.words:
            continue
        job = read_job(request.job.folder.path, request.job.folder.transport)
        if job.is_over:
            request.words = f"its process says: {job.status.state}"
        elif job.exit is not None and len(request.ids) <= 1:
            request.words = request.words or "its own record says that it ended"
        request.ids += [each for each in job.ids if each not in request.ids]
        request.started_as = request.started_as or (job.start.id if job.start else "")
        if scheduler is not None and request.job.members is not None:
            with contextlib.suppress(*NO_SENSE):  # the next look may succeed
                _look_at_members(request, scheduler)


def _look_at_members(request: _CancelRequest, scheduler: Scheduler) -> None:
    """Whether some have begun in an array that is not known: the scheduler may list it late."""
    request.members_told = False
    if not (request.ids and request.all_ended):
        return
    others = _others_begun(request.job, scheduler, request.ids)
    request.ids += sorted(others)
    request.members_told = not others


def _told(request: _CancelRequest) -> Cancellation:
    folder = request.job.folder
    job = read_job(folder.path, folder.transport)
    if request.words and not job.is_over:
        with contextlib.suppress(TransportError):  # the end can be found out again
            folder.note_cancel_request("ended", said=request.words, used=request.used)
        job = read_job(folder.path, folder.transport)
    words = (
        request.words
        or request.silence
        or "its cancellation was requested, and its end was not seen"
    )
    return Cancellation(job=job, confirmed=bool(request.words), words=words)
