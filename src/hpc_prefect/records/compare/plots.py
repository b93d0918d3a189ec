"""Pictures of a comparison: a loop's convergence in each run, and a measure against a parameter.

Single runs are dots. Bars are a mean and the sample's standard deviation, and stand only where a
setting has two completed runs or more.
"""

from __future__ import annotations

import io
import math
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

from hpc_prefect.errors import ConfigurationError
from hpc_prefect.extras import missing
from hpc_prefect.records.compare.sweep import ERROR, Setting, Varying, in_order
from hpc_prefect.records.compare.text import FEW, names, shown_columns
from hpc_prefect.records.compare.values import (
    ABSENT,
    apart_at_a_glance,
    canonical,
    flat,
    natural,
    words,
)
from hpc_prefect.records.compare.values import number as finite_number
from hpc_prefect.records.fold import COSTS
from hpc_prefect.terminal import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

    from hpc_prefect.records.compare import Comparison

Form = Literal["png", "svg"]

#: What `against` is for the convergence curves.
ITERATION = "iteration"
#: Panels of a picture, lines that are told apart by colour, names of a legend.
PANELS, COLOURS, LEGEND = 4, 8, 20
#: Places of a category on an axis that are named.
_CATEGORIES = 24
#: Above this ratio of the largest to the smallest value a log scale is thought of.
_WIDE = 30.0

#: matplotlib computes with more than the values themselves: nearer to the largest it overflows.
_LARGEST = 1e300

# matplotlib's font and text caches are not made for two threads at once.
_drawing = threading.Lock()


def picture(
    comparison: Comparison, *, form: Form = "png", measures: Sequence[str] = (), against: str = ""
) -> bytes:
    """Draw a comparison.

    Args:
        form: of the file.
        measures: a panel each; when empty those that vary, a few of them.
        against: the parameter, or the other measure, that is on the axis below; `iteration` for the
            convergence curves. When empty: many runs against what varies, few by iteration.

    Raises:
        ConfigurationError: matplotlib is not installed, or there is no such thing to draw.
    """
    if told := missing("a plot", "matplotlib"):
        raise ConfigurationError(told)
    with _drawing:
        if _wants_curves(comparison, measures, against):
            figure = _draw_curves(comparison, measures)
        else:
            figure = _draw_sweep(comparison, measures, against)
        return _file(figure, form)


def _wants_curves(comparison: Comparison, measures: Sequence[str], against: str) -> bool:
    if against:
        return against == ITERATION
    has_curves = any(
        name in columns or not measures
        for columns in comparison.curves.values()
        for name in (measures or ("",))
        if columns
    )
    few = len(comparison.records) <= FEW
    return has_curves and (few or _default_against(comparison) == "")


def number(value: object) -> float | None:
    """A number that can be drawn."""
    found = finite_number(value)
    return None if found is None or abs(found) > _LARGEST else found


def _file(figure: Figure, form: Form) -> bytes:
    import matplotlib

    file = io.BytesIO()
    # Text stays text, and the same comparison is the same file.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "hpc-prefect"}):
        more: dict[str, Any] = {"metadata": {"Date": None}} if form == "svg" else {"dpi": 120}
        figure.savefig(file, format=form, **more)
    return file.getvalue()


def _panels(count: int, high: float) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    # Names of parameters are as long as they are: only a layout engine leaves room for them.
    figure = Figure(figsize=(7.6, 0.7 + high * count), layout="constrained")
    return figure, list(figure.subplots(count, 1, squeeze=False)[:, 0])


def _plain(text: str, most: int = 40) -> str:
    """Text that matplotlib takes as it is: no formula, and no name that it hides."""
    shown = printable(text)
    shown = shown if len(shown) <= most else f"{shown[: most - 1]}…"
    return shown.replace("$", r"\$") if not shown.startswith("_") else " " + shown


# --- convergence curves


