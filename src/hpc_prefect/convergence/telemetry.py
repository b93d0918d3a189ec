"""Shows rows: as a log line, a table, a plot. Pure: makes text and bytes."""

from __future__ import annotations

import io
import json
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc_prefect.convergence.stop import ERROR, Cell, Row, StopRule

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg

#: How many rows a table has at most: it is one JSON value in Prefect's database.
TABLE_ROWS = 500
#: Rows of the chart of text, and the letters of its longest bar.
CHART_ROWS, CHART_WIDTH = 30, 40

# matplotlib's font and text caches are not thread-safe.
_drawing = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """What the plot of a loop shows.

    Attributes:
        columns: measured columns, one line each; the stop rule's column when empty.
        reference: label → value; a dashed line for each. The lower panel then shows the columns'
            absolute error against the first, without a reference the watched column's change.
        target: an acceptable error; a dotted line in the lower panel.
        unit: of the columns, such as "Ha"; errors are shown in thousandths ("mHa").
    """

    columns: tuple[str, ...] = ()
    reference: Mapping[str, float] = field(default_factory=dict)
    target: float | None = None
    unit: str = ""


def text(value: Cell) -> str:
    """A value as text: ten digits, enough for a tenth of a microhartree at -109 Ha."""
    if value is None:
        return "-"
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def line(row: Row) -> str:
    """One row as one line of a log."""
    own = {"iteration", "change", "seconds", "time"}
    own |= {name + ERROR for name in row}  # a standard error stands behind its value
    parts = [f"{name}={_measured(row, name)}" for name in row if name not in own]
    step = row["change"]
    if isinstance(step, float):
        parts.append(f"change={step:.3g}")
    return f"iteration {row['iteration']}: {' '.join(parts)} ({row['seconds']} s)"


def _measured(row: Row, name: str) -> str:
    error = row.get(name + ERROR)
    return text(row[name]) + (f"±{error:.2g}" if isinstance(error, float) else "")


def jsonl(history: Sequence[Row]) -> str:
    """The rows as JSON lines."""
    return "".join(json.dumps(_json_row(row)) + "\n" for row in history)


def table(history: Sequence[Row]) -> list[dict[str, Cell]]:
    """The newest rows as a table artifact's data: rounded, as strict JSON."""
    return [
        {name: _json_cell(_rounded(value)) for name, value in row.items()}
        for row in history[-TABLE_ROWS:]
    ]


def _rounded(value: Cell) -> Cell:
    """As many digits as a log line shows."""
    return float(f"{value:.10g}") if isinstance(value, float) else value


def chart(history: Sequence[Row], rule: StopRule, plot: Plot, title: str, png: Path | None) -> str:
    """The newest values as bars of text, in Markdown, which needs no file server."""
    name = (*plot.columns, rule.value)[0]
    rows = [row for row in history if isinstance(row.get(name), int | float)][-CHART_ROWS:]
    values = [float(row[name] or 0) for row in rows]
    finite = [value for value in values if math.isfinite(value)] or [0.0]
    low, high = min(finite), max(finite)
    lines = [
        f"| {row['iteration']} | {_measured(row, name)} | {_bar(value, low, high)} |"
        for row, value in zip(rows, values, strict=True)
    ]
    unit = f" ({plot.unit})" if plot.unit else ""
    head = f"## {title}\n\n| | {name}{unit} | {text(low)} … {text(high)} |\n|---:|---:|---|\n"
    return head + "\n".join(lines) + "\n" + (f"\nThe plot: `{png}`\n" if png else "")


def _bar(value: float, low: float, high: float) -> str:
    if not math.isfinite(value):
        return str(value)
    share = (value / 2 - low / 2) / (high / 2 - low / 2) if high > low else 0.0  # no overflow
    return "█" * max(1, round(CHART_WIDTH * share))


def _json_row(row: Row) -> dict[str, Cell]:
    return {name: _json_cell(value) for name, value in row.items()}


def _json_cell(value: Cell) -> Cell:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no nan and inf, and browsers refuse them
    if isinstance(value, int) and abs(value) > 2**53:
        return str(value)  # a browser would round it
    return value


def draw(history: Sequence[Row], rule: StopRule, plot: Plot, title: str) -> bytes:
    """The plot as a PNG: the values, and below on a log scale the error or the change.

    Raises:
        ImportError: matplotlib is not installed.
    """
    with _drawing:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        # Fixed margins: matplotlib's layout engines take twice the time of the drawing.
        figure = Figure(figsize=(7, 6), dpi=100)
        figure.subplots_adjust(left=0.17, right=0.97, top=0.94, bottom=0.09, hspace=0.06)
        canvas = FigureCanvasAgg(figure)
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        columns = plot.columns or (rule.value,)
        _draw_values(upper, history, columns, plot)
        if plot.reference:
            _draw_errors(lower, history, columns, plot)
        else:
            _draw_changes(lower, history, rule, plot)
        _dress(upper, lower, len(history))
        upper.set_title(title, fontsize=11, color="firebrick" if "NOT" in title else "black")
        canvas.draw()
        return _small_png(canvas)


