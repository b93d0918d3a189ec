"""The blocks by themselves: slugs, schema, strictness, secrets."""

from __future__ import annotations

import json
from typing import Any

import pytest
from prefect.blocks.core import Block
from prefect.testing.standard_test_suites import BlockStandardTestSuite
from pydantic import BaseModel, ValidationError

from hpc_prefect.blocks import (
    CommandBlock,
    ExecutableEntry,
    ExecutionProfileBlock,
    HPCProfileBlock,
    LocalOptions,
    names_near,
)

BLOCKS = [CommandBlock, ExecutionProfileBlock, HPCProfileBlock]


@pytest.mark.parametrize("kind", BLOCKS)
class TestPrefectsStandardSuite(BlockStandardTestSuite):
    """Prefect's own demands on a block, without the logo, which it would fetch from the web."""

    @pytest.fixture
    def block(self, kind: type[Block]) -> type[Block]:
        return kind

    def test_has_a_valid_image(self, block: type[Block]) -> None:
        assert block._logo_url is None


@pytest.mark.parametrize("kind", BLOCKS)
def test_who_changes_a_schema_that_he_was_given_changes_no_other(kind: type[Block]) -> None:
    before = json.dumps(kind.model_json_schema())
    kind.model_json_schema()["properties"].clear()
    assert json.dumps(kind.model_json_schema()) == before


def test_the_slugs_are_these_for_good() -> None:
    assert [kind.get_block_type_slug() for kind in BLOCKS] == [
        "hpc-prefect-command",
        "hpc-prefect-execution-profile",
        "hpc-prefect-hpc-profile",
    ]


def test_the_fields_and_defaults_of_a_command_are_these() -> None:
    assert CommandBlock(command_name="a", executable_key="b").model_dump() == {
        "command_name": "a",
        "executable_key": "b",
        "description": "",
        "default_args": [],
        "block_type_slug": "hpc-prefect-command",
    }


def test_the_fields_and_defaults_of_an_execution_profile_are_these() -> None:
    assert ExecutionProfileBlock(profile_name="a", command_name="b").model_dump() == {
        "profile_name": "a",
        "command_name": "b",
        "resource_class": "cpu",
        "num_nodes": 1,
        "ranks_per_node": 1,
        "threads_per_rank": 1,
        "memory_per_node": "",
        "gpus_per_node": 0,
        "walltime": "00:05:00",
        "launch": "single",
        "environment": {},
        "block_type_slug": "hpc-prefect-execution-profile",
    }


@pytest.mark.parametrize("kind", BLOCKS)
def test_the_form_has_no_tabs(kind: type[Block]) -> None:
    """Prefect's form draws anyOf, oneOf and allOf as tabs."""
    text = json.dumps(kind.model_json_schema())

    assert [word for word in ("anyOf", "oneOf", "allOf") if f'"{word}"' in text] == []


def models(kind: type[BaseModel]) -> list[type[BaseModel]]:
    below = [field.annotation for field in kind.model_fields.values()]
    nested = [each for each in below if isinstance(each, type) and issubclass(each, BaseModel)]
    return [kind, *(model for each in nested for model in models(each))]


@pytest.mark.parametrize("kind", [*models(HPCProfileBlock), ExecutableEntry])
def test_every_field_of_the_parts_has_a_description_too(kind: type[BaseModel]) -> None:
    assert [name for name, field in kind.model_fields.items() if not field.description] == []


