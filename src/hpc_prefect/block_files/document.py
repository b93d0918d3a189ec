"""Reading and checking a TOML file of blocks and Variables.

    [command.cmd-diag]                     a CommandBlock named cmd-diag
    [execution-profile.exec-diag]          an ExecutionProfileBlock
    [hpc-profile.hpc-local]                an HPCProfileBlock
    [ibm-credentials.ibm]                  an IBMQuantumCredentials
    [quantum-backend.backend-sim]          a QuantumBackendBlock
    [variable.algorithm]                   a Prefect Variable; the table is its value

In every text `${HERE}` is the file's folder, `${VENV}` the running Python's environment, and
`${ENV:NAME}` the environment variable NAME, for secrets that must not stand in a file. `$${` is a
plain `${`, for the shell. A text such as `"<project>"` is a blank that is to be filled in: the file
is refused, and the message has the field's comment.

Everything here is pure: text in, a `Document` out. Saving it is in `hpc_prefect.block_files.apply`.
"""

from __future__ import annotations

import datetime
import math
import re
import textwrap
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from prefect.blocks.core import Block
from pydantic import ValidationError

from hpc_prefect.blocks import CommandBlock, ExecutionProfileBlock, HPCProfileBlock
from hpc_prefect.blocks.checks import field_errors, suggestion
from hpc_prefect.errors import ConfigurationError
from hpc_prefect.extras import missing

#: Tables of the file in the order in which they are saved.
BLOCKS: dict[str, type[Block]] = {
    "command": CommandBlock,
    "execution-profile": ExecutionProfileBlock,
    "hpc-profile": HPCProfileBlock,
}
QUANTUM = {
    "ibm-credentials": "IBMQuantumCredentials",
    "quantum-backend": "QuantumBackendBlock",
}
VARIABLE = "variable"
KINDS = (*BLOCKS, *QUANTUM, VARIABLE)

_PLACEHOLDER = re.compile(r"\$\$\{|\$\{([^{}]*)\}")
#: How many letters of a line's comment a message has.
_COMMENT = 160
_BLANK = re.compile(r"<[a-z][a-z -]*>")


@dataclass(frozen=True, slots=True)
class Item:
    """One table of the file: a block, or the value of a Variable."""

    kind: str
    name: str
    value: Any

    @property
    def table(self) -> str:
        """As the file writes it."""
        return f"[{self.kind}.{self.name}]"


@dataclass(frozen=True, slots=True)
class Document:
    """The content of a file without problems of its own.

    Attributes:
        source: the file's name, for messages.
        items: in the order in which they are saved.
        foreign_commands: for execution profiles whose command is not in the file: the profile's
            place in it and its `command_name`, which may be on the server.
        warnings: what is odd but can be saved.
    """

    source: str
    items: tuple[Item, ...]
    foreign_commands: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(slots=True)
