"""Check that a launcher line, the site owner's shell text, keeps the program's exit code."""

from __future__ import annotations

import re
from collections.abc import Iterator

#: A token of a shell line; the kinds are those that matter for the line's exit status.
_PART = re.compile(
    r"""(?P<kept>\\.|\$\{[^{}]*\}|[<>]&|&>>?|[^\S\n]+)
    |(?P<quoted>'[^']*'|"(?:\\.|[^"\\])*"|`(?:\\.|[^`\\])*`)
    |(?P<into>[$<>]\()
    |(?P<command>\{command\})
    |(?P<hides>\n|;|\|\||&(?!&)|(?<![^\s|&()])\#)
    |(?P<begins>&&|\|&?|\()
    |(?P<ends>\))
    |(?P<open>['"`\\])
    |(?P<word>[^\s\\'"`$<>|&;()\#{}]+|.)""",
    re.VERBOSE | re.DOTALL,
)
_INSTEAD = "put it into setup or teardown, or into a script that is the launcher"


def status_problems(line: str) -> list[str]:
    """Why a launcher line would lose the exit code of the program; empty if it keeps it.

    The program is `{command}` or follows the line. Commands may stand before it (`&&`), and it may
    be in a pipe (the script sets `pipefail`).
    """
    return list(dict.fromkeys(_problems(line.strip().replace("\\\n", " "))))


def _problems(line: str) -> Iterator[str]:
    brackets = substitution = 0  # how many are open; the first bracket of a substitution counts
    begins, seen = True, False  # a command begins here; the program has been seen
    for match in _PART.finditer(line):
        kind, text = match.lastgroup, match[0]
        if (kind == "quoted" and "{command}" in text) or (kind == "command" and substitution):
            yield (
                "{command} stands in quotes or in a substitution, which change it or lose its exit"
                f" code; write it outside of them, or {_INSTEAD}"
            )
        elif kind == "open":
            yield f"{text} is not closed, or escapes nothing"
        if (text == "$(" or text[0] == "`") and seen and not substitution:
            yield _hidden("a substitution after {command}")
        if kind == "into" or substitution:
            substitution += (kind == "into" or text == "(") - (kind == "ends")
            begins = False
            continue
        if kind == "kept" and text.isspace():
            continue
        if kind == "hides":
            yield _hidden("an end of line" if text == "\n" else text)
        elif begins and text in ("!", "coproc"):
            yield _hidden(f"{text} before a command")
        elif kind in ("begins", "ends"):
            brackets += (text == "(") - (kind == "ends")
        if brackets < 0:
            yield "a bracket is closed that was not opened"
            return
        seen = seen or kind == "command"
        begins = kind == "begins" or (begins and text == "time")
    if brackets or substitution:
        yield "a bracket is not closed"


def _hidden(what: str) -> str:
    return f"{what} hides the program's exit code; {_INSTEAD}"