BAD_BLOCKS: list[tuple[type[BaseModel], dict[str, Any], list[str]]] = [
    (
        CommandBlock,
        {"command_name": "a", "executable_key": "b", "default_arg": []},
        ["default_arg: there is no such field; did you mean 'default_args'?"],
    ),
    (
        CommandBlock,
        {"command_nam": "a", "executable_key": "b"},
        [
            "command_nam: there is no such field; did you mean 'command_name'?",
            "command_name: Field required",
        ],
    ),
    (
        HPCProfileBlock,
        {"scheduler": "local", "zzz": 1, "local": {"slotz": 1}, "gpu": {"module": []}},
        [
            "zzz: there is no such field; there are: "
            + ", ".join(sorted(HPCProfileBlock.model_fields)),
            "gpu.module: there is no such field; did you mean 'modules'?",
            "local.slotz: there is no such field; did you mean 'slots'?",
        ],
    ),
    (
        HPCProfileBlock,
        {"scheduler": "local", "pbs": {"place": "scatter"}, "slurm": {"qos": "x"}},
        [
            "pbs.place is set, but the scheduler is 'local': remove it, or choose scheduler 'pbs'; "
            "slurm.qos is set, but the scheduler is 'local': "
            "remove it, or choose scheduler 'slurm'",
        ],
    ),
    (
        HPCProfileBlock,
        {"scheduler": "slurm", "local": LocalOptions(slots=1)},
        [
            "local.slots is set, but the scheduler is 'slurm': "
            "remove it, or choose scheduler 'local'",
        ],
    ),
    (
        HPCProfileBlock,
        {
            "scheduler": "sge",
            "launcher": "{rank}",
            "executables": {"a": "b/c"},
            "secret_environment": {"A-B": "1"},
            "poll_interval": 0,
        },
        [
            "scheduler: Input should be 'local', 'pbs', 'pjm' or 'slurm'",
            "executables: 'a': path: 'b/c' is relative: "
            "write an absolute path, or a bare name found on PATH",
            "launcher: unknown placeholder {rank}; there are {ranks}, {nodes}, {ranks_per_node}, "
            "{threads}, {gpus_per_node}, {command}",
            "secret_environment: 'A-B' is no name for a variable: "
            "use letters, digits and _, no digit first",
            "poll_interval: Input should be greater than or equal to 0.1",
        ],
    ),
    (
        ExecutionProfileBlock,
        {"profile_name": "a", "command_name": "b", "walltime": "1", "memory_per_node": "1"},
        [
            "memory_per_node: memory '1': write a number with K, M, G or T, such as 4G",
            "walltime '1': write HH:MM:SS (or D-HH:MM:SS), such as 01:30:00",
        ],
    ),
]


@pytest.mark.parametrize(("kind", "fields", "messages"), BAD_BLOCKS)
def test_a_block_that_cannot_be_is_refused_with_everything_that_is_wrong(
    kind: type[BaseModel], fields: dict[str, Any], messages: list[str]
) -> None:
    from hpc_prefect.blocks.checks import field_errors, sentence

    with pytest.raises(ValidationError) as caught:
        kind(**fields)

    assert [sentence(*each) for each in field_errors(caught.value)] == messages


def test_a_misspelt_attribute_is_refused_as_well() -> None:
    command = CommandBlock(command_name="a", executable_key="b")

    with pytest.raises(ValueError, match="has no field"):
        command.defualt_args = ["x"]


def test_a_document_of_another_version_is_read_with_defaults_and_without_dropped_fields() -> None:
    document = {"scheduler": "local", "dropped": 1, "local": {"dropped": 1, "slots": 2}}

    profile = HPCProfileBlock.model_validate(document)

    assert profile == HPCProfileBlock(scheduler="local", local=LocalOptions(slots=2))


def test_after_a_document_was_read_construction_is_as_strict_as_before() -> None:
    with pytest.raises(ValidationError):
        HPCProfileBlock.model_validate({"dropped": 1})

    with pytest.raises(ValidationError, match="there is no such field"):
        LocalOptions(dropped=1)  # type: ignore[call-arg]


def test_an_executable_may_be_given_as_an_entry_and_is_kept_as_json() -> None:
    entry = ExecutableEntry(path="/opt/a", modules=["m"])

    profile = HPCProfileBlock(scheduler="local", executables={"a": entry, "b": "/opt/b"})

    assert profile.executables == {"a": {"path": "/opt/a", "modules": ["m"]}, "b": "/opt/b"}


def test_a_secret_is_in_no_text_dump_schema_or_error() -> None:
    profile = HPCProfileBlock(scheduler="local", secret_environment={"TOKEN": "hunter2"})
    shown = [repr(profile), str(profile), str(profile.model_dump()), profile.model_dump_json()]
    shown.append(json.dumps(HPCProfileBlock.model_json_schema()))
    for wrong in ({"qeue": 1}, {"login_shell": "maybe"}, {"slurm": {"qos": "x"}}):
        with pytest.raises(ValidationError) as caught:
            HPCProfileBlock(scheduler="local", secret_environment={"TOKEN": "hunter2"}, **wrong)
        shown += [str(caught.value), repr(caught.value)]

    assert [text for text in shown if "hunter2" in text] == []


def test_the_secrets_are_secret_for_the_server_too() -> None:
    assert HPCProfileBlock.model_json_schema()["secret_fields"] == [
        "secret_environment.*",
        "qrmi_api_keys.*",
    ]


def test_near_names_come_best_first_and_far_ones_not_at_all() -> None:
    known = ["cmd-diag", "cmd-prep", "zebra"]

    assert names_near("cmd-dig", known)[0] == "cmd-diag"
    assert names_near("ghost", known) == []
