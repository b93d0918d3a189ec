"""Writes tables of blocks as a TOML file for `hpc-prefect blocks apply`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

#: By kind and name of a block, its fields; as `hpc_prefect.block_files.document` reads them.
Tables = Mapping[str, Mapping[str, Mapping[str, Any]]]
#: By kind, name and field, the comment above the field's line.
Comments = Mapping[tuple[str, str, str], str]


class Reference(str):
    """A text that `blocks apply` fills in, such as `${ENV:MY_TOKEN}`."""

    __slots__ = ()


def write_toml(tables: Tables, comments: Comments, header: str) -> str:
    """The file's text; reading it gives the same tables again."""
    parts = ["".join(f"# {line}".rstrip() + "\n" for line in header.splitlines())]
    for kind, blocks in tables.items():
        for name, fields in blocks.items():
            said = {key[2]: text for key, text in comments.items() if key[:2] == (kind, name)}
            parts.append("\n".join(_table((kind, name), fields, said)) + "\n")
    return "\n".join(parts)


def _table(
    path: tuple[str, ...], fields: Mapping[str, Any], said: Mapping[str, str]
) -> Iterator[str]:
    """The lines of a table: its values, then the tables in it."""
    yield f"[{'.'.join(_key(part) for part in path)}]"
    inner = {name: each for name, each in fields.items() if isinstance(each, Mapping)}
    for name, value in fields.items():
        if name not in inner:
            yield from _comment(said.get(name, ""))
            yield f"{_key(name)} = {_value(value)}"
    for name, values in inner.items():
        yield ""
        yield from _comment(said.get(name, ""))
        yield f"[{'.'.join(_key(part) for part in (*path, name))}]"
        yield from (f"{_key(key)} = {_value(value)}" for key, value in values.items())


def _comment(text: str) -> Iterator[str]:
    if text:
        yield f"# {''.join(c if c.isprintable() else ' ' for c in text)}"


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _text(name)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return _text(value if isinstance(value, Reference) else value.replace("${", "$${"))
    if isinstance(value, Mapping):
        pairs = (f"{_key(str(key))} = {_value(each)}" for key, each in value.items())
        return "{ " + ", ".join(pairs) + " }" if value else "{}"
    return f"[{', '.join(_value(each) for each in value)}]"


def _text(text: str) -> str:
    """A basic string: TOML has JSON's escapes, except for one character."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
