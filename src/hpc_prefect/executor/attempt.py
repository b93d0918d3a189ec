"""One attempt of a job: its folder, our claim on it, and the job that was submitted for it.

Everything here blocks, so it is called in threads.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, TypeVar

from hpc_prefect.errors import JobHeld, LedgerError
from hpc_prefect.executor.connection import Connection
from hpc_prefect.executor.request import JobRequest
from hpc_prefect.job import folder as names
from hpc_prefect.job.dialogue import Dialogue
from hpc_prefect.job.failure import Reason, Verdict
from hpc_prefect.job.folder import Ledger, word_digest
from hpc_prefect.job.identity import job_tag
from hpc_prefect.job.outputs import Stamp, some
from hpc_prefect.job.result import JobResult
from hpc_prefect.job.retry import NextAttempt, RetryPolicy, next_attempt
from hpc_prefect.job.script import Preamble, render
from hpc_prefect.job.spec import JobSpec, Resources, Site
from hpc_prefect.job.state import JobState, Observation, Patience
from hpc_prefect.ledger import claim as claims
from hpc_prefect.ledger.claim import Claim
from hpc_prefect.ledger.job_folder import CLOSED, JobFolder
from hpc_prefect.schedulers import is_allocation
from hpc_prefect.schedulers.base import Accepted, Refused, Submission
from hpc_prefect.transports.base import Transport
from hpc_prefect.transports.host import host

logger = logging.getLogger("hpc_prefect.executor")

R = TypeVar("R", bound=JobRequest)


@dataclass(kw_only=True)
class Attempt:
    """An attempt of a batch job that this process holds; the base class for other kinds of jobs.

    Attributes:
        guarded: a job that is found after the attempt was closed cannot start its program any more.
        number: 1 for the first.
        job_id: the scheduler's id; empty while none is known.
        submitted_at: seconds since 1970; 0 when it is not known.
        intended: an intent is journalled; without `job_id` it is not known whether it was
            submitted.
        words: random words in its scripts, which mark an exit record as theirs.
        outputs_before: the state of the expected outputs before the submission.
        cancel: who cancelled it in an earlier run; empty for nobody.
        taken_from: the claimant that submitted it, in words; empty if this process begins it.
        logged_id: the job's id, once a log line has named it; empty before.
        raised: which resources this attempt gets more of than the last one, in words; usually
            empty.
        cancel_offset: the size of the file of cancel requests at the beginning; `cancel` has what
            is in it.
        on_cancel_request: called with who cancels the job from outside of this process.
    """

    guarded: ClassVar[bool] = True

    request: JobRequest
    connection: Connection
    number: int
    folder: JobFolder
    claim: Claim
    job_id: str = ""
    submitted_at: float = 0.0
    intended: bool = False
    words: frozenset[str] = frozenset()
    outputs_before: dict[str, Stamp | None] = field(default_factory=dict)
    cancel: str = ""
    taken_from: str = ""
    logged_id: str = ""
    raised: str = ""
    cancel_offset: int = 0
    on_cancel_request: Callable[[str], object] = lambda by: None

    @cached_property
    def tag(self) -> str:
        """The job's name in the scheduler, different for each attempt."""
        return job_tag(self.request.key, self.number)

    def preparation(self) -> Awaitable[Verdict | None] | None:
        """Long work before `hand_over`; None if there is none.

        Its result is a verdict if the job will not be submitted.
        """
        return None

    def hand_over(self) -> Submission:
        """Intent, submission, id: in one go, so that nothing comes between them.

        Raises:
            JobHeld: another process has taken the job over. Nothing was submitted.
        """
        self.check_claims()
        submission = self._submission()
        try:  # this process may have been stopped meanwhile, and the job be another one's now
            self.check_claims()
        except JobHeld as held:
            self.folder.note("refused", said=str(held))  # so that nobody looks for its job
            raise
        in_doubt, self.intended = self.intended, True
        outcome = self.connection.converse(submission)
        self._answered(outcome, in_doubt=in_doubt)
        return outcome

    def check_claims(self) -> None:
        """Raise `JobHeld` if another process has taken over what we need for a submission."""
        self.claim.check()

    def _answered(self, said: Submission, *, in_doubt: bool) -> None:
        """Note what came of a submission; whether an earlier one is `in_doubt` is not changed."""
        if isinstance(said, Accepted):
            self.submitted(said.id, host().time())
        elif isinstance(said, Refused):  # so this job certainly does not exist
            self.folder.note("refused", said=said.said)
            self.intended = in_doubt

    def _submission(self) -> Dialogue[Submission]:
        """Write all that must be there before it; the dialogue that submits."""
        spec, scheduler = self.request.spec, self.connection.scheduler
        ticket = self.folder.ticket(self.tag)
        word = host().token(16)
        self._write_scripts(scheduler.preamble(spec, ticket), word)
        # Check again: another user who may write in the work_dir may have replaced the folder
        # since, and its content would be run as this user.
        self.folder.transport.check_folder(self.folder.path)
        digest = word_digest(word)
        self.words |= {digest}
        if not self.intended:
            self.outputs_before = self.folder.stamps(spec)
        self.note_intent(
            word_sha256=digest,
            outputs_before=self.outputs_before,
            poll_interval=self.request.poll_interval,
        )
        return scheduler.submit(spec, ticket)

    def _write_scripts(self, preamble: Preamble, word: str) -> None:
        script = render(self.request.spec, self.folder.path, preamble, word)
        self.folder.prepare(script, self.request.secrets)

    def note_intent(self, **facts: Any) -> None:
        """Journal the intent, with all that a process needs to take the job over."""
        self.folder.note(
            "intent",
            durable=True,
            tag=self.tag,
            claim=self.claim.generation,
            attempt=self.number,
            cancel_offset=self.cancel_offset,
            job=self.request.spec.as_dict(),
            provenance=self.request.provenance,
            **facts,
            **self._intent_facts(),
        )

    def _intent_facts(self) -> dict[str, Any]:
        """What the intent of an array has in addition."""
        return {}

    def may_be_there(self) -> bool:
        """Whether there may be a job with an unknown id that can be searched for."""
        return self.intended

    async def chosen(self, found: Mapping[str, Observation]) -> str:
        """The id of the attempt's job, of several jobs with its tag.

        Raises:
            LedgerError: it cannot be decided which one it is.
        """
        if len(found) > 1:
            # A job that started meanwhile is at the guard. Without one, the jobs that ended have
            # never run, such as those that a user cancelled because of the error below.
            guard = await self.connection.in_thread(self.guard)
            ended = {i for i, seen in found.items() if seen.state is JobState.ENDED}
            # If all have ended, any of them will do: the attempt is over.
            left = {guard} if guard else found.keys() - ended or {max(ended)}
            found = {i: seen for i, seen in found.items() if i in left} or found
        if len(found) > 1:
            raise LedgerError(
                f"job {self.request.spec.name}: the scheduler holds {len(found)} jobs named"
                f" {self.tag}: {', '.join(sorted(found))}. Cancel all but one and start again"
            )
        (job_id,) = found
        return job_id

    async def look_for_twins(self) -> None:
        """Find duplicates, if one submission may have made two jobs, and choose one."""

    def guard(self) -> str:
        """The id under which its script has started; empty before any start."""
        return self.folder.started_as()

    def submitted(self, job_id: str, at: float) -> None:
        """This is our job, submitted at that time (seconds since 1970, 0 for not known)."""
        self.job_id, self.submitted_at = job_id, at
        self.folder.note("submitted", durable=True, at=at, id=job_id)

    def adopted(self, job_id: str, at: float) -> None:
        """This is our job, perhaps submitted by another process, which was suspended while it did
        so and went on after we took over. The word of its script is in its intent."""
        self.submitted(job_id, at)
        self.words |= self.folder.ledger().words

    def heartbeat(self) -> None:
        """Renew the claim, and pass on a request to cancel. `JobHeld` if it was taken over."""
        self.claim.check()
        self.claim.touch()
        if by := self.cancel_request():
            self.on_cancel_request(by)

    def cancel_request(self) -> str:
        """Who asked for the job's end, from outside of this process, since we claimed it."""
        return self.folder.cancel_request(self.cancel_offset)

    def note_cancel(self, by: str) -> None:
        """Journal the request to cancel, for processes that take the job up later."""
        self.claim.check()
        self.folder.note("cancel", durable=True, by=by)

    def job_inside(self, *, close: bool) -> str:
        """The id of another job of this attempt that runs, or ran, instead of ours; usually empty.

        A submission with an unclear outcome may reach the scheduler after the search for it. If its
        job is first at the start guard it runs, and must be followed.

        Args:
            close: close the guard, so that a job that arrives later cannot run beside the next
                attempt.
        """
        self.claim.check()
        holder = self.folder.close(self.job_id) if close else self.folder.guard()
        if holder == CLOSED:  # perhaps by another process, after the job that it had followed
            holder = self.folder.started_as()
        return "" if holder == self.job_id else holder

    def close_unstarted(self) -> bool:
        """Whether no job of this attempt has started, and none can any more."""
        self.claim.check()
        return self.folder.close_unstarted()

    def is_closed(self) -> bool:
        """Whether somebody has closed it."""
        return self.folder.guard() == CLOSED

    def restore(self, ledger: Ledger) -> None:
        """Restore what was submitted, which may differ from the present request."""
        had = resources_of(ledger, self.request.spec.resources)
        self.request = with_resources(self.request, had)
        if is_allocation(str(ledger.site.get("scheduler", ""))):
            # It is followed where it was submitted to, whatever this call would choose.
            self.request = at_site(self.request, Site.from_dict(ledger.site))
        self.words = ledger.words
        self.outputs_before = ledger.outputs_before

    @classmethod
    def check_earlier(cls, transport: Transport, base: str) -> None:
        """Raise `LedgerError` for what an earlier version left and this one does not read."""

    @classmethod
    def is_over(cls, folder: JobFolder, ledger: Ledger) -> bool:
        """Whether nothing of this attempt can run any more, so that the next one may."""
        return is_over(folder, ledger)

    @classmethod
    def has_result(
        cls, request: JobRequest, folder: JobFolder, ledger: Ledger, patience: Patience
    ) -> bool:
        """Whether what a finished job left is still there; False when something is gone. Blocks.

        Raises:
            LedgerError: it was changed afterwards.
        """
        return _outputs_there(folder, ledger, request.spec, patience)


