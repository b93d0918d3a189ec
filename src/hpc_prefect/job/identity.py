"""Which job is this? (campaign, scope, digest, n, attempt), and nothing of a run's own id.

A *scope* is a named context in which calls are counted. The convergence loop opens `iter-<k>`,
a user may open one, an enclosing Prefect task opens one named by its own key. `n` numbers the
identical calls inside one scope; because it starts again whenever the scope is entered again, a
resumed or retried run finds the jobs of its predecessor, and a loop that repeats the same call in
another iteration gets another job.
"""

from __future__ import annotations

import base64
import dataclasses
import enum
import hashlib
import json
import math
import os
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, eq=False)
class ScopeFrame:
    """One entry into a named scope.

    `eq=False`: two entries into the same name are different frames, each with its own counters.
    `counters` is what an entry has counted so far, by digest; `numbers` tells identical scopes
    inside it apart, by the run that entered them. Both are mutable and die with the frame.
    """

    name: str = ""
    parent: ScopeFrame | None = None
    counters: dict[str, int] = field(default_factory=dict)
    numbers: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def path(self) -> tuple[str, ...]:
        """The names from the outermost scope to this one; the root has none."""
        return (*self.parent.path, self.name) if self.parent else ()

    def count(self, what: str) -> int:
        """The occurrence number of `what` in this entry: 0, 1, 2 …"""
        n = self.counters.get(what, 0)
        self.counters[what] = n + 1
        return n


def digest(value: object) -> str:
    """A sha256 (hex) that is equal exactly when two values mean the same.

    Covers JSON-like values, bytes, paths, enums, dataclasses, pydantic models, sets, and NumPy
    arrays and scalars (by shape and value, whatever the width of their type).

    Raises:
        TypeError: the value is, or holds, something of another kind.
    """
    return _sha(_canonical(value))


# One for all: `json.dumps` would make a new one for each key. No escapes: two lone surrogates would
# be written as the one character that they are not.
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


def _canonical(value: object) -> str:
    return _encode(_plain(value))


def _plain(value: object) -> Any:
    """Reduce a value to tagged JSON; containers and kinds that differ get different tags."""
    if isinstance(value, type):
        raise TypeError(f"the class {value.__qualname__} has no digest; pass plain data")
    if isinstance(value, enum.Enum):
        return _plain(value.value)
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return ["i", hex(value)]
    if isinstance(value, float):
        return _plain_float(float(value))
    if isinstance(value, complex):
        return ["c", _plain_float(value.real), _plain_float(value.imag)]
    if isinstance(value, bytes | bytearray | memoryview):
        return ["b", _sha(bytes(value))]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if dataclasses.is_dataclass(value):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return ["o", type(value).__qualname__, _plain(fields)]
    return _plain_container(value)


def _plain_float(number: float) -> Any:
    # An integral float equals the integer, as 1.0 == 1 does everywhere in Python.
    if math.isfinite(number):
        return ["i", hex(int(number))] if number.is_integer() else ["f", number.hex()]
    return ["f", str(number)]


def _plain_container(value: object) -> Any:
    if isinstance(value, Mapping):
        pairs = [[_canonical(key), _plain(item)] for key, item in value.items()]
        return ["m", sorted(pairs, key=lambda pair: pair[0])]
    if isinstance(value, Set):
        return ["s", sorted(_canonical(item) for item in value)]
    if isinstance(value, Sequence):
        return ["l", [_plain(item) for item in value]]
    if hasattr(value, "model_dump"):
        return ["o", type(value).__qualname__, _plain(value.model_dump())]
    if hasattr(value, "__array_interface__"):  # NumPy, without importing it
        return _plain_array(value)
    raise TypeError(f"a {type(value).__qualname__} has no digest; pass plain data, or job_key=")


def _plain_array(value: Any) -> Any:
    kind, shape = value.dtype.kind, list(value.shape)
    too_wide = value.dtype.itemsize > {"f": 8, "c": 16}.get(kind, math.inf)
    if kind not in "biufcUSTO" or too_wide or hasattr(value, "mask"):
        raise TypeError(
            f"{value.dtype} in a {type(value).__qualname__} has no digest; pass plain data"
        )
    if shape == []:
        return _plain(value.item())
    if kind == "b":
        return ["ab", shape, _sha(value.tobytes())]
    if kind in "iu" and value.size and max(int(value.max()), -int(value.min())) > 2**53:
        whole = value.ravel().tolist()
        if any(int(float(n)) != n for n in whole):  # not exact as floats
            return ["ai", shape, _sha(repr(whole))]
    if kind in "iufc":
        # Widened, so that float32 and float64 of one value are one value; + 0 joins -0.0 to 0.0.
        wide = value.astype("<c16" if kind == "c" else "<f8", order="C") + 0
        parts = wide.reshape(-1).view("<f8")
        parts[parts != parts] = math.nan  # one NaN, whatever its sign and payload
        return ["ac" if kind == "c" else "a", shape, _sha(parts.tobytes())]
    return ["al", shape, _plain(value.tolist())]


def _sha(data: bytes | str) -> str:
    if isinstance(data, str):
        data = data.encode("utf-8", "surrogatepass")
    return hashlib.sha256(data).hexdigest()


def job_key(campaign: str, path: Sequence[str], spec_digest: str, n: int) -> str:
    """The job's key: 20 characters of [a-z2-7], the same for the same place in the experiment."""
    return _letters([campaign, list(path), spec_digest, n], 20)


def job_tag(key: str, attempt: int) -> str:
    """The job's name in the scheduler: a letter first, [a-z0-9], 15 characters.

    15 is what the strictest scheduler keeps of a job's name. 70 bits: two jobs of one user meet
    by chance once in 10^9 experiments of a thousand jobs each.
    """
    return "h" + _letters([key, attempt], 14)


def _letters(value: object, length: int) -> str:
    packed = bytes.fromhex(_sha(_canonical(value)))
    return base64.b32encode(packed).decode().lower().rstrip("=")[:length]


def slug(text: str, limit: int = 40) -> str:
    """`text` as a part of a folder's name: [a-z0-9-], never empty."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:limit].rstrip("-") or "run"
