"""`hpc-prefect runs compare`: what differs between runs, and what came of it."""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

from hpc_prefect.cli.verbs import RUN, Verbs

if TYPE_CHECKING:
    from hpc_prefect.records.compare import Comparison
    from hpc_prefect.records.compare.plots import Form


_FORMS = (".png", ".svg")


def add_compare(actions: Verbs) -> None:
    """Add the action to those of `hpc-prefect runs`."""
    compare = actions.add_parser(
        "compare",
        help="what differs between runs, and how their results differ",
        description="Compare runs: first what differs, then measures, convergence, costs and times"
        " side by side. More than three runs: a table of what varies against what was measured, in"
        " which runs of one setting (parameters without seeds and work_dirs, and blocks) are one"
        " line, with mean and standard deviation.",
    )
    compare.add_argument("first", metavar="RUN", help=RUN)
    compare.add_argument("others", metavar="RUN", nargs="+", help=argparse.SUPPRESS)
    compare.add_argument("--json", action="store_true", help="everything, as JSON")
    compare.add_argument(
        "--plot", type=_plot_file, metavar="FILE",
        help="also write a plot, as .png or .svg: the convergence curves of a few runs, or a"
        " measure of many against what varies",
    )  # fmt: skip
    compare.add_argument(
        "--measure", action="append", default=[], metavar="NAME",
        help="only this measure or cost (may be given several times: a panel of the plot for each)",
    )  # fmt: skip
    compare.add_argument(
        "--against", default="", metavar="PARAMETER",
        help="the plot's horizontal axis: a parameter, a measure, or `iteration` for convergence"
        " curves",
    )  # fmt: skip
    compare.add_argument("--full", action="store_true", help="whole diffs of code and scripts")
    compare.set_defaults(run=_compare)


def _plot_file(text: str) -> Path:
    file = Path(text)
    if file.suffix.lower() not in _FORMS:
        raise argparse.ArgumentTypeError(f"{text!r} ends with neither {' nor '.join(_FORMS)}")
    return file


def _compare(arguments: argparse.Namespace) -> int:
    # Thousands of jobs and a plot library are loaded and kept to the end: garbage collection would
    # take a tenth of the time and find nothing.
    collects = gc.isenabled()
    gc.disable()
    try:
        return _compared(arguments)
    finally:
        if collects:
            gc.enable()


def _compared(arguments: argparse.Namespace) -> int:
    from hpc_prefect.records.compare import compare
    from hpc_prefect.records.compare.diffs import LINES
    from hpc_prefect.records.compare.text import report
    from hpc_prefect.records.compare.values import json_value
    from hpc_prefect.records.index import read_each

    runs = read_each([arguments.first, *arguments.others])
    comparison = compare(runs, against=arguments.against, lines=None if arguments.full else LINES)
    _check(comparison, arguments.measure)
    if arguments.json:
        print(json.dumps(json_value(comparison.as_dict()), indent=1, allow_nan=False))
    else:
        width = os.get_terminal_size().columns if sys.stdout.isatty() else 0
        print(report(comparison, measures=arguments.measure, width=width))
    if arguments.plot:
        _plot(comparison, arguments)
    return 0


def _check(comparison: Comparison, measures: list[str]) -> None:
    from hpc_prefect.errors import ConfigurationError
    from hpc_prefect.terminal import printable

    known = dict.fromkeys(
        [*comparison.figures, *(n for c in comparison.curves.values() for n in c)]
    )
    if unknown := [name for name in measures if name not in known]:
        raise ConfigurationError(
            f"no run has a measure or cost {unknown[0]!r}; there are {printable(', '.join(known))}"
        )


def _plot(comparison: Comparison, arguments: argparse.Namespace) -> None:
    from hpc_prefect.records.compare.plots import picture

    file: Path = arguments.plot
    drawn = picture(
        comparison,
        form=cast("Form", file.suffix.lower()[1:]),
        measures=arguments.measure,
        against=arguments.against,
    )
    file.write_bytes(drawn)
    print(f"the plot is in {file}", file=sys.stderr)