def open_attempt(
    request: JobRequest, connection: Connection, kind: type[Attempt] = Attempt
) -> Attempt | JobResult:
    """Find or make this job's newest attempt and claim it; its result when it has succeeded.

    Raises:
        JobHeld: another living run has it.
        LedgerError: its folder makes no sense, it may only be attached to and was never submitted,
            or its outputs were changed afterwards.
    """
    transport = connection.transport
    kind.check_earlier(transport, request.base)
    seen = 1  # NFS may list the newest one late, for a minute
    while True:
        seen = number = max(_newest(transport, request.base), seen)
        folder = JobFolder(transport, f"{request.base}-{number}")
        ledger = folder.ledger()
        earlier, over = result_in(folder, ledger, collected=True), kind.is_over(folder, ledger)
        if earlier and over and request.attach_only:
            return earlier
        patience = connection.scheduler.patience
        if earlier and earlier.succeeded and kind.has_result(request, folder, ledger, patience):
            return earlier
        if request.attach_only and (over or not ledger.intended):
            raise LedgerError(_NEVER_SUBMITTED.format(folder.path))
        if over:
            seen = number = number + 1
            folder = JobFolder(transport, f"{request.base}-{number}")
        transport.make_folder(folder.path)
        claim, predecessor = claims.take(transport, folder.path, request.claimant, request.is_over)
        cancel_offset = folder.cancel_requests_size()
        ledger = folder.ledger()
        if kind.is_over(folder, ledger):
            continue  # its claimant settled it between our look and our claim
        attempt = kind(
            request=request,
            connection=connection,
            number=number,
            folder=folder,
            claim=claim,
            cancel_offset=cancel_offset,
        )
        if ledger.intended:
            attach(attempt, ledger, predecessor.describe() if predecessor else "an earlier call")
        elif number > 1 and request.retry is not None:
            _raise_resources(attempt)
        return attempt


