"""A document is saved completely or not at all, and only what differs is written."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.variables import Variable

from hpc_prefect.block_files.applied import Made
from hpc_prefect.block_files.apply import apply_document, list_blocks, read_file
from hpc_prefect.block_files.document import Document, read_document
from hpc_prefect.blocks import CommandBlock, HPCProfileBlock
from hpc_prefect.errors import ConfigurationError
from hpc_prefect.server import free_port

TEXT = """
[command.cmd-ID]
command_name = "diag-ID"
executable_key = "diag"

[execution-profile.exec-ID]
profile_name = "exec"
command_name = "diag-ID"

[hpc-profile.hpc-ID]
scheduler = "local"
executables = {diag = "/opt/diag"}
secret_environment = {TOKEN = "hunter2"}
local.slots = 2

[quantum-backend.backend-ID]
backend_name = "aer"

[variable.algorithm_ID]
max_iterations = 10
"""


@pytest.fixture
def ident() -> str:
    """A part of names that no other test uses."""
    return uuid.uuid4().hex[:8]


def document(text: str, ident: str) -> Document:
    return read_document(text.replace("ID", ident), here="/h", venv="/v", environ={}, source="f")


async def changes(text: str, ident: str, made: Made | None = None) -> list[str]:
    told = []
    done = await apply_document(document(text, ident), report=told.append, made=made)
    assert done == told
    return [change.kind for change in done]


@pytest.mark.usefixtures("prefect_server")
async def test_what_is_new_is_created_and_a_second_time_nothing_is_written(ident: str) -> None:
    assert await changes(TEXT, ident) == ["created"] * 5
    async with get_client() as client:
        first = await client.read_block_document_by_name(f"cmd-{ident}", "hpc-prefect-command")

    assert await changes(TEXT, ident) == ["unchanged"] * 5

    async with get_client() as client:
        again = await client.read_block_document_by_name(f"cmd-{ident}", "hpc-prefect-command")
    assert again.updated == first.updated
    assert await Variable.aget(f"algorithm_{ident}") == {"max_iterations": 10}


@pytest.mark.usefixtures("prefect_server")
async def test_only_what_differs_is_updated_a_secret_and_a_variable_too(ident: str) -> None:
    made = Made()
    await changes(TEXT, ident, made)
    changed = TEXT.replace("hunter2", "hunter3").replace("= 10", "= 11")

    assert await changes(changed, ident, made) == [
        "unchanged",
        "unchanged",
        "updated",
        "unchanged",
        "updated",
    ]

    hpc = await HPCProfileBlock.aload(f"hpc-{ident}")
    assert hpc.secret_environment.get_secret_value() == {"TOKEN": "hunter3"}
    assert await Variable.aget(f"algorithm_{ident}") == {"max_iterations": 11}


@pytest.mark.usefixtures("prefect_server")
async def test_the_tags_of_a_variable_stay(ident: str) -> None:
    made = Made()
    await changes(TEXT.replace("= 10", "= 1"), ident, made)
    await Variable.aset(f"algorithm_{ident}", {"max_iterations": 1}, tags=["mine"], overwrite=True)

    await changes(TEXT, ident, made)

    async with get_client() as client:
        stored = await client.read_variable_by_name(f"algorithm_{ident}")
    assert stored is not None
    assert (stored.value, stored.tags) == ({"max_iterations": 10}, ["mine"])


@pytest.mark.usefixtures("prefect_server")
async def test_a_profile_for_a_command_that_nobody_has_stops_everything(ident: str) -> None:
    await CommandBlock(command_name=f"diag-{ident}", executable_key="d").asave(f"cmd-{ident}")
    text = f"""
[execution-profile.exec-{ident}]
profile_name = "exec"
command_name = "dig-{ident}"
[variable.algorithm_{ident}]
"""

    with pytest.raises(ConfigurationError) as caught:
        await changes(text, ident)

    assert str(caught.value).startswith(
        "f: 1 problem, nothing was saved:\n"
        f"  - line 4, [execution-profile.exec-{ident}] command_name: no command block, here or on "
        f"the server, has the command_name 'dig-{ident}'; did you mean 'diag-{ident}'"
    )
    assert await Variable.aget(f"algorithm_{ident}") is None


@pytest.mark.usefixtures("prefect_server")
async def test_a_profile_for_a_command_of_the_server_is_saved(ident: str) -> None:
    await CommandBlock(command_name=f"diag-{ident}", executable_key="d").asave(f"cmd-{ident}")
    text = "[execution-profile.exec-ID]\nprofile_name = 'exec'\ncommand_name = 'diag-ID'\n"

    assert await changes(text, ident) == ["created"]


@pytest.mark.usefixtures("prefect_server")
async def test_the_list_has_slug_and_name_of_every_block(ident: str) -> None:
    await changes(TEXT, ident)

    listed = await list_blocks()

    assert [entry for entry in listed if entry[1].endswith(ident)] == [
        ("hpc-prefect-command", f"cmd-{ident}"),
        ("hpc-prefect-execution-profile", f"exec-{ident}"),
        ("hpc-prefect-hpc-profile", f"hpc-{ident}"),
        ("hpc-prefect-quantum-backend", f"backend-{ident}"),
    ]


async def test_a_server_that_does_not_answer_is_said_with_what_to_do(ident: str) -> None:
    url = f"http://me:hunter2@127.0.0.1:{free_port()}/api"

    with (
        temporary_settings({PREFECT_API_URL: url}),
        pytest.raises(ConfigurationError) as caught,
    ):
        await changes(TEXT, ident)

    text = str(caught.value)
    assert text.startswith(f"The Prefect server {url.replace('me:hunter2@', '')} does not answer (")
    assert text.endswith(
        "): start one with `hpc-prefect server start`, or set PREFECT_API_URL to yours."
    )


async def test_without_any_server_named_nothing_is_started_behind_the_users_back() -> None:
    with (
        temporary_settings(restore_defaults={PREFECT_API_URL}),
        pytest.raises(ConfigurationError) as caught,
    ):
        await list_blocks()

    assert str(caught.value) == (
        "No Prefect server is named: start one with `hpc-prefect server start`, "
        "or set PREFECT_API_URL to yours."
    )


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    path = tmp_path / "blocks.toml"

    with pytest.raises(ConfigurationError) as caught:
        read_file(path, venv="/v", environ={})

    assert str(caught.value) == (
        f"{path} cannot be read: [Errno 2] No such file or directory: '{path}'; nothing was saved"
    )


def test_here_is_the_folder_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "blocks.toml").write_text("[variable]\nx = '${HERE}/y'\n")

    found = read_file(tmp_path / "blocks.toml", venv="/v", environ={})

    assert found.items[0].value == f"{tmp_path}/y"


def test_the_mark_with_which_some_editors_begin_a_file_is_no_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "blocks.toml").write_text("\ufeff[variable]\r\nx = 1\r\n", encoding="utf-8")

    (item,) = read_file(tmp_path / "blocks.toml", venv="/v", environ={}).items

    assert (item.name, item.value) == ("x", 1)
