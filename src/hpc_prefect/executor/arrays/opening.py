"""What earlier calls have submitted of an array, and what each member of it came to. Blocks."""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from hpc_prefect.errors import LedgerError
from hpc_prefect.executor.arrays.request import ArrayRequest
from hpc_prefect.executor.arrays.submission import Submission
from hpc_prefect.executor.attempt import (
    attach,
    is_over,
    numbers,
    resources_of,
    with_resources,
)
from hpc_prefect.executor.connection import Connection
from hpc_prefect.job import folder as names
from hpc_prefect.job.failure import Reason, Verdict
from hpc_prefect.job.members import Ended
from hpc_prefect.job.outputs import some
from hpc_prefect.job.result import JobResult
from hpc_prefect.job.retry import next_attempt
from hpc_prefect.job.spec import Array, Resources
from hpc_prefect.ledger import claim as claims
from hpc_prefect.ledger.array_folder import ArrayFolder
from hpc_prefect.ledger.claim import Claim

logger = logging.getLogger("hpc_prefect.executor")

#: How `ArrayFolder.asked` says that there is no such list, or not the whole of it.
_NO_LIST = (KeyError, TypeError, ValueError)


@dataclass
class OpenedArray:
    """An array as it was found.

    Attributes:
        claim: ours on the array; None before it is taken.
        done: the results of members that have succeeded, by their keys.
        collected: the submissions that these are of, each as a job with its share in `done`, and
            how many of its members that are.
        more: with which resources those are to be run whose last submission had too little.
        tries: how many submissions have a member, by its key.
        last: the number of the last submission that has it: what earlier ones came to is past.
            0 for one that is to run again.
        under_way: submissions whose end is not known, which are ours now.
        free: numbers of submissions that were never made.
        next: the number after all of them.
    """

    claim: Claim | None = None
    done: dict[str, JobResult] = field(default_factory=dict)
    collected: list[tuple[JobResult, int]] = field(default_factory=list)
    more: dict[str, Resources] = field(default_factory=dict)
    tries: Counter[str] = field(default_factory=Counter)
    last: dict[str, int] = field(default_factory=dict)
    under_way: list[Submission] = field(default_factory=list)
    free: list[int] = field(default_factory=list)
    next: int = 1

    def number(self) -> int:
        """The number of another submission."""
        if self.free:
            return self.free.pop(0)
        self.next += 1
        return self.next - 1


def open_array(request: ArrayRequest, connection: Connection) -> OpenedArray:
    """Claim an array, and find what there is of it.

    Raises:
        JobHeld: another living run has it.
        LedgerError: a folder makes no sense, or the outputs of a member were changed afterwards.
    """
    transport, opened = connection.transport, OpenedArray()
    over: list[Submission] = []
    told: list[Submission] = []  # under way for what is lost of them; how the rest ended is known
    first = f"{request.base}-1"
    transport.make_folder(first)
    # Whoever has the first one has the array.
    opened.claim, _ = claims.take(transport, first, request.claimant, request.is_over)
    for number in numbers(transport, request.base):
        opened.next = number + 1
        folder = ArrayFolder(transport, f"{request.base}-{number}")
        ledger = folder.ledger()
        if is_over(folder, ledger):
            if not ledger.intended and not _is_listed(folder):
                continue  # it was cancelled before it was handed over
            nobodys = Claim(transport, folder.path, 0, request.claimant)  # nothing is left to do
            submission = _submission(request, connection, number, folder, nobodys)
            submission.job_id, submission.submitted_at = ledger.job_id, ledger.submitted_at
            had = resources_of(ledger, request.spec.resources)
            submission.request = with_resources(submission.request, had)
            submission.read_ended()
            if not ledger.intended or len(submission.ended) == len(submission.asked):
                over.append(submission)
                continue
        if ledger.intended:  # or some of its ends are not there any more: they are judged anew
            opened.under_way.append(_taken_up(request, connection, number, folder))
            if ledger.result:
                told.append(opened.under_way[-1])
        else:
            transport.remove(folder.file(names.SECRETS))  # of a call that was killed
            opened.free.append(number)
    _collect(over, opened, request)
    if not request.attach_only:
        _run_again(told, opened, request)
    _count_under_way(opened, request)
    return opened


def _is_listed(folder: ArrayFolder) -> bool:
    """Whether the members of a submission are known: who wrote their list may have lost power."""
    try:
        return bool(folder.asked())
    except _NO_LIST:
        return False


def _submission(
    request: ArrayRequest, connection: Connection, number: int, folder: ArrayFolder, claim: Claim
) -> Submission:
    """A submission, read from its folder."""
    ledger = folder.ledger()
    array = Array(**ledger.array) if ledger.array else None
    spec = dataclasses.replace(request.spec, array=array, has_members=True)
    try:
        asked = folder.asked()
        if ledger.members not in (0, len(asked)):
            raise ValueError(f"{len(asked)} of {ledger.members} members are in it")
    except _NO_LIST as error:
        raise LedgerError(
            f"{folder.path}: the list of its members cannot be read ({error!r}); find out whether"
            " its jobs still run, then move the folder away to have its members run again"
        ) from error
    return Submission(
        request=dataclasses.replace(request, spec=spec),
        connection=connection,
        number=number,
        folder=folder,
        claim=claim,
        asked=asked,
        cancel_offset=folder.cancel_requests_size(),
    )


