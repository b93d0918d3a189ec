"""Bulk jobs: a record of the whole, which has the waiting numbers, and one for each sub job.

A sub job has a record once it has started; if it was deleted before, its number is in the whole's
record. The whole itself gets no nodes: it stays in state QUE until none of its sub jobs is left.
The state that is shown depends on them.
"""

from __future__ import annotations

import os
import re

from hpc_rehearsal.common import indices
from hpc_rehearsal.common.state import PARTS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Record = dict[str, Any]

_NUMBERS = re.compile(r"(\d{1,6})-(\d{1,6})", re.ASCII)
_PJDEL = 1


def asked(text: str) -> Record | None:
    """The bulk part of the whole's record, from `--sparam`; None if it has no valid numbers."""
    match = _NUMBERS.fullmatch(text)
    if not match or int(match[1]) >= int(match[2]):
        return None
    first, last = int(match[1]), int(match[2])
    return {"first": first, "last": last, "waiting": [[first, last]], "dropped": []}


def numbers(whole: Record) -> range:
    return range(whole["bulk"]["first"], whole["bulk"]["last"] + 1)


def part_id(whole: Record, number: int) -> str:
    return f"{whole['n']}[{number}]"


def part(whole: Record, number: int) -> Record:
    """The record that a sub job gets at its start."""
    own = {
        "n": whole["n"] * PARTS + number,
        "id": part_id(whole, number),
        "parent": whole["n"],
        "number": number,
        "bulk": None,
        "deleted": None,
    }
    job = {**whole, **own}
    name_files(job)
    return job


def name_files(job: Record) -> None:
    """Set the paths of output and statistics, once the job's number is known."""
    # A file's name does not begin with a digit.
    name = f"J{job['name']}" if job["name"][0].isdecimal() else job["name"]
    marks = {
        "%j": str(job.get("parent", job["n"])),
        "%J": job["id"],
        "%n": name,
        # Assumed: what an ordinary job does not have is empty.
        "%b": str(job.get("number", "")),
        "%s": "",
    }
    for key, kind in (("out", "out"), ("err", "err"), ("spath", "stats")):
        given = job["files"].get(key) or f"{name}.{job['id']}.{kind}"
        for mark, value in marks.items():
            given = given.replace(mark, value)
        job[key] = os.path.join(job["work"], given)


def take(whole: Record, number: int) -> None:
    """Note that a sub job no longer waits."""
    whole["bulk"]["waiting"] = indices.without(whole["bulk"]["waiting"], number)


def drop(whole: Record, number: int) -> None:
    """Note that a sub job was deleted before it started."""
    take(whole, number)
    whole["bulk"]["dropped"] = indices.with_one(whole["bulk"]["dropped"], number)


def drop_all(whole: Record) -> None:
    for first, last in whole["bulk"]["waiting"]:
        for number in range(first, last + 1):
            drop(whole, number)


def shown(whole: Record, parts: list[Record], done: frozenset[str]) -> Record:
    """The row of the whole. It is assumed to be RUN once any sub job has begun."""
    begun = whole["bulk"]["dropped"] or any(job["state"] != "QUE" for job in parts)
    over = whole["state"] in done
    state = "RUN" if begun and not over else whole["state"]
    return {**whole, "state": state, **dict.fromkeys(("ec", "pc", "sn"), "-")}


def all_parts(whole: Record, own: list[Record]) -> list[Record]:
    """All sub jobs as they are shown, `own` being those that have records."""
    known = {job["number"]: job for job in own}
    found = []
    for number in numbers(whole):
        if number in known:
            found.append(known[number])
            continue
        job = {**whole, "id": part_id(whole, number), "number": number, "shared": True}
        job["bulk"] = None
        if indices.holds(whole["bulk"]["dropped"], number):
            job.update(state="CCL", last="QUE", pc=_PJDEL, reason="-")
        found.append(job)
    return found
