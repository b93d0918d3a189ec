"""Values of a run as its record keeps them: without secrets or bulk, and whatever they are."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr

from hpc_prefect.records.write.plain import HIDDEN, plain, plain_arguments, plain_mapping


class Login(NamedTuple):
    user: str
    password: str


class Odd:
    def __init__(self, secret: str) -> None:
        self.secret = secret

    def __repr__(self) -> str:
        return f"Odd({self.secret})"


class Rude:
    def __len__(self) -> int:
        raise RuntimeError("rude")

    __repr__ = __str__ = __len__  # type: ignore[assignment]


class Colour(Enum):
    RED = 1


class Account(BaseModel):
    name: str
    key: SecretStr
    refresh_token: str


@dataclass
class Point:
    x: float
    password: str


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (np.float64(1.5), 1.5),
        (np.int64(3), 3),
        (np.array(2.5), 2.5),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (float("nan"), "nan"),
        (Decimal("1.10"), "1.10"),
        (Path("/w/x"), "/w/x"),
        ({3, 1, 2}, [1, 2, 3]),
        (deque([1, 2]), [1, 2]),
        (range(3), [0, 1, 2]),
        (Account(name="n", key=SecretStr("s"), refresh_token="t"),
         {"name": "n", "key": HIDDEN, "refresh_token": HIDDEN}),
        (Point(1.0, "p"), {"x": 1.0, "password": HIDDEN}),
        (Login("me", "p"), {"user": "me", "password": HIDDEN}),
        (np.longdouble(1.5), 1.5),
        (np.array(["a", "b"]), ["a", "b"]),
        (Colour.RED, "Colour.RED"),
        (b"abc", {"bytes": 3, "sha256": hashlib.sha256(b"abc").hexdigest()}),
    ],
)  # fmt: skip
def test_values_are_kept_as_what_they_mean(value: object, kept: object) -> None:
    assert plain(value) == kept


def test_what_is_large_is_told_by_its_digest_or_cut() -> None:
    one, other = np.zeros(10_000), np.ones(10_000)
    assert plain(one)["shape"] == [10_000]
    assert plain(one)["sha256"] != plain(other)["sha256"]
    assert len(plain("x" * 10**6)) < 3000
    assert len(plain(list(range(10**5)))) == 201
    nested: object = 1.0
    for _ in range(6):
        nested = [nested] * 40
    assert len(json.dumps(plain(nested))) < 10**6
    assert len(str(plain(10**5000))) < 3000


def test_what_is_cut_is_told_apart_by_its_digest() -> None:
    angles = [0.1] * 300
    others = [*angles[:250], 0.2, *angles[251:]]
    assert plain(angles) != plain(others)
    assert plain("x" * 3000) != plain("x" * 2999 + "y")
    assert plain({str(n): n for n in range(300)}) != plain(
        {str(n): -n * (n > 250) or n for n in range(300)}
    )


def test_objects_are_told_by_their_kind_and_not_by_their_place_in_memory() -> None:
    assert plain(Odd("S3CRET")) == plain(Odd("other"))
    assert "S3CRET" not in str(plain([Odd("S3CRET")]))
    assert plain(test_what_is_cut_is_told_apart_by_its_digest).startswith("<")
    assert "0x" not in str(plain(Odd("x")))


def test_nothing_that_an_object_does_is_an_error() -> None:
    inside: list[object] = []
    inside.append(inside)
    assert "not kept" in str(plain(inside))
    assert plain_mapping({"rude": Rude(), "tokens": np.arange(5)})["tokens"] == HIDDEN


def test_a_secret_far_inside_is_hidden() -> None:
    deep: object = {"password": "S3CRET"}
    for _ in range(30):
        deep = {"a": deep}
    assert "S3CRET" not in json.dumps(plain(deep))


@pytest.mark.parametrize(
    "name",
    ["token", "api_token", "IBM_QUANTUM_TOKEN", "api-key", "apikey", "password", "client_secret",
     "credentials", "hub.token", "accessToken", "authtoken", "dbPassword", "mysecret", "apiKey"],
)  # fmt: skip
def test_what_is_named_as_a_secret_is_hidden(name: str) -> None:
    assert plain_mapping({name: "x", "of": {name: ["x"]}}) == {name: HIDDEN, "of": {name: HIDDEN}}


@pytest.mark.parametrize(
    "name", ["tokens_per_shot", "key", "keyword", "shots", "monkey", "secretary"]
)
def test_what_only_sounds_like_one_is_kept(name: str) -> None:
    assert plain_mapping({name: "x"}) == {name: "x"}


def test_secrets_on_the_command_line_are_hidden() -> None:
    words = ["--token", "abc", "--api-key=def", "--shots", "100", "--password", "--verbose"]
    hidden = ["--token", HIDDEN, f"--api-key={HIDDEN}", "--shots", "100", "--password", "--verbose"]
    assert plain_arguments(words) == hidden
    for words in (["--ibm.token=S3"], ["token=S3"], ["+creds.password=S3"], ["--token", "-abcS3"]):
        assert "S3" not in "".join(plain_arguments(words))


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(anything)
def test_everything_becomes_json_that_is_the_same_when_it_is_read(value: Any) -> None:
    kept = plain(value)
    assert json.loads(json.dumps(kept, allow_nan=False)) == kept


def test_what_is_cut_because_there_is_too_much_in_it_is_told_apart_by_its_digest() -> None:
    def grid(last: float) -> list[dict[str, float]]:
        return [{f"x{number}": number + last for number in range(100)} for _ in range(50)]

    assert plain(grid(0.0)) == plain(grid(0.0))
    assert plain(grid(0.0))[-1] != plain(grid(0.5))[-1]
    assert "SHA-256" in plain({"grid": grid(0.0)})["…"]


@pytest.mark.parametrize("hide", [SecretStr, lambda text: {"api_token": text}])
def test_a_secret_is_in_no_digest_of_what_is_cut(hide: Callable[[str], object]) -> None:
    assert plain([hide("one")] * 300) == plain([hide("two")] * 300)
    assert plain([hide("one"), *range(300)])[-1] != plain([hide("one"), *range(301)])[-1]
