"""What leaves with an export, what does not, and where it appears."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hpc_prefect.errors import ConfigurationError
from hpc_prefect.job.program_script import quote
from hpc_prefect.records.export.files import name_within
from hpc_prefect.records.export.redaction import Secrets
from hpc_prefect.records.export.target import new_target
from hpc_prefect.records.write.plain import HIDDEN

_VALUES = st.text(min_size=6, max_size=40)


@given(_VALUES.filter(lambda text: any(each not in "0123456789.,_+-eE" for each in text)))
def test_a_value_that_is_called_a_secret_is_in_no_text(value: str) -> None:
    assume(HIDDEN not in value)
    assume(value not in HIDDEN)
    secrets = Secrets()
    secrets.learn({"environment": {"MY_TOKEN": value}})
    script = f"export MY_TOKEN={quote(value)}; echo".encode(errors="surrogateescape")
    assert quote(value)[1:-1].encode(errors="surrogateescape") not in secrets.log(script)
    line = json.dumps({"said": f"<{value}>"}).encode()
    assert value not in json.loads(secrets.json_data(line))["said"]


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("export MY_TOKEN='abc'", f"export MY_TOKEN='{HIDDEN}'"),
        ("run --password=hunter2 x", f"run --password={HIDDEN} x"),
        ("'prog' '--api-key' 'x1'", f"'prog' '--api-key' '{HIDDEN}'"),
        ("max_steps=12 token", "max_steps=12 token"),
    ],
)
def test_what_stands_beside_a_secrets_name_is_hidden(text: str, hidden: str) -> None:
    assert Secrets().text(text) == hidden


def test_a_number_that_is_called_a_secret_is_hidden_beside_its_name_alone() -> None:
    secrets = Secrets()
    secrets.learn({"environment": {"MAX_TOKENS": "409600"}})
    assert secrets.text("MAX_TOKENS=409600 size 409600") == f"MAX_TOKENS={HIDDEN} size 409600"


def test_a_json_text_without_a_secret_keeps_its_bytes() -> None:
    data = b'{"b": 1e-05,  "a": "x"}\n'
    assert Secrets().json_data(data, named=True) == data


def test_a_secret_over_the_border_of_two_pieces_is_found() -> None:
    secrets = Secrets()
    secrets.learn({"api_key": "abcdefghij"})
    assert secrets.are_in([b"....abcde", b"fghij..."])
    assert not secrets.are_in([b"....abcde", b".fghij..."])


def test_literals_of_a_source_that_are_called_secrets_are_hidden() -> None:
    source = 'api_token = "abc"\nname = "token"\nx = {"password": \'p\'}\n'
    assert Secrets().source(source) == (
        f'api_token = "{HIDDEN}"\nname = "token"\nx = {{"password": \'{HIDDEN}\'}}\n'
    )


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
def test_a_name_in_an_export_is_below_it(path: str) -> None:
    name = name_within(path)
    assert not name.startswith("/")
    assert ".." not in name.split("/")


@pytest.mark.parametrize("name", ["crate", "crate.zip"])
def test_an_export_that_fails_leaves_nothing(tmp_path: Path, name: str) -> None:
    def fail() -> None:
        with new_target(tmp_path / name) as target:
            target.add("a/b", [b"x"])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["crate", "crate.zip"])
def test_what_came_to_its_place_meanwhile_stays(tmp_path: Path, name: str) -> None:
    path = tmp_path / name

    def write() -> None:
        with new_target(path) as target:
            target.add("a", [b"x"])
            path.write_text("another's")

    with pytest.raises(ConfigurationError, match="exists and is not empty"):
        write()
    assert path.read_text() == "another's"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigurationError, match="there is no folder"),
        new_target(tmp_path / "no" / "crate"),
    ):
        pass
