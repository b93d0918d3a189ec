"""Blocks of an earlier run, made from its record, with the secrets of the stored blocks."""

from __future__ import annotations

from collections.abc import Awaitable, Iterator, Mapping
from typing import Any, TypeVar

from prefect.blocks.core import Block
from prefect.client.orchestration import PrefectClient
from pydantic import BaseModel, ValidationError

from hpc_prefect.blocks.checks import field_errors, sentence
from hpc_prefect.flow_runs.recording import recorded_form
from hpc_prefect.flow_runs.reproduction import recorded
from hpc_prefect.records.write.plain import HIDDEN

B = TypeVar("B", bound=Block)
_SLUG = "hpc-prefect-"


def described(name: str, block: BaseModel) -> dict[str, Any]:
    """A block as records have it: name and fields; a secret is asterisks, unless it is empty."""
    fields = block.model_dump(mode="json", exclude={"block_type_slug"})
    for field in type(block).model_fields:
        secret = getattr(block, field)
        if hasattr(secret, "get_secret_value") and not (content := secret.get_secret_value()):
            fields[field] = content
    return {"name": name, **fields}


def stored_name(block: Block) -> str:
    """The name of the document that a block was loaded from or saved as; empty when it was not."""
    return block._block_document_name or ""


#: The end of a record's name for a block that is not stored; no stored name can end so.
_IN_CODE = " (in code)"


def name_in_record(given: str | Block, own: str) -> str:
    """The name in a record of a block that a call was given.

    Args:
        own: the name there for a block that was never stored.
    """
    return given if isinstance(given, str) else stored_name(given) or f"{own}{_IN_CODE}"


def is_of_code(name: str) -> bool:
    """Whether a record's block was made by the flow's own code, which will make it again."""
    return name.endswith(_IN_CODE)


def recorded_fields(kind: type[Block], name: str) -> Mapping[str, Any] | None:
    """The block's fields in the run that is being reproduced; None if there is none."""
    reproduced = recorded()
    slug = kind.get_block_type_slug().removeprefix(_SLUG)
    return None if reproduced is None else reproduced.block(slug, name)


async def from_record(
    kind: type[B], name: str, fields: Mapping[str, Any], client: PrefectClient
) -> B | list[str]:
    """The block of the run that is reproduced, or its problems."""
    what = f"{kind.get_block_type_name().removeprefix('HPC-Prefect ')} block {name!r}"
    stored = await stored_block(kind, name, client)
    if stored is not None and recorded_form(described(name, stored)) == fields:
        return stored
    values = _with_secrets(fields, {} if stored is None else _revealed(stored))
    if missing := list(_hidden(values)):
        return [
            f"{what} had a secret in {', '.join(missing)}. Records hold no secrets, and the"
            f" stored block has none there now. Store the block with its secret again"
        ]
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        return [f"{what} as it was recorded, {sentence(*each)}" for each in field_errors(error)]


async def stored_block(kind: type[B], name: str, client: PrefectClient) -> B | None:
    """The stored block; None if there is none, or if it cannot be read."""
    try:
        loading: Awaitable[B] = kind.aload(name, client=client)
        return await loading
    except (ValueError, RuntimeError):
        return None


def _revealed(value: Any) -> Any:
    """A block's values, with its secrets."""
    if hasattr(value, "get_secret_value"):
        return _revealed(value.get_secret_value())
    if hasattr(value, "model_fields_set"):
        return {name: _revealed(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, Mapping):
        return {name: _revealed(each) for name, each in value.items()}
    return value


def _with_secrets(recorded: Any, stored: Any) -> Any:
    """The recorded values, with the stored ones in place of asterisks."""
    if recorded == HIDDEN:
        return stored or HIDDEN
    if isinstance(recorded, Mapping):
        there = stored if isinstance(stored, Mapping) else {}
        return {name: _with_secrets(each, there.get(name)) for name, each in recorded.items()}
    return recorded


def _hidden(value: Any, above: str = "") -> Iterator[str]:
    """The paths at which asterisks are left."""
    if value == HIDDEN:
        yield above
    elif isinstance(value, Mapping):
        for name, each in value.items():
            yield from _hidden(each, f"{above}.{name}" if above else str(name))
    elif isinstance(value, list):
        for place, each in enumerate(value):
            yield from _hidden(each, f"{above}[{place}]")
