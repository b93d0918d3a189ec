"""Documents of qcsc-prefect in the forms in which a file may hold them."""

from __future__ import annotations

import json

import pytest

from hpc_prefect.block_files.qcsc.documents import Found, QcscDocument, read_text

COMMAND = QcscDocument("hpc_command", "cmd", {"command_name": "a", "executable_key": "a"})
FIELDS = dict(COMMAND.fields)


def read(text: str, source: str) -> Found:
    found = Found()
    read_text(text, source, found)
    return found


@pytest.mark.parametrize(
    ("content", "source"),
    [
        ({"hpc_command": {"cmd": FIELDS}}, "x.json"),
        ({"name": "cmd", "data": FIELDS, "block_type": {"slug": "hpc_command"}}, "x.json"),
        ({"name": "cmd", "data": FIELDS, "block_type": {"slug": "hpc-command"}}, "x.json"),
        ([{"name": "cmd", "data": FIELDS, "block_type_name": "HPC Command"}], "x.json"),
        ({"name": "cmd", "block_type_slug": "hpc_command", **FIELDS}, "x"),
    ],
)
def test_json_holds_documents_of_the_api_or_tables(content: object, source: str) -> None:
    found = read(json.dumps(content), source)

    assert (found.documents, found.problems) == ([COMMAND], [])


def test_toml_holds_tables() -> None:
    text = "[hpc_command.cmd]\ncommand_name = 'a'\nexecutable_key = 'a'\n"

    assert read(text, "x.toml").documents == [COMMAND]


def test_a_block_that_two_files_have_is_a_problem() -> None:
    found = read(json.dumps({"hpc_command": {"cmd": FIELDS}}), "a.json")
    read_text(json.dumps({"hpc_command": {"cmd": FIELDS}}), "b.json", found)

    assert found.problems == ["b.json: hpc_command/cmd is there twice; keep one of them"]


@pytest.mark.parametrize(
    ("text", "source", "problem"),
    [
        ("[hpc_command.cmd]\ntoken = hunter2\n", "x.toml", "x.toml: is not TOML (line 2)"),
        ("{'token': 'hunter2'}", "x.json", "x.json: is not JSON (line 1)"),
        ("[" * 100_000, "x.json", "x.json: is not JSON"),
        ("7", "x.json", "x.json: a file holds tables such as [hpc_profile.NAME], or"),
        ("[]", "x.json", "x.json: holds no block of qcsc-prefect; a file holds tables such as"),
        (
            '{"hpc_profil": {"a": {}}}',
            "x.json",
            "x.json: 'hpc_profil' is no block type that is imported; did you mean 'hpc_profile'?",
        ),
        ('{"hpc_profile": {"a": 1}}', "x.json", "x.json: hpc_profile/a must be a table of fields"),
        ('{"hpc_profile": 1}', "x.json", "x.json: hpc_profile must hold tables, such as [hpc"),
        (
            '{"data": {}, "block_type": {"slug": "hpc_profile"}}',
            "x.json",
            "x.json: a block of type hpc_profile has no name; add `name`",
        ),
        (
            'hpc_target = "miyabi"\nproject = "gz00"\n',
            "x.toml",
            "x.toml: these are the settings of a create_blocks.py, which has defaults of its own",
        ),
    ],
)
def test_what_cannot_be_read_is_told_without_a_value(text: str, source: str, problem: str) -> None:
    found = read(text, source)

    assert found.documents == []
    (told,) = found.problems
    assert told.startswith(problem)
    assert "hunter2" not in told
