"""Compares the results of two runs to the last bit."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hpc_prefect.records.compare.differences import differences
from hpc_prefect.records.compare.values import ABSENT, words
from hpc_prefect.records.fold import CLOCK, Record
from hpc_prefect.records.read import standing
from hpc_prefect.records.write.plain import tells_all

#: How many differences of one kind are listed.
_TOLD = 5
_PARTLY = "the record has only a part of them, or asterisks"


@dataclass(frozen=True, slots=True)
class SameResults:
    """The results of two runs, side by side.

    Attributes:
        same: the results that are the same to the last bit, in words.
        different: the results that differ, in words; empty if none is known to.
        unknown: what could not be compared.
    """

    same: tuple[str, ...]
    different: tuple[str, ...]
    unknown: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {name: list(getattr(self, name)) for name in ("same", "different", "unknown")}


def same_results(then: Record, now: Record) -> SameResults:
    """Compare iterations, measures, and what jobs left; not what a clock said."""
    same: list[str] = []
    different: list[str] = []
    unknown: list[str] = []
    if (before := standing(then)) != (after := standing(now)):
        different.append(f"the run is {before}, and its reproduction {after}")
    for loop in dict.fromkeys([*then.iterations, *now.iterations]):
        rows = [_rows(each.iterations.get(loop, {})) for each in (then, now)]
        found = list(_first(_changes(*rows), "more values"))
        different += [f"loop {loop}: {each}" for each in found]
        partly = sorted(set().union(*map(_in_part, rows[0].values())))
        if not found:
            but = f" but for {', '.join(partly)}" if partly else ""
            same.append(f"the {_count(len(rows[0]), 'iteration')} of loop {loop}{but}")
        unknown += [f"loop {loop}: {', '.join(partly)}: {_PARTLY}"] if partly else []
    measures = list(_first(_differing(then.recorded, now.recorded), "more measures"))
    different += measures
    partly = sorted(_in_part(then.recorded))
    unknown += [f"measures {', '.join(partly)}: {_PARTLY}"] if partly else []
    if not measures and (whole := sorted(set(then.recorded) - set(partly))):
        same.append(f"the measures {', '.join(whole)}")
    jobs = _of_jobs(then, now)
    return SameResults(
        same=(*same, *jobs.same),
        different=(*different, *jobs.different),
        unknown=(*unknown, *jobs.unknown),
    )


def _in_part(values: Mapping[str, Any]) -> set[str]:
    return {name for name, value in values.items() if not tells_all(value)}


def _of_jobs(then: Record, now: Record) -> SameResults:
    found = differences([then, now], texts=False)
    same, different, unknown = list[str](), list[str](), list[str]()
    for name in ("jobs", "outputs"):
        section = found.section(name)
        different += [
            f"{row.what}: {_two(*row.values)}"
            + (f", in {_count(row.jobs, 'job')}" * bool(row.jobs))
            for row in section.rows[:_TOLD]
        ]
        if len(section.rows) > _TOLD:
            different.append(f"{len(section.rows) - _TOLD} more of the {name}")
    with_digests = [job for job in now.jobs.values() if job.get("outputs") or _digest_of(job)]
    if "outputs" in found.same and with_digests:
        same.append(f"what {_count(len(with_digests), 'job')} left")
    elif "outputs" in found.likely:
        unknown.append(f"outputs: {found.likely['outputs']}")
    if rest := len(now.jobs) - len(with_digests):
        unknown.append(f"{_count(rest, 'job')} declared no outputs, so only their ends are known")
    return SameResults(tuple(same), tuple(different), tuple(unknown))


def _digest_of(job: Mapping[str, Any]) -> object:
    return job.get("data_sha256")


def _rows(rows: Mapping[int, Mapping[str, Any]]) -> dict[int, dict[str, Any]]:
    return {
        number: {name: value for name, value in row.items() if name not in CLOCK}
        for number, row in rows.items()
    }


def _changes(
    then: Mapping[int, Mapping[str, Any]], now: Mapping[int, Mapping[str, Any]]
) -> Iterator[str]:
    if len(then) != len(now):
        yield f"{_count(len(then), 'iteration')} then, {len(now)} now"
    for number in sorted(set(then) & set(now)):
        for change in _differing(then[number], now[number]):
            yield f"{change}, in iteration {number}"


def _differing(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for name in dict.fromkeys([*then, *now]):
        one, other = then.get(name, ABSENT), now.get(name, ABSENT)
        if _bits(one) != _bits(other):
            yield f"{name}: {_two(one, other)}"


def _bits(value: object) -> str:
    """The same text for the same bits: 0.0 and -0.0 are two numbers, as are 2 and 2.0."""
    return "" if value is ABSENT else json.dumps(value, sort_keys=True, default=str)


def _two(then: object, now: object) -> str:
    one, other = words(then), words(now)
    if one == other:  # in digits that are not shown
        one, other = repr(then), repr(now)
    return f"{one} then, {other} now"


def _first(found: Iterator[str], more: str) -> Iterator[str]:
    every = list(found)
    yield from every[:_TOLD]
    if len(every) > _TOLD:
        yield f"{len(every) - _TOLD} {more}"


def _count(number: int, of: str) -> str:
    return f"{number} {of}" if number == 1 else f"{number} {of}s"