def _draw_curves(comparison: Comparison, measures: Sequence[str]) -> Figure:
    wanted = _curve_panels(comparison, measures)
    if not wanted:
        raise ConfigurationError(
            "there is nothing to plot by iteration: no loop of these runs has measured "
            + (", ".join(measures) or "a number")
        )
    figure, panels = _panels(min(len(wanted), PANELS), 3.1)
    colours = _Colours(comparison)
    several = len({loop for loop, _ in wanted}) > 1
    for axes, (loop, name) in zip(panels, wanted, strict=False):
        runs = [
            [(i, value) for i, value in points if number(value) is not None]
            for points in comparison.curves[loop][name]
        ]
        for place, points in enumerate(runs):
            if points:
                _draw_curve(axes, points, _errors(comparison, loop, name, place), colours, place)
        axes.set_ylabel(_plain(f"{loop}: {name}" if several else name))
        _dress(axes, [value for points in runs for _, value in points])
        _whole_numbers(axes)
    panels[-1].set_xlabel("iteration")
    left = len(wanted) - len(panels)
    more = f" ({left} more measures are not shown)" if left > 0 else ""
    figure.suptitle(_plain(f"{_subject(comparison)} by iteration{more}", 90), fontsize=11)
    colours.explain(figure, panels)
    return figure


def _subject(comparison: Comparison) -> str:
    flows = list(dict.fromkeys(record.flow for record in comparison.records if record.flow))
    return f"{len(comparison.records)} runs" + (f" of {flows[0]}" if len(flows) == 1 else "")


def _curve_panels(comparison: Comparison, measures: Sequence[str]) -> list[tuple[str, str]]:
    """Loop and measure; what moves in no run, such as a reference, only when it is asked for."""
    known = [
        (loop, name)
        for loop, columns in comparison.curves.items()
        for name in columns
        if not (name.endswith(ERROR) and name.removesuffix(ERROR) in columns) or name in measures
    ]
    if measures:
        return [(loop, name) for wanted in measures for loop, name in known if name == wanted]
    moving = [
        (loop, name)
        for loop, name in known
        if any(len({value for _, value in run}) > 1 for run in comparison.curves[loop][name])
    ]
    return moving or known


def _errors(comparison: Comparison, loop: str, name: str, place: int) -> dict[int, float]:
    """The standard errors that the loop itself has measured, by iteration."""
    column = comparison.curves[loop].get(name + ERROR)
    return dict(column[place]) if column else {}


def _draw_curve(
    axes: Axes,
    points: Sequence[tuple[int, float]],
    errors: dict[int, float],
    colours: _Colours,
    place: int,
) -> None:
    numbers, values = zip(*points, strict=True)
    many = len(colours.labels) > COLOURS
    style: dict[str, Any] = {"color": colours.of(place), "lw": 0.9 if many else 1.5}
    mark = "o-" if len(points) <= 30 else "-"
    if not many and any(errors.get(i) for i in numbers):
        bars = [abs(errors.get(i, 0.0)) for i in numbers]
        axes.errorbar(numbers, values, yerr=bars, fmt=mark, ms=3.5, capsize=2, **style)
    else:
        axes.plot(numbers, values, mark, ms=2 if many else 3.5, **style)


class _Colours:
    """A colour for each run, and what explains it: a legend, or a bar where runs are many."""

    def __init__(self, comparison: Comparison) -> None:
        from matplotlib import colormaps

        self.labels = comparison.labels
        self.scale: ScalarMappable | None = None
        self.column: Varying | None = None
        self.table = colormaps["tab20"] if len(self.labels) > 10 else colormaps["tab10"]
        if len(self.labels) <= COLOURS:
            return
        self.column = _numeric_column(comparison)
        self.scale = _scale_of(self.column) if self.column else None

    def of(self, place: int) -> Any:
        if self.scale is not None and self.column is not None:
            return _colour(self.scale, self.column.values[place])
        return self.table(place % self.table.N)

    def explain(self, figure: Figure, panels: list[Axes]) -> None:
        if self.scale is not None and self.column is not None:
            _colour_bar(figure, panels, self.scale, self.column)
            return
        entries = [(self.of(i), label) for i, label in enumerate(self.labels[:LEGEND])]
        _legend(figure, entries, len(self.labels) - LEGEND)


def _numeric_column(comparison: Comparison, below: str = "") -> Varying | None:
    """The first that varies and is a number in every run, with three values or more."""
    for _, column in shown_columns(comparison.sweep):
        numbers = [number(each) for each in column.values]
        if column.name != below and None not in numbers and len(set(numbers)) > 2:
            return column
    return None


