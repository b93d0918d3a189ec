"""A held allocation as a scheduler's dialect.

A held allocation is a batch job of another scheduler, the *scheduler inside*. Its program, the
agent, starts the jobs that it finds in its spool, a folder that login and compute nodes share. The
file of a job in the spool is named by the job's tag: so a job cannot be submitted twice, whether it
was submitted is soon clear, and a search by tag is exact.

The agent's log says how a job ended. That the allocation itself has ended is known from the last
line of the agent's log, from the flow that holds it, or from the scheduler inside. A late heartbeat
proves nothing; it is only a reason to ask the scheduler inside.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from hpc_prefect.job.dialogue import Dialogue
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.script import Preamble
from hpc_prefect.job.spec import JobSpec
from hpc_prefect.job.state import JobState, Observation, is_of_a_refused_start, signal_of
from hpc_prefect.schedulers.allocation import spool as spools
from hpc_prefect.schedulers.allocation.share import share_of
from hpc_prefect.schedulers.allocation.spool import JobLine, SpoolLook
from hpc_prefect.schedulers.base import (
    Accepted,
    Answer,
    Found,
    NoAnswer,
    Refused,
    Scheduler,
    Submission,
    Ticket,
    Told,
    Unclear,
)

#: The dialect's name is this, then the name of the scheduler inside.
PREFIX = "allocation-"

#: If the heartbeat is older (in seconds; the agent writes one every five), the scheduler inside is
#: asked about the allocation's job.
LATE = 60.0
#: If it is even older, an allocation whose job the scheduler does not list has ended. So has one
#: that has not begun, if the flow that holds it has been silent for so long: nobody submits it.
_DEAD = 600.0

_ENDS = {
    "exit": None,
    "walltime": Reason.WALLTIME,
    "cancelled": Reason.CANCELLED,
    "allocation": Reason.ALLOCATION_ENDED,
}
_WHY = {
    "idle": "it had no job for longer than its idle_timeout",
    "closed": "its flow closed it",
    "signalled": "it received a signal: it was cancelled, or its walltime was over",
    "orphan": "its flow gave no sign of life for its orphan_timeout",
    "walltime": "its walltime was over",
}
_NOT_TAKEN = {
    "walltime": "the allocation had too little time left for it",
    "closed": "the allocation was ending",
}
#: Refusals that another submission would get again. `Held.refuses` is asked before a submission, so
#: `size` can only come from the agent of another version.
_REFUSED = {
    "size": "the allocation's agent says that the job is larger than the allocation",
    "unreadable": "the allocation's agent could not read the job's file for two minutes",
}


class AllocationScheduler:
    """`Scheduler` for jobs that are handed to a held allocation of another scheduler.

    Its options are `spool`, the allocation's folder, and `held`, what the allocation holds (see
    `share.Held`) with the `options` of the scheduler inside.
    """

    runs_here = False
    ids_per_question = 200
    searchable = True
    throttles_arrays = False
    hurry = 0.2  # usually only files are read

    def __init__(self, inside: Scheduler) -> None:
        self._inside = inside
        self.name = PREFIX + inside.name
        self.patience = inside.patience

    def problems(self, spec: JobSpec) -> list[str]:
        return []  # `Held.refuses` has them: such a job is submitted outside of the allocation

    def environment_problems(self, spec: JobSpec, environment: Mapping[str, str]) -> list[str]:
        return []

    def array_limit(self, options: Mapping[str, object]) -> int:
        return 0  # members are handed over one by one, or in packs

    def element_id(self, array_id: str, index: int) -> str:
        return array_id

    def array_of(self, element_id: str) -> str:
        return element_id

    def preamble(self, spec: JobSpec, ticket: Ticket) -> Preamble:
        site = dataclasses.replace(
            spec.site, scheduler=self._inside.name, options=_inner(spec.site.options)
        )
        inside = self._inside.preamble(dataclasses.replace(spec, site=site), ticket)
        return Preamble(id_expression='"$HPC_ALLOCATION_JOB_ID"', restarts="0", unset=inside.unset)

    def submit(self, spec: JobSpec, ticket: Ticket) -> Dialogue[Submission]:
        spool = _spool(spec.site.options)
        share = share_of(spec)
        fields = (
            *share.fields(),
            ticket.script,
            ticket.scheduler_out,
            ticket.scheduler_err,
            spec.work_dir,
        )
        reply = yield spools.ask_to_submit(spool, ticket.tag, fields)
        if reply.code == 0:
            return Accepted(_id(spool, ticket.tag))
        return Refused(reply.said) if spools.surely_refused(reply) else Unclear(reply.said)

    def observe(
        self, ids: Sequence[str], options: Mapping[str, object]
    ) -> Dialogue[Answer | NoAnswer]:
        tags = {_tag(each): each for each in ids}
        seen = yield from self._see([*tags], options)
        if isinstance(seen, NoAnswer):
            return seen
        return {tags[tag]: each for tag, each in seen.items()}

    def find(
        self, tags: Sequence[str], options: Mapping[str, object]
    ) -> Dialogue[Found | NoAnswer]:
        reply = yield spools.ask_to_ring_again(_spool(options), tags)
        if reply.code != 0:
            return NoAnswer(reply.said)
        seen = yield from self._see(tags, options)
        if isinstance(seen, NoAnswer):
            return seen
        found: Found = {tag: {} for tag in tags}
        for tag, each in seen.items():
            found[tag] = each if isinstance(each, NoAnswer) else {each.id: each}
        return found

    def cancel(
        self, jobs: Mapping[str, str], options: Mapping[str, object]
    ) -> Dialogue[NoAnswer | None]:
        reply = yield spools.ask_to_cancel(_spool(options), [_tag(each) for each in jobs])
        return None if reply.code == 0 else NoAnswer(reply.said)

    def read_output(self, text: str) -> Told | None:
        return self._inside.read_output(text)

    def whole(self, options: Mapping[str, object]) -> Dialogue[Observation | NoAnswer]:
        """The state of the allocation itself."""
        reply = yield spools.ask_to_look(_spool(options), ())
        look = spools.read_look(reply)
        if look is None:
            return NoAnswer(reply.said)
        return (yield from self._ask_about(look, options))

    def _see(
        self, tags: Sequence[str], options: Mapping[str, object]
    ) -> Dialogue[dict[str, Observation | NoAnswer] | NoAnswer]:
        """What is known of each job that was handed over, by its tag."""
        spool = _spool(options)
        reply = yield spools.ask_to_look(spool, tags)
        look = spools.read_look(reply)
        if look is None:
            return NoAnswer(reply.said)
        found: dict[str, Observation | NoAnswer] = {}
        under_way = []
        for tag in tags:
            if (ended := _ended(look, tag, spool)) is not None:
                found[tag] = ended
            elif tag in look.there:
                under_way.append(tag)
        if under_way:
            held = yield from self._ask_about(look, options)
            found |= {tag: _under_way(look, tag, spool, held) for tag in under_way}
        return found

    def _ask_about(
        self, look: SpoolLook, options: Mapping[str, object]
    ) -> Dialogue[Observation | NoAnswer]:
        """The state of the allocation. The scheduler inside is asked only if the spool's files do
        not show it."""
        if look.end or look.is_gone:
            why = _WHY.get(look.end[0], look.end[0]) if look.end else look.gone
            return Observation(id="", state=JobState.ENDED, message=why)
        if look.beat_age is not None and look.beat_age < LATE:
            return Observation(id="", state=JobState.RUNNING)
        own, known = look.ids[0] if look.ids else "", ""
        if own:
            name, job = self._inside.name, f"the allocation's job {own}"
            known = f"{name} does not list {job}"
            answer = yield from self._inside.observe([own], _inner(options))
            said = answer if isinstance(answer, NoAnswer) else answer.get(own)
            if isinstance(said, Observation) and _is_of_a_second_start(look, said):
                known = f"{name} tells the end of a second start of {job}"
            elif said is not None:
                return said
        if why := _dead(look, known):
            return Observation(id=own, state=JobState.ENDED, message=why)
        if own:
            return NoAnswer(known)
        return Observation(
            id="", state=JobState.QUEUED, message="the allocation is being submitted"
        )


def _is_of_a_second_start(look: SpoolLook, said: Observation) -> bool:
    """Whether its scheduler has forgotten that it runs, and has started it again: the start guard
    has turned that away, and its end says nothing of the agent of the first start."""
    return look.beat_age is not None and is_of_a_refused_start(said)


def _dead(look: SpoolLook, known: str) -> str:
    """Why an allocation has ended, or will never begin; empty if it may live.

    Args:
        known: what its scheduler says, which does not tell its end; empty if it was not asked.
    """
    listed = f", and {known}" if known else ""
    if look.beat_age is not None:
        why = f"its agent was silent for {look.beat_age:.0f} s{listed}"
        return why if look.beat_age > _DEAD else ""
    if look.unheld_for is None or look.unheld_for <= _DEAD:
        return ""
    return f"it has not begun, and its flow was silent for {look.unheld_for:.0f} s{listed}"


def _ended(look: SpoolLook, tag: str, spool: str) -> Observation | None:
    """How a job ended, by the agent's log, or because it was cancelled before it started.

    None if it has not ended.
    """
    lines = look.lines.get(tag, {})
    started = lines["S"].at if "S" in lines else 0.0
    if (end := lines.get("E")) is not None:
        return _end(tag, spool, end, started)
    if (refused := lines.get("R")) is not None:
        word = " ".join(refused.words)
        if word in _REFUSED:
            return _observation(tag, spool, "REFUSED", Reason.REJECTED, _REFUSED[word])
        why = _NOT_TAKEN.get(word, "the allocation did not take it")
        return _observation(tag, spool, "NOT_TAKEN", Reason.ALLOCATION_ENDED, why)
    if tag in look.cancelled and tag in look.there:
        return _observation(
            tag, spool, "CANCELLED", Reason.CANCELLED, "cancelled before it started"
        )
    return None


def _end(tag: str, spool: str, line: JobLine, started: float) -> Observation:
    how, code = line.words[0], int(line.words[1])
    cause = _ENDS.get(how, Reason.PROGRAM_FAILED)
    words = {
        Reason.WALLTIME: "over its walltime",
        Reason.CANCELLED: "cancelled",
        Reason.ALLOCATION_ENDED: "the allocation ended while it ran",
    }
    plain = cause is None
    return Observation(
        id=_id(spool, tag),
        state=JobState.ENDED,
        word=how.upper(),
        cause=cause,
        tag=tag,
        exit_code=code if plain and code <= 128 else None,
        signal=signal_of(code) if plain else "",
        message=words.get(cause, "") if cause else "",
        started_at=started,
        ended_at=line.at,
    )


def _under_way(
    look: SpoolLook, tag: str, spool: str, held: Observation | NoAnswer
) -> Observation | NoAnswer:
    """The state of a job that the agent's log does not show as ended.

    Args:
        held: the state of the allocation.
    """
    started = look.lines.get(tag, {}).get("S")
    if isinstance(held, NoAnswer):
        return held
    if held.state is JobState.ENDED:
        own = f" ({look.ids[0]} is {held.word})" if look.ids and held.word else ""
        why = f"the allocation ended{own}" + (f": {held.message}" if held.message else "")
        ended = _observation(tag, spool, "ALLOCATION_ENDED", Reason.ALLOCATION_ENDED, why)
        return dataclasses.replace(ended, started_at=started.at) if started else ended
    if started is not None:
        return Observation(
            id=_id(spool, tag),
            state=JobState.RUNNING,
            word="RUNNING",
            tag=tag,
            host=" ".join(started.words),
            started_at=started.at,
        )
    waits = "" if look.beat_age is not None else "the allocation has not begun"
    waits += f": {held.message}" if waits and held.message else ""
    return Observation(
        id=_id(spool, tag), state=JobState.QUEUED, word="QUEUED", tag=tag, message=waits
    )


def _observation(tag: str, spool: str, word: str, cause: Reason, why: str) -> Observation:
    return Observation(
        id=_id(spool, tag), state=JobState.ENDED, word=word, cause=cause, tag=tag, message=why
    )


def _id(spool: str, tag: str) -> str:
    """A job's id, made as the agent makes it: eight letters of the spool's name, and the tag."""
    return f"{spool.rpartition('/')[2][:8]}.{tag}"


def _tag(job_id: str) -> str:
    return job_id.rpartition(".")[2]


def _spool(options: Mapping[str, object]) -> str:
    return str(options["spool"])


def _inner(options: Mapping[str, object]) -> dict[str, Any]:
    """The options of the scheduler inside."""
    held: Any = options["held"]
    return dict(held["options"])
