"""What a field of a job comes to when runs are compared: leaves, by their paths."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hpc_prefect.records.compare.values import ABSENT, differ, flat
from hpc_prefect.records.fold import Record

#: A leaf of jobs: in which jobs it differs, each with its values in all runs.
Leaves = dict[str, dict[str, tuple[Any, ...]]]

_ALL_MEMBERS = "arguments and environment of all members"
#: More files, or members, of one kind than so many are one row.
_FILES = 4
#: Fields that people are told by other names.
_CALLED = {"attempt": "times submitted"}


def plainly_same(field_name: str, row: Sequence[Mapping[str, Any] | None]) -> bool:
    """The common case, quickly."""
    try:
        texts = {repr(job[field_name]) for job in row if job and field_name in job}
    except RecursionError:
        return False
    return len(texts) == 1


def varied_leaves(
    name: str, records: Sequence[Record], row: Sequence[Mapping[str, Any] | None], held: list[bool]
) -> dict[str, tuple[Any, ...]]:
    """The leaves of a field that differ among the runs that hold it."""
    flats: list[dict[str, Any] | None] = []
    for record, job, has in zip(records, row, held, strict=True):
        flats.append(leaves_of(name, record, job) if has and job else None)
    there = [each for each in flats if each is not None]
    found: dict[str, tuple[Any, ...]] = {}
    for path in dict.fromkeys(path for each in there for path in each):
        if differ([each.get(path, ABSENT) for each in there]):
            found[path] = tuple(each.get(path, ABSENT) if each else ABSENT for each in flats)
    return found


def leaves_of(name: str, record: Record, job: Mapping[str, Any]) -> dict[str, Any]:
    """What one job's field has, by paths that a person reads."""
    value = job[name]
    if name == "executable" and isinstance(value, Mapping):
        return flat(_file(value), "executable.")
    if name == "images" and isinstance(value, list):
        return flat({str(i): _file(each) for i, each in enumerate(value)}, "images.")
    if name in ("inputs", "outputs") and isinstance(value, Mapping):
        own = _own_paths(record, job)
        files = {own(str(path)): _file(each) for path, each in value.items()}
        return {f"{name[:-1]} {path}": each.get("sha256", each) for path, each in files.items()}
    if name == "arguments" and isinstance(value, list):
        own = _own_paths(record, job)
        return {f"argument {i + 1}": own(str(each)) for i, each in enumerate(value)}
    if name == "member_arguments" and isinstance(value, Mapping):
        listed = found if isinstance(found := value.get("first"), list) else []
        each = {f"member [{i}]": _command_line(words) for i, words in enumerate(listed)}
        return {"members": value.get("count"), **each, _ALL_MEMBERS: value.get("sha256")}
    if name == "member_inputs" and isinstance(value, Mapping):
        return {"inputs of all members": value.get("sha256")}
    if name == "options" and isinstance(value, Mapping):  # seeds have a section of their own
        return flat({k: v for k, v in value.items() if k != "seed"}, "options.")
    if name == "circuits" and isinstance(value, list):
        return flat({str(i): each for i, each in enumerate(value)}, "circuits.")
    return flat({_CALLED.get(name, name): value})


def _command_line(words: object) -> str:
    return shlex.join(map(str, words)) if isinstance(words, list) else str(words)


def _file(value: object) -> dict[str, Any]:
    """A file by its path and content; by its size where no digest of it is known."""
    if not isinstance(value, Mapping):
        return {"path": value}
    told = ("path", "sha256") if value.get("sha256") else ("path", "size")
    return {name: value[name] for name in told if name in value}


def _own_paths(record: Record, job: Mapping[str, Any]) -> Callable[[str], str]:
    """Paths without what is the run's own: its folders have another name in every campaign."""
    own = {str(job.get("folder") or ""): "<job>", str(job.get("work_dir") or ""): "<work_dir>"}
    for campaign in record.campaigns.values():
        own[str(campaign.get("folder") or "")] = "<campaign>"
        own.setdefault(str(campaign.get("work_dir") or ""), "<work_dir>")
    known = sorted((path for path in own if len(path) > 1), key=len, reverse=True)

    def own_path(text: str) -> str:
        for path in known:
            if text == path or text.startswith(path.rstrip("/") + os.sep):
                return own[path] + text[len(path.rstrip("/")) :]
        return text

    return own_path


def shortened(leaves: Leaves, field_name: str) -> Leaves:
    """Leaves of which there may be very many, in fewer."""
    if field_name in ("inputs", "outputs"):
        return _few(leaves, f"{field_name[:-1]} files")
    if field_name != "member_arguments":
        return leaves
    one_by_one = {path: leaves[path] for path in leaves if path.startswith("member [")}
    others = {path: leaves[path] for path in leaves if path not in one_by_one}
    if one_by_one:
        others.pop(_ALL_MEMBERS, None)  # which members, and how, says more
    return others | _few(one_by_one, "members")


def _few(leaves: Leaves, what: str) -> Leaves:
    """One row for many leaves: the first of each job stands for them."""
    if len(leaves) <= _FILES:
        return leaves
    merged: dict[str, tuple[Any, ...]] = {}
    for by_job in leaves.values():
        for label, values in by_job.items():
            merged.setdefault(label, values)
    return {f"{len(leaves)} {what}": merged}