class _Reader:
    """The file's content, and its problems so far."""

    lines: dict[tuple[str, ...], int]
    comments: dict[int, str]
    values: Mapping[str, str]
    environ: Mapping[str, str]
    problems: list[str] = field(default_factory=list)
    blamed: set[tuple[str, ...]] = field(default_factory=set)

    def complain(self, where: tuple[str, ...], text: str) -> None:
        """Note a problem; `where` is table, name, field …"""
        self.blamed.add(where[:3])
        self.problems.append(f"{self.place(where)}: {text}")

    def place(self, where: tuple[str, ...]) -> str:
        """`line 7, [table.name] field`, with the line of the innermost part that is in the file."""
        table, rest = ".".join(where[:2]), ".".join(where[2:])
        line = self.line(where)
        return f"{f'line {line}, ' if line else ''}[{table}]{' ' + rest if rest else ''}"

    def line(self, where: tuple[str, ...]) -> int:
        """The line of the innermost part that is in the file; 0 if there is none."""
        return next((n for i in range(len(where), 0, -1) if (n := self.lines.get(where[:i]))), 0)

    def expand(self, value: object, where: tuple[str, ...]) -> Any:
        """JSON values with every placeholder filled in."""
        if isinstance(value, dict):
            return {key: self.expand(item, (*where, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self.expand(item, where) for item in value]
        if isinstance(value, str):
            if where[0] != VARIABLE and _BLANK.fullmatch(value):
                self.complain(where, f"fill in {value}, or remove the line{self._comment(where)}")
            return _PLACEHOLDER.sub(lambda match: self._fill(match, where), value)
        if isinstance(value, datetime.date | datetime.time):
            self.complain(where, f"{value} is a date or time: put it in quotes")
        if isinstance(value, float) and not math.isfinite(value):
            self.complain(where, f"{value} is a number that Prefect cannot store")
        return value

    def _comment(self, where: tuple[str, ...]) -> str:
        """The file's comment on a field; only once for several blanks in one line."""
        comment = self.comments.pop(self.line(where), "")
        comment = textwrap.shorten(comment, _COMMENT, placeholder=" …")
        return f"; the file says: {comment}" if comment else ""

    def _fill(self, match: re.Match[str], where: tuple[str, ...]) -> str:
        name: str | None = match[1]
        if name is None:
            return "${"
        if name in self.values:
            return self.values[name]
        variable = name.removeprefix("ENV:")
        if variable == name:
            known = "${HERE}, ${VENV} and ${ENV:NAME}"
            self.complain(
                where,
                f"unknown placeholder ${{{name}}}: there are {known}; for a ${{ that the shell is "
                "to read, write $${",
            )
        elif variable not in self.environ:
            self.complain(where, f"the environment variable {variable!r} is not set")
        else:
            return self.environ[variable]
        return match[0]


def read_document(
    text: str, *, here: str, venv: str, environ: Mapping[str, str], source: str = "the file"
) -> Document:
    """Read and check the text of a file, without looking anything up elsewhere.

    Raises:
        ConfigurationError: with all problems, each with its line, table and field.
    """
    text = text.removeprefix("\ufeff")  # some editors write it, and TOML does not allow it
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{source} is not TOML: {error}; nothing was saved") from error
    reader = _Reader(_lines(text), _comments(text), {"HERE": here, "VENV": venv}, environ)
    items = []
    for kind in (*KINDS, *sorted(set(tables) - set(KINDS))):
        content = tables.get(kind, {})
        if kind not in KINDS:
            reader.complain((kind,), f"there is no such table{suggestion(kind, KINDS)}")
        elif not isinstance(content, dict):
            reader.complain((kind,), f"must be tables, such as [{kind}.some-name]")
        else:
            read = (_read_item(reader, kind, name, value) for name, value in content.items())
            items += [item for item in read if item is not None]
    if reader.problems:
        raise refused(source, reader.problems)
    return Document(source, tuple(items), _foreign_commands(reader, items), _warnings(items))


def refused(source: str, problems: list[str]) -> ConfigurationError:
    """The error for a file that is not saved."""
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    lines = "".join(f"\n  - {problem}" for problem in problems)
    return ConfigurationError(f"{source}: {count}, nothing was saved:{lines}")


def _read_item(reader: _Reader, kind: str, name: str, value: object) -> Item | None:
    where = (kind, name)
    allowed = r"[a-z0-9_-]+" if kind == VARIABLE else r"[a-z0-9-]+"
    if re.fullmatch(allowed, name) is None:
        letters = "a-z, 0-9, - and _" if kind == VARIABLE else "a-z, 0-9 and -"
        reader.complain(where, f"the name {name!r} may have only {letters}")
    expanded = reader.expand(value, where)
    if kind != VARIABLE and not isinstance(expanded, dict):
        reader.complain(where, "must be a table of fields")
        return None
    if kind == VARIABLE:
        return Item(kind, name, expanded)
    block = _block(reader, where, expanded)
    return None if block is None else Item(kind, name, block)


def _block(reader: _Reader, where: tuple[str, str], fields: dict[str, Any]) -> Block | None:
    try:
        kind = block_class(where[0])
    except ImportError as error:
        reader.complain(where, missing("this block", "qiskit", "numpy") or str(error))
        return None
    try:
        return kind(**fields)
    except ValidationError as error:
        found = [((*where, *(p.split(".") if p else ())), text) for p, text in field_errors(error)]
        # A field whose placeholder could not be filled would cause a misleading second problem.
        for place, text in [each for each in found if each[0][:3] not in reader.blamed]:
            reader.complain(place, text)
    except (TypeError, ValueError, ConfigurationError) as error:  # a block's own checks
        reader.complain(where, str(error))
    return None


def block_class(kind: str) -> type[Block]:
    """The block class of a table; the quantum ones need their extra.

    Raises:
        ImportError: the extra is not installed.
    """
    if kind in BLOCKS:
        return BLOCKS[kind]
    from hpc_prefect import quantum

    found: type[Block] = getattr(quantum, QUANTUM[kind])
    return found


def _foreign_commands(reader: _Reader, items: list[Item]) -> tuple[tuple[str, str], ...]:
    here = {item.value.command_name for item in items if item.kind == "command"}
    return tuple(
        (reader.place((item.kind, item.name, "command_name")), item.value.command_name)
        for item in items
        if item.kind == "execution-profile"
        if item.value.command_name and item.value.command_name not in here
    )


def _warnings(items: list[Item]) -> tuple[str, ...]:
    """Commands whose program no profile of the file has; that one of several lacks it is normal."""
    profiles = [item for item in items if item.kind == "hpc-profile"]
    executables = [each.value.executables | each.value.gpu.executables for each in profiles]
    where = ", ".join(each.table for each in profiles)
    verb = "has" if len(profiles) == 1 else "have"
    return tuple(
        f"{where} {verb} no executable {command.value.executable_key!r}, "
        f"so {command.table} cannot run there"
        for command in items
        if command.kind == "command" and profiles
        if not any(command.value.executable_key in each for each in executables)
    )


def _lines(text: str) -> dict[tuple[str, ...], int]:
    """The line of each table and field, found by patterns: good enough for messages."""
    found: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*\[{1,2}([\w\s.\"'-]+)\]", line):
            table = _path(header[1])
            for length in range(1, len(table) + 1):
                found.setdefault(table[:length], number)
        elif key := re.match(r"\s*([\w.\"'-]+)\s*=", line):
            found.setdefault((*table, *_path(key[1])), number)
    return found


def _comments(text: str) -> dict[int, str]:
    """The comment of each line that has one: the lines above it, and the end of the line."""
    found: dict[int, str] = {}
    above: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.lstrip().startswith("#"):
            above.append(line.strip("# "))
            continue
        beside = line.rpartition('"')[2].partition("#")[2].strip()
        if comment := " ".join([*above, beside]).strip():
            found[number] = comment
        above = []
    return found


def _path(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))
