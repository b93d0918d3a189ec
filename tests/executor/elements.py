"""A scheduler that has arrays, on top of the laptop's engine, with the ills that real ones have."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpc_prefect.job.dialogue import Command, Dialogue
from hpc_prefect.job.script import Preamble
from hpc_prefect.job.spec import JobSpec
from hpc_prefect.job.state import JobState, Observation
from hpc_prefect.schedulers.base import (
    Accepted,
    Answer,
    Found,
    NoAnswer,
    Refused,
    Submission,
    Ticket,
)
from hpc_prefect.schedulers.local import scheduler as local
from hpc_prefect.schedulers.local.scheduler import LocalScheduler

ENGINE = str(Path(__file__).with_name("elements_engine.py"))


class Elements(LocalScheduler):
    """Each element is a job of the engine; the array is known by a file that the submission wrote.

    Attributes:
        forgets: it has no trace of elements that were cancelled while they waited.
        hides: so many times it does not yet list an array that was just submitted.
    """

    forgets = False
    hides = 0

    def __init__(self, limit: int = 100) -> None:
        self.limit = limit
        self.asked: list[list[str]] = []

    def array_limit(self, options: Mapping[str, object]) -> int:
        return self.limit

    def preamble(self, spec: JobSpec, ticket: Ticket) -> Preamble:
        if spec.array is None:
            return super().preamble(spec, ticket)
        return Preamble(id_expression='"$ELEMENT_ID"', restarts="0", index='"$ELEMENT"')

    def element_id(self, array_id: str, index: int) -> str:
        return f"{array_id}[{index}]"

    def array_of(self, job_id: str) -> str:
        return job_id.partition("[")[0]

    def submit(self, spec: JobSpec, ticket: Ticket) -> Dialogue[Submission]:
        if spec.array is None:
            return (yield from super().submit(spec, ticket))
        reply = yield submission(spec, ticket)
        return Accepted(reply.stdout.strip()) if reply.code == 0 else Refused(reply.said)

    def observe(
        self, ids: Sequence[str], options: Mapping[str, object]
    ) -> Dialogue[Answer | NoAnswer]:
        self.asked.append([*ids])
        jobs = {each: _jobs(each, options) for each in ids}
        if self.hides:
            self.hides -= 1
            return {}
        said = yield from super().observe([one for many in jobs.values() for one in many], options)
        if isinstance(said, NoAnswer):
            return said
        found: Answer = {}
        for each, many in jobs.items():
            seen = [said.get(one) for one in many]
            whole = each.startswith("A") and "[" not in each
            told = self._whole(each, seen) if whole else self._one(each, seen)
            if told is not None:
                found[each] = told
        return found

    def _one(self, job_id: str, seen: list[Any]) -> Observation | None:
        if not seen or seen[0] is None:
            return None
        if self.forgets and seen[0].state is JobState.ENDED and not seen[0].started_at:
            return None
        return dataclasses.replace(seen[0], id=job_id)

    def _whole(self, job_id: str, seen: list[Any]) -> Observation | None:
        left = [i for i, each in enumerate(seen) if each and each.state is not JobState.ENDED]
        if not left:
            return None
        states = {seen[index].state for index in left}
        state = JobState.RUNNING if JobState.RUNNING in states else JobState.QUEUED
        return Observation(
            id=job_id, state=state, word=str(state), tag=seen[left[0]].tag,
            left=tuple((index, index) for index in left),
        )  # fmt: skip

    def find(
        self, tags: Sequence[str], options: Mapping[str, object]
    ) -> Dialogue[Found | NoAnswer]:
        found = yield from super().find(tags, options)
        if isinstance(found, NoAnswer):
            return found
        elements = {one for known in _arrays(options).values() for one in known["ids"]}
        for tag, jobs in found.items():
            found[tag] = {i: seen for i, seen in jobs.items() if i not in elements}
            for array, known in _arrays(options).items():
                if known["tag"] == tag:
                    found[tag][array] = Observation(id=array, state=JobState.UNKNOWN, tag=tag)
        return found

    def cancel(
        self, jobs: Mapping[str, str], options: Mapping[str, object]
    ) -> Dialogue[NoAnswer | None]:
        ones = {one: tag for each, tag in jobs.items() for one in _jobs(each, options)}
        return (yield from super().cancel(ones, options)) if ones else None


def submission(spec: JobSpec, ticket: Ticket) -> Command:
    """The command that submits an array."""
    assert spec.array is not None
    options, spool = spec.site.options, str(spec.site.options["spool"])
    arguments = (
        *("--spool", spool, "--name", ticket.tag, "--queue", "local"),
        *("--slots", str(options["slots"]), "--cpus", "1"),
        *("--walltime", str(spec.resources.walltime)),
        *("--kill-grace", str(options.get("kill_grace", 5.0))),
        *("--out", ticket.scheduler_out, "--err", ticket.scheduler_err, "--cwd", spec.work_dir),
    )
    own = (f"{spool}-arrays", ticket.tag, str(spec.array.size), ticket.script)
    return Command(
        (sys.executable, "-S", ENGINE, local._ENGINE, "submit", *own, *arguments), timeout=60.0
    )


def _arrays(options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    files = Path(f"{options['spool']}-arrays").glob("*/known")
    return {path.parent.name: json.loads(path.read_text()) for path in files}


def _jobs(job_id: str, options: Mapping[str, Any]) -> list[str]:
    """The engine's jobs of an id: of an array all of its elements."""
    array, _, index = job_id.partition("[")
    known = _arrays(options).get(array)
    if known is None:
        return [] if array.startswith("A") else [job_id]
    ids: list[str] = known["ids"]
    return [ids[int(index.rstrip("]"))]] if index else ids
