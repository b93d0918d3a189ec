"""Selects and sorts runs by their parameters and results: conditions, order and columns.

A name is looked for in a run's parameters, then in its measures, its costs, its other totals, and
last in the fields that a list has of every run (`fold.Record.summary`). A dot leads into a mapping:
`molecule.basis`, `measures.energy`, `totals.saved.qpu_seconds`.
"""

from __future__ import annotations

import contextlib
import json
import operator
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from difflib import get_close_matches
from typing import Any

from hpc_prefect.errors import InvalidQuery
from hpc_prefect.terminal import printable

#: A run's summary.
Run = Mapping[str, Any]


class _Missing:
    def __repr__(self) -> str:
        return "MISSING"

    def __bool__(self) -> bool:
        return False


#: What `value` returns for a name that a run does not have; `None` is a value.
MISSING = _Missing()


def value(run: Run, name: str) -> Any:
    """The value that a run has under a name; `MISSING` if it has none."""
    totals = _mapping(run.get("totals"))
    for place in (run.get("parameters"), run.get("measures"), totals.get("costs"), totals, run):
        found = _inside(_mapping(place), name)
        if found is not MISSING:
            return campaign_of(run) if place is run and name == "campaign" else found
    return MISSING


def campaign_of(run: Run) -> str:
    """The name of the experiment that a run works on; empty when it works on none."""
    names = run.get("campaign") or ""
    return str(names[0] if isinstance(names, list) else names)


def _mapping(found: object) -> Mapping[str, Any]:
    return found if isinstance(found, Mapping) else {}


def _inside(place: Mapping[str, Any], name: str) -> Any:
    """A name's value; a key may itself have dots."""
    if name in place:
        return place[name]
    head, point, rest = name.partition(".")
    while point:
        if isinstance(below := place.get(head), Mapping):
            found = _inside(below, rest)
            if found is not MISSING:
                return found
        more, point, rest = rest.partition(".")
        head = f"{head}.{more}"
    return MISSING


# Conditions


@dataclass(frozen=True, slots=True)
class Literal:
    """What a value is compared with.

    Attributes:
        text: as written, without quotes.
        number: its number, if it can be one.
        constant: JSON's word for it, if it is a constant of Python: `true` for `True`.
    """

    text: str
    number: float | None = None
    constant: str = ""

    def equals(self, found: Any) -> bool:
        if self.number is not None and _is_number(found):
            return bool(found == self.number)
        if self.constant and not isinstance(found, str) and as_text(found) == self.constant:
            return True
        return as_text(found) == self.text

    def orders(self, found: Any) -> bool:
        """Whether a value can be compared with it by order."""
        if self.number is not None:
            return _is_number(found) and not _is_nan(found)
        return isinstance(found, str)


@dataclass(frozen=True, slots=True)
class Condition:
    """One `--where`; it is false for a run that has no such name.

    Attributes:
        moment: the time to compare with, in seconds since 1970; None if it is not about a time.
    """

    name: str
    sign: str
    literal: Literal
    moment: float | None = None

    def holds(self, run: Run) -> bool:
        found = value(run, self.name)
        if found is MISSING:
            return False
        if self.sign in ("=", "=="):
            return self.literal.equals(found)
        if self.sign == "!=":
            return not self.literal.equals(found)
        if self.moment is not None and _is_number(found):
            return bool(found) and _ORDERS[self.sign](found, self.moment)  # 0 is not known
        if not self.literal.orders(found):
            return False
        wanted = self.literal.text if self.literal.number is None else self.literal.number
        return _ORDERS[self.sign](found, wanted)


_ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_CONDITION = re.compile(r"\s*([^<>=!]*[^<>=!\s])\s*(==|!=|<=|>=|=|<|>)\s*(.*?)\s*", re.DOTALL)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_QUOTED = re.compile(r"""(["'])(.*)\1""", re.DOTALL)
_GRAMMAR = (
    "write a name, then one of == != < <= > >= (= means ==), then a number, a word, or a text in"
    ' quotes, such as shots>1000, basis=="cc-pvdz" or molecule.charge!=0. For several conditions'
    " write several --where; a run must meet all of them"
)


_CONSTANTS = {"True": "true", "False": "false", "None": "null"}
#: Fields that are compared with times as `moment` reads them.
_TIMES = ("started", "ended", "updated")


