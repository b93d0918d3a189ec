"""Saving a file of blocks and Variables: check everything first, then write only what differs."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Literal

import httpx
from prefect.blocks.core import Block
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import VariableCreate, VariableUpdate
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings
from pydantic import ValidationError

from hpc_prefect.blocks import CommandBlock
from hpc_prefect.blocks.checks import suggestion
from hpc_prefect.blocks.load import stored_names
from hpc_prefect.document import (
    BLOCKS,
    QUANTUM,
    VARIABLE,
    Document,
    Item,
    block_class,
    read_document,
    refused,
)
from hpc_prefect.errors import ConfigurationError

Change = Literal["created", "updated", "unchanged"]


def read_file(path: Path, *, venv: str, environ: Mapping[str, str]) -> Document:
    """`read_document` of a file.

    Raises:
        ConfigurationError: the file cannot be read, or something in it is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}; nothing was saved") from error
    here = str(path.absolute().parent)
    return read_document(text, here=here, venv=venv, environ=environ, source=str(path))


@contextlib.asynccontextmanager
async def prefect_api() -> AsyncIterator[PrefectClient]:
    """A client for the Prefect server that the settings name.

    Raises:
        ConfigurationError: no server is named, or it does not answer; the message says what to do.
    """
    advice = "start one with `hpc-prefect server start`, or set PREFECT_API_URL to yours"
    url = get_current_settings().api.url
    if not url:
        # Prefect would start a throw-away server that forgets most of what it is told.
        raise ConfigurationError(f"No Prefect server is named: {advice}.")
    shown = re.sub(r"//[^/@]*@", "//", url)  # without a password
    try:
        async with get_client() as client:
            if (trouble := await client.api_healthcheck()) is not None:
                raise ConfigurationError(
                    f"The Prefect server {shown} does not answer ({_reason(trouble)}): {advice}."
                ) from trouble
            yield client
    except httpx.HTTPError as error:
        raise ConfigurationError(
            f"The Prefect server {shown} failed in between ({_reason(error)}): try again."
        ) from error


def _reason(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


async def apply_document(
    document: Document, *, report: Callable[[Item, Change], None]
) -> list[tuple[Item, Change]]:
    """Save every item that is new or differs; tell `report` of each as soon as it is done.

    Raises:
        ConfigurationError: an execution profile is for a command that is neither in the file nor on
            the server (then nothing was saved), or the server cannot be reached.
    """
    done: list[tuple[Item, Change]] = []
    async with prefect_api() as client:
        await _check_commands(document, client)
        for item in document.items:
            save = _save_variable if item.kind == VARIABLE else _save_block
            change = await save(item, client)
            report(item, change)
            done.append((item, change))
    return done


async def _check_commands(document: Document, client: PrefectClient) -> None:
    if not document.foreign_commands:
        return
    slug = CommandBlock.get_block_type_slug()
    known = {item.value.command_name for item in document.items if item.kind == "command"}
    for name in await stored_names(CommandBlock, client):
        stored = await client.read_block_document_by_name(name, slug, include_secrets=False)
        known.add(str(stored.data.get("command_name", "")))
    problems = [
        f"{place}: no command block, here or on the server, has the command_name "
        f"{name!r}{suggestion(name, known)}"
        for place, name in document.foreign_commands
        if name not in known
    ]
    if problems:
        raise refused(document.source, problems)


async def _save_block(item: Item, client: PrefectClient) -> Change:
    block: Block = item.value
    change: Change = "updated"
    try:
        stored = await type(block).aload(item.name, client=client)
        if _values(stored) == _values(block):
            return "unchanged"
    except ValueError as error:
        if not isinstance(error.__cause__, ObjectNotFound):
            raise
        change = "created"
    except RuntimeError as error:
        # A document that this version cannot read any more is what the user wants replaced.
        if not isinstance(error.__cause__, ValidationError):
            raise
    await block.asave(item.name, overwrite=True, client=client)
    return change


def _values(block: Block) -> str:
    """All values of a block, secrets too, in one comparable text that is never shown."""
    values = block.model_dump(
        mode="json", include=set(type(block).model_fields), context={"include_secrets": True}
    )
    return _canonical({name: values[name] for name in type(block).model_fields})


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True)


async def _save_variable(item: Item, client: PrefectClient) -> Change:
    stored = await client.read_variable_by_name(item.name)
    if stored is None:
        await client.create_variable(VariableCreate(name=item.name, value=item.value))
        return "created"
    if _canonical(stored.value) == _canonical(item.value):
        return "unchanged"
    await client.update_variable(VariableUpdate(name=item.name, value=item.value))
    return "updated"


async def list_blocks() -> list[tuple[str, str]]:
    """(slug, name) of every block of this package's kinds on the server."""
    kinds = list(BLOCKS.values())
    with contextlib.suppress(ImportError):  # without the extra nobody here made one
        kinds += [block_class(kind) for kind in QUANTUM]
    async with prefect_api() as client:
        return [
            (kind.get_block_type_slug(), name)
            for kind in kinds
            for name in await stored_names(kind, client)
        ]
