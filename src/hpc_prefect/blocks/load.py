"""Loading the three blocks of a job from Prefect's API."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import NamedTuple, TypeVar

from prefect.blocks.core import Block
from prefect.client.orchestration import PrefectClient
from prefect.client.utilities import inject_client
from prefect.exceptions import ObjectNotFound
from pydantic import ValidationError

from hpc_prefect.blocks.checks import field_errors, sentence, suggestion
from hpc_prefect.blocks.from_record import from_record, recorded_fields
from hpc_prefect.blocks.profiles import CommandBlock, ExecutionProfileBlock, HPCProfileBlock
from hpc_prefect.errors import InvalidJob

B = TypeVar("B", bound=Block)


class BlockNames(NamedTuple):
    """The names of a job's three blocks on the server."""

    command: str
    execution: str
    hpc: str


class Blocks(NamedTuple):
    """A job's three blocks."""

    command: CommandBlock
    execution: ExecutionProfileBlock
    hpc: HPCProfileBlock


async def load_blocks(names: BlockNames, *, subject: str = "job") -> Blocks:
    """Load the three blocks, at the same time.

    Raises:
        InvalidJob: with every block that is not there (and the near names that are) or that cannot
            be read, all at once; `subject` is what its message calls the job.
    """
    return await _load(BlockNames(*names), subject)


@inject_client
async def _load(names: BlockNames, subject: str, client: PrefectClient | None = None) -> Blocks:
    assert client is not None  # inject_client's promise: the flow run's own, or a new one
    command, execution, hpc = await asyncio.gather(
        _one(CommandBlock, names.command, client),
        _one(ExecutionProfileBlock, names.execution, client),
        _one(HPCProfileBlock, names.hpc, client),
    )
    if (
        isinstance(command, CommandBlock)
        and isinstance(execution, ExecutionProfileBlock)
        and isinstance(hpc, HPCProfileBlock)
    ):
        return Blocks(command, execution, hpc)
    found = (command, execution, hpc)
    raise InvalidJob(subject, [text for each in found if isinstance(each, list) for text in each])


async def load_profiles(
    execution_name: str, hpc_name: str, *, subject: str
) -> tuple[ExecutionProfileBlock, HPCProfileBlock]:
    """Load the two profiles of a job whose command no block names.

    Raises:
        InvalidJob: as `load_blocks`.
    """
    found: list[Block | list[str]] = await _load_profiles(execution_name, hpc_name)
    execution, hpc = found
    if isinstance(execution, ExecutionProfileBlock) and isinstance(hpc, HPCProfileBlock):
        return execution, hpc
    raise InvalidJob(subject, [text for each in found if isinstance(each, list) for text in each])


@inject_client
async def _load_profiles(
    execution_name: str, hpc_name: str, client: PrefectClient | None = None
) -> list[Block | list[str]]:
    assert client is not None
    return list(
        await asyncio.gather(
            _one(ExecutionProfileBlock, execution_name, client),
            _one(HPCProfileBlock, hpc_name, client),
        )
    )


@inject_client
async def load_hpc_profile(name: str, client: PrefectClient | None = None) -> HPCProfileBlock:
    """Load an HPC profile alone.

    Raises:
        InvalidJob: it is not there, or cannot be read.
    """
    assert client is not None
    found = await _one(HPCProfileBlock, name, client)
    if isinstance(found, list):
        raise InvalidJob(f"HPC profile {name!r}", found)
    return found


async def _one(kind: type[B], name: str, client: PrefectClient) -> B | list[str]:
    """The block, or what is wrong."""
    what = kind.get_block_type_name().removeprefix("HPC-Prefect ")
    if (fields := recorded_fields(kind, name)) is not None:
        return await from_record(kind, name, fields, client)
    loading: Awaitable[B] = kind.aload(name, client=client)
    try:
        return await loading
    except ValueError as error:
        if not isinstance(error.__cause__, ObjectNotFound):
            raise
        near = suggestion(name, await stored_names(kind, client))
        advice = "Add it with: hpc-prefect blocks apply FILE"
        return [f"there is no {what} block {name!r}{near}{'' if near[-1] == '?' else '.'} {advice}"]
    except RuntimeError as error:
        if not isinstance(error.__cause__, ValidationError):
            raise
        where = f"{what} block {name!r}"
        return [f"{where}, {sentence(*each)}" for each in field_errors(error.__cause__)]


async def stored_names(kind: type[Block], client: PrefectClient) -> list[str]:
    """The names of all blocks of a kind that the server has, sorted."""
    names: list[str] = []
    while True:
        page = await client.read_block_documents_by_type(
            kind.get_block_type_slug(), offset=len(names), limit=200, include_secrets=False
        )
        names += [document.name for document in page if document.name]
        if len(page) < 200:
            return sorted(names)
