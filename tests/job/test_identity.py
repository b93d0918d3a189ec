"""Digests, keys, tags and folders' names."""

from __future__ import annotations

import datetime
import decimal
import enum
import json
import math
import os
import re
import subprocess
import sys
from collections import OrderedDict
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydantic import BaseModel, Field, RootModel, SecretStr

from hpc_prefect.job.identity import (
    Step,
    digest,
    exact_digest,
    folder_name,
    job_key,
    job_tag,
    parameters_digest,
    slug,
)

ATOMS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
)
KEYS = st.text() | st.integers() | st.booleans()
LONG_DECIMALS = st.builds(
    Decimal,
    st.tuples(
        st.integers(0, 1),
        st.lists(st.integers(0, 9), max_size=60).map(tuple),
        st.integers(-80, 80),
    ),
)
VALUES = st.recursive(
    ATOMS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4)
)


def same(a: Any, b: Any) -> bool:
    """Whether two plain values mean the same: as `==`, but True is not 1."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, dict) and isinstance(b, dict):
        left = {(type(k) is bool, k): v for k, v in a.items()}
        right = {(type(k) is bool, k): v for k, v in b.items()}
        return left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


@given(VALUES, VALUES)
def test_two_digests_are_equal_exactly_when_the_values_mean_the_same(a: Any, b: Any) -> None:
    assert (digest(a) == digest(b)) == same(a, b)


@given(st.dictionaries(KEYS, VALUES, max_size=5), st.randoms())
def test_the_order_of_a_mapping_does_not_matter(value: dict[Any, Any], random: Any) -> None:
    items = list(value.items())
    random.shuffle(items)
    assert digest(dict(items)) == digest(OrderedDict(items)) == digest(MappingProxyType(value))
    assert digest(dict(items)) == digest(value)


@given(hnp.arrays(np.float32, hnp.array_shapes(min_side=0)))
def test_an_array_means_the_same_in_a_wider_type_and_another_layout(array: Any) -> None:
    assert digest(array) == digest(array.astype("float64")) == digest(array.astype(">f4"))
    assert digest(array) == digest(np.asfortranarray(array))


@given(hnp.arrays(np.int64, 3), hnp.arrays(np.int64, 3))
def test_two_integer_arrays_have_one_digest_exactly_when_they_are_equal(a: Any, b: Any) -> None:
    assert (digest(a) == digest(b)) == bool((a == b).all())


ALIKE = {
    "an integral float and its integer": (1.0, 1),
    "zero and minus zero": (0.0, -0.0),
    "a list and a tuple": ([1, [2]], (1, (2,))),
    "a set and a frozenset": ({1, 2}, frozenset((2, 1))),
    "bytes and a bytearray": (b"x", bytearray(b"x")),
    "a path and its text": (Path("/a/b"), "/a/b"),
    "a NumPy scalar and its number": (np.float32(0.5), 0.5),
    "a NumPy bool and a bool": (np.bool_(True), True),
    "an array of integers and of the same floats": (np.array([1, 2**53]), np.array([1.0, 2.0**53])),
    "signed and unsigned": (np.array([2**62 + 1]), np.array([2**62 + 1], "u8")),
    "two kinds of NaN": (np.array([math.nan]), np.array([-math.nan])),
    "two kinds of complex NaN": (
        np.array([complex(0, math.nan)]),
        np.array([complex(0, -math.nan)]),
    ),
    "an array without dimensions and its number": (np.array(3), 3),
    "a complex number and its NumPy scalar": (0.5 + 2j, np.complex64(0.5 + 2j)),
    "a huge integer and itself": (10**5000, 10**5000),
}

DIFFERENT = {
    "an integer and true": (1, True),
    "an integer and its text": (1, "1"),
    "text and bytes": ("a", b"a"),
    "none and nothing": (None, ""),
    "a list and an array": ([1.0, 2.0], np.array([1.0, 2.0])),
    "two shapes": (np.zeros((2, 3)), np.zeros((3, 2))),
    "truths and ones": (np.array([True]), np.array([1])),
    "the ends of two integer types": (np.array([2**63], "u8"), np.array([-(2**63)])),
    "neighbours that no float tells apart": (np.array([2**60]), np.array([2**60 + 1])),
    "a list and a set": ([1], {1}),
    "a mapping and its pairs": ({"a": 1}, [["a", 1]]),
    "keys of two kinds": ({1: 0}, {"1": 0}),
    "one nesting and another": ([[1], 2], [1, [2]]),
    "texts of an array and of bytes": (np.array(["a"]), np.array([b"a"])),
    "a character and its two surrogates": ("\U0001f600", "\ud83d\ude00"),
    "an infinity and its text": (math.inf, "inf"),
    "rows and columns": (np.array([[1, 2], [3, 4]]), np.array([[1, 3], [2, 4]])),
}


@pytest.mark.parametrize("case", ALIKE)
def test_these_mean_the_same(case: str) -> None:
    a, b = ALIKE[case]
    assert digest(a) == digest(b)
    assert digest({"nested": [a]}) == digest({"nested": [b]})


@pytest.mark.parametrize("case", DIFFERENT)
def test_these_differ(case: str) -> None:
    a, b = DIFFERENT[case]
    assert digest(a) != digest(b)
    assert digest({"nested": [a]}) != digest({"nested": [b]})


@dataclass
class Point:
    x: float
    y: object = None


class Options(BaseModel):
    shots: int = 1


class Colour(enum.Enum):
    RED = "red"


def test_dataclasses_models_and_enums_count_by_their_values() -> None:
    assert digest(Point(1)) == digest(Point(1.0)) != digest(Point(2))
    assert digest(Options()) == digest(Options(shots=1)) != digest(Options(shots=2))
    assert digest(Colour.RED) == digest("red")
    assert digest(Point(1)) != digest({"x": 1, "y": None})


@pytest.mark.parametrize(
    "value",
    [
        object(),
        len,
        iter([1]),
        Point,
        Options,
        np.float64,
        np.longdouble(1),
        np.array([1], "longdouble"),
        np.array([1], "clongdouble"),
        np.array([1], "M8[ns]"),
        np.datetime64(1, "ns"),
        np.array([(1,)], [("a", "i4")]),
        np.ma.array([1.0, 2.0], mask=[0, 1]),
        np.array([object()]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_has_no_canonical_form_is_a_type_error_however_deep(value: object) -> None:
    for nested in (value, [value], {"a": {"b": value}}, Point(0, value)):
        with pytest.raises(TypeError, match="has no digest"):
            digest(nested)


@given(VALUES)
def test_a_digest_is_64_hexadecimal_digits(value: Any) -> None:
    assert re.fullmatch("[0-9a-f]{64}", digest(value))


STEPS = st.builds(Step, st.sampled_from(["scope", "task", "flow"]), st.text())


@given(st.text(), st.lists(STEPS).map(tuple), st.text(), st.integers(0), st.integers(1))
def test_keys_and_tags_have_the_form_that_every_scheduler_takes(
    campaign: str, path: tuple[Step, ...], spec: str, n: int, attempt: int
) -> None:
    key = job_key(campaign, path, spec, n)
    assert re.fullmatch("[a-z2-7]{20}", key)
    assert re.fullmatch("[a-z][a-z0-9]{14}", job_tag(key, attempt))
    assert key == job_key(campaign, path, spec, n)


def test_each_part_of_the_identity_makes_another_key_or_tag() -> None:
    a, b = Step("scope", "a"), Step("scope", "b")
    keys = {
        job_key("c", (a, b), "d", 0),
        job_key("C", (a, b), "d", 0),
        job_key("c", (Step("scope", "ab"),), "d", 0),
        job_key("c", (Step("task", "a"), b), "d", 0),
        job_key("c", (a._replace(number=0), b), "d", 0),
        job_key("c", (a._replace(function="f"), b), "d", 0),
        job_key("c", (a._replace(parameters="p"), b), "d", 0),
        job_key("c", (a, b), "D", 0),
        job_key("c", (a, b), "d", 1),
    }
    assert len(keys) == 9
    assert len({job_tag(key, attempt) for key in keys for attempt in (1, 2)}) == 18


# --- names


@given(st.text(), st.text())
def test_two_names_have_one_folder_exactly_when_they_are_the_same(one: str, other: str) -> None:
    assert (folder_name(one, "named", one) == folder_name(other, "named", other)) == (one == other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("温度", "圧力"),
        ("x=-1", "x=1"),
        ("a" * 40 + "b", "a" * 40 + "c"),
        ("N2", "n2"),
        ("é", "e\u0301"),
        (" a", "a"),
    ],
)
def test_names_that_read_alike_have_folders_of_their_own(one: str, other: str) -> None:
    names = [folder_name(name, "named", name) for name in (one, other)]
    assert names[0] != names[1]
    assert all(re.fullmatch("[a-z0-9]+(-[a-z0-9]+)*", name) for name in names)
    assert all(len(name) <= 51 for name in names)


# --- parameters


class Walker(BaseModel):
    sites: set[str] = Field(default=set(), exclude=True)
    token: SecretStr = SecretStr("")
    more: Any = None


KINDS: dict[str, tuple[object, object]] = {
    "sets": ({"a", "b"}, {"a", "c"}),
    "sets in a mapping": ({"a": {1, 2}}, {"a": {1, 3}}),
    "sets of tuples": ({(1, "a"), (2, "b")}, {(1, "b"), (2, "a")}),
    "models with a set that is no part of their dumps": (
        Walker(sites={"x", "y"}), Walker(sites={"x", "z"})
    ),
    "moments": (
        datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
        datetime.datetime(2026, 1, 3, tzinfo=datetime.UTC),
    ),
    "dates": (datetime.date(2026, 1, 2), datetime.date(2026, 1, 3)),
    "a date and the moment of its beginning": (
        datetime.date(2026, 1, 2), datetime.datetime(2026, 1, 2)  # noqa: DTZ001
    ),
    "times": (datetime.time(1, 2), datetime.time(1, 3)),
    "durations": (datetime.timedelta(1), datetime.timedelta(1, microseconds=1)),
    "exact numbers": (Decimal("0.1"), Decimal("0.10000000000000001")),
    "fractions": (Fraction(1, 3), Fraction(1, 4)),
    "identifiers": (UUID(int=1), UUID(int=2)),
    "ranges": (range(3), range(4)),
    "paths": (Path("a"), Path("b")),
}  # fmt: skip


@pytest.mark.parametrize("case", KINDS)
def test_parameters_of_every_kind_are_told_apart(case: str) -> None:
    one, other = KINDS[case]
    for of in (digest, parameters_digest):
        assert of({"x": one}) == of({"x": one}) != of({"x": other})


def test_one_moment_has_one_digest_in_every_zone() -> None:
    there = datetime.timezone(datetime.timedelta(hours=9))
    moment = datetime.datetime(2026, 1, 2, 3, tzinfo=there)
    assert digest(moment) == digest(moment.astimezone(datetime.UTC))
    assert digest(moment) != digest(moment.replace(tzinfo=None))


CONTEXTS = [
    decimal.Context(prec=1, Emax=1, Emin=-1, traps=[]),
    decimal.Context(prec=5, rounding=decimal.ROUND_UP, traps=[decimal.Inexact]),
    decimal.Context(prec=200, capitals=0, clamp=1),
]


@given(st.decimals() | LONG_DECIMALS, st.decimals() | LONG_DECIMALS, st.sampled_from(CONTEXTS))
def test_two_decimals_have_one_digest_exactly_when_they_are_equal_in_any_context(
    a: Decimal, b: Decimal, context: decimal.Context
) -> None:
    first, second = digest(a), digest(b)
    with decimal.localcontext(context):
        assert (digest(a), digest(b)) == (first, second)
    if a.is_nan() or b.is_nan():
        assert (first == second) == (str(a) == str(b))
    else:
        assert (first == second) == (a == b)


@given(LONG_DECIMALS, st.integers(1, 50))
def test_zeros_at_the_end_of_a_decimal_do_not_count_and_any_other_digit_does(
    number: Decimal, zeros: int
) -> None:
    sign, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)
    longer = Decimal((sign, (*digits, *[0] * zeros), exponent - zeros))
    more = Decimal((sign, (*digits, *[0] * (zeros - 1), 1), exponent - zeros))
    assert digest(number) == digest(longer) != digest(more)


class NoOffset(datetime.tzinfo):
    def utcoffset(self, at: datetime.datetime | None) -> None:
        return None


def test_the_second_of_two_equal_hours_is_another_moment() -> None:
    naive = datetime.datetime.fromisoformat("2026-10-25T02:30")
    first, second = (naive.replace(fold=fold) for fold in (0, 1))
    assert digest(first) != digest(second)
    assert digest(first.time()) != digest(second.time())
    zoned = [each.replace(tzinfo=ZoneInfo("Europe/Berlin")) for each in (first, second)]
    assert digest(zoned[0]) != digest(zoned[1])


@pytest.mark.parametrize(
    "value",
    [
        datetime.time(12, tzinfo=ZoneInfo("Europe/Berlin")),
        datetime.datetime(2026, 1, 1, tzinfo=NoOffset()),
        datetime.datetime.min.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=5))),
    ],
)
def test_a_time_that_is_no_certain_one_is_a_type_error(value: object) -> None:
    with pytest.raises(TypeError, match="has no digest"):
        digest(value)


def test_a_model_and_a_dataclass_count_as_parameters_by_their_content() -> None:
    assert parameters_digest(Options()) == parameters_digest({"shots": 1})
    assert parameters_digest(Point(1)) == parameters_digest({"x": 1, "y": None})
    assert parameters_digest(RootModel[list[int]]([1])) == parameters_digest([1])


def test_a_secret_is_in_no_digest_that_is_written_down() -> None:
    one, other = Walker(token=SecretStr("a")), Walker(token=SecretStr("b"))
    assert digest(one) == digest(other)
    assert parameters_digest(one) == parameters_digest(other)
    assert exact_digest(one) != exact_digest(other)


def test_what_holds_itself_is_a_type_error() -> None:
    knot: list[object] = []
    knot.append(knot)
    with pytest.raises(TypeError, match="holds itself"):
        digest(knot)


IN_ANOTHER_PROCESS = """
import sys, json
sys.path[:0] = json.loads(sys.argv[1])
import test_identity as t
print(json.dumps({n: [t.parameters_digest(v) for v in pair] for n, pair in t.KINDS.items()}))
"""


def test_digests_are_the_same_in_processes_with_other_hash_seeds() -> None:
    here = {name: [parameters_digest(value) for value in pair] for name, pair in KINDS.items()}
    for seed in ("0", "1", "4711"):
        said = subprocess.run(
            [sys.executable, "-c", IN_ANOTHER_PROCESS, json.dumps([str(Path(__file__).parent)])],
            env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert json.loads(said.stdout) == here


@given(st.text(), st.integers(3, 60))
def test_a_slug_is_a_short_plain_word(text: str, limit: int) -> None:
    assert re.fullmatch("[a-z0-9]+(-[a-z0-9]+)*", slug(text, limit))
    assert len(slug(text, limit)) <= max(limit, 3)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("Fe/S Cluster!", "fe-s-cluster"),
        ("", "run"),
        ("日本", "run"),
        ("..", "run"),
        ("a" * 50, "a" * 40),
    ],
)
def test_a_slug_keeps_what_it_can(text: str, word: str) -> None:
    assert slug(text) == word
