"""Cancels jobs by their folders alone, without their flow, its process, or Prefect."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from hpc_prefect.errors import NotOurs, TransportError
from hpc_prefect.job.state import JobState, Observation
from hpc_prefect.ledger.claim import this_process
from hpc_prefect.operations.find import list_jobs
from hpc_prefect.operations.query import SchedulerClient, at_each_scheduler
from hpc_prefect.operations.snapshot import JobSnapshot, read_job
from hpc_prefect.operations.status import NOT_SUBMITTED
from hpc_prefect.schedulers.base import NoAnswer
from hpc_prefect.transports.host import host

#: How many seconds to wait for an end.
CONFIRM = 20.0
#: Seconds between two tries of a cancellation that the scheduler did not accept.
_AGAIN = 2.0
#: Seconds between two looks: the first and the longest pause.
_SOON, _LATER = 0.1, 5.0


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
        ids: the scheduler's ids to cancel; searched for by tag if the submission is in doubt.
        ended: ids whose end has been seen.
        words: how it ended; empty until then.
        silence: the message if its end is not seen in time.
        used: the resources that it used, by the scheduler.
    """

    job: JobSnapshot
    ids: list[str]
    ended: set[str] = field(default_factory=set)
    words: str = ""
    silence: str = ""
    used: dict[str, float] = field(default_factory=dict)


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
    deadline = host().monotonic() + wait
    done: dict[str, Cancellation] = {}
    requests = []
    for job in jobs:
        if words := _nothing_to_cancel(job):
            confirmed = not (job.problem or job.user)
            done[job.folder.path] = Cancellation(job=job, confirmed=confirmed, words=words)
        else:
            requests.append(_request(job, by))
    at_each_scheduler(
        lambda client, theirs: _Ends(client, _of(requests, theirs), deadline).bring_about(),
        [request.job for request in requests],
    )
    _await_claimants([request for request in requests if request.job.spec is None], deadline)
    done |= {request.job.folder.path: _told(request) for request in requests}
    return [done[job.folder.path] for job in jobs]


def _nothing_to_cancel(job: JobSnapshot) -> str:
    """Why there is nothing to cancel; empty if there is, or may be, a job."""
    if job.problem:
        return f"its folder cannot be read: {job.problem}"
    if job.user:
        return f"it belongs to {job.user}: only this user can cancel it"
    if job.ended_surely:
        return f"it had ended: {job.status.state if job.is_over else job.status.reason}"
    if job.status.state == NOT_SUBMITTED:
        return "it was never submitted"
    return ""


def _request(job: JobSnapshot, by: str) -> _CancelRequest:
    """Write the request first: a process that takes the job up will find it, also if we die now."""
    request = _CancelRequest(job, list(job.ids))
    try:
        job.folder.note_cancel_request(by=by, who=this_process().describe())
    except (TransportError, NotOurs) as error:  # a full disk must not keep a job alive
        request.silence = f"; the request could not be written into its folder ({error})"
    return request


def _of(requests: Sequence[_CancelRequest], jobs: Sequence[JobSnapshot]) -> list[_CancelRequest]:
    paths = {job.folder.path for job in jobs}
    return [request for request in requests if request.job.folder.path in paths]


def _await_claimants(requests: Sequence[_CancelRequest], deadline: float) -> None:
    """Wait for jobs that are not submitted yet: only their living claimants can end them."""
    pause = _SOON
    while any(not request.words for request in requests) and host().monotonic() < deadline:
        for request in requests:
            _look(request)
            request.silence = "it is not submitted yet; its process was asked not to submit it"
        pause = _rest(pause, deadline)


class _Ends:
    """Cancels some jobs of one scheduler."""

    def __init__(
        self, client: SchedulerClient, requests: list[_CancelRequest], deadline: float
    ) -> None:
        self._client = client
        self._requests = requests
        self._deadline = deadline
        self._heard: set[str] = set()  # ids whose cancellation the scheduler accepted
        self._try_at = 0.0

    def bring_about(self) -> None:
        """Cancel, until all ends are seen or the time is up."""
        pause = max(_SOON, self._client.scheduler.hurry)
        while True:
            self._find_those_in_doubt()
            self._ask_for_the_end()
            self._observe()
            for request in self._open():
                _look(request)
            if not self._open() or host().monotonic() >= self._deadline:
                return
            pause = _rest(pause, self._deadline)

    def _open(self) -> list[_CancelRequest]:
        return [request for request in self._requests if not request.words]

    def _find_those_in_doubt(self) -> None:
        name = self._client.scheduler.name
        in_doubt = [request for request in self._open() if not request.ids]
        said = self._client.find([request.job.tag for request in in_doubt], self._deadline)
        for request in in_doubt:
            found = said[request.job.tag]
            if isinstance(found, NoAnswer):
                request.silence = f"{name} did not say whether it was submitted ({found.said})"
            elif found:
                request.ids = found
            else:
                request.silence = f"whether it was submitted is not known; {name} lists no such job"

    def _ask_for_the_end(self) -> None:
        if host().monotonic() < self._try_at:
            return
        tags = {
            each: request.job.tag
            for request in self._open()
            for each in request.ids
            if each not in self._heard | request.ended
        }
        if not tags:
            return
        said = self._client.cancel(tags, self._deadline)
        if isinstance(said, NoAnswer):
            self._try_at = host().monotonic() + _AGAIN
            name = self._client.scheduler.name
            for request in self._open():
                request.silence = f"{name} did not accept the cancellation ({said.said})"
        else:
            self._heard |= set(tags)

    def _observe(self) -> None:
        asked = {each: request for request in self._open() for each in request.ids}
        if not asked:
            return
        for job_id, seen in self._client.observe(list(asked), self._deadline).items():
            self._note(asked[job_id], job_id, seen)

    def _note(
        self, request: _CancelRequest, job_id: str, seen: Observation | NoAnswer | None
    ) -> None:
        name = self._client.scheduler.name
        if isinstance(seen, NoAnswer):
            request.silence = request.silence or f"{name} gave no answer ({seen.said})"
        elif seen is None or (seen.tag and seen.tag != request.job.tag):
            request.silence = f"{name} no longer lists {job_id}, and its end was not seen"
        elif seen.state is not JobState.ENDED:
            if job_id in self._heard:
                request.silence = (
                    f"{name} was asked to cancel it, and lists it as {seen.word or seen.state}"
                )
        else:
            request.ended.add(job_id)
            request.used |= seen.used
            if request.ended >= set(request.ids):
                request.words = f"{name} says {seen.word}"


def _look(request: _CancelRequest) -> None:
    """Look into its folder again."""
    job = read_job(request.job.folder.path, request.job.folder.transport)
    if job.is_over:
        request.words = f"its process says: {job.status.state}"
    elif job.exit is not None and len(request.ids) <= 1:
        request.words = request.words or "its own record says that it ended"
    request.ids += [each for each in job.ids if each not in request.ids]


def _rest(pause: float, deadline: float) -> float:
    """Sleep; returns the next pause."""
    host().sleep(max(0.0, min(pause, deadline - host().monotonic())))
    return min(_LATER, 1.5 * pause)


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
