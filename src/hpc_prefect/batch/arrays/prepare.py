"""From a call to a valid array with its identity in the experiment, or to all its problems."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc_prefect.batch.arrays.member import Member, ReadMember, read_member
from hpc_prefect.batch.placing import placing_of
from hpc_prefect.batch.prepare import (
    JobTerms,
    input_problems,
    output_problems,
    provenance_of,
    request_facts,
    resolved,
    terms_problems,
)
from hpc_prefect.batch.program import content_of, program_facts
from hpc_prefect.blocks import Call, GivenBlocks
from hpc_prefect.errors import InvalidJob
from hpc_prefect.executor.arrays.request import ArrayRequest
from hpc_prefect.flow_runs.campaigns import identity_problems, locate
from hpc_prefect.job.identity import digest
from hpc_prefect.job.members import MemberSpec
from hpc_prefect.job.spec import JobSpec
from hpc_prefect.records.job_events import members_given

#: How many problems of members a message lists.
_TOLD = 20


@dataclass(frozen=True, kw_only=True)
class ArrayCall:
    """What a caller gives beside the blocks; `members` are checked here.

    Attributes:
        shared: the arguments that a call of one job has too.
        pack: members that an element runs; `at_once`: elements at the same time, None for any
            number.
        array_key: identifies the array, instead of what its members share.
    """

    shared: Call
    members: Sequence[object]
    pack: int
    at_once: int | None
    array_key: str | None


@dataclass(frozen=True)
class PreparedArray:
    """A valid array with its identity."""

    request: ArrayRequest
    on_sigterm: str


async def prepare_array(call: ArrayCall, given: GivenBlocks, terms: JobTerms) -> PreparedArray:
    """Everything before the task run; all problems that can be found are found here, at once.

    Raises:
        InvalidJob: with all problems; of very many members, those of the first ones.
    """
    shared = call.shared
    found, problems = await resolved(shared, given, terms_problems(terms) + _call_problems(call))
    default_args = found.spec.arguments if found is not None else ()
    read = await asyncio.to_thread(_read_members, call, default_args, problems)
    problems += identity_problems(keyed=call.array_key is not None)
    if problems or found is None:
        raise InvalidJob(shared.subject, problems)
    spec, hpc = found.spec, found.blocks.hpc
    digests = await asyncio.to_thread(_made_ready, shared, read)
    program = await asyncio.to_thread(program_facts, spec)
    what = _identity(call, spec, content_of(program) if hpc.rebuilt_program == "rerun" else None)
    place = await locate(
        work_dir=shared.work_dir, name="array", digest=what, keyed=call.array_key is not None
    )
    members = _members(spec.name, read, digests)
    told = await asyncio.to_thread(members_given, members, digests, str(shared.work_dir))
    request = ArrayRequest(
        spec=spec,
        secrets=found.secrets,
        **request_facts(place, hpc),
        placing=placing_of(terms.allocation, given.hpc),
        retry=terms.policy if terms.retries else None,
        timeout=terms.timeout_seconds,
        provenance=provenance_of(place, found.described, {}) | program | told,
        members=members,
        per_element=call.pack,
        at_once=call.at_once or 0,
        retries=terms.retries,
    )
    return PreparedArray(request, hpc.on_sigterm)


def _identity(call: ArrayCall, spec: JobSpec, content: object) -> str:
    """The array's identity: what its members share, not which members there are.

    So a sweep with more members is the same array, and only its new members are submitted.
    """
    if call.array_key is not None:
        return digest(["array_key", call.array_key])
    return digest(["array", spec.identity(), *([content] if content else [])])


def _call_problems(call: ArrayCall) -> list[str]:
    problems = []
    for name, value, least in (("pack", call.pack, 1), ("at_once", call.at_once, 1)):
        wanted = name == "at_once" and value is None
        number = isinstance(value, int) and not isinstance(value, bool) and value >= least
        if not (wanted or number):
            problems.append(f"{name} is {value!r}; it must be a whole number, {least} or more")
    if isinstance(call.members, str | bytes) or not isinstance(call.members, Sequence):
        problems.append(f"members must be a list of Member, not {type(call.members).__name__}")
    return problems


def _read_members(
    call: ArrayCall, default_args: tuple[str, ...], problems: list[str]
) -> list[ReadMember]:
    """The members; adds to `problems` what is wrong with them. Looks at their files."""
    if isinstance(call.members, str | bytes) or not isinstance(call.members, Sequence):
        return []
    found, wrong = [], 0
    work_dir = str(call.shared.work_dir)
    keys = Counter(
        each.job_key
        for each in call.members
        if isinstance(each, Member) and isinstance(each.job_key, str)
    )
    for position, given in enumerate(call.members):
        own: list[str] = []
        member = read_member(given, default_args, work_dir, own)
        if member is not None:
            own += _file_problems(member)
            if member.job_key is not None and keys[member.job_key] > 1:
                own.append(f"job_key {member.job_key!r} is also the job_key of another member")
            found.append(member)
        wrong += bool(own)
        if own and wrong <= _TOLD:
            problems += [f"members[{position}]: {text}" for text in own]
    if wrong > _TOLD:
        problems.append(f"… and {wrong - _TOLD} more members have problems")
    return found


def _file_problems(member: ReadMember) -> list[str]:
    problems = []
    for given in member.inputs:
        problems += input_problems(member.work_dir, given)
    for given in member.expected_outputs:
        problems += output_problems(member.work_dir, given)
    return problems


def _made_ready(shared: Call, members: Sequence[ReadMember]) -> list[dict[str, str]]:
    """Make the members' folders; returns the SHA-256 of each member's inputs by name.

    Raises:
        InvalidJob: a folder cannot be made.
    """
    problems = []
    for folder in dict.fromkeys([str(shared.work_dir), *(each.work_dir for each in members)]):
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            problems.append(f"work_dir {folder} cannot be made: {error.strerror}")
    if len(problems) > _TOLD:
        problems[_TOLD:] = [f"… and {len(problems) - _TOLD} more cannot be made"]
    if problems:
        raise InvalidJob(shared.subject, problems)
    known: dict[str, str] = {}  # many members read the same file
    return [{name: _digest(member, name, known) for name in member.inputs} for member in members]


def _digest(member: ReadMember, name: str, known: dict[str, str]) -> str:
    path = os.path.join(member.work_dir, os.path.expanduser(name))
    if path not in known:
        with open(path, "rb") as file:
            known[path] = hashlib.file_digest(file, "sha256").hexdigest()
    return known[path]


def _members(
    name: str, read: Sequence[ReadMember], digests: Sequence[Mapping[str, str]]
) -> tuple[MemberSpec, ...]:
    """The members with their keys: of what each runs, and how many equal ones come before."""
    seen: Counter[str] = Counter()
    found = []
    for position, (member, inputs) in enumerate(zip(read, digests, strict=True)):
        key = digest(_work(member, inputs))[:24]
        seen[key] += 1
        found.append(
            MemberSpec(
                key=key if seen[key] == 1 else f"{key}-{seen[key]}",
                name=f"{name}[{position}]",
                arguments=member.arguments,
                environment=member.environment,
                work_dir=member.work_dir,
                inputs=member.inputs,
                expected_outputs=member.expected_outputs,
            )
        )
    return tuple(found)


def _work(member: ReadMember, inputs: Mapping[str, str]) -> list[Any]:
    if member.job_key is not None:
        return ["job_key", member.job_key]
    environment = dict(member.environment)
    return [member.arguments, environment, member.work_dir, dict(inputs), member.expected_outputs]
