"""A job's identity: (campaign, place, digest, n, attempt). A run's own id is no part of it.

It is made of exact names and canonical values. A *place* is where a call is made: scopes, task runs
and sub-flows, outermost first, each identified by its exact name and parameters, never by when it
was entered. `n` numbers the identical calls of one place (`hpc_prefect.job.numbers`).
"""

from __future__ import annotations

import base64
import dataclasses
import datetime
import decimal
import enum
import fractions
import hashlib
import json
import math
import os
import re
import uuid
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any, Literal, NamedTuple, cast


class Step(NamedTuple):
    """One step from a campaign to a call.

    Attributes:
        name: exact, as its user gave it.
        function: the qualified name of a task's function.
        parameters: their digest; empty where there are none, or they have no canonical form.
        number: tells a task run from identical ones; None for most (see `ONCE`).
    """

    kind: Literal["scope", "task", "flow"]
    name: str
    function: str = ""
    parameters: str = ""
    number: int | None = None


#: The steps from a campaign to a call, outermost first.
Path = tuple[Step, ...]

#: Gives plain data for a value of a type that is not known here, or NotImplemented.
Further = Callable[[object], object]


def digest(value: object) -> str:
    """A sha256 (hex) that is equal exactly when two values mean the same, in any process.

    Covers JSON-like values, bytes, paths, dates and times, exact numbers, UUIDs, enums,
    dataclasses, pydantic models, sets, and NumPy arrays and scalars (by shape and value, whatever
    the width of their type). A secret counts as "a secret": its content is in no digest.

    Raises:
        TypeError: the value is, or holds, something of another kind.
    """
    return _sha(_canonical(value, _Kinds()))


def parameters_digest(parameters: object, further: Further | None = None) -> str:
    """A digest of the parameters of a flow or task: as `digest`, but by content alone.

    A model or a dataclass counts as the mapping that JSON makes of it, because parameters lose
    their class when they pass through JSON (Prefect's server) or to other processes.

    Args:
        further: gives plain data for values of kinds that `digest` does not know.

    Raises:
        TypeError: a value has no canonical form.
    """
    return _sha(_canonical(parameters, _Kinds(by_class=False, further=further)))


def exact_digest(value: object) -> str:
    """As `digest`, but with the content of secrets. Only to compare values: never store it.

    Raises:
        TypeError: as `digest`.
    """
    return _sha(_canonical(value, _Kinds(secrets=True)))


class _Kinds(NamedTuple):
    """What of a value counts in its digest.

    Attributes:
        by_class: the class's name of a model or dataclass counts beside its content.
        further: see `Further`.
        secrets: the content of a secret counts.
    """

    by_class: bool = True
    further: Further | None = None
    secrets: bool = False


# One encoder for all: `json.dumps` would make a new one for each key. Without escapes, because two
# escaped lone surrogates would read as one character.
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


def _canonical(value: object, kinds: _Kinds) -> str:
    try:
        return _encode(_plain(value, kinds))
    except RecursionError:
        raise TypeError(f"a {type(value).__qualname__} that holds itself has no digest") from None


def _plain(value: object, kinds: _Kinds) -> Any:
    """Reduce a value to tagged JSON; containers and kinds that differ get different tags."""
    kind = type(value)  # the most frequent ones first: the tests below take their time
    if kind is str or kind is bool or value is None:
        return value
    if kind is int:
        return ["i", hex(cast(int, value))]
    if kind is list or kind is tuple:
        return ["l", [_plain(item, kinds) for item in cast("list[object]", value)]]
    if isinstance(value, type):
        raise TypeError(f"the class {value.__qualname__} has no digest; pass plain data")
    if isinstance(value, enum.Enum):
        return _plain(value.value, kinds)
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
    if (moment := _plain_moment(value)) is not None:
        return moment
    if dataclasses.is_dataclass(value):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return _plain_object(value, fields, kinds)
    return _plain_container(value, kinds)


def _plain_float(number: float) -> Any:
    # An integral float equals the integer, as 1.0 == 1 does everywhere in Python.
    if math.isfinite(number):
        return ["i", hex(int(number))] if number.is_integer() else ["f", number.hex()]
    return ["f", str(number)]


