"""Values of a run as JSON values, without secrets and without bulk."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

HIDDEN = "**********"
#: Letters of a text, and items of a list or mapping, that a record keeps.
MOST_LETTERS, MOST_ITEMS, DEEPEST = 2000, 200, 8
#: Bytes of an array that is kept as it is; of a larger one its shape and digest tell it.
SMALL_ARRAY = 2048

_SECRET = re.compile(
    r"(^|[^a-z])(api_?key|token|passw(or)?d|secret|credentials?)s?$", re.IGNORECASE
)
_OPTION = re.compile(r"^-{1,2}([A-Za-z][\w-]*)(=(.*))?$", re.DOTALL)


def is_secret_name(name: object) -> bool:
    """Whether a name says that its value is a secret."""
    return isinstance(name, str) and _SECRET.search(name.replace("-", "_")) is not None


def plain(value: object, deep: int = 0) -> Any:
    """A value as a record keeps it: what is long is cut, and says so; a secret is asterisks."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(value)
    if isinstance(value, str):
        return _cut(str(value))
    if hasattr(value, "get_secret_value"):
        return HIDDEN
    if deep >= DEEPEST:
        return _cut(repr(value))
    return _composed(value, deep + 1)


def _composed(value: object, deep: int) -> Any:
    if isinstance(value, Mapping):
        return plain_mapping(value, deep)
    if hasattr(value, "model_dump"):  # a pydantic model
        fields = getattr(type(value), "model_fields", ())
        return plain_mapping({name: getattr(value, name) for name in fields}, deep)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [each.name for each in dataclasses.fields(value)]
        return plain_mapping({name: getattr(value, name) for name in names}, deep)
    if hasattr(value, "dtype") and hasattr(value, "tobytes"):
        return _array(value, deep)
    if isinstance(value, set | frozenset):
        value = sorted(value, key=repr)
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        items = [plain(item, deep) for item in islice(value, MOST_ITEMS)]
        return items + _rest(len(value))
    return _cut(str(value) if type(value).__str__ is not object.__str__ else repr(value))


def plain_mapping(values: Mapping[Any, Any], deep: int = 0) -> dict[str, Any]:
    """A mapping; what its names say to be secret is hidden."""
    kept = {
        str(name): HIDDEN if is_secret_name(name) and value else plain(value, deep)
        for name, value in islice(values.items(), MOST_ITEMS)
    }
    if len(values) > MOST_ITEMS:
        kept["…"] = f"{len(values) - MOST_ITEMS} more"
    return kept


def _array(value: Any, deep: int) -> Any:
    if not getattr(value, "shape", ()):
        return plain(value.item() if hasattr(value, "item") else str(value), deep)
    if value.nbytes <= SMALL_ARRAY and value.dtype.kind in "biuf":
        return plain(value.tolist(), deep)
    digest = hashlib.sha256(value.tobytes()).hexdigest()
    return {"array": str(value.dtype), "shape": list(value.shape), "sha256": digest}


def _rest(length: int) -> list[str]:
    return [f"… {length - MOST_ITEMS} more"] if length > MOST_ITEMS else []


def _cut(text: str) -> str:
    if len(text) <= MOST_LETTERS:
        return text
    return f"{text[:MOST_LETTERS]}… {len(text) - MOST_LETTERS} letters more"


def plain_arguments(argv: Sequence[str]) -> list[str]:
    """A command line without the values of options whose names say that they are secrets."""
    kept, hide = [], False
    for word in argv[:MOST_ITEMS]:
        option = _OPTION.match(word)
        secret = option is not None and is_secret_name(option[1])
        if hide and option is None:
            kept.append(HIDDEN)
        elif secret and option is not None and option[2]:
            kept.append(f"{word.partition('=')[0]}={HIDDEN}")
        else:
            kept.append(_cut(word))
        hide = secret and option is not None and not option[2]
    return kept + _rest(len(argv))
