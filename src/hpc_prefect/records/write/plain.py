"""Values of a run as JSON values: without secrets, and cut if they are long."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import fractions
import hashlib
import math
import re
import sys
import uuid
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import PurePath
from typing import Any

from hpc_prefect.job.identity import digest

HIDDEN = "**********"
#: Precedes the digest of a value that is cut.
_DIGEST = ", SHA-256 "
#: The most letters of a text, items of a list or mapping, and levels, that a record keeps.
MOST_LETTERS, MOST_ITEMS, DEEPEST = 2000, 200, 20
#: The most values that it keeps within one value.
MOST_VALUES = 2000
#: The most values in a digest: more take seconds, and a list may hold itself many times over.
MOST_DIGESTED = 1_000_000
#: The most bytes of an array that is kept as it is; of a larger one, shape and digest are.
SMALL_ARRAY = 2048

_SECRET = re.compile(
    r"(token|passwd|password|passphrase|secret|credential|apikey|accesskey|privatekey)s?$"
)
_ASSIGNED = re.compile(r"([-+]*)([A-Za-z][\w.\-]*)(?:=(.*))?", re.DOTALL)
#: Types whose text tells all of a value.
_TOLD_BY_TEXT = (
    *(PurePath, decimal.Decimal, fractions.Fraction, uuid.UUID, complex),
    *(datetime.date, datetime.time, datetime.timedelta, datetime.tzinfo),
)


def is_secret_name(name: object) -> bool:
    """Whether a name says that its value is a secret; case and punctuation do not matter."""
    if not isinstance(name, str):
        return False
    return _SECRET.search(re.sub(r"[^a-z0-9]", "", name.lower())) is not None


def _is_secret(name: object, value: object) -> bool:
    """Whether a value is to be hidden; an empty value is no secret."""
    empty = value is None or (isinstance(value, str | Mapping | list | tuple) and not value)
    return is_secret_name(name) and not empty


def plain(value: object) -> Any:
    """A value as a record keeps it. Never raises.

    A secret becomes asterisks. A long value is cut; its length and SHA-256 are added. A value
    without content, such as a function, becomes its name.
    """
    try:
        looking = _Plain()
        kept = looking.of(value, ())
        return looking.whole(kept, value)
    except Exception:  # noqa: BLE001 - whatever an object of the user's does when it is looked at
        return f"<{type(value).__qualname__}, which cannot be shown>"


def plain_mapping(values: Mapping[Any, Any], *, whole: bool = False) -> dict[str, Any]:
    """A mapping, each value by itself; values with a secret's name are hidden.

    Args:
        whole: cut nothing: for values that a reproduction of the run needs.
    """
    shown = _shown_whole if whole else plain
    return {
        str(name): HIDDEN if _is_secret(name, value) else shown(value)
        for name, value in values.items()
    }


def _shown_whole(value: object) -> Any:
    try:
        return _Plain(whole=True).of(value, ())
    except Exception:  # noqa: BLE001 - as in `plain`
        return plain(value)


def tells_all(shown: object) -> bool:
    """Whether the result of `plain` identifies the value, by a digest at least."""
    if isinstance(shown, str):
        hidden = shown == HIDDEN or (shown.startswith("<") and shown.endswith(">"))
        return not hidden and (not shown.startswith("…") or _DIGEST in shown)
    if isinstance(shown, Mapping):
        told = _DIGEST in str(shown.get("…", _DIGEST)) and shown.get("sha256") != ""
        return told and all(tells_all(each) for name, each in shown.items() if name != "…")
    return not isinstance(shown, list) or all(map(tells_all, shown))


class _Plain:
    """One value with all that is in it."""

    def __init__(self, *, whole: bool = False) -> None:
        self._left: float = math.inf if whole else MOST_VALUES
        self._items_kept = sys.maxsize if whole else MOST_ITEMS
        self._letters_kept = sys.maxsize if whole else MOST_LETTERS

    def of(self, value: object, around: tuple[int, ...]) -> Any:
        self._left -= 1
        if self._left < 0:
            return "…"
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, enum.Enum):
            return f"{type(value).__qualname__}.{value.name}"
        if isinstance(value, int):
            return _number(int(value))
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else str(float(value))
        if isinstance(value, str):
            return self._text(str(value))
        if hasattr(value, "get_secret_value"):
            return HIDDEN
        if isinstance(value, _TOLD_BY_TEXT):
            return self._text(str(value))
        if isinstance(value, bytes | bytearray | memoryview):
            return {"bytes": len(value), "sha256": hashlib.sha256(value).hexdigest()}
        if id(value) in around or len(around) >= DEEPEST:
            return f"… not kept: {type(value).__qualname__}"
        return self._composed(value, (*around, id(value)))

    def _text(self, text: str) -> str:
        return text if len(text) <= self._letters_kept else _cut(text)

    def whole(self, kept: Any, value: object) -> Any:
        """What is kept of the outermost value, with its digest if too much inside it is cut."""
        if self._left >= 0 or not (told := _told(value)):
            return kept
        words = f"more than {MOST_VALUES} values in all{told}"
        if isinstance(kept, dict):
            return kept | {"…": f"{kept['…']}; {words}" if "…" in kept else words}
        return [*kept, f"… {words}"] if isinstance(kept, list) else kept

    def _composed(self, value: Any, around: tuple[int, ...]) -> Any:
        if isinstance(value, Mapping):
            return self._mapping(value, around)
        if (fields := _fields(value)) is not None:
            return self._mapping(fields, around)
        if hasattr(value, "dtype") and hasattr(value, "tobytes"):
            return self._array(value, around)
        if isinstance(value, set | frozenset):
            return self._items(sorted(value, key=repr), value, around)
        if isinstance(value, Sequence):
            return self._items(value, value, around)
        name = getattr(value, "__qualname__", None) or type(value).__qualname__
        module = getattr(value, "__module__", None) or type(value).__module__
        return f"<{module}.{name}>"

    def _mapping(self, values: Mapping[Any, Any], around: tuple[int, ...]) -> dict[str, Any]:
        kept = {}
        for name, value in islice(values.items(), self._items_kept):
            if self._left < 0:
                break
            kept[str(name)] = HIDDEN if _is_secret(name, value) else self.of(value, around)
        if len(values) > self._items_kept:
            told = _told(values) if self._left >= 0 else ""  # else only the outermost gets one
            kept["…"] = f"{len(values) - self._items_kept} more{told}"
        return kept

    def _items(self, items: Iterable[Any], value: Any, around: tuple[int, ...]) -> list[Any]:
        kept = []
        for item in islice(items, self._items_kept):
            if self._left < 0:
                break
            kept.append(self.of(item, around))
        more = len(value) - len(kept)
        # If the whole value is too large, only the outermost gets a digest.
        told = _told(value) if self._left >= 0 else ""
        return kept + ([f"… {more} more{told}"] if more > 0 else [])

    def _array(self, value: Any, around: tuple[int, ...]) -> Any:
        if value.dtype.kind == "f" and not value.shape:
            return self.of(float(value), around)
        if value.dtype.kind in "biufU" and value.nbytes <= SMALL_ARRAY:
            return self.of(value.tolist(), around)
        digest = hashlib.sha256(value.tobytes()).hexdigest() if value.dtype.kind != "O" else ""
        return {"array": str(value.dtype), "shape": list(value.shape), "sha256": digest}


def _fields(value: Any) -> Mapping[str, Any] | None:
    """The fields of a model, a dataclass or a named tuple; None for anything else."""
    if isinstance(value, type):
        return None
    if hasattr(value, "model_dump"):  # pydantic's
        return {name: getattr(value, name) for name in getattr(type(value), "model_fields", ())}
    if dataclasses.is_dataclass(value):
        return {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return dict(zip(value._fields, value, strict=False))
    return None


def _number(value: int) -> int | str:
    """An integer, as cut hex text if it has thousands of digits: readers of JSON do not take it."""
    return value if abs(value) < 1 << 1000 else _cut(hex(value))


def _told(value: object) -> str:
    """The digest of a whole value; secrets do not enter it."""
    try:
        return f"{_DIGEST}{digest(_Hiding().of(value))}"
    except (TypeError, ValueError, RecursionError):  # it has no canonical form, or is endless
        return ""


class _Hiding:
    """Replaces values with a secret's name by asterisks, within one value."""

    def __init__(self) -> None:
        self._left = MOST_DIGESTED

    def of(self, value: Any) -> Any:
        if isinstance(value, str | bytes | float | int | None):
            return value
        if isinstance(value, Mapping):
            self._count(value)
            return {
                name: HIDDEN if _is_secret(name, each) else self.of(each)
                for name, each in value.items()
            }
        if type(value) in (list, tuple):
            self._count(value)
            return type(value)(map(self.of, value))
        if (fields := _fields(value)) is not None:
            return [type(value).__qualname__, self.of(dict(fields))]
        return value

    def _count(self, value: Any) -> None:
        self._left -= len(value)
        if self._left < 0:
            raise ValueError("too much to digest")


def _cut(text: str) -> str:
    if len(text) <= MOST_LETTERS:
        return text
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
    return f"{text[:MOST_LETTERS]}… {len(text) - MOST_LETTERS} letters more{_DIGEST}{digest}"


def plain_arguments(argv: Sequence[object]) -> list[str]:
    """A command line without the values of options whose names say that they are secrets."""
    kept, hide = [], False
    for word in map(str, argv[:MOST_ITEMS]):
        found = _ASSIGNED.fullmatch(word)
        secret = found is not None and is_secret_name(found[2])
        if hide and not word.startswith("--"):
            kept.append(HIDDEN)
            hide = False
            continue
        if secret and found is not None and found[3]:
            kept.append(f"{word.partition('=')[0]}={HIDDEN}")
        else:
            kept.append(_cut(word))
        hide = secret and found is not None and found[3] is None and bool(found[1])
    more = len(argv) - MOST_ITEMS
    return kept + ([f"… {more} more{_told(list(map(str, argv)))}"] if more > 0 else [])
