"""The evidence about the members of a submission in their files."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection

from hpc_prefect.executor.arrays.submission import Submission
from hpc_prefect.executor.monitor import Records
from hpc_prefect.job.failure import Reason, Verdict
from hpc_prefect.job.folder import ExitRecord
from hpc_prefect.job.members import SHARD
from hpc_prefect.job.script import GUARD_CODE
from hpc_prefect.job.state import Evidence, JobState, Observation, Patience, decide, signal_of
from hpc_prefect.ledger.array_folder import ArrayFolder
from hpc_prefect.ledger.job_folder import CLOSED

#: A folder's time may stay the same through so many seconds of changes: there are file systems that
#: count whole seconds, or two.
_COARSE = 3.0


class BegunMembers:
    """Which members have begun. A folder of theirs that has not changed is not listed again.

    Most of an array waits, or has ended, while a few members run. So a look costs what those cost,
    and not what all cost. It compares the file server's times with each other, and never with ours.
    """

    def __init__(self, folder: ArrayFolder) -> None:
        self._folder = folder
        # Of each folder: its time, since when it has had that, and whether a listing had all of it.
        self._known: dict[int, tuple[float, float, bool]] = {}

    def among(self, waiting: Collection[int], now: float, *, anew: bool) -> set[int]:
        """Those of the `waiting` that have begun.

        Args:
            now: by the event loop's clock.
            anew: list all folders, whatever their times are.
        """
        found: set[int] = set()
        for shard in {each // SHARD for each in waiting}:
            found |= self._in(shard, now, anew=anew)
        return found.intersection(waiting)

    def _in(self, shard: int, now: float, *, anew: bool) -> set[int]:
        modified = self._folder.shard_modified(shard)  # before its names: they may be newer
        before, since, settled = self._known.get(shard, (0.0, now, False))
        if modified != before:
            since, settled = now, False
        if settled and not anew:
            return set()
        found = self._folder.began([shard])
        # A place that tells no time is listed each time.
        self._known[shard] = modified, since, modified > 0 and now - since >= _COARSE
        return found


class MemberFiles:
    """The members' own records as evidence. Reads small files; see `JobMonitor` on where."""

    def __init__(self, submission: Submission, cancelled_by: Callable[[], str]) -> None:
        self._submission = submission
        self._cancelled_by = cancelled_by

    @property
    def patience(self) -> Patience:
        """With the submission's scheduler."""
        return self._submission.connection.scheduler.patience

    def records(self, index: int) -> Records:
        """A member's records, of which nothing is read yet."""
        submission = self._submission
        return Records(submission.folder.member(index), submission.words, self._more_words)

    def _more_words(self, known: frozenset[str]) -> frozenset[str]:
        # The journal is long: it is not read for each member.
        if known >= self._submission.words:
            self._submission.words |= self._submission.folder.ledger().words
        return self._submission.words

    def holder(self, index: int) -> str:
        """The id at a member's start guard, which may be that of another submission."""
        guard = self._submission.folder.member(index).guard()
        return "" if guard == CLOSED else guard

    def evidence(self, index: int, records: Records) -> Evidence:
        """What they say of a member."""
        spec = self._submission.request.spec
        start = records.starts[-1] if records.starts else None
        return Evidence(
            job_id=start.id if start else self._submission.job_id_of(index),
            walltime=spec.resources.walltime,
            executable=spec.executable.path,
            nodes=spec.resources.num_nodes,
            starts=records.starts,
            exits=records.exits,
            spoiled=records.spoiled,
            cancel=self._cancelled_by(),
        )

    def own_verdict(self, index: int, evidence: Evidence) -> Verdict | None:
        """How a member ended, if its own record is enough to judge it."""
        if evidence.exit is None or self._missing_outputs(index):
            return None
        return decide(self.of_its_own(index, evidence), self.patience)

    def of_its_own(self, index: int, evidence: Evidence) -> Evidence:
        """The part of the evidence that is about this member, if its element runs others too.

        The scheduler knows elements only. An element's exit code is that of its worst member, and
        what ended the element may have happened long after this member had ended by itself.
        """
        if self._submission.per_element == 1 or evidence.start is None:
            return evidence
        record = evidence.exit
        if record is not None and self._ended_by_itself(index, evidence, record):
            return dataclasses.replace(
                evidence,
                observation=_own_end(evidence.job_id, record),
                absent_for=0.0,
                silent_for=0.0,
                ended_for=evidence.record_for,
                told=None,
            )
        return dataclasses.replace(evidence, observation=_without_code(evidence))

    def _ended_by_itself(self, index: int, evidence: Evidence, record: ExitRecord) -> bool:
        """Whether the member ended as its record says; a later signal ended another member."""
        if self._has_gone_on(index, evidence.job_id):
            return True
        if record.signals:
            return False
        seen = evidence.observation
        after = seen is not None and seen.cause in _AFTER_A_SIGNAL
        return record.code == 0 or (after and not _may_be_signalled(record))

    def _has_gone_on(self, index: int, job_id: str) -> bool:
        """Whether its element has begun the member after it."""
        if not self.is_followed(index):
            return False
        after = self.records(index + 1)
        after.refresh(starts=True)
        return any(each.id == job_id for each in after.starts)

    def is_followed(self, index: int) -> bool:
        """Whether its element runs another member after it."""
        element, after = self._submission.element, index + 1
        return after < len(self._submission.asked) and element(after) == element(index)

    def _missing_outputs(self, index: int) -> bool:
        asked = self._submission.asked[index]
        if not asked.member.expected_outputs:
            return False
        attempt = self._submission.member(index)
        missing = attempt.folder.missing_at_a_glance(attempt.request.spec, asked.outputs_before)
        return missing != ()


#: Ends before which a scheduler signals the script, whose records tell of it.
_AFTER_A_SIGNAL = (
    *(Reason.CANCELLED, Reason.CANCELLED_ELSEWHERE, Reason.TIMED_OUT),
    *(Reason.WALLTIME, Reason.PREEMPTED),
)
_SIGNALS = ("SIGTERM", "SIGKILL")
_PLAIN = (Reason.SUCCEEDED, Reason.PROGRAM_FAILED)


def _may_be_signalled(record: ExitRecord) -> bool:
    """Whether the program died of such a signal. Its own may come before the script's, which then
    has noted none; see `job.state`."""
    return signal_of(record.code) in _SIGNALS


def _own_end(job_id: str, record: ExitRecord) -> Observation:
    """What a scheduler would say of the member if it were a job by itself."""
    return Observation(id=job_id, state=JobState.ENDED, word="ended", exit_code=record.code)


def _without_code(evidence: Evidence) -> Observation | None:
    """What was seen of its element, without a code that may be another member's.

    That of the start guard stays: of a second start of the element, which the first one outlives.
    """
    seen, record = evidence.observation, evidence.exit
    if seen is None or (record is None and seen.exit_code == GUARD_CODE):
        return seen
    code = None if record is None else record.code
    cause = None if seen.cause in _PLAIN else seen.cause
    return dataclasses.replace(seen, exit_code=code, cause=cause)