_NEVER_SUBMITTED = (
    "{}: this job was never submitted, so there is nothing to attach to; start its flow again to"
    " run it"
)


def what_next(request: JobRequest, folder: JobFolder) -> NextAttempt:
    """What the attempt after the one in `folder`, which failed, would get by the retry policy."""
    ledger = folder.ledger()
    result = result_in(folder, ledger, collected=True)
    if result is None:
        return NextAttempt(None, "none: the last attempt has no verdict yet")
    last = resources_of(ledger, request.spec.resources)
    return next_attempt(request.retry or RetryPolicy(), request.spec, last, result.verdict)


def _raise_resources(attempt: Attempt) -> None:
    """Give an attempt what its predecessor lacked, also when that one was another process's."""
    request = attempt.request
    before = JobFolder(attempt.folder.transport, f"{request.base}-{attempt.number - 1}")
    step = what_next(request, before)
    if step.resources is not None and step.resources != request.spec.resources:
        attempt.request = with_resources(request, step.resources)
        attempt.raised = step.words


def with_resources(request: R, resources: Resources) -> R:
    """The same request with other resources."""
    return replace(request, spec=replace(request.spec, resources=resources))


def at_site(request: R, site: Site) -> R:
    """The same request for a job that is handed to a held allocation, whose place this is.

    It takes no slot: the allocation is the one job that the queue has. There a launcher may put a
    program of one process on its node, too.
    """
    spec = replace(request.spec, site=site)
    if site.launcher.strip():
        spec = replace(spec, resources=replace(spec.resources, launch="mpi"))
    return replace(request, spec=spec, max_jobs_in_queue=0)