def _plain_moment(value: object) -> Any:
    """Dates and times, exact numbers and identifiers; None for what is none of these."""
    if isinstance(value, datetime.datetime):
        return _plain_datetime(value)
    if isinstance(value, datetime.time):
        if value.tzinfo is not None and value.utcoffset() is None:
            raise TypeError(f"a time in {value.tzinfo!r} has no digest without its date")
        return ["t", "time", value.isoformat(), *_fold(value)]
    if isinstance(value, datetime.date):
        return ["t", type(value).__name__, value.isoformat()]
    if isinstance(value, datetime.timedelta):
        if value % datetime.timedelta(microseconds=1):
            raise TypeError(f"a {type(value).__qualname__} below microseconds has no digest")
        return ["td", hex(value // datetime.timedelta(microseconds=1))]
    if isinstance(value, decimal.Decimal):
        return ["dec", _decimal_text(value)]
    if isinstance(value, fractions.Fraction):
        return ["q", hex(value.numerator), hex(value.denominator)]
    if isinstance(value, uuid.UUID):
        return ["u", value.hex]
    return None


def _plain_datetime(value: datetime.datetime) -> Any:
    if value.tzinfo is None:
        return ["t", "", value.isoformat(), *_fold(value)]
    if value.utcoffset() is None:
        raise TypeError(f"a datetime in {value.tzinfo!r}, which has no offset, has no digest")
    try:
        # One moment has one digest in all time zones.
        return ["t", "UTC", value.astimezone(datetime.UTC).isoformat()]
    except OverflowError:
        raise TypeError(f"the datetime {value} is no moment of UTC and has no digest") from None


def _fold(value: datetime.datetime | datetime.time) -> list[str]:
    """Marks the second of two equal hours when clocks go back; `==` and `isoformat` do not."""
    return ["fold"] if value.fold else []


def _decimal_text(value: decimal.Decimal) -> str:
    """All digits: `normalize` would round them to the precision of the thread's context."""
    sign, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int):
        return str(value)  # an infinity or NaN
    written = "".join(map(str, digits)).lstrip("0")
    short = written.rstrip("0")
    if not short:
        return "0"  # and -0, which equals it
    return f"{'-' * sign}{short}e{exponent + len(written) - len(short)}"


def _plain_object(value: object, fields: Mapping[str, object], kinds: _Kinds) -> Any:
    if not kinds.by_class:
        return _plain(fields, kinds)
    return ["o", type(value).__qualname__, _plain(fields, kinds)]


def _plain_container(value: object, kinds: _Kinds) -> Any:
    if isinstance(value, Mapping):
        pairs = [[_canonical(key, kinds), _plain(item, kinds)] for key, item in value.items()]
        return ["m", sorted(pairs, key=lambda pair: pair[0])]
    if isinstance(value, Set):
        return ["s", sorted(_canonical(item, kinds) for item in value)]
    if isinstance(value, Sequence):
        return ["l", [_plain(item, kinds) for item in value]]
    if hasattr(value, "get_secret_value"):  # pydantic's; a new key makes no new experiment
        return ["secret", *([_plain(value.get_secret_value(), kinds)] if kinds.secrets else [])]
    if hasattr(type(value), "model_fields"):  # a pydantic model, without importing it
        return _plain_model(value, kinds)
    if hasattr(value, "__array_interface__"):  # NumPy, without importing it
        return _plain_array(value, kinds)
    if kinds.further is not None and (data := kinds.further(value)) is not NotImplemented:
        return ["k", type(value).__qualname__, _plain(data, kinds)]
    raise TypeError(f"a {type(value).__qualname__} has no digest; pass plain data, or job_key=")


def _plain_model(value: Any, kinds: _Kinds) -> Any:
    # Not its `model_dump`: two models may differ in fields that they exclude from it.
    names = list(type(value).model_fields)
    if names == ["root"] and not kinds.by_class:
        return _plain(value.root, kinds)
    fields = {name: getattr(value, name) for name in names} | (value.model_extra or {})
    return _plain_object(value, fields, kinds)


def _plain_array(value: Any, kinds: _Kinds) -> Any:
    kind, shape = value.dtype.kind, list(value.shape)
    too_wide = value.dtype.itemsize > {"f": 8, "c": 16}.get(kind, math.inf)
    if kind not in "biufcUSTO" or too_wide or hasattr(value, "mask"):
        raise TypeError(
            f"{value.dtype} in a {type(value).__qualname__} has no digest; pass plain data"
        )
    if shape == []:
        return _plain(value.item(), kinds)
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
    return ["al", shape, _plain(value.tolist(), kinds)]


def _sha(data: bytes | str) -> str:
    if isinstance(data, str):
        data = data.encode("utf-8", "surrogatepass")
    return hashlib.sha256(data).hexdigest()


def job_key(campaign: str, path: Path, spec_digest: str, n: int) -> str:
    """The job's key: 20 characters of [a-z2-7], the same for the same place in the experiment.

    Args:
        campaign: an identifier that is unique among all campaigns.
    """
    return _letters([campaign, path, spec_digest, n], 20)


def job_tag(key: str, attempt: int) -> str:
    """The job's name in the scheduler: a letter first, [a-z0-9], 15 characters.

    15 is what the strictest scheduler keeps of a job's name. 70 bits: two jobs of one user meet
    by chance once in 10^9 experiments of a thousand jobs each.
    """
    return "h" + _letters([key, attempt], 14)


def spread(key: str) -> str:
    """The parent of a key's folders: two hex digits, as thousands in one folder are slow."""
    return digest(key)[:2]


def folder_name(readable: str, *exact: str) -> str:
    """A folder's name: a word for people, and a digest of `exact`, which identifies it."""
    return f"{slug(readable)}-{_letters(list(exact), 10)}"


def _letters(value: object, length: int) -> str:
    packed = bytes.fromhex(digest(value))[: 5 * -(-length // 8)]  # 5 bytes are 8 letters
    return base64.b32encode(packed).decode().lower()[:length]


def slug(text: str, limit: int = 40) -> str:
    """`text` as a readable part of a name: [a-z0-9-], never empty. It identifies nothing."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:limit].rstrip("-") or "run"
