"""The members of an array: what each of them runs, and where its files are.

An array is one submission of many members. They share all values but those of `MemberSpec`. The
scheduler starts elements; an element runs one member, or several one after another. The array's job
folder (see `hpc_prefect.job.folder`) has these files in addition

    asked.jsonl      the members in their order, a JSON line each, as they were submitted
    ended.jsonl      a JSON line for each member that ended, in the order in which that was seen;
                     `reopened` (a job's id): this job was found to run the member still
    m/<i // 100>/    the files of up to 100 members; at most five for each:
        <i>.guard, <i>.phase, <i>.stdout, <i>.stderr     as in the folder of a single job
        <i>.record   one JSON line for every start of the member, and one for every end
        members      the shell text for these members; program.sh runs its own member's part
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hpc_prefect.job import folder as names
from hpc_prefect.job.failure import Reason, Verdict
from hpc_prefect.job.outputs import Left, Stamp, read_left, read_stamp
from hpc_prefect.job.result import JobResult
from hpc_prefect.job.spec import JobSpec

ASKED = "asked.jsonl"
ENDED = "ended.jsonl"
RECORD = "record"
#: The shell text of one shard's members.
MEMBERS = "members"
#: Members whose files lie in one folder: few enough for a file system to list at once.
SHARD = 100


def shard(index: int) -> str:
    """The folder of a member's files, below the array's."""
    return f"m/{index // SHARD}"


def prefix(index: int) -> str:
    """What a member's files begin with, below the array's folder."""
    return f"{shard(index)}/{index}."


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberSpec:
    """The values in which the members of an array differ.

    Attributes:
        key: identifies it in its array, in every run of the experiment.
        name: what a person calls it: `scan[17]`.
        arguments: all of the program's, byte for byte.
        environment: in addition to the array's; wins over it.
        work_dir: absolute.
        inputs, expected_outputs: as in `JobSpec`.
    """

    key: str
    name: str
    arguments: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    work_dir: str
    inputs: tuple[str, ...] = ()
    expected_outputs: tuple[str, ...] = ()

    def job(self, array: JobSpec) -> JobSpec:
        """The member as a single job."""
        return dataclasses.replace(
            array,
            name=self.name,
            arguments=self.arguments,
            environment=array.environment | self.environment,
            work_dir=self.work_dir,
            inputs=self.inputs,
            expected_outputs=self.expected_outputs,
            array=None,
            has_members=True,
        )


@dataclass(frozen=True, slots=True)
class Asked:
    """A member of a submission.

    Attributes:
        attempt: 1 in the first submission that has it, one more in each further one.
        outputs_before: what was at the paths of its outputs before the submission.
    """

    member: MemberSpec
    attempt: int = 1
    outputs_before: dict[str, Stamp | None] = field(default_factory=dict)


def asked_text(members: Sequence[Asked]) -> bytes:
    """The content of asked.jsonl."""
    return b"".join(_line(_asked(each)) for each in members)


def _asked(asked: Asked) -> dict[str, Any]:
    member = asked.member
    values: dict[str, Any] = {"key": member.key, "name": member.name, "work_dir": member.work_dir}
    values |= {"arguments": member.arguments, "attempt": asked.attempt}
    for name in ("environment", "inputs", "expected_outputs"):
        if value := getattr(member, name):
            values[name] = value
    return values | ({"before": asked.outputs_before} if asked.outputs_before else {})


def read_asked(data: bytes | None) -> list[Asked]:
    """The members of a submission.

    Raises:
        KeyError, TypeError, ValueError: it is no such file.
    """
    found = []
    for line in _lines(data):
        entry = json.loads(line)
        member = MemberSpec(
            key=str(entry["key"]),
            name=str(entry["name"]),
            arguments=tuple(entry["arguments"]),
            environment=dict(entry.get("environment", {})),
            work_dir=str(entry["work_dir"]),
            inputs=tuple(entry.get("inputs", ())),
            expected_outputs=tuple(entry.get("expected_outputs", ())),
        )
        before = {name: read_stamp(each) for name, each in entry.get("before", {}).items()}
        found.append(Asked(member, int(entry["attempt"]), before))
    return found


def _lines(data: bytes | None) -> list[bytes]:
    """The lines of asked.jsonl. None is skipped: that would shift the numbers of the others.

    Raises:
        ValueError: it has no line, or its last line has no end.
    """
    *lines, rest = (data or b"").split(b"\n")
    if rest or not lines:
        raise ValueError("its last line is cut off" if rest else "it is empty")
    return lines


@dataclass(frozen=True, slots=True)
class Ended:
    """A member that has ended, and the files that it left in each expected output."""

    index: int
    result: JobResult
    outputs: dict[str, dict[str, Left]] = field(default_factory=dict)


#: The values of a result that ended.jsonl keeps beside the verdict.
_OWN = ("job_id", "host", "queue_seconds", "run_seconds", "resources_used")


def ended_line(ended: Ended) -> bytes:
    """The line of ended.jsonl for a member that ended."""
    result, verdict = ended.result, ended.result.verdict
    values: dict[str, Any] = {"i": ended.index, "reason": verdict.reason.value}
    values["summary"] = verdict.summary
    for name in ("said", "exit_code", "signal"):
        if (value := getattr(verdict, name)) not in ("", None):
            values[name] = value
    for name in _OWN:
        if (value := getattr(result, name)) not in ("", None, {}):
            values[name] = value
    return _line(values | ({"outputs": ended.outputs} if ended.outputs else {}))


def reopened_line(index: int, job_id: str) -> bytes:
    """The line of ended.jsonl that a member has not ended: the job `job_id` runs it."""
    return _line({"i": index, "reopened": job_id})


def read_ended(data: bytes | None, likes: Mapping[int, JobResult]) -> Iterator[Ended]:
    """The members that have ended. The first verdict of a member stands, unless it was LOST or the
    member was reopened.

    Torn and foreign lines are left out: such a member is judged again, by its own records.

    Args:
        likes: a result for each member, with the values that ended.jsonl does not keep.
    """
    found: dict[int, Ended] = {}
    for entry in names.read_entries(data):
        try:
            index = int(entry["i"])
            if "reopened" in entry:
                found.pop(index, None)
                continue
            verdict = Verdict(
                reason=Reason(entry["reason"]),
                summary=str(entry["summary"]),
                said=str(entry.get("said", "")),
                exit_code=entry.get("exit_code"),
                signal=str(entry.get("signal", "")),
            )
            own = {name: entry[name] for name in _OWN if name in entry}
            result = dataclasses.replace(likes[index], verdict=verdict, **own)
            outputs = {name: read_left(each) for name, each in entry.get("outputs", {}).items()}
        except (KeyError, TypeError, ValueError, AttributeError):
            continue
        before = found.get(index)
        if before is None or before.result.verdict.reason is Reason.LOST:
            found[index] = Ended(index, result, outputs)
    yield from found.values()


_encode = json.JSONEncoder(separators=(",", ":"), default=str).encode


def _line(values: Mapping[str, Any]) -> bytes:
    # ASCII: it also holds paths of bytes that are no text.
    return _encode(values).encode() + b"\n"
