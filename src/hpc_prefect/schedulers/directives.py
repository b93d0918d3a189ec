"""Checks of values in directive lines and options, for all dialects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def value_problems(what: str, value: str) -> list[str]:
    """Why a value cannot be in a directive, which the scheduler reads unquoted."""
    if value.isascii() and value.isprintable() and not set(value) & set(" \"'\\`$#"):
        return []
    return [
        f"{what} is {value!r}: a name or value for the scheduler has no blanks, quotes or other "
        "special characters"
    ]


def line_problems(what: str, line: str) -> list[str]:
    """Why a directive of the user cannot be in the script: it must be one line."""
    if not line.strip() or not line.isprintable():
        return [f"{what} is {line!r}: write one option on one line"]
    if not line.startswith("-"):
        return [f"{what} is {line!r}: it must begin with - (the prefix is added)"]
    return []


def refused_options(
    what: str, lines: Iterable[str], refused: Mapping[str, str], *, flags: str = ""
) -> list[str]:
    """A sentence for each directive of the user that would undo what this package relies on.

    A line is read as the scheduler reads it: further options after the first one, options in
    quotes, long ones cut short (`--arr`) and short ones in a row (`-Ha1-9`) count like any other.

    Args:
        refused: by option (`-o`, `--output`), why it cannot be given, or what to use instead.
        flags: short options without a value, after which another one may follow in the same word.
    """
    problems = []
    for line in lines:
        found = (_refusal(word, refused, flags) for word in line.translate(_UNQUOTED).split())
        if reason := next(filter(None, found), ""):
            problems.append(f"{what} {line!r} cannot be given: {reason}")
    return problems


_UNQUOTED = str.maketrans("", "", "'\"\\")


def _refusal(word: str, refused: Mapping[str, str], flags: str) -> str:
    """Why the option that this word begins cannot be given; empty if it can, or is no option."""
    if not word.startswith("-"):
        return ""
    if not word.startswith("--"):
        return refused.get("-" + word[1:].lstrip(flags)[:1], "")
    name = word.partition("=")[0]
    meant = [each for each in refused if name != "--" and each.startswith(name)]
    return refused.get(name, "") or (refused[meant[0]] if meant else "")
