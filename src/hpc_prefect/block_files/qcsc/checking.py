"""Checks the converted blocks: each by itself, and the three of each call together."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from prefect.blocks.core import Block
from pydantic import ValidationError

from hpc_prefect.block_files.document import block_class
from hpc_prefect.block_files.qcsc.fates import Fates
from hpc_prefect.blocks import Call, CommandBlock, ExecutionProfileBlock, HPCProfileBlock, resolve
from hpc_prefect.blocks.checks import field_errors
from hpc_prefect.errors import InvalidJob

_BLANK = re.compile(r"<[a-z][a-z -]*>")
_NAME = re.compile(r"[a-z0-9-]+")
#: The number of cores of this machine must not matter here.
_MANY = 10**6
_Blocks = dict[tuple[str, str], Block]


def check(
    tables: Mapping[str, Mapping[str, Mapping[str, Any]]],
    calls: Sequence[tuple[str, str, str]],
    fates: Fates,
) -> dict[tuple[str, str, str], str]:
    """Report what `blocks apply` or a call would refuse; returns the comments for the blanks."""
    comments: dict[tuple[str, str, str], str] = {}
    blocks: _Blocks = {}
    for kind, named in tables.items():
        for name, fields in named.items():
            table = f"[{kind}.{name}]"
            if _NAME.fullmatch(name) is None:
                why = "a block's name may have only a-z, 0-9 and -; change it in the file"
                fates.add(table, "name", "decide", why=why)
            for field in _blank_fields(fields):
                comments[kind, name, field] = f"{field}: fill in what stands in < >"
                fates.add(table, field, "decide", why="is a blank to be filled in")
            if (block := _made(kind, table, fields, fates)) is not None:
                blocks[kind, name] = block
    for call in calls:
        _check_call(call, blocks, fates)
    return comments


def _blank_fields(fields: Mapping[str, Any]) -> list[str]:
    return [name for name, value in fields.items() if any(map(_is_blank, _texts(value)))]


def _is_blank(text: str) -> bool:
    return _BLANK.fullmatch(text) is not None


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)


def _made(kind: str, table: str, fields: Mapping[str, Any], fates: Fates) -> Block | None:
    try:
        return block_class(kind)(**fields)
    except ImportError:
        why = "was not checked: the extra `quantum` is not installed here"
        fates.add(table, "", "decide", why=why)
    except ValidationError as error:
        blank = _blank_fields(fields)
        for name, text in field_errors(error):
            if name.partition(".")[0] not in blank:
                fates.add(table, name, "decide", why=f"`blocks apply` would refuse it: {text}")
    return None


def _check_call(call: tuple[str, str, str], blocks: _Blocks, fates: Fates) -> None:
    command = blocks.get(("command", call[0]))
    execution = blocks.get(("execution-profile", call[1]))
    hpc = blocks.get(("hpc-profile", call[2]))
    if not (
        isinstance(command, CommandBlock)
        and isinstance(execution, ExecutionProfileBlock)
        and isinstance(hpc, HPCProfileBlock)
    ):
        return  # the problem of that block was reported
    try:
        resolve(command, execution, hpc, Call(script_filename="job", work_dir="/"),
                machine_cores=_MANY)  # fmt: skip
    except InvalidJob as error:
        for problem in error.problems:
            if not re.search(_BLANK, problem):
                why = f"a call with {call[1]} and {call[0]} would be refused: {problem}"
                fates.add(f"[hpc-profile.{call[2]}]", "", "decide", why=why)
