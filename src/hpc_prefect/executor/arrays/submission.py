"""One submission of an array: its folder, its members, and our claim on it. Everything blocks."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from hpc_prefect.errors import JobHeld
from hpc_prefect.executor.arrays.request import ArrayRequest
from hpc_prefect.executor.attempt import Attempt
from hpc_prefect.executor.connection import Connection
from hpc_prefect.executor.finalize import record_of, result_of
from hpc_prefect.executor.request import JobRequest, Silence
from hpc_prefect.job.failure import Reason, Verdict
from hpc_prefect.job.members import SHARD, Asked, Ended, MemberSpec, read_ended
from hpc_prefect.job.result import JobResult
from hpc_prefect.job.script import Preamble, render_array
from hpc_prefect.job.spec import Array, JobSpec
from hpc_prefect.job.state import Evidence
from hpc_prefect.ledger import claim as claims
from hpc_prefect.ledger.array_folder import ArrayFolder
from hpc_prefect.ledger.claim import Claim
from hpc_prefect.ledger.job_folder import CLOSED


def _array_of(count: int, per_element: int, at_once: int) -> Array | None:
    """The array that so many members need, `per_element` at most in each; None for one element."""
    elements = -(-count // per_element)
    return Array(size=elements, at_once=min(at_once, elements)) if elements > 1 else None


@dataclass(kw_only=True)
class MemberAttempt(Attempt):
    """A member as an attempt of a job, for its verdict. The claim is the array's."""

    def heartbeat(self) -> None:
        """The array's own is enough."""


