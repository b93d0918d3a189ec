"""Saves a file of blocks and Variables: checks everything first, then writes only what differs."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx
from prefect.blocks.core import Block
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import VariableCreate, VariableUpdate
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings
from pydantic import BaseModel, ValidationError

from hpc_prefect.block_files.applied import Made, Value, Where
from hpc_prefect.block_files.document import (
    BLOCKS,
    QUANTUM,
    VARIABLE,
    Document,
    Item,
    block_class,
    read_document,
    refused,
)
from hpc_prefect.blocks import CommandBlock
from hpc_prefect.blocks.checks import suggestion
from hpc_prefect.blocks.load import stored_names
from hpc_prefect.errors import ConfigurationError


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
        # Prefect would start a temporary server, which forgets most of what is saved on it.
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
            f"The Prefect server {shown} answered at first, and then failed ({_reason(error)}): "
            "try again."
        ) from error


def _reason(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


async def apply_document(
    document: Document,
    *,
    report: Callable[[BlockChange], None],
    made: Made | None = None,
    force: bool = False,
) -> list[BlockChange]:
    """Save every item that is new or differs; call `report` for each as soon as it is saved.

    Executables are merged by their keys: those that other files made stay.

    Args:
        made: what this file made before; without it nothing on the server counts as its own.
        force: replace what others made or changed.

    Raises:
        ConfigurationError: an execution profile is for a command that is neither in the file nor on
            the server; something would be replaced that this file did not make; the server cannot
            be reached. Then nothing was saved.
    """
    made = made or Made()
    async with prefect_api() as client:
        changes = await _changes(document, made, client)
        if not force:
            _refuse_conflicts(document.source, made, changes)
        for change in changes:
            made.note(change.key, change.ours)
        made.save()  # before the blocks: a note about a block that was not saved does no harm
        for change in changes:
            if change.kind != "unchanged":
                save = _save_variable if change.item.kind == VARIABLE else _save_block
                await save(change, client)
            report(change)
    return changes


async def compare_document(document: Document, *, made: Made | None = None) -> list[BlockChange]:
    """What `apply_document` would do; nothing is saved.

    Raises:
        ConfigurationError: as `apply_document`; conflicts are not raised but are in the changes.
    """
    async with prefect_api() as client:
        return await _changes(document, made or Made(), client)


async def _changes(document: Document, made: Made, client: PrefectClient) -> list[BlockChange]:
    await _check_commands(document, client)
    found = []
    for item in document.items:
        read = _stored_variable if item.kind == VARIABLE else _stored_block
        found.append(compare(item, await read(item, client), made))
    return found


def _refuse_conflicts(source: str, made: Made, changes: Sequence[BlockChange]) -> None:
    problems = []
    for change in changes:
        if change.conflicts:
            lines = "".join(f"\n      {one.describe()}" for one in change.conflicts)
            whose = (
                "was changed since" if change.key in made.values else "was not made by this file"
            )
            problems.append(f"{change.item.table} {whose}, and would be replaced:{lines}")
    if problems:
        raise ConfigurationError(
            f"{refused(source, problems)}\n`hpc-prefect blocks diff` shows all that would change. "
            "Correct the file, give the block another name, or replace it with --force"
        )


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


# --- what is stored, and how it would change


@dataclass(frozen=True, slots=True)
class Difference:
    """A value that would change; None for a value that does not exist."""

    where: Where
    stored: Value | None
    wanted: Value | None

    def describe(self) -> str:
        """`max_walltime: "1:00:00" → "2:00:00"`."""
        stored, wanted = (
            "nothing" if value is None else value.shown() for value in (self.stored, self.wanted)
        )
        return f"{'.'.join(self.where) or 'its value'}: {stored} → {wanted}"

    def as_dict(self) -> dict[str, Any]:
        """For programs. `stored` and `wanted` are null where there is none; secrets are masked."""
        stored, wanted = (None if v is None else v.told() for v in (self.stored, self.wanted))
        return {"where": list(self.where), "stored": stored, "wanted": wanted}


@dataclass(frozen=True, slots=True)
class BlockChange:
    """The change of one item.

    Attributes:
        ours: the item's values, as the file has them.
        differences: what saving it changes.
        conflicts: differences that replace what this file did not make.
        kept: executables that others added, which stay.
    """

    item: Item
    kind: Literal["created", "updated", "unchanged"]
    ours: Mapping[Where, Value]
    differences: tuple[Difference, ...] = ()
    conflicts: tuple[Difference, ...] = ()
    kept: tuple[Where, ...] = ()

    @property
    def key(self) -> str:
        """The item's key in `Made.values`."""
        return f"{self.item.kind}.{self.item.name}"

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        return {
            "change": self.kind,
            "kind": self.item.kind,
            "name": self.item.name,
            "differences": [
                one.as_dict() | {"conflict": one in self.conflicts} for one in self.differences
            ],
            "kept": [list(where) for where in self.kept],
        }


