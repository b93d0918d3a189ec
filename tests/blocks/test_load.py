"""Blocks to the server and back."""

from __future__ import annotations

import logging
import uuid

import pytest
from prefect import flow
from prefect.blocks.core import Block
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import BlockDocumentUpdate

from hpc_prefect.blocks import (
    CommandBlock,
    ExecutionProfileBlock,
    GivenBlocks,
    HPCProfileBlock,
    LocalOptions,
    load_blocks,
)
from hpc_prefect.errors import InvalidJob

pytestmark = pytest.mark.usefixtures("prefect_server")


def new_name(stem: str) -> str:
    """A name that no other test uses; the server is everybody's."""
    return f"{stem}-{uuid.uuid4().hex[:8]}"


def fields(block: Block) -> dict[str, object]:
    """The block's values without what it remembers of its document."""
    return {name: getattr(block, name) for name in type(block).model_fields}


async def saved() -> GivenBlocks:
    names = GivenBlocks(new_name("cmd"), new_name("exec"), new_name("hpc"))
    await CommandBlock(command_name="diag", executable_key="diag").asave(names.command)
    await ExecutionProfileBlock(profile_name="e", command_name="diag").asave(names.execution)
    profile = HPCProfileBlock(
        scheduler="local",
        executables={"diag": {"path": "/opt/diag", "modules": ["m"]}},
        secret_environment={"TOKEN": "hunter2"},
        local=LocalOptions(slots=2),
    )
    await profile.asave(names.hpc)
    return names


async def rewrite(kind: type[Block], name: str, **data: object) -> None:
    """Change the stored document behind the block's back, as another version would write it."""
    async with get_client() as client:
        document = await client.read_block_document_by_name(name, kind.get_block_type_slug())
        update = BlockDocumentUpdate(data=data, merge_existing_data=False)
        await client.update_block_document(document.id, update)


async def test_three_blocks_come_back_as_they_were_saved() -> None:
    command, execution, hpc = await load_blocks(await saved())

    assert fields(command) == fields(CommandBlock(command_name="diag", executable_key="diag"))
    assert fields(execution) == fields(ExecutionProfileBlock(profile_name="e", command_name="diag"))
    assert hpc.executables == {"diag": {"path": "/opt/diag", "modules": ["m"]}}
    assert hpc.secret_environment.get_secret_value() == {"TOKEN": "hunter2"}
    assert hpc.local.slots == 2


async def test_blocks_are_loaded_inside_a_flow_too() -> None:
    names = await saved()

    @flow
    async def loads() -> str:
        return (await load_blocks(names)).command.command_name

    assert await loads() == "diag"


async def test_a_block_is_found_by_prefects_own_load_with_its_slug() -> None:
    names = await saved()

    block = await Block.aload(f"hpc-prefect-hpc-profile/{names.hpc}")

    assert isinstance(block, HPCProfileBlock)


async def test_an_old_document_loads_with_defaults_for_the_fields_that_were_added() -> None:
    names = await saved()
    await rewrite(HPCProfileBlock, names.hpc, scheduler="local", dropped=1, local={"old": 1})

    hpc = (await load_blocks(names)).hpc

    assert fields(hpc) == fields(HPCProfileBlock(scheduler="local"))
    assert await Block.aload(f"hpc-prefect-hpc-profile/{names.hpc}") is not None


async def test_missing_blocks_are_told_all_at_once_with_the_near_names_that_exist() -> None:
    names = await saved()

    with pytest.raises(InvalidJob) as caught:
        await load_blocks(GivenBlocks(names.command + "x", "zzz", names.hpc), subject="job 'd'")

    assert caught.value.subject == "job 'd'"
    first, second = caught.value.problems
    assert first.startswith(
        f"there is no Command block '{names.command}x'; did you mean '{names.command}'"
    )
    assert first.endswith("? Add it with: hpc-prefect blocks apply FILE")
    assert second.startswith("there is no Execution Profile block 'zzz'; there are: ")
    assert names.execution in second
    assert second.endswith(". Add it with: hpc-prefect blocks apply FILE")


async def test_a_document_that_cannot_be_read_is_told_field_by_field() -> None:
    names = await saved()
    await rewrite(HPCProfileBlock, names.hpc, scheduler="sge", poll_interval=0)

    with pytest.raises(InvalidJob) as caught:
        await load_blocks(names)

    assert caught.value.problems == (
        f"HPC Profile block '{names.hpc}', "
        "scheduler: Input should be 'local', 'pbs', 'pjm' or 'slurm'",
        f"HPC Profile block '{names.hpc}', "
        "poll_interval: Input should be greater than or equal to 0.1",
    )


async def test_a_secret_stays_secret_on_its_way_to_the_server_and_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    names = await saved()
    hpc = (await load_blocks(names)).hpc
    async with get_client() as client:
        shown = await client.read_block_document_by_name(
            names.hpc, "hpc-prefect-hpc-profile", include_secrets=False
        )

    assert "hunter2" not in repr(hpc) + caplog.text + str(shown.data)
