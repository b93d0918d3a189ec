"""What every dialect checks of the values that it writes into directive lines and options."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def value_problems(what: str, value: str) -> list[str]:
    """What keeps a value out of a directive: such a line is read by the scheduler, unquoted."""
    if value.isascii() and value.isprintable() and not set(value) & set(" \"'\\`$#"):
        return []
    return [
        f"{what} is {value!r}: a name or value for the scheduler has no blanks, quotes or other "
        "special characters"
    ]


def line_problems(what: str, line: str) -> list[str]:
    """What keeps a free directive out of the script; it is the site owner's text, but one line."""
    if not line.strip() or not line.isprintable():
        return [f"{what} is {line!r}: write one option on one line"]
    if not line.startswith("-"):
        return [f"{what} is {line!r}: it must begin with - (the prefix is added)"]
    return []


def refused_options(
    what: str, lines: Iterable[str], refused: Mapping[str, str], *, letters: str = ""
) -> list[str]:
    """A sentence for each free directive that would undo what this package relies on.

    Args:
        refused: by option (`-o`, `--output`), why it cannot be given, or what to use instead.
        letters: short options that need no blank before their value, as in `-N5`.
    """
    problems = []
    for line in lines:
        name = line.split()[0].partition("=")[0] if line.split() else ""
        if len(name) > 2 and name[1] != "-" and name[1] in letters:
            name = name[:2]
        if name in refused:
            problems.append(f"{what} {line!r} cannot be given: {refused[name]}")
    return problems