def condition(text: str, now: float = 0.0) -> Condition:
    """Read a condition.

    Args:
        now: seconds since 1970, from which ages such as `3d` are counted.

    Raises:
        InvalidQuery: it is no condition; the message says how one is written.
    """
    match = _CONDITION.fullmatch(text)
    literal = _literal(match[3]) if match else None
    if match is None or literal is None:
        raise InvalidQuery(f"the condition {text!r} cannot be read: {_GRAMMAR}")
    name, sign, when = match[1], match[2], None
    if name in _TIMES and sign in _ORDERS and literal.number is None:
        with contextlib.suppress(InvalidQuery):  # `check_orders` raises it
            when = moment(literal.text, now, end=sign == "<=")
    return Condition(name, sign, literal, when)


def _literal(text: str) -> Literal | None:
    if quoted := _QUOTED.fullmatch(text):
        return None if quoted[1] in quoted[2] else Literal(quoted[2])
    if not text or re.search(r"""[<>=!"'\s]""", text):
        return None
    return Literal(text, _number(text), _CONSTANTS.get(text, ""))


def _number(text: str) -> float | None:
    if not _NUMBER.fullmatch(text):
        return None
    try:
        return int(text)  # as floats, two long seeds could be equal
    except ValueError:
        return float(text)


def _is_number(found: object) -> bool:
    return isinstance(found, int | float) and not isinstance(found, bool)


def _is_nan(found: float) -> bool:
    return found != found  # `math.isnan` fails for an integer of 400 digits


def check_orders(conditions: Iterable[Condition], runs: Sequence[Run]) -> None:
    """Check that no condition compares numbers with a word by order.

    Raises:
        InvalidQuery: one does; it would be false for every run.
    """
    for each in conditions:
        if each.sign not in _ORDERS or each.literal.number is not None or each.moment is not None:
            continue
        values = [value(run, each.name) for run in runs]
        values = [found for found in values if found is not MISSING and found is not None]
        if values and all(map(_is_number, values)):
            raise InvalidQuery(_no_order(each))


def _no_order(wrong: Condition) -> str:
    text = wrong.literal.text
    said = f"no run can meet the condition {wrong.name + wrong.sign + text!r}:"
    if wrong.name in _TIMES:
        return f"{said} {text!r} is not a time; {_TIMES_ARE}"
    more = " (remove the quotes)" if _number(text) is not None else ""
    return (
        f"{said} {printable(wrong.name)} is a number in all known runs, and {text!r} is not{more}"
    )


def as_text(found: Any) -> str:
    """A value as text: a string as it is, everything else as JSON."""
    return found if isinstance(found, str) else _encode(found)


#: One encoder for all: `json.dumps` with options makes a new one for each call.
_encode = json.JSONEncoder(ensure_ascii=False, default=str).encode


# Names


def check(names: Iterable[str], runs: Sequence[Run]) -> None:
    """Check that at least one run has each of the names; without runs nothing is checked.

    Raises:
        InvalidQuery: no run has one of them; the message suggests similar names.
    """
    for name in names if runs else ():
        if all(value(run, name) is MISSING for run in runs):
            raise InvalidQuery(_no_such(name, runs))


def _no_such(name: str, runs: Sequence[Run]) -> str:
    known = known_names(runs)
    # Users often write only the last part of a name such as `molecule.basis`.
    lower = {each.rpartition(".")[2].lower(): each for each in known}
    lower |= {each.lower(): each for each in known}
    near = [lower[each] for each in get_close_matches(name.lower(), lower, n=3, cutoff=0.6)]
    said = f"none of the {len(runs)} known runs has {name!r}, "
    if near:
        return f"{said}did you mean {printable(' or '.join(near))}?"
    given = [name for run in runs for name in (*run["parameters"], *run["measures"])]
    frequent = [name for name, _ in Counter(given).most_common(12)]
    have = printable(", ".join(frequent))
    return f"{said}neither as a parameter nor as a measure; they have, among others: {have}"


def known_names(runs: Iterable[Run]) -> list[str]:
    """The names that at least one of the runs has, sorted."""
    names: set[str] = set()
    for run in runs:
        totals = _mapping(run.get("totals"))
        for place in (run.get("parameters"), run.get("measures"), totals):
            names.update(name for name, _ in leaves(_mapping(place), whole=True))
        names.update(_mapping(totals.get("costs")))
        names.update(name for name, found in run.items() if not isinstance(found, Mapping))
    return sorted(names)


# Order


