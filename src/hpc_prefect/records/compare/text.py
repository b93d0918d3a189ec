"""A comparison for people: in a terminal, and as Markdown.

Few runs: what differs comes first. Many: the table of settings, then what else differs, shortly.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING

from hpc_prefect.job import notebook
from hpc_prefect.records.compare.differences import Contrast, Section
from hpc_prefect.records.compare.diffs import TextDiff
from hpc_prefect.records.compare.sweep import (
    ERROR,
    WALL,
    Setting,
    Spread,
    Sweep,
    Varying,
)
from hpc_prefect.records.compare.values import (
    ABSENT,
    AtLeast,
    canonical,
    differ,
    number,
    words,
)
from hpc_prefect.records.fold import COSTS, Record
from hpc_prefect.records.markdown import escaped, fenced, table
from hpc_prefect.terminal import printable

if TYPE_CHECKING:
    from hpc_prefect.records.compare import Comparison

#: More runs than these are a table of settings, and a difference is told by how many have what.
FEW = 3
#: Rows of a section that are shown of few runs, and of many; iterations of a loop.
ROWS, ROWS_OF_MANY, ITERATIONS = 20, 4, 12
#: Runs that are named in a line.
_NAMED = 3
#: Rows of a table in a notebook.
_ROWS = 100


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a report: a heading with a table, lines of text or a diff below it."""

    title: str = ""
    head: tuple[str, ...] = ()
    rows: Sequence[tuple[str, ...]] = ()
    lines: Sequence[str] = ()
    verbatim: Sequence[str] = ()


def report(comparison: Comparison, *, measures: Sequence[str] = (), width: int = 0) -> str:
    """The comparison for a terminal.

    Args:
        measures: only these; all when empty.
        width: of the terminal, for which less important columns make room; 0: there is none.
    """
    return "\n\n".join(_plain(part, width) for part in _parts(comparison, measures, width))


def markdown(comparison: Comparison, *, measures: Sequence[str] = ()) -> str:
    """The same in Markdown, for an artifact of Prefect's."""
    return "\n\n".join(_marked(part) for part in _parts(comparison, measures, 0)) + "\n"


def as_html(comparison: Comparison) -> str:
    """The same as a notebook shows it."""
    return "".join(_in_html(part) for part in _parts(comparison, (), 0))


def _parts(comparison: Comparison, measures: Sequence[str], width: int) -> list[Part]:
    if len(comparison.records) > FEW:
        found = [_settings(comparison, measures, width), *_shortly(comparison)]
    else:
        found = [
            _runs(comparison),
            *_sections(comparison),
            _figures(comparison, measures),
            *_curves(comparison, measures),
        ]
    return [_harmless(part) for part in found if part.rows or part.lines or part.verbatim]


def _harmless(part: Part) -> Part:
    """Whatever it is made of: names, states and values are what others wrote."""
    return Part(
        title=printable(part.title),
        head=tuple(map(printable, part.head)),
        rows=[tuple(map(printable, row)) for row in part.rows],
        lines=list(map(printable, part.lines)),
        verbatim=list(map(printable, part.verbatim)),
    )


def names(records: Sequence[Record]) -> list[str]:
    """The runs' names; with the beginning of the id where two have the same."""
    each_ones = [record.name or record.id[:8] or "?" for record in records]
    return [
        f"{name} {record.id[:8]}" if each_ones.count(name) > 1 else name
        for name, record in zip(each_ones, records, strict=True)
    ]


# --- few runs


def _runs(comparison: Comparison) -> Part:
    rows = [
        (name, record.id[:8], record.flow, record.state, _duration(record.wall_seconds))
        for name, record in zip(names(comparison.records), comparison.records, strict=True)
    ]
    return Part(head=("RUN", "ID", "FLOW", "STATE", "TOOK"), rows=rows)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 120 else f"{minutes} min"


def _sections(comparison: Comparison) -> list[Part]:
    heads = tuple(names(comparison.records))
    parts = []
    beside = []
    for section in comparison.differences.sections:
        notes = _notes(section, ROWS)
        if section.rows:
            rows = [(_what(row), *map(words, row.values)) for row in section.rows[:ROWS]]
            parts.append(Part(section.name, ("", *heads), rows, notes))
            parts += [_diff(diff) for diff in section.diffs]
        else:
            beside += notes
    if not any(section.rows for section in comparison.differences.sections):
        known = not (comparison.differences.likely or beside)
        parts.append(Part(lines=["nothing differs" + ("" if known else ", as far as is known")]))
    return [*parts, _same(comparison, beside)]