def _scale_of(column: Varying) -> ScalarMappable:
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm, Normalize

    numbers = [number(each) or 0.0 for each in column.values]
    norm = LogNorm if _is_wide(numbers) else Normalize
    return ScalarMappable(norm(min(numbers), max(numbers)), colormaps["viridis"])


def _colour(scale: ScalarMappable, value: object) -> Any:
    place: Any = number(value) or 0.0
    return scale.to_rgba(place)


def _colour_bar(figure: Figure, panels: list[Axes], scale: ScalarMappable, column: Varying) -> None:
    bar = figure.colorbar(scale, ax=panels, pad=0.02, aspect=30)
    bar.set_label(_plain(column.name))


def _legend(figure: Figure, entries: Iterable[tuple[Any, str]], more: int = 0) -> None:
    """Beside short names, below long ones: the panels keep their width."""
    from matplotlib.lines import Line2D

    shown = [(colour, _plain(label, 60)) for colour, label in entries]
    handles = [Line2D([], [], color=colour, marker="o", ms=4, lw=1.5) for colour, _ in shown]
    texts = [label for _, label in shown]
    if more > 0:
        handles.append(Line2D([], [], lw=0))
        texts.append(f"… and {more} more")
    if not handles:
        return
    longest = max(map(len, texts))
    if longest <= 22:
        figure.legend(handles, texts, loc="outside right upper", fontsize=8, frameon=False)
        return
    columns = max(1, min(len(texts), 100 // (longest + 6)))
    figure.legend(
        handles, texts, loc="outside lower center", ncols=columns, fontsize=8, frameon=False
    )


# --- a measure against a parameter


@dataclass(frozen=True)
class _Axis:
    """What is on the axis below: a place for each run; names of the places where it is text."""

    name: str
    places: tuple[float | None, ...]
    categories: tuple[str, ...] = ()


def _draw_sweep(comparison: Comparison, measures: Sequence[str], against: str) -> Figure:
    below = _axis(comparison, against or _default_against(comparison))
    wanted = _sweep_panels(comparison, measures, below.name)
    figure, panels = _panels(min(len(wanted), PANELS), 3.3)
    series, others = _series(comparison, below.name)
    is_one = others != "" and len(series) == 1
    column = _numeric_column(comparison, below.name) if is_one else None
    scale = _scale_of(column) if column else None
    marks = _Marks()
    for axes, name in zip(panels, wanted, strict=False):
        sets = [(f"C{i}", i / len(series), each) for i, each in enumerate(series.values())]
        if scale and column:
            # One by one: each has the colour of what varies beside what is below.
            different = sorted(set(map(number, column.values)), key=in_order)
            ranks = {value: rank for rank, value in enumerate(different)}
            sets = [
                (_colour(scale, value), ranks[number(value)] / len(ranks), [each])
                for each in comparison.sweep.settings
                for value in [column.values[each.runs[0]]]
            ]
        _dress(axes, _numbers(comparison, name))
        _dress_below(axes, below)
        for colour, rank, settings in sets:
            aside = 0.6 * rank - 0.3 if below.categories and len(sets) > 1 else 0.0
            shifted = [None if x is None else x + aside for x in below.places]
            found = _points(comparison, shifted, name, settings)
            _draw_points(axes, found, colour, is_joined=not is_one and not below.categories)
            marks.note(axes, found)
        axes.set_ylabel(_plain(name))
    panels[-1].set_xlabel(_plain(below.name))
    told = marks.told() + ([f"also vary: {others}"] if is_one else [])
    title = f"{_subject(comparison)} against {below.name}"
    figure.suptitle(_plain(title, 90), fontsize=11)
    if told:
        panels[0].set_title(_plain("; ".join(told), 110), fontsize=8, color="dimgray")
    if scale and column:
        _colour_bar(figure, panels, scale, column)
    elif len(series) > 1:
        _legend(figure, [(f"C{i}", label) for i, label in enumerate(series)])
    return figure


def _default_against(comparison: Comparison) -> str:
    """What varies with the most values, numbers before words; empty when nothing does."""
    columns = [column for _, column in shown_columns(comparison.sweep)]

    def rank(column: Varying) -> tuple[bool, bool, int]:
        is_number = all(number(each) is not None for each in column.values if each is not ABSENT)
        different = len(set(map(canonical, column.values)))
        return column.origin == "parameter", is_number, different

    return max(columns, key=rank).name if columns else ""


def _axis(comparison: Comparison, name: str) -> _Axis:
    if not name:  # nothing varies: each run has a place of its own
        values: tuple[Any, ...] = tuple(names(comparison.records))
        name = "run"
    else:
        values = _values_of(comparison, name)
    numbers = tuple(number(each) for each in values)
    if all(one is not None or each is ABSENT or isinstance(each, float)
           for one, each in zip(numbers, values, strict=True)):  # fmt: skip
        return _Axis(name, numbers)
    there = {canonical(each): words(each, 120) for each in values if each is not ABSENT}
    ordered = sorted(there, key=lambda key: natural(there[key]))
    texts = apart_at_a_glance([there[key] for key in ordered])
    at = {key: float(i) for i, key in enumerate(ordered)}
    return _Axis(name, tuple(at.get(canonical(each)) for each in values), tuple(texts))


def _values_of(comparison: Comparison, name: str) -> tuple[Any, ...]:
    """Of a parameter, a field of a block, or a measure."""
    for column in comparison.sweep.varying:
        if column.name == name:
            return column.values
    parameters = [flat(record.parameters) for record in comparison.records]
    if any(name in each for each in parameters):
        return tuple(each.get(name, ABSENT) for each in parameters)
    if name in comparison.figures:
        return comparison.figures[name]
    known = [column.name for column in comparison.sweep.varying] + list(comparison.figures)
    raise ConfigurationError(
        f"there is no parameter and no measure {name!r} in these runs; what varies and what was"
        f" measured: {printable(', '.join(known))}"
    )


def _numbers(comparison: Comparison, name: str) -> list[float]:
    found = map(number, comparison.figures.get(name, ()))
    return [each for each in found if each is not None]


def _sweep_panels(comparison: Comparison, measures: Sequence[str], below: str) -> list[str]:
    """The flow's own measures that vary; what the runs took where there is none."""
    for name in measures:
        if not _numbers(comparison, name):
            able = filter(partial(_numbers, comparison), comparison.figures)
            raise ConfigurationError(
                f"no run has a number as its {name!r}; there are {printable(', '.join(able))}"
            )
    if measures:
        return list(measures)
    drawable = [
        name
        for name in comparison.figures
        if name != below
        and _numbers(comparison, name)
        and not (name.endswith(ERROR) and name.removesuffix(ERROR) in comparison.figures)
    ]
    paid = (*COSTS, "wall_seconds")
    varying = [
        name
        for name in drawable
        if name not in (*paid, ITERATION) and len(set(_numbers(comparison, name))) > 1
    ]
    rest = [name for name in drawable if name not in paid] or drawable
    if not rest:
        raise ConfigurationError("there is nothing to plot: no run has measured a number")
    return varying[:PANELS] or rest[:1]


def _series(comparison: Comparison, below: str) -> tuple[dict[str, list[Setting]], str]:
    """Settings that differ in nothing but what is below, by what else varies.

    Returns:
        All of them as one, where that would be too many to tell apart; and the names of what else
        varies.
    """
    columns = [(i, column) for i, column in shown_columns(comparison.sweep) if column.name != below]
    found: dict[str, list[Setting]] = {}
    known: dict[tuple[str, ...], str] = {}
    for setting in comparison.sweep.settings:
        label = ", ".join(
            f"{column.name.rpartition('.')[2]}={words(setting.values[i], 24)}"
            for i, column in columns
        )
        key = tuple(canonical(setting.values[i]) for i, _ in columns)
        if key not in known:  # what differs where it is cut has another label
            known[key] = f"{label} ({len(known) + 1})" if label in found else label
        found.setdefault(known[key], []).append(setting)
    others = ", ".join(column.name for _, column in columns[:3])
    few = len(found) <= COLOURS and len(found) < max(2, len(comparison.sweep.settings))
    return (found if few else {"": list(comparison.sweep.settings)}), others


@dataclass(frozen=True)
class _Points:
    """What a panel shows of some settings: places and values.

    Attributes:
        done: of runs that have completed.
        early: of the others.
        middles: place, mean and standard deviation of each setting; 0 where it has none.
    """

    done: list[tuple[float, float]]
    early: list[tuple[float, float]]
    middles: list[tuple[float, float, float]]

    @property
    def repeated(self) -> list[tuple[float, float, float]]:
        return [each for each in self.middles if each[2]]


def _points(
    comparison: Comparison,
    places: Sequence[float | None],
    name: str,
    settings: Sequence[Setting],
) -> _Points:
    values = comparison.figures.get(name, (None,) * len(places))
    found = _Points([], [], [])
    for setting in settings:
        spread = setting.measures.get(name)
        at = {x for i in setting.runs if (x := places[i]) is not None}
        for i in setting.runs:
            x, y = places[i], number(values[i])
            if x is not None and y is not None:
                is_done = comparison.records[i].state == "completed"
                (found.done if is_done else found.early).append((x, y))
        # Of repeats in one place: a measure on the axis below tears them apart.
        middle = number(spread.mean) if spread else None
        if spread and middle is not None and len(at) == 1:
            found.middles.append((at.pop(), middle, number(spread.deviation) or 0.0))
    return found


def _draw_points(axes: Axes, found: _Points, colour: Any, *, is_joined: bool) -> None:
    dots: dict[str, Any] = {"marker": "o", "ls": "", "color": colour}
    repeated = found.repeated
    if found.done:
        axes.plot(
            *zip(*found.done, strict=True), ms=4, alpha=0.45 if repeated else 0.9, mew=0, **dots
        )
    if found.early:
        axes.plot(*zip(*found.early, strict=True), ms=5, mfc="none", **dots)
    if is_joined and len({x for x, _, _ in found.middles}) == len(found.middles) > 1:
        line = [(x, y) for x, y, _ in sorted(found.middles)]
        axes.plot(*zip(*line, strict=True), lw=0.9, alpha=0.5, color=colour)
    if repeated:
        at_x, at_y, bars = zip(*repeated, strict=True)
        axes.errorbar(at_x, at_y, yerr=bars, fmt="_", ms=9, capsize=3, lw=1.3, color=colour)


@dataclass
class _Marks:
    """Which marks a picture has, to explain those alone."""

    bars: bool = False
    cut: bool = False
    hollow: bool = False

    def note(self, axes: Axes, found: _Points) -> None:
        self.bars |= bool(found.repeated)
        self.hollow |= bool(found.early)
        is_log = axes.get_yscale() == "log"
        self.cut |= is_log and any(middle <= bar for _, middle, bar in found.repeated)

    def told(self) -> list[str]:
        words_of = {
            "bars: mean ± standard deviation": self.bars,
            "to the lower edge: below 0": self.cut,
            "hollow: not completed": self.hollow,
        }
        return [text for text, is_there in words_of.items() if is_there]


# --- dress


def _is_wide(values: Sequence[float]) -> bool:
    """Whether values fill a log scale better than a plain one."""
    if not values or min(values) <= 0 or max(values) / min(values) < _WIDE:
        return False
    return _largest_gap([math.log(each) for each in values]) < _largest_gap(values)


def _largest_gap(values: Sequence[float]) -> float:
    """As a part of all that they span."""
    ordered = sorted(values)
    gaps = [after - before for before, after in pairwise(ordered)]
    span = ordered[-1] - ordered[0]
    return max(gaps) / span if span and math.isfinite(span) else 1.0


def _dress(axes: Axes, values: Sequence[float]) -> None:
    axes.grid(alpha=0.25, lw=0.6)
    axes.tick_params(labelsize=9)
    _scale(axes, "y", values)


def _scale(axes: Axes, which: Literal["x", "y"], values: Sequence[float]) -> None:
    if _is_wide(values):
        axes.set(**{f"{which}scale": "log"})
    else:
        # Whole numbers on the axis (-109.0421), never "+1e-3 -1.09e2".
        axes.ticklabel_format(axis=which, useOffset=False, scilimits=(-5, 7))


def _dress_below(axes: Axes, below: _Axis) -> None:
    if not below.categories:
        _scale(axes, "x", [each for each in below.places if each is not None])
        return
    step = math.ceil(len(below.categories) / _CATEGORIES)
    shown = range(0, len(below.categories), step)
    long = sum(len(each) + 2 for each in below.categories[::step]) > 75
    slanted: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(
        list(shown),
        [_plain(below.categories[i], 24) for i in shown],
        **(slanted if long else {}),
    )
    axes.set_xlim(-0.5, len(below.categories) - 0.5)


def _whole_numbers(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