def resources_of(ledger: Ledger, asked: Resources) -> Resources:
    """What a journal's job was submitted with; only what a retry changes can differ."""
    had: dict[str, Any] = {
        name: value
        for name in ("memory_per_node", "walltime")
        if isinstance(value := ledger.resources.get(name), int)
    }
    return replace(asked, **had)


def attach(attempt: Attempt, ledger: Ledger, predecessor: str) -> None:
    """Take up what an earlier claimant left."""
    attempt.folder.note("attached", by=attempt.request.claimant.describe(), from_=predecessor)
    attempt.restore(ledger)
    attempt.job_id = ledger.job_id
    attempt.submitted_at = ledger.submitted_at
    attempt.intended = True
    attempt.cancel = ledger.cancel
    attempt.taken_from = predecessor


def numbers(transport: Transport, base: str) -> list[int]:
    """Of the attempts of a job, or the submissions of an array, that have a folder; sorted."""
    parent, _, key = base.rpartition("/")
    tails = [
        name.removeprefix(f"{key}-")
        for name in transport.list(parent)
        if name.startswith(f"{key}-")
    ]
    return sorted(int(tail) for tail in tails if tail.isdecimal())


def _newest(transport: Transport, base: str) -> int:
    return max(numbers(transport, base), default=0)


def is_over(folder: JobFolder, ledger: Ledger) -> bool:
    """Whether nothing of this attempt can run any more, so that the next one may."""
    result = result_in(folder, ledger, collected=True)
    if result is not None:
        return result.verdict.reason is not Reason.LOST
    # Closed without a verdict: whoever settled it was killed in between.
    return not ledger.job_id and folder.guard() == CLOSED


def result_in(folder: JobFolder, ledger: Ledger, *, collected: bool = False) -> JobResult | None:
    """The result in a journal; None if there is none.

    Raises:
        LedgerError: it cannot be read.
    """
    if not ledger.result:
        return None
    try:
        return JobResult.from_dict(ledger.result | {"collected": collected})
    except (KeyError, TypeError, ValueError) as error:
        raise LedgerError(
            f"{folder.path}/{names.JOURNAL} holds a verdict that cannot be read"
            f" ({error!r}); move the folder away to have the job run again"
        ) from error


def _outputs_there(folder: JobFolder, ledger: Ledger, spec: JobSpec, patience: Patience) -> bool:
    """Whether a finished job's files are still as it left them; False when one is gone."""
    if lost := folder.surely_lost_outputs(spec, ledger.outputs, patience.outputs):
        logger.warning(
            "job %s already ran (%s), but its output %s was removed: it runs again",
            spec.name,
            folder.path,
            some(lost),
        )
        return False
    if altered := folder.altered_outputs(spec, ledger.outputs):
        raise LedgerError(
            f"job {spec.name} already ran ({folder.path}), but {some(altered)}"
            " has changed since, so its result cannot be trusted. Restore the file, or remove"
            " it to have the job run again"
        )
    return True