def _small_png(canvas: FigureCanvasAgg) -> bytes:
    """A PNG with a palette, which has a third of the size."""
    from PIL import Image

    small = io.BytesIO()
    image = Image.frombytes("RGBA", canvas.get_width_height(), bytes(canvas.buffer_rgba()))
    image.convert("RGB").quantize(64).save(small, format="png")
    return small.getvalue()


def _draw_values(axes: Axes, history: Sequence[Row], columns: Sequence[str], plot: Plot) -> None:
    for index, name in enumerate(columns):
        style: dict[str, Any] = {"color": f"C{index}", "ms": 4, "lw": 1.4, "label": name}
        numbers, values = _points(history, name)
        errors = _errors(history, numbers, name)
        if any(errors):
            axes.errorbar(
                numbers, values, yerr=errors, fmt="o-", capsize=2, elinewidth=0.8, **style
            )
        else:
            axes.plot(numbers, values, "o-", **style)
    for index, (label, value) in enumerate(plot.reference.items()):
        color = ("black", "dimgray", "darkgray")[index % 3]
        axes.axhline(value, ls="--", lw=1, color=color, label=f"{label} {text(float(value))}")
    axes.set_ylabel(f"{columns[0]} ({plot.unit})" if plot.unit else columns[0])
    # Whole numbers on the axis (-109.0421), never "+1e-3 -1.09e2".
    axes.ticklabel_format(axis="y", useOffset=False, scilimits=(-5, 7))


def _draw_errors(axes: Axes, history: Sequence[Row], columns: Sequence[str], plot: Plot) -> None:
    label, exact = next(iter(plot.reference.items()))
    scale, unit = _distance_unit(plot)
    for index, name in enumerate(columns):
        numbers, values = _points(history, name)
        distances = [abs(value - exact) * scale for value in values]
        _draw_log(axes, numbers, distances, color=f"C{index}", label=name)
    if plot.target:
        target = plot.target * scale
        axes.axhline(target, ls=":", lw=1.2, color="green", label=f"target {target:g}{unit}")
    axes.set_ylabel(f"error against {label}" + (f" ({unit.strip()})" if unit else ""))


def _draw_changes(axes: Axes, history: Sequence[Row], rule: StopRule, plot: Plot) -> None:
    scale, unit = _distance_unit(plot)
    numbers, values = _points(history, "change")
    label = f"|change of the mean of {rule.average}|" if rule.average > 1 else "|change|"
    _draw_log(axes, numbers, [abs(v) * scale for v in values], color="C0", label=label)
    whole = {n: rule.change(history[:n]) for n in numbers}
    with_error = [(abs(c.size) + c.error) * scale if c else 0.0 for c in whole.values()]
    if any(c and c.error for c in whole.values()):
        style = {"color": "C0", "alpha": 0.4, "label": "with its standard error"}
        _draw_log(axes, numbers, with_error, **style)
    if rule.tolerance is not None:
        limit = rule.tolerance * scale
        axes.axhline(limit, ls=":", lw=1.2, color="green", label=f"tolerance {limit:g}{unit}")
    axes.set_ylabel(f"|change of {rule.value}|" + (f" ({unit.strip()})" if unit else ""))


def _distance_unit(plot: Plot) -> tuple[float, str]:
    return (1e3, f" m{plot.unit}") if plot.unit else (1.0, "")


def _draw_log(axes: Axes, numbers: list[int], values: list[float], **style: Any) -> None:
    """Points on a log scale; zeros cannot be shown and are left out."""
    kept = [(n, v) for n, v in zip(numbers, values, strict=True) if v > 0]
    if kept:
        axes.set_yscale("log")
    axes.plot([n for n, _ in kept], [v for _, v in kept], "o-", ms=4, lw=1.4, **style)


def _dress(upper: Axes, lower: Axes, count: int) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    lower.set_xlabel("iteration")
    lower.set_xlim(0.5, max(count, 2) + 0.5)
    lower.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if lower.get_yscale() == "log":
        low, high = lower.get_ylim()
        decades = math.log10(high / low)
        steps = (1.0, 2.0, 5.0) if decades < 3 else (1.0,)
        lower.yaxis.set_major_locator(LogLocator(base=10, subs=steps, numticks=10))
        # 0.5 and 20, not 5×10⁻¹ and 2×10¹.
        lower.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        lower.yaxis.set_minor_formatter(NullFormatter())
    for axes in (upper, lower):
        axes.grid(alpha=0.25, lw=0.6)
        axes.tick_params(labelsize=9)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8, framealpha=0.85)


def _errors(history: Sequence[Row], numbers: Sequence[int], column: str) -> list[float]:
    """The standard errors of a column in these iterations; 0 if there is none."""
    cells = [history[number - 1].get(column + ERROR) for number in numbers]
    return [float(cell) if isinstance(cell, int | float) else 0.0 for cell in cells]


def _points(history: Sequence[Row], column: str) -> tuple[list[int], list[float]]:
    """Iteration numbers and finite values of a column; rows without one are left out."""
    numbers, values = [], []
    for number, row in enumerate(history, start=1):
        value = row.get(column)
        if isinstance(value, int | float) and math.isfinite(value):
            numbers.append(number)
            values.append(float(value))
    return numbers, values