#: The stored values of an item; None if it does not exist.
Stored = Mapping[Where, Value] | None
#: Stands for the values of a block that this version cannot read.
_UNREADABLE = Value('"what this version cannot read"')


def compare(item: Item, stored: Stored, made: Made) -> BlockChange:
    """The change of an item. Pure."""
    ours: Mapping[Where, Value]
    ours = {(): _value(item.value)} if item.kind == VARIABLE else block_values(item.value)
    if stored is None:
        return BlockChange(item, "created", ours)
    key = f"{item.kind}.{item.name}"
    differences, conflicts, kept = [], [], []
    for where in [*ours, *(where for where in stored if where not in ours)]:
        there, wanted = stored.get(where), ours.get(where)
        if there == wanted:
            continue
        is_own = there is None or made.has(key, where, there)
        if wanted is None and _is_executable(where):
            if not is_own or made.another(key, where):
                kept.append(where)
                continue
        elif not is_own and not _is_newer_field(where, key, made):
            conflicts.append(Difference(where, there, wanted))
        differences.append(Difference(where, there, wanted))
    kind: Literal["updated", "unchanged"] = "updated" if differences else "unchanged"
    return BlockChange(item, kind, ours, tuple(differences), tuple(conflicts), tuple(kept))


def _is_executable(where: Where) -> bool:
    """Whether the value is one that is merged by key."""
    return where[-2:-1] == (_EXECUTABLES,)


def _is_newer_field(where: Where, key: str, made: Made) -> bool:
    """Whether the field is newer than the version that last applied this file."""
    known = made.values.get(key)
    return known is not None and where not in known and not _is_executable(where)


_EXECUTABLES = "executables"


def block_values(block: Block) -> dict[Where, Value]:
    """All values of a block: of its parts each field, of executables each key."""
    open_ = block.model_dump(mode="json", context={"include_secrets": True})
    shut = block.model_dump(mode="json")
    return dict(_values(block, open_, shut, ()))


def _values(
    model: BaseModel, opened: dict[str, Any], shut: dict[str, Any], above: Where
) -> Iterator[tuple[Where, Value]]:
    for name in type(model).model_fields:
        where, part, value = (*above, name), getattr(model, name), opened[name]
        if isinstance(part, BaseModel) and not isinstance(part, Block):
            yield from _values(part, value, shut[name], where)
        elif name == _EXECUTABLES:
            for key, entry in value.items():
                yield (*where, key), _value(entry)
        else:
            text = _value(value).text
            yield where, Value(text, secret=text != _value(shut[name]).text)


def _value(value: object) -> Value:
    return Value(json.dumps(value, sort_keys=True, ensure_ascii=False))


async def _stored_block(item: Item, client: PrefectClient) -> Stored:
    try:
        return block_values(await type(item.value).aload(item.name, client=client))
    except ValueError as error:
        if not isinstance(error.__cause__, ObjectNotFound):
            raise
        return None
    except RuntimeError as error:
        if not isinstance(error.__cause__, ValidationError):
            raise
        return dict.fromkeys(block_values(item.value), _UNREADABLE)


async def _stored_variable(item: Item, client: PrefectClient) -> Stored:
    stored = await client.read_variable_by_name(item.name)
    return None if stored is None else {(): _value(stored.value)}


async def _save_block(change: BlockChange, client: PrefectClient) -> None:
    block: Block = change.item.value
    if change.kept:
        stored = await type(block).aload(change.item.name, client=client)
        block = block.model_copy(deep=True)
        for where in change.kept:
            mine, theirs = _at(block, where[:-1]), _at(stored, where[:-1])
            mine[where[-1]] = theirs[where[-1]]
    await block.asave(change.item.name, overwrite=True, client=client)


def _at(model: object, where: Where) -> Any:
    for name in where:
        model = getattr(model, name)
    return model


async def _save_variable(change: BlockChange, client: PrefectClient) -> None:
    name, value = change.item.name, change.item.value
    if change.kind == "created":
        await client.create_variable(VariableCreate(name=name, value=value))
    else:
        await client.update_variable(VariableUpdate(name=name, value=value))


async def list_blocks() -> list[tuple[str, str]]:
    """(slug, name) of every block of this package's kinds on the server."""
    kinds = list(BLOCKS.values())
    with contextlib.suppress(ImportError):  # without the extra there are none
        kinds += [block_class(kind) for kind in QUANTUM]
    async with prefect_api() as client:
        return [
            (kind.get_block_type_slug(), name)
            for kind in kinds
            for name in await stored_names(kind, client)
        ]
