"""The picture of a GHZ state's counts: the frequent bitstrings, and all of them by their ones."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Bars on the left; the other bitstrings share one more.
MOST_BARS = 12
GHZ, ERROR, IDEAL = "#2a6fbb", "#d9822b", "#444444"


def draw(counts: Mapping[str, int], title: str) -> bytes:
    """A PNG. Blue: the two bitstrings of an ideal GHZ state; orange: what only errors give."""
    shots = sum(counts.values())
    qubits = len(next(iter(counts)))
    # Not pyplot, which has state of its own that threads would share.
    figure = Figure(figsize=(10, 4.6), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.15))
    _draw_frequent(left, counts, shots)
    _draw_by_ones(right, counts, shots, qubits)
    good = sum(n for bits, n in counts.items() if _is_ghz(bits))
    figure.suptitle(f"{title}: {shots:,} shots, {good / shots:.1%} all-0 or all-1", fontsize=12)
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.08)
    picture = io.BytesIO()
    FigureCanvasAgg(figure).print_png(picture)
    return picture.getvalue()


def _is_ghz(bits: str) -> bool:
    return len(set(bits)) == 1


def _draw_frequent(axes: Axes, counts: Mapping[str, int], shots: int) -> None:
    """The most frequent bitstrings, the first on top."""
    order = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown, rest = order[:MOST_BARS], order[MOST_BARS:]
    labels = [bits for bits, _ in shown]
    values = [n for _, n in shown]
    if rest:
        labels.append(f"{len(rest)} others")
        values.append(sum(n for _, n in rest))
    colors = [GHZ if _is_ghz(label) else ERROR for label in labels]
    bars = axes.barh(range(len(values)), values, color=colors, height=0.7)
    for bar, n in zip(bars, values, strict=True):
        inside = n > shots / 5  # a long bar has room, and beside it is the ideal's line
        x, align, color = (n - shots / 100, "right", "white") if inside else (n, "left", "black")
        y = bar.get_y() + bar.get_height() / 2
        axes.text(x, y, f" {n:,}", ha=align, va="center", color=color, fontsize=9)
    _mark_ideal(axes, shots)
    axes.set_yticks(range(len(labels)), labels, family="monospace", fontsize=9)
    # At least five rows high, so that two bars do not fill the panel.
    middle, half = (len(labels) - 1) / 2, max(len(labels), 5) / 2
    axes.set_ylim(middle + half, middle - half)
    axes.set_xlim(0, 1.1 * max(*values, shots / 2))
    axes.set_xlabel("shots")
    axes.set_title("most frequent bitstrings (dashed: ideally one half, ±2σ)", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)


def _mark_ideal(axes: Axes, shots: int) -> None:
    """Half of the shots, and the spread of sampling around it."""
    spread = math.sqrt(shots) / 2
    axes.axvspan(shots / 2 - 2 * spread, shots / 2 + 2 * spread, color=IDEAL, alpha=0.15, lw=0)
    axes.axvline(shots / 2, color=IDEAL, ls="--", lw=1)


def _draw_by_ones(axes: Axes, counts: Mapping[str, int], shots: int, qubits: int) -> None:
    """Every shot, by how many of its bits are 1; a log scale, so that rare errors show."""
    shares = [0.0] * (qubits + 1)
    for bits, n in counts.items():
        shares[bits.count("1")] += n / shots
    colors = [GHZ if ones in (0, qubits) else ERROR for ones in range(qubits + 1)]
    bars = axes.bar(range(qubits + 1), shares, color=colors, width=0.7)
    texts = [
        f"{share:.1%}" if share >= 0.1 else f"{share:.2%}" if share else "0" for share in shares
    ]
    lowest = 0.5 / shots  # a single shot still is a visible bar
    axes.set_yscale("log")
    axes.set_ylim(lowest, 1.4)
    for bar, text, share in zip(bars, texts, shares, strict=True):
        middle = bar.get_x() + bar.get_width() / 2
        axes.text(middle, 1.12 * max(share, lowest), text, ha="center", va="bottom", fontsize=8)
    axes.set_xticks(range(qubits + 1))
    axes.set_xlabel("ones in the bitstring")
    axes.set_ylabel("share of the shots")
    axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g}%")
    axes.set_title("all bitstrings, by their number of ones", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
