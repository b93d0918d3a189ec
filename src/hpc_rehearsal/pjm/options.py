"""Reads pjsub's options and the script's #PJM lines as one request."""

from __future__ import annotations

from hpc_rehearsal.common.text import split, unquoted
from hpc_rehearsal.pjm.formats import refusal, unknown_option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Record = dict[str, Any]
    Pairs = list[tuple[str, str]]

_VALUED = {
    **dict.fromkeys(("-N", "--name"), "name"),
    **dict.fromkeys(("-L", "--rsc-list"), "resources"),
    **dict.fromkeys(("-g", "--gname"), "group"),
    **dict.fromkeys(("-o", "--out"), "out"),
    **dict.fromkeys(("-e", "--err"), "err"),
    **dict.fromkeys(("-p", "--priority"), "priority"),
    **dict.fromkeys(("-m", "--mail"), "mail"),
    "--mail-list": "mail",
    "--mpi": "mpi",
    "--llio": "llio",
    "--spath": "spath",
    "-x": "variables",
    "--comment": "comment",
    "--at": "at",
    "-z": "print",
    "--fs": "fs",
    "--appname": "appname",
    "--sparam": "sparam",
    "-w": "wait",
    "--omp": "omp",
}
_FLAGS = {
    **dict.fromkeys(("-s", "--stats"), "stats"),
    **dict.fromkeys(("-S", "--STATS"), "node-stats"),
    "-j": "join",
    "-X": "whole",
    "--restart": "restart",
    "--norestart": "norestart",
    "--verbose": "verbose",
    "--bulk": "bulk",
    "--step": "step",
    "--interact": "interact",
}
#: Options for the command line only: an error in a script.
_COMMAND_ONLY = {
    "--no-check-directory": "unchecked",
    "--all-mount-gfscache": "unchecked",
    "--no-check-gfscache": "unchecked",
}
#: Options that are added up; of the others the last one counts.
_LISTS = ("resources", "mpi", "variables", "llio")
_PREFIX = "#PJM"
_LONGEST_LINE = 4096


def parsed(words: list[str], *, inside: bool) -> tuple[Pairs, list[str]]:
    """The options in their order, and the remaining words: a script and its arguments."""
    flags = _FLAGS if inside else {**_FLAGS, **_COMMAND_ONLY}
    found: Pairs = []
    ahead = list(words)
    while ahead and ahead[0].startswith("-") and ahead[0] != "-":
        word = ahead.pop(0)
        name, equals, value = word.partition("=") if word.startswith("--") else (word, "", "")
        if word[:2] != "--" and len(word) > 2 and word[:2] in _VALUED:
            name, equals, value = word[:2], "=", word[2:]
        if name in flags and not equals:
            found.append((flags[name], ""))
        elif name in _VALUED and (equals or ahead):
            found.append((_VALUED[name], value if equals else ahead.pop(0)))
        else:
            raise unknown_option("pjsub", name)
    return found, ahead


def directives(script: str, file: str) -> Pairs:
    """The options in the script, up to its first command."""
    found: Pairs = []
    for number, line in enumerate(script.split("\n"), 1):
        if line.strip() and not line.startswith("#"):
            break
        if not line.startswith((f"{_PREFIX} ", f"{_PREFIX}\t")):
            continue
        where = f"Script file {file} line {number}."
        if len(line.encode(errors="surrogateescape")) > _LONGEST_LINE:
            raise refusal("pjsub", 25, f"Line length too long.\n{where}")
        if line.count('"') % 2 or line.count("'") % 2:
            said = "Option arguments must be enclosed in quotation mark."
            raise refusal("pjsub", 8, f"{said}\n{where}")
        words = [unquoted(part) for part in split(line[len(_PREFIX) :], " \t") if part]
        options, rest = parsed(words, inside=True)
        if rest:
            raise refusal("pjsub", 9, f"Invalid argument: {rest[0]}.")
        found += options
    return found


def merged(outside: Pairs, inside: Pairs) -> Record:
    """One request; the command line wins where both say the same thing."""
    request: Record = {name: [] for name in _LISTS}
    for name, value in [*inside, *outside]:
        if name in _LISTS:
            request[name] += [part for part in split(value, ",") if part]
        elif name in ("restart", "norestart"):
            request["again"] = name
        else:
            request[name] = value
    return request


def items(parts: list[str]) -> dict[str, str]:
    """Names and values; the last of each name counts."""
    pairs = [part.partition("=") for part in parts]
    return {name: value for name, _, value in pairs}
