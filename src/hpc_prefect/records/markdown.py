"""Text as Markdown that Prefect's UI shows, whatever is in the text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def escaped(text: str) -> str:
    """Text that Markdown takes as it is."""
    return "".join(f"\\{each}" if each in "\\`*_[]<>|#~" else each for each in text)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], right: Iterable[str] = ()) -> str:
    """A table of cells that are Markdown already.

    Args:
        right: columns that stand at the right, as numbers do.
    """
    numbers = set(right)
    rule = "|".join("---:" if name in numbers else "---" for name in head)
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, *rows)]
    return "\n".join([lines[0], f"|{rule}|", *lines[1:]])


def fenced(lines: Sequence[str], language: str = "") -> str:
    """Lines that are shown as they are."""
    # Longer than any fence that the text has.
    fence = "`" * max(3, 1 + max(map(_backticks, lines), default=0))
    return "\n".join([f"{fence}{language}", *lines, fence])


def _backticks(line: str) -> int:
    """How many there are in a row, at most."""
    return max(
        (len(run) for run in "".join(c if c == "`" else " " for c in line).split()), default=0
    )