def _what(row: Contrast) -> str:
    """`executable.sha256 (24 jobs, 18 of them so, as loop/iter-1/evaluate)`."""
    if not row.jobs:
        return printable(row.what)
    count = "1 job" if row.jobs == 1 else f"{row.jobs} jobs"
    alike = "" if row.alike == row.jobs else f", {row.alike} of them so"
    if row.what == "not in every run":
        alike = ""
    return printable(f"{count}: {row.what}{alike}; {'' if row.jobs == 1 else 'as '}{row.example}")


def _notes(section: Section, most: int) -> list[str]:
    more = len(section.rows) - most
    return [*map(printable, section.notes)] + ([f"… and {more} more"] if more > 0 else [])


def _diff(diff: TextDiff) -> Part:
    cut = [f"… {diff.cut} more lines; --full shows them"] if diff.cut else []
    return Part(
        printable(diff.title), verbatim=[printable(_tabs(line)) for line in diff.lines] + cut
    )


def _tabs(line: str) -> str:
    return line.expandtabs(4)


def _same(comparison: Comparison, beside: Sequence[str] = ()) -> Part:
    same = ", ".join(comparison.differences.same)
    likely = ", ".join(f"{name} ({why})" for name, why in comparison.differences.likely.items())
    lines = [f"the same: {same}"] if same else []
    lines += [f"the same as far as is known: {likely}"] if likely else []
    return Part(lines=[*lines, *beside])


def _figures(comparison: Comparison, measures: Sequence[str]) -> Part:
    """Measures, costs and times side by side; of repeats of one setting the mean and the spread."""
    heads = ["", *names(comparison.records)]
    repeats = len(comparison.sweep.settings) == 1 and len(comparison.records) > 1
    two = len(comparison.records) == 2 and not repeats
    heads += ["mean ± deviation"] if repeats else ["difference"] if two else []
    rows = []
    for name in _wanted(tuple(comparison.figures), measures):
        values = comparison.figures[name]
        row = [name, *(_figure(name, value) for value in values)]
        if repeats:
            spread = comparison.sweep.settings[0].measures.get(name, Spread())
            partly = any(isinstance(each, AtLeast) for each in values)
            has_none = spread.n < 2 and (partly or not spread.text)
            row.append("-" if has_none else _spread(spread))
        elif two:
            row.append(_step(values[0], values[1]))
        rows.append(tuple(map(printable, row)))
    notes = (_mixed_notes(comparison) if repeats else []) + _part_notes(comparison)
    return Part("measures, costs and times", tuple(heads), rows, notes)


def _figure(name: str, value: object) -> str:
    """A measure with all its digits; of a cost those that mean something."""
    if name in (*COSTS, WALL) and isinstance(value, float) and not isinstance(value, AtLeast):
        return f"{value:.4g}"
    return words(value)


def _part_notes(comparison: Comparison) -> list[str]:
    if any(isinstance(each, AtLeast) for row in comparison.figures.values() for each in row):
        return ["a cost with + is incomplete, and left out of means"]
    return []


def _step(first: object, second: object) -> str:
    one, two = number(first), number(second)
    return "-" if one is None or two is None else f"{two - one:+.4g}"


def _wanted(known: Sequence[str], measures: Sequence[str]) -> list[str]:
    """Those that were asked for in their order; else all."""
    return [name for name in measures if name in known] if measures else list(known)


