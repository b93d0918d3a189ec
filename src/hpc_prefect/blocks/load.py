"""Loading the three blocks of a job from Prefect's API."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, NamedTuple, TypeVar

from prefect.blocks.core import Block
from prefect.client.orchestration import PrefectClient
from prefect.client.utilities import inject_client
from prefect.exceptions import ObjectNotFound
from pydantic import ValidationError

from hpc_prefect.blocks.checks import field_errors, sentence, suggestion
from hpc_prefect.blocks.from_record import from_record, recorded_fields, stored_name
from hpc_prefect.blocks.profiles import CommandBlock, ExecutionProfileBlock, HPCProfileBlock
from hpc_prefect.errors import InvalidJob

B = TypeVar("B", bound=Block)


class GivenBlocks(NamedTuple):
    """A job's three blocks as its caller gave them: the names of stored blocks, or blocks."""

    command: str | CommandBlock
    execution: str | ExecutionProfileBlock
    hpc: str | HPCProfileBlock


class Blocks(NamedTuple):
    """A job's three blocks."""

    command: CommandBlock
    execution: ExecutionProfileBlock
    hpc: HPCProfileBlock


#: The profile `hpc-local`, if none of that name is stored.
_THIS_MACHINE: dict[str, Any] = {"scheduler": "local", "launcher": "mpiexec -n {ranks}"}

#: A function that loads one block by its name: the block, or its problems.
Load = Callable[[type[Block], str], Awaitable[Block | list[str]]]


async def load_blocks(
    given: GivenBlocks, *, subject: str = "job", load: Load | None = None
) -> Blocks:
    """The three blocks; those given by name are loaded concurrently.

    Args:
        subject: the job's name in an error's message.
        load: used instead of `load_one`.

    Raises:
        InvalidJob: with all blocks that do not exist (and similar names that do) or cannot be read.
    """
    if load is None:
        return await _loaded_by_one_client(given, subject)
    command, execution, hpc = await asyncio.gather(
        _found(CommandBlock, given.command, load),
        _found(ExecutionProfileBlock, given.execution, load),
        _found(HPCProfileBlock, given.hpc, load),
    )
    if (
        isinstance(command, CommandBlock)
        and isinstance(execution, ExecutionProfileBlock)
        and isinstance(hpc, HPCProfileBlock)
    ):
        return Blocks(command, execution, hpc)
    found = (command, execution, hpc)
    raise InvalidJob(subject, [text for each in found if isinstance(each, list) for text in each])


@inject_client
async def _loaded_by_one_client(
    given: GivenBlocks, subject: str, client: PrefectClient | None = None
) -> Blocks:
    return await load_blocks(given, subject=subject, load=partial(load_one, client=client))


async def _found(kind: type[Block], given: str | Block, load: Load) -> Block | list[str]:
    """A block, or its problems. In a reproduction a block with a name is the recorded one."""
    if isinstance(given, str):
        return await load(kind, given)
    if not isinstance(given, kind):
        wanted = f"a block of type {_in_words(kind)}, or its name, is needed"
        return [f"{type(given).__name__} was given where {wanted}"]
    name = stored_name(given)
    return await load(kind, name) if name and recorded_fields(kind, name) is not None else given


def _in_words(kind: type[Block]) -> str:
    return kind.get_block_type_name().removeprefix("HPC-Prefect ")


async def load_hpc_profile(name: str) -> HPCProfileBlock:
    """Load an HPC profile alone.

    Raises:
        InvalidJob: it is not there, or cannot be read.
    """
    found = await load_one(HPCProfileBlock, name)
    if isinstance(found, HPCProfileBlock):
        return found
    raise InvalidJob(f"HPC profile {name!r}", found)


@inject_client
async def load_one(kind: type[B], name: str, client: PrefectClient | None = None) -> B | list[str]:
    """The stored block of that name, or its problems.

    `hpc-local` need not be stored: it is this machine with the defaults.
    """
    assert client is not None  # `inject_client` passes the flow run's client, or a new one
    what = _in_words(kind)
    if (fields := recorded_fields(kind, name)) is not None:
        return await from_record(kind, name, fields, client)
    loading: Awaitable[B] = kind.aload(name, client=client)
    try:
        return await loading
    except ValueError as error:
        if not isinstance(error.__cause__, ObjectNotFound):
            raise
        if kind is HPCProfileBlock and name == "hpc-local":
            return kind(**_THIS_MACHINE)
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