def ordered(runs: Iterable[Run], name: str, *, descending: bool = False) -> list[Run]:
    """The runs by a name's value: numbers, then texts, then the rest; those without it last."""
    have, have_not = [], []
    for run in runs:
        key = _sort_key(value(run, name))
        if key is None:
            have_not.append(run)
        else:
            have.append((key, run))
    have.sort(key=lambda pair: pair[0], reverse=descending)
    return [*(run for _, run in have), *have_not]


def _sort_key(found: Any) -> tuple[int, float, str] | None:
    if found is MISSING or found is None:
        return None
    if isinstance(found, int | float):
        return None if _is_nan(found) else (0, found, "")
    return (1 if isinstance(found, str) else 2, 0, as_text(found))


# Columns


def flat(run: Run) -> dict[str, Any]:
    """A run as one row: the fields of a list, then `jobs.…`, `costs.…`, `saved.…`,
    `parameters.…` and `measures.…`.
    """
    totals = _mapping(run.get("totals"))
    row = {name: run.get(name) for name in _FIELDS}
    row |= {"campaign": campaign_of(run), "wall_seconds": totals.get("wall_seconds")}
    row |= {"reused": totals.get("reused")}
    for part in ("jobs", "costs", "saved"):
        row |= dict(leaves(_mapping(totals.get(part)), f"{part}."))
    for part in ("parameters", "measures"):
        row |= dict(leaves(_mapping(run.get(part)), f"{part}."))
    return row


_FIELDS = (
    *("id", "name", "kind", "flow", "campaign", "state", "started", "ended", "updated"),
    *("host", "folder"),
)


#: The most levels of nested mappings that are read.
_DEEPEST = 50


def leaves(
    place: Mapping[str, Any], above: str = "", *, whole: bool = False, levels: int = _DEEPEST
) -> Iterator[tuple[str, Any]]:
    """The values in nested mappings, by their dotted names.

    Args:
        whole: yield the mappings themselves, too.
    """
    for name, found in place.items():
        deeper = isinstance(found, Mapping) and bool(found) and levels > 0
        if whole or not deeper:
            yield f"{above}{name}", found
        if deeper:
            yield from leaves(found, f"{above}{name}.", whole=whole, levels=levels - 1)


def varying(runs: Sequence[Run], most: int) -> list[str]:
    """The parameters in which these runs differ; those that most runs have first."""
    counts: Counter[str] = Counter()
    kinds: dict[str, set[Any]] = {}
    for run in runs:
        for name, found in leaves(_mapping(run.get("parameters"))):
            counts[name] += 1
            plain = isinstance(found, str | int | float)  # most are, and JSON is slow
            kinds.setdefault(name, set()).add(found if plain else as_text(found))
    # That a run does not have the name counts as a value, too.
    differ = [name for name, n in counts.most_common() if len(kinds[name]) + (n < len(runs)) > 1]
    return differ[:most]


def measured(runs: Sequence[Run], most: int) -> list[str]:
    """The measures that most of these runs have, without the columns of every loop."""
    counts: Counter[str] = Counter()
    for run in runs:
        counts.update(name for name, _ in leaves(_mapping(run.get("measures"))))
    names = [name for name, n in counts.most_common() if 2 * n > len(runs)]
    return [name for name in names if name not in OF_LOOPS][:most]


#: The columns that every loop has; lists leave them out.
OF_LOOPS = ("iteration", "change", "seconds", "time")


# Times


_AGE = re.compile(r"(\d+(?:\.\d*)?)\s*([smhdw])", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def moment(when: str | float | datetime, now: float, *, end: bool = False) -> float:
    """A time in seconds since 1970.

    Args:
        when: seconds since 1970; a datetime (local, unless it has a zone); an ISO date or time; or
            how long ago: `30m`, `12h`, `3d`, `2w`.
        end: a date means the end of that day instead of its beginning.

    Raises:
        InvalidQuery: it is none of these.
    """
    try:
        if isinstance(when, datetime):
            return when.timestamp()
        if not isinstance(when, str):
            return float(when)
        if age := _AGE.fullmatch(when.strip()):
            return now - float(age[1]) * _SECONDS[age[2]]
        date = datetime.fromisoformat(when.strip())
        if end and len(when.strip()) <= len("2025-01-31"):
            date += timedelta(days=1)
        return date.timestamp()
    except (ValueError, OverflowError, OSError):
        raise InvalidQuery(f"the time {when!r} cannot be read: {_TIMES_ARE}") from None


_TIMES_ARE = (
    "write a date (2025-01-31), a date with a time (2025-01-31T12:00), or how long ago (30m, 12h,"
    " 3d, 2w)"
)