def _curves(comparison: Comparison, measures: Sequence[str]) -> list[Part]:
    """The loops' measures by iteration, the middle of long ones left out."""
    parts = []
    for loop, columns in comparison.curves.items():
        moving = [name for name, runs in columns.items()
                  if _is_shown(name, tuple(columns)) and any(map(_moves, runs))]  # fmt: skip
        for name in _wanted(tuple(columns) if measures else moving, measures):
            sides = [dict(points) for points in columns[name]]
            errors = [dict(points) for points in columns.get(name + ERROR, ((),) * len(sides))]
            numbers = sorted({i for side in sides for i in side})
            kept = numbers
            if len(numbers) > ITERATIONS:
                kept = numbers[: ITERATIONS // 2] + numbers[-ITERATIONS // 2 :]
            rows = [
                (
                    str(i),
                    *(_point(side, error, i) for side, error in zip(sides, errors, strict=True)),
                )
                for i in kept
            ]
            left = len(numbers) - len(kept)
            notes = [f"{left} iterations in the middle are not shown"] if left else []
            notes += ["±: the standard error that the flow measured"] if any(errors) else []
            head = ("iteration", *names(comparison.records))
            parts.append(Part(printable(f"loop {loop}: {name}"), head, rows, notes))
    return parts


def _moves(points: Sequence[tuple[int, float]]) -> bool:
    return len({value for _, value in points}) > 1


def _point(side: Mapping[int, float], errors: Mapping[int, float], number_of: int) -> str:
    error = errors.get(number_of)
    return words(side.get(number_of, ABSENT)) + (f" ± {error:.2g}" if error is not None else "")


# --- many runs


def _settings(comparison: Comparison, measures: Sequence[str], width: int) -> Part:
    sweep = comparison.sweep
    columns: dict[str, list[str]] = {
        printable(column.name): [words(setting.values[i], 32) for setting in sweep.settings]
        for i, column in shown_columns(sweep)
    }
    columns["runs"] = [_names_of(comparison, setting) for setting in sweep.settings]
    alike = {name: figures[0] for name, figures in comparison.figures.items()
             if not differ(figures) and name not in measures}  # fmt: skip
    known = [name for name in sweep.measures
             if _is_shown(name, sweep.measures) and name not in alike]  # fmt: skip
    for name in _wanted(sweep.measures if measures else known, measures):
        shown = [_spread(setting.measures[name]) for setting in sweep.settings]
        if any(cell != "-" for cell in shown):
            columns[printable(name)] = shown
    left = _fit(columns, width, [] if measures else [*known[::-1]])
    rows = list(zip(*columns.values(), strict=True))
    setting = "setting" if len(rows) == 1 else "settings"
    title = f"{len(comparison.records)} runs, {len(rows)} {setting}"
    same = ", ".join(f"{printable(name)} {words(value, 28)}" for name, value in alike.items())
    notes = [f"the same in all: {same}"] if same and not measures else []
    return Part(title, tuple(columns), rows, notes + _sweep_notes(comparison, left))


def shown_columns(sweep: Sweep) -> list[tuple[int, Varying]]:
    """All parameters that vary, and of the blocks what tells settings apart beside them."""
    shown: list[tuple[int, Varying]] = []
    parts = set()
    for i, column in enumerate(sweep.columns):
        first: dict[str, int] = {}
        part = tuple(first.setdefault(canonical(value), len(first)) for value in column.values)
        if column.origin == "parameter" or part not in parts:
            shown.append((i, column))
        parts.add(part)
    return shown


def _is_shown(name: str, known: Sequence[str]) -> bool:
    return not (name.endswith(ERROR) and name.removesuffix(ERROR) in known)


def _names_of(comparison: Comparison, setting: Setting) -> str:
    states = [f"{count} {state}" for state, count in Counter(setting.unfinished).items()]
    if len(setting.runs) > 1:
        several = f"{len(setting.runs)} runs" + ("*" if setting.mixed else "")
        return several + (f" ({', '.join(states)})" if states else "")
    state = f" ({setting.unfinished[0]})" if setting.unfinished else ""
    return printable(names(comparison.records)[setting.runs[0]] + state)


def _spread(spread: Spread) -> str:
    """`-1.1373 ± 0.0012 (3)`; one run's value alone; in brackets where no run has completed."""
    if spread.text:
        return spread.text
    if spread.mean is None:
        return "-" if spread.provisional is None else f"({spread.provisional:.8g})"
    if spread.deviation is None:
        return f"{spread.mean:.10g}"
    return f"{rounded(spread.mean, spread.deviation)} ({spread.n})"


def rounded(value: float, error: float) -> str:
    """`-1.1373 ± 0.0012`: as many digits as the error allows, two of its own."""
    if not error or not math.isfinite(error):
        return f"{value:.10g} ± {error:.2g}"
    decimals = 1 - math.floor(math.log10(error))
    if not 0 <= decimals <= 12 or abs(value) >= 1e7:
        return f"{value:.6g} ± {error:.2g}"
    return f"{value:.{decimals}f} ± {error:.{decimals}f}"


def _fit(columns: dict[str, list[str]], width: int, less: Iterable[str]) -> list[str]:
    """Take columns out that a terminal has no room for; which those were."""
    from rich.cells import cell_len

    def needs() -> int:
        return sum(max(map(cell_len, [head, *cells])) + 2 for head, cells in columns.items()) - 2

    left = []
    for name in less:
        # The first measure stays: a table without any says nothing.
        if not width or needs() <= width or sum(each in columns for each in less) < 2:
            break
        if columns.pop(printable(name), None) is not None:
            left.append(name)
    return left[::-1]


def _sweep_notes(comparison: Comparison, left: Sequence[str]) -> list[str]:
    settings = comparison.sweep.settings
    notes = []
    if any(spread.deviation is not None for one in settings for spread in one.measures.values()):
        notes.append("mean ± standard deviation of the sample (number of runs)")
    if comparison.sweep.of_repeats:
        differ_in = ", ".join(map(printable, comparison.sweep.of_repeats))
        notes.append(f"runs that differ in {differ_in} alone are repeats of one setting")
    if count := sum(len(setting.unfinished) for setting in settings):
        have = "1 run has" if count == 1 else f"{count} runs have"
        notes.append(
            f"{have} not completed, and are left out of means; values in brackets are theirs"
        )
    if count := sum(
        spread.left_out
        for setting in settings
        for name, spread in setting.measures.items()
        if spread.n and name not in (*COSTS, WALL)
    ):
        are = "1 value is" if count == 1 else f"{count} values are"
        notes.append(f"{are} missing or not finite, and left out of means")
    if left:
        notes.append(f"no room for {', '.join(map(printable, left))}: --measure shows one")
    return notes + _part_notes(comparison) + _mixed_notes(comparison)


def _mixed_notes(comparison: Comparison) -> list[str]:
    mixed = [each for setting in comparison.sweep.settings for each in setting.mixed]
    if not mixed:
        return []
    regards = ", ".join(dict.fromkeys(mixed))
    return [f"* these runs also differ in {regards}: the spread is not of repeats only"]


def _shortly(comparison: Comparison) -> list[Part]:
    """What else differs, a line each, and the diffs."""
    rows: list[tuple[str, ...]] = []
    diffs: list[Part] = []
    lines: list[str] = []
    for section in comparison.differences.sections:
        if section.name in ("parameters", "blocks"):
            continue  # the columns of the table
        shown = section.rows[:ROWS_OF_MANY]
        rows += [(section.name, _what(row), _variants(comparison, row)) for row in shown]
        if len(section.rows) > len(shown):
            rows.append((section.name, f"… and {len(section.rows) - len(shown)} more", ""))
        lines += map(printable, section.notes)
        diffs += [_diff(diff) for diff in section.diffs]
    head = ("IN", "WHAT", "WHICH RUNS HAVE WHAT") if rows else ()
    return [Part("what else differs", head, rows, lines), *diffs, _same(comparison)]


def _variants(comparison: Comparison, row: Contrast) -> str:
    """`2.1 in 38 runs; 2.2 in hot-polecat, cool-cat`: the most frequent first."""
    called = names(comparison.records)
    groups: dict[str, list[int]] = {}
    for place, value in enumerate(row.values):
        groups.setdefault(canonical(value), []).append(place)
    found = []
    ordered = sorted(groups.values(), key=len, reverse=True)
    for places in ordered[:_NAMED]:
        which = f"{len(places)} runs"
        if len(places) <= _NAMED:
            which = ", ".join(called[i] for i in places)
        found.append(f"{words(row.values[places[0]], 28)} in {printable(which)}")
    more = [f"{len(ordered) - _NAMED} other values"] if len(ordered) > _NAMED else []
    return "; ".join(found + more)


# --- on paper


def _plain(part: Part, width: int) -> str:
    from rich.console import Console  # late: a tenth of a second
    from rich.table import Table
    from rich.text import Text

    paper = StringIO()
    console = Console(file=paper, width=width or 100_000, color_system=None)
    if part.title:
        console.print(Text(part.title))
    if part.head:
        shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for head in part.head:
            shown.add_column(Text(head), overflow="fold")
        for row in part.rows:
            shown.add_row(*map(Text, row))
        console.print(shown)
    for line in part.lines:
        console.print(Text(line))
    # As it stands: a diff that is folded is none.
    text = paper.getvalue() + "\n".join(part.verbatim)
    return "\n".join(line.rstrip() for line in text.splitlines())


def _marked(part: Part) -> str:
    found = [f"### {escaped(part.title)}"] if part.title else []
    if part.head:
        found.append(
            table(list(map(escaped, part.head)), [[*map(escaped, row)] for row in part.rows])
        )
    found += [escaped(line) for line in part.lines]
    found += [fenced(part.verbatim, "diff")] if part.verbatim else []
    return "\n\n".join(found)


def _in_html(part: Part) -> str:
    found = [notebook.heading(part.title)] if part.title else []
    if part.head:
        found.append(notebook.table(part.head, part.rows, _ROWS))
    found += [f"<div>{notebook.word(line)}</div>" for line in part.lines]
    if part.verbatim:
        text = "\n".join(notebook.word(line) for line in part.verbatim)
        found.append(f"<pre>{text}</pre>")
    return "".join(found)