def _taken_up(
    request: ArrayRequest, connection: Connection, number: int, folder: ArrayFolder
) -> Submission:
    claim, predecessor = claims.take(
        connection.transport, folder.path, request.claimant, request.is_over
    )
    submission = _submission(request, connection, number, folder, claim)
    described = predecessor.describe() if predecessor else "an earlier call"
    attach(submission, folder.ledger(), described)
    submission.read_ended()
    return submission


def _collect(over: Sequence[Submission], opened: OpenedArray, request: ArrayRequest) -> None:
    """Take the results of the members that are asked for, each from the last submission of it.

    One that ran before, and again because its outputs were gone, is told by its last run alone. A
    number may be given to a later submission than the next one's, so tries tell which is the last.
    """
    wanted = {member.key for member in request.members}
    last: dict[str, tuple[int, Submission, int]] = {}
    for submission in [*over, *opened.under_way]:
        for index, asked in enumerate(submission.asked):
            key = asked.member.key
            if key in wanted and (key not in last or asked.attempt > last[key][0]):
                last[key] = (asked.attempt, submission, index)
    opened.last = {key: submission.number for key, (_, submission, _) in last.items()}
    for submission in over:
        opened.tries.update(asked.member.key for asked in submission.asked)
    followed = {submission.number for submission in opened.under_way}
    seconds: dict[int, list[float]] = {}
    for key, (_, submission, index) in last.items():
        ended = submission.ended.get(index)
        if submission.number in followed or ended is None:
            continue
        if not ended.result.succeeded:
            if more := _more(submission, ended, request):
                opened.more[key] = more
        elif _outputs_there(submission, ended):
            opened.done[key] = dataclasses.replace(ended.result, collected=True)
            seconds.setdefault(submission.number, []).append(ended.result.run_seconds or 0.0)
    opened.collected = [
        (_share(submission, sum(of_each)), len(of_each))
        for submission in over
        if (of_each := seconds.get(submission.number))
    ]


def _run_again(told: Sequence[Submission], opened: OpenedArray, request: ArrayRequest) -> None:
    """Have members run again that failed in a submission with a lost member, as the result of an
    earlier call said."""
    for submission in told:
        for index, ended in submission.ended.items():
            key = submission.asked[index].member.key
            if ended.result.succeeded or opened.last.get(key) != submission.number:
                continue
            opened.last[key] = 0
            if more := _more(submission, ended, request):
                opened.more[key] = more


def _share(submission: Submission, run_seconds: float) -> JobResult:
    """A submission as a job, for those of its members that are used: what failed is not of it."""
    summary = "the results of members that had succeeded are used again"
    return dataclasses.replace(
        submission.whole(),
        verdict=Verdict(reason=Reason.SUCCEEDED, summary=summary, exit_code=0),
        run_seconds=run_seconds,
        collected=True,
    )


def _more(submission: Submission, ended: Ended, request: ArrayRequest) -> Resources | None:
    """What a member gets that it lacked, as in the call that was killed before it could do so."""
    if request.retry is None:
        return None
    job = submission.asked[ended.index].member.job(request.spec)
    last = submission.request.spec.resources
    return next_attempt(request.retry, job, last, ended.result.verdict).resources


def _outputs_there(submission: Submission, ended: Ended) -> bool:
    """Whether a member's files are still as it left them; False when one is gone."""
    member = submission.asked[ended.index].member
    if not member.expected_outputs:
        return True
    folder = submission.folder.member(ended.index)
    job = member.job(submission.request.spec)
    # One verdict for all: what has been waited for once is old enough for every member.
    whole = submission.connection.scheduler.patience.outputs
    patience, judged_in = 0.0 if submission.outputs_shown else whole, submission.folder.path
    if lost := folder.surely_lost_outputs(job, ended.outputs, patience, judged_in=judged_in):
        submission.outputs_shown = True
        logger.warning("%s already ran, but its output %s was removed: it runs again",
                       member.name, some(lost))  # fmt: skip
        return False
    if altered := folder.altered_outputs(job, ended.outputs):
        raise LedgerError(
            f"{member.name} already ran ({folder.path}), but {some(altered)} has changed since, so"
            " its result cannot be trusted. Restore the file, or remove it to have it run again"
        )
    return True


def _count_under_way(opened: OpenedArray, request: ArrayRequest) -> None:
    """Count the members of what is under way.

    Raises:
        LedgerError: one is under way twice, as in a folder that was copied.
    """
    seen: dict[str, int] = {}
    for submission in opened.under_way:
        opened.tries.update(asked.member.key for asked in submission.asked)
        for index, asked in enumerate(submission.asked):
            key = asked.member.key
            if index not in submission.ended and seen.setdefault(key, submission.number) != (
                submission.number
            ):
                raise LedgerError(
                    f"job {asked.member.name} is under way in two submissions of its array,"
                    f" {request.base}-{seen[key]} and {request.base}-{submission.number}, as after"
                    " a copy of the folder; move the copy away"
                )