@dataclass(kw_only=True)
class Submission(Attempt):
    """A submission that we hold, with its members in their order.

    Attributes:
        asked: its members.
        ended: those whose end is known, by their number in the submission.
        array_claim: ours on the array, which is kept as long as a submission is under way.
        outputs_shown: what is not seen of its members' outputs by now is not there.
    """

    request: ArrayRequest
    folder: ArrayFolder
    asked: Sequence[Asked]
    ended: dict[int, Ended] = field(default_factory=dict)
    array_claim: Claim | None = None
    outputs_shown: bool = False
    _read: frozenset[int] = frozenset()

    def heartbeat(self) -> None:
        """As of an attempt, for the array too."""
        super().heartbeat()
        if self.array_claim is not None:
            self.array_claim.touch()

    def check_claims(self) -> None:
        """As of an attempt, and that of the array."""
        if self.array_claim is not None:
            self.array_claim.check()
        super().check_claims()

    def guard(self) -> str:
        """The id of the array of which a member has begun; empty before any start."""
        shards = range(-(-len(self.asked) // SHARD))
        for index in sorted(self.folder.began(shards)):
            if (holder := self.folder.member(index).guard()) not in ("", CLOSED):
                return self.whole_id(holder)
        return ""

    def whole_id(self, job_id: str) -> str:
        """The id of a submission of these members, by that of one of its elements."""
        if self.request.spec.array is None:
            return job_id
        return self.connection.scheduler.array_of(job_id)

    @cached_property
    def per_element(self) -> int:
        """Members that an element runs, spread evenly."""
        array = self.request.spec.array
        return -(-len(self.asked) // (array.size if array else 1))

    def element(self, index: int) -> int:
        """The number of the element that runs a member."""
        return index // self.per_element

    def job_id_of(self, index: int) -> str:
        """The id under which a member runs, derived from the submission's id."""
        if self.request.spec.array is None or not self.job_id:
            return self.job_id
        return self.connection.scheduler.element_id(self.job_id, self.element(index))

    def member(self, index: int, job_id: str = "") -> MemberAttempt:
        """A member as a job; `job_id` if it is that of another submission than ours."""
        asked = self.asked[index]
        attempt = MemberAttempt(
            request=_of_member(self.request, asked.member.job(self.request.spec)),
            connection=self.connection,
            number=self.number,
            folder=self.folder.member(index),
            claim=self.claim,
            job_id=job_id or self.job_id_of(index),
            submitted_at=self.submitted_at,
            intended=True,
            words=self.words,
            outputs_before=asked.outputs_before,
            cancel_offset=self.cancel_offset,
        )
        attempt.tag = self.tag  # that of the whole; a digest that need not be made for each
        return attempt

    def end(self, index: int, verdict: Verdict, evidence: Evidence) -> Ended:
        """A member that has ended so."""
        attempt = self.member(index, evidence.job_id)
        member = self.asked[index].member
        result = result_of(attempt, verdict, evidence)
        result = dataclasses.replace(result, key=member.key, attempt=self.asked[index].attempt)
        outputs = {}
        if verdict.succeeded and member.expected_outputs:
            outputs = attempt.folder.outputs(attempt.request.spec, attempt.outputs_before)
        return Ended(index, result, outputs)

    def unended(self, index: int, verdict: Verdict) -> Ended:
        """A member that ended so without a trace of its own."""
        return self.end(index, verdict, Evidence(job_id=self.job_id_of(index), walltime=0))

    def read_ended(self) -> None:
        """Take over what an earlier claimant has written of its members' ends."""
        for each in self._written():
            if each.result.verdict.reason is not Reason.LOST:
                self.ended[each.index] = each
        self._read = frozenset(self.ended)

    def no_longer_written(self) -> list[Ended]:
        """Of what was taken over, the ends that are not in their list any more: the earlier
        claimant's machine lost its power before they were on disk."""
        if not self._read:
            return []
        there = {each.index for each in self._written()}
        return [self.ended[index] for index in sorted(self._read - there) if index in self.ended]

    def _written(self) -> list[Ended]:
        open_ = Verdict(reason=Reason.LOST, summary="")
        likes = {index: self.unended(index, open_).result for index in range(len(self.asked))}
        return [*read_ended(self.folder.ended_text(), likes)]

    def close_ended(self) -> dict[int, str]:
        """Let no member that has ended start any more; those that another job has, with its id.

        A success is left as it is: its script does not start the program again.
        """
        self.claim.check()
        begun: dict[int, str] = {}
        if not self.intended:
            return begun  # it was never handed over, so nothing can start
        for index, each in self.ended.items():
            if each.result.succeeded or each.result.verdict.reason is Reason.LOST:
                continue
            holder = self.folder.member(index).close(each.result.job_id)
            if holder not in (CLOSED, each.result.job_id):
                begun[index] = holder
        return begun

    def reopen(self, begun: Mapping[int, str]) -> None:
        """Note that these members have not ended: other jobs, given by their ids, began them."""
        self.claim.check()
        self.folder.note_reopened(begun)
        self._read -= begun.keys()
        for index in begun:
            del self.ended[index]

    def others_begun(self) -> set[str]:
        """Ids of other jobs of this submission that hold the start guards of members that have not
        ended. `close_ended` finds those of members that have."""
        self.claim.check()
        found = set()
        for index in range(len(self.asked)):
            holder = "" if index in self.ended else self.folder.member(index).guard()
            if holder not in ("", CLOSED):
                found.add(self.whole_id(holder))
        return found - {self.job_id}

    def not_submitted(self, verdict: Verdict) -> list[Ended]:
        """Conclude this of all of its members. One that is in doubt may come to light later: that
        its end was wished is noted then, so that whoever takes it up knows."""
        if self.intended and verdict.reason in (Reason.CANCELLED, Reason.TIMED_OUT):
            self.note_cancel("timeout" if verdict.reason is Reason.TIMED_OUT else "user")
        every = range(len(self.asked))
        ended = [self.unended(index, verdict) for index in every if index not in self.ended]
        self.ended.update({each.index: each for each in ended})
        if self.intended:  # else the folder may be used for other members
            self.folder.note_ended(ended, durable=True)
        return ended

    def conclude(self, *, confirmed: bool) -> list[str]:
        """Write what is to be kept; the ids of jobs that were submitted beside ours.

        Args:
            confirmed: False when an end was asked for and not seen. That is no end.
        """
        self.claim.check()
        if not confirmed:
            self.folder.note("unconfirmed", durable=True)
            return []
        result = self.whole()
        self.folder.write_verdict(self.request.spec, self._record(result), {}, {})
        # As in `finalize`: who has the array now judges again what we took for its end.
        self.claim.check()
        return sorted(self.folder.turned_away(range(len(self.asked))))

    def _record(self, result: JobResult) -> dict[str, object]:
        reasons: dict[str, int] = {}
        for each in self.ended.values():
            word = each.result.verdict.reason.value
            reasons[word] = reasons.get(word, 0) + 1
        return record_of(self, result) | {"members": len(self.asked), "ends": reasons}

    def whole(self) -> JobResult:
        """The submission as a job; its run time is that of all of its members in sum."""
        results = [each.result for each in self.ended.values()]
        verdict = _verdict_of_all([result.verdict for result in results])
        whole = result_of(self, verdict, Evidence(job_id=self.job_id, walltime=0))
        seconds = sum(result.run_seconds or 0.0 for result in results)
        return dataclasses.replace(whole, run_seconds=seconds)

    def _write_scripts(self, preamble: Preamble, word: str) -> None:
        spec = self.request.spec
        if not self.intended:  # else an earlier one is in doubt, whose job may have written already
            self.asked = [self._stamped(each) for each in self.asked]
            self._forget_ended()
        members = [each.member for each in self.asked]
        script = render_array(spec, self.folder.path, preamble, word, members, self.per_element)
        self.folder.prepare_array(script, self.request.secrets, self.asked)

    def _forget_ended(self) -> None:
        """Remove the list of ends if a refused submission has left one.

        Only then: who is stopped before a removal may go on when the list is another process's.
        """
        if self.folder.ended_text():
            self.claim.check()
            self.folder.forget_ended()

    def _intent_facts(self) -> dict[str, Any]:
        return {"members": len(self.asked)}

    def _stamped(self, asked: Asked) -> Asked:
        if not asked.member.expected_outputs:
            return asked
        job = asked.member.job(self.request.spec)
        return dataclasses.replace(asked, outputs_before=self.folder.stamps(job))


def new_submission(
    request: ArrayRequest,
    connection: Connection,
    number: int,
    members: Sequence[MemberSpec],
    tries: Mapping[str, int],
) -> Submission:
    """A submission of these members that nobody has made yet.

    Args:
        tries: how many submissions had them before, by their keys.

    Raises:
        JobHeld: another run has its folder, or had it.
    """
    folder = ArrayFolder(connection.transport, f"{request.base}-{number}")
    connection.transport.make_folder(folder.path)
    claim, _ = claims.take(connection.transport, folder.path, request.claimant, request.is_over)
    ledger = folder.ledger()
    if ledger.intended or ledger.result:
        raise JobHeld(
            f"{folder.path} was used by another run of this array, which has taken it over; this"
            " run leaves it alone. Start again when that one has ended"
        )
    array = _array_of(len(members), request.per_element, request.at_once)
    spec = dataclasses.replace(request.spec, array=array, has_members=True)
    return Submission(
        request=dataclasses.replace(request, spec=spec),
        connection=connection,
        number=number,
        folder=folder,
        claim=claim,
        asked=[Asked(member, tries.get(member.key, 0) + 1) for member in members],
        cancel_offset=folder.cancel_requests_size(),
    )


def _of_member(request: ArrayRequest, spec: JobSpec) -> JobRequest:
    return JobRequest(
        spec=spec,
        base=request.base,
        key=request.key,
        claimant=request.claimant,
        poll_interval=request.poll_interval,
        listener=Silence(),
    )


def _verdict_of_all(verdicts: Collection[Verdict]) -> Verdict:
    """One for the submission as a whole."""
    failed = [verdict for verdict in verdicts if not verdict.succeeded]
    if not failed:
        summary = f"its {len(verdicts)} members succeeded"
        return Verdict(reason=Reason.SUCCEEDED, summary=summary, exit_code=0)
    lost = sum(verdict.reason is Reason.LOST for verdict in failed)
    if lost:
        return Verdict(
            reason=Reason.LOST, summary=f"{lost} of its {len(verdicts)} members are lost"
        )
    kinds = {verdict.reason for verdict in failed}
    if len(failed) == len(verdicts) and len(kinds) == 1:  # such as a submission that was refused
        return failed[0]
    summary = f"{len(failed)} of its {len(verdicts)} members failed"
    return Verdict(reason=Reason.MEMBERS_FAILED, summary=summary)
