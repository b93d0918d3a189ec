"""Any text as safe Markdown for Prefect's UI."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def escaped(text: str) -> str:
    """Text with its special characters escaped, so that Markdown shows it as it is."""
    return "".join(f"\\{each}" if each in "\\`*_[]<>|#~" else each for each in text)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], right: Iterable[str] = ()) -> str:
    """A table; its cells are Markdown already.

    Args:
        right: names of columns that are aligned right, as numbers are.
    """
    numbers = set(right)
    rule = "|".join("---:" if name in numbers else "---" for name in head)
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, *rows)]
    return "\n".join([lines[0], f"|{rule}|", *lines[1:]])


def fenced(lines: Sequence[str], language: str = "") -> str:
    """Lines as a code block."""
    # Longer than any fence in the text.
    fence = "`" * max(3, 1 + max(map(_backticks, lines), default=0))
    return "\n".join([f"{fence}{language}", *lines, fence])


def _backticks(line: str) -> int:
    """The most backticks in a row."""
    return max(
        (len(run) for run in "".join(c if c == "`" else " " for c in line).split()), default=0
    )
