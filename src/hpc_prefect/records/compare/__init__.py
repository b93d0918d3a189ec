"""Compares runs: what differs, what is the same, and the results.

compare(records)        the whole comparison; `as_dict()` is what `runs compare --json` prints
differences(records)    what differs and what is the same, by sections
sweep(records)          settings, their runs, means and spreads
text.report(…)          for people; `text.markdown(…)` for a Prefect artifact
plots.picture(…)        PNG or SVG: convergence curves, or a measure against a parameter
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hpc_prefect.records.compare.differences import (
    Contrast,
    Differences,
    Section,
    differences,
)
from hpc_prefect.records.compare.diffs import LINES, TextDiff
from hpc_prefect.records.compare.sweep import (
    Curves,
    Setting,
    Spread,
    Sweep,
    Varying,
    curves,
    labels,
    side_by_side,
    sweep,
)
from hpc_prefect.records.compare.values import ABSENT, AtLeast, json_value
from hpc_prefect.records.fold import Record

if TYPE_CHECKING:
    from hpc_prefect.records.compare.plots import Form

__all__ = [
    "ABSENT",
    "Comparison",
    "Contrast",
    "Curves",
    "Differences",
    "Section",
    "Setting",
    "Spread",
    "Sweep",
    "TextDiff",
    "Varying",
    "compare",
    "differences",
    "sweep",
]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Some runs, compared.

    Attributes:
        records: of the runs, in the order in which they were given.
        differences: what differs and what does not.
        sweep: what varies against what was measured, by settings.
        figures: each measure, cost and time of every run; `ABSENT` where a run has none.
        curves: the loops' measures by iteration.
        labels: a short name for each run, by what tells it from the others.
    """

    records: tuple[Record, ...]
    differences: Differences
    sweep: Sweep
    figures: dict[str, tuple[Any, ...]]
    curves: Curves
    labels: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """The runs' names; with the beginning of the id where two have the same."""
        from hpc_prefect.records.compare.text import names

        return names(self.records)

    def text(self, *, measures: Sequence[str] = ()) -> str:
        """For people; only these measures, unless there are none."""
        from hpc_prefect.records.compare.text import report

        return report(self, measures=measures)

    def markdown(self, *, measures: Sequence[str] = ()) -> str:
        """The same in Markdown."""
        from hpc_prefect.records.compare.text import markdown

        return markdown(self, measures=measures)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from hpc_prefect.records.compare.text import as_html

        return as_html(self)

    def plot(self, *, form: Form = "png", measures: Sequence[str] = (), against: str = "") -> bytes:
        """A picture: convergence curves of few runs; of many a measure against what varies.

        Args:
            form: of the file: `png` or `svg`.
            measures: a panel each.
            against: the parameter or measure on the axis below; `iteration` for the curves.

        Raises:
            ConfigurationError: matplotlib is not installed, or there is no such thing to draw.
        """
        from hpc_prefect.records.compare.plots import picture

        return picture(self, form=form, measures=measures, against=against)

    def as_dict(self) -> dict[str, Any]:
        """JSON values; lists of values have one for each run, in the order of `runs`.

        `known_in_part` has of costs the places of the runs that have spent more than is known.
        """
        return {
            "runs": [
                {
                    "id": record.id,
                    "name": record.name,
                    "flow": record.flow,
                    "state": record.state,
                    "started": record.started,
                    "label": label,
                }
                for record, label in zip(self.records, self.labels, strict=True)
            ],
            "differences": [section.as_dict() for section in self.differences.sections],
            "same": list(self.differences.same),
            "same_as_far_as_known": dict(self.differences.likely),
            "figures": {name: json_value(values) for name, values in self.figures.items()},
            "known_in_part": {
                name: places
                for name, values in self.figures.items()
                if (places := [i for i, each in enumerate(values) if isinstance(each, AtLeast)])
            },
            "curves": {
                loop: {name: json_value(runs) for name, runs in measures.items()}
                for loop, measures in self.curves.items()
            },
            "sweep": self.sweep.as_dict(),
        }


def compare(
    records: Sequence[Record], *, against: str = "", lines: int | None = LINES
) -> Comparison:
    """Compare two runs or more. Reads the jobs' scripts and asks git for differences of code.

    Args:
        records: of the runs, with their jobs.
        against: a parameter that is wanted as one, though its name is that of a seed.
        lines: of each diff of texts; None for all.
    """
    different = differences(records, lines=lines)
    settings = sweep(records, different, against=against)
    return Comparison(
        records=tuple(records),
        differences=different,
        sweep=settings,
        figures=side_by_side(records),
        curves=curves(records),
        labels=tuple(labels(records, settings.varying)),
    )
