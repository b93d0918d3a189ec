"""The findings as a table for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hpc_prefect.schedulers.finding import Finding, Outcome

_STYLES = {Outcome.OK: "green", Outcome.WRONG: "bold red", Outcome.UNKNOWN: "yellow"}


def failed(findings: Sequence[Finding]) -> bool:
    """Whether something is wrong; what cannot be told is no failure."""
    return any(finding.outcome is Outcome.WRONG for finding in findings)


def print_findings(findings: Sequence[Finding], console: Console | None = None) -> None:
    table = Table(show_lines=False)
    table.add_column("check", no_wrap=True)
    table.add_column("result", no_wrap=True)
    table.add_column("what was seen", overflow="fold")
    table.add_column("what to do", overflow="fold")
    for each in findings:
        # As text: what a scheduler says may have brackets, which are no markup of ours.
        cells = (each.check, Text(each.outcome, _STYLES[each.outcome]), each.seen, each.remedy)
        table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in cells))
    (console or Console()).print(table)
