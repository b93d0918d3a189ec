"""Results as a notebook shows them: short HTML, in which every word is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

#: Rows of a table, and letters of a cell, at most; letters that stay in one line.
MOST, _LONG, _SHORT = 20, 300, 40
_COLORS = {
    "succeeded": "#2e7d32", "completed": "#2e7d32", "converged": "#2e7d32",
    "failed": "#c62828", "lost": "#c62828", "crashed": "#c62828", "died": "#c62828",
    "cancelled": "#b26a00", "NOT converged": "#b26a00",
}  # fmt: skip


def word(value: object) -> str:
    """Any value as harmless text."""
    text = "" if value is None else str(value)
    shown = text if len(text) <= _LONG else f"{text[:_LONG]}…"
    return html.escape("".join(each if each.isprintable() else " " for each in shown))


def number(value: object) -> str:
    """A measured value, rounded for people."""
    return f"{value:.6g}" if isinstance(value, float) else "" if value is None else str(value)


def heading(title: object, state: str = "", more: Iterable[object] = ()) -> str:
    """`diag: succeeded · 4711`; the state in its colour."""
    color = next((_COLORS[name] for name in _COLORS if state.startswith(name)), "inherit")
    told = f': <b style="color:{color}">{word(state)}</b>' if state else ""
    rest = "".join(f" · {word(each)}" for each in more if each not in ("", None))
    return f"<div><b>{word(title)}</b>{told}{rest}</div>"


def facts(rows: Iterable[tuple[str, object]]) -> str:
    """A table of names and values; what has no value is left out."""
    shown = [
        f'<tr><th style="text-align:left">{word(name)}</th>'
        f'<td style="text-align:left">{word(value)}</td></tr>'
        for name, value in rows
        if value not in ("", None)
    ]
    return f"<table>{''.join(shown)}</table>" if shown else ""


def table(head: Sequence[str], rows: Sequence[Sequence[object]], most: int = MOST) -> str:
    """The first rows, and how many there are beside them. Columns without a value are left out."""
    kept = [n for n in range(len(head)) if any(row[n] not in ("", None) for row in rows)]
    lines = [_line("th", [head[n] for n in kept])]
    lines += [_line("td", [row[n] for n in kept]) for row in rows[:most]]
    more = f"<div>… and {len(rows) - most} more</div>" if len(rows) > most else ""
    return f"<table>{''.join(lines)}</table>{more}"


def _line(tag: str, cells: Iterable[object]) -> str:
    return f"<tr>{''.join(_cell(tag, word(each)) for each in cells)}</tr>"


def _cell(tag: str, text: str) -> str:
    wrapped = ";white-space:nowrap" if len(text) <= _SHORT else ""
    return f'<{tag} style="text-align:left{wrapped}">{text}</{tag}>'
