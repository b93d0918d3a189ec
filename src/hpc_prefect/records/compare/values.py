"""Values of records: whether two are the same, where they are in nested mappings, in a cell."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from hpc_prefect.terminal import printable


class _Absent:
    """What a record says nothing of: no value, and not `None` either, which is one."""

    def __repr__(self) -> str:
        return "ABSENT"

    def __reduce__(self) -> str:
        return "ABSENT"


class AtLeast(float):
    """A cost of which a part alone is known: no number to compute with."""


ABSENT: Final = _Absent()
#: Levels of nested values that are compared; what stands for those below them.
DEEPEST = 40
TOO_DEEP = "... nested too deep to be compared"
#: Letters of a cell, and of a digest in it.
CELL, SHORT_DIGEST = 60, 12
_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
#: The last part of the path of a parameter in which repeats of one setting differ.
_SEED = re.compile(
    r"(?!n_|num_)(?:(?:.*_)?seed|seeds|random_state|seed_simulator|seed_transpiler)", re.IGNORECASE
)


def canonical(value: object) -> str:
    """The same text for the same value. 1 and 1.0 are the same; true, 1 and "1" are not."""
    if value is ABSENT:
        return ""  # no JSON text is empty
    return json.dumps(_whole(value), sort_keys=True, default=str)


def _whole(value: object, levels: int = DEEPEST) -> object:
    """Without the difference of 2.0 and 2, which a command line and a flow write as they like."""
    if isinstance(value, AtLeast):
        return f"{float(value)}+"
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, Mapping | list | tuple) and not levels:
        return TOO_DEEP
    if isinstance(value, Mapping):
        return {str(name): _whole(each, levels - 1) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_whole(each, levels - 1) for each in value]
    return value


def is_too_deep(value: object) -> bool:
    """Whether there is more in a value than is compared."""
    return TOO_DEEP in canonical(value)


def is_seed(path: str, against: str = "") -> bool:
    """Whether a parameter is one in which repeats differ, by its name; not what is asked for."""
    last = path.rpartition(".")[2].strip('"').replace("-", "_")
    return path != against and _SEED.fullmatch(last) is not None


def differ(values: Sequence[object]) -> bool:
    """Whether they are not all the same."""
    return len({canonical(each) for each in values}) > 1


def flat(values: Mapping[str, Any], above: str = "", levels: int = DEEPEST) -> dict[str, Any]:
    """Every value by its dotted path: {"a": {"b": 1}} has `a.b`. Lists are values.

    A name with a dot in it stands in quotation marks, so that two paths are never one.
    """
    found: dict[str, Any] = {}
    for name, value in values.items():
        path = above + (json.dumps(str(name)) if "." in str(name) else str(name))
        if isinstance(value, Mapping) and value and levels:
            found |= flat(value, f"{path}.", levels - 1)
        else:
            found[path] = value
    return found


def varied(sides: Sequence[Mapping[str, Any]]) -> dict[str, tuple[Any, ...]]:
    """The paths at which the sides are not all the same, each with its value on every side."""
    flats = [flat(side) for side in sides]
    found = {}
    for path in sorted(set().union(*flats)):
        values = tuple(each.get(path, ABSENT) for each in flats)
        if differ(values):
            found[path] = values
    return found


def number(value: object) -> float | None:
    """A finite number; None for anything else: `True`, NaN, what is known in part."""
    if isinstance(value, bool | AtLeast) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def words(value: object, most: int = CELL) -> str:
    """A value in a cell: ten digits, a digest's beginning, the rest as JSON with its middle cut."""
    if value is ABSENT:
        return "-"
    if isinstance(value, str):
        shown = value[:SHORT_DIGEST] if _DIGEST.fullmatch(value) else printable(value)
        shown = shown or '""'
    elif isinstance(value, AtLeast):
        shown = f"{value:.4g}+"
    elif isinstance(value, float):
        shown = f"{value:.10g}"
    else:
        shown = printable(json.dumps(json_value(value), ensure_ascii=False))
    if len(shown) <= most:
        return shown
    # What tells paths and long lists apart is more often at their ends.
    return f"{shown[: most // 3]}…{shown[len(shown) - (most - most // 3 - 1) :]}"


def apart_at_a_glance(texts: Sequence[str], most: int = 24) -> list[str]:
    """Long texts without the beginning and the end that all of them share; never two the same."""
    different = set(texts)
    if len(different) < 2 or max(map(len, different)) <= most:
        return list(texts)
    paths = {text: text.split("/") for text in different}
    head = _shared(list(paths.values()))
    tail = _shared([parts[head:][::-1] for parts in paths.values()])
    short = {
        text: ("…/" if head else "")
        + words("/".join(parts[head : len(parts) - tail]), most)
        + ("/…" if tail else "")
        for text, parts in paths.items()
    }
    if len(set(short.values())) < len(different):
        return list(texts)
    return [short[text] for text in texts]


def _shared(paths: Sequence[Sequence[str]]) -> int:
    """How many parts at the beginning are the same in all; each keeps one of its own."""
    count = 0
    while all(len(parts) > count + 1 and parts[count] == paths[0][count] for parts in paths):
        count += 1
    return count


def json_value(value: object, levels: int = 2 * DEEPEST) -> Any:
    """A value that every reader of JSON accepts: NaN and infinity as text, absence as null."""
    if value is ABSENT:
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping | list | tuple) and not levels:
        return TOO_DEEP
    if isinstance(value, Mapping):
        return {str(name): json_value(each, levels - 1) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(each, levels - 1) for each in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def natural(text: str) -> list[tuple[int, int, str]]:
    """A key to sort by: iter-2 is before iter-10."""
    return [
        (0, len(part.lstrip("0")), part.lstrip("0"))  # no limit of digits, as int() has
        if part.isdecimal() and part.isascii()
        else (1, 0, part)
        for part in re.split(r"(\d+)", text)
        if part
    ]
