"""Prints the findings: a line for each if it fits, and below it what to do."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.text import Text

from hpc_prefect.schedulers.finding import Finding, Outcome
from hpc_prefect.terminal import printable

_STYLES = {Outcome.OK: "green", Outcome.WRONG: "bold red", Outcome.UNKNOWN: "yellow"}
#: Columns beyond which a name of a check takes a line of its own.
_LONGEST = 24


def failed(findings: Sequence[Finding]) -> bool:
    """Whether something is wrong; what cannot be found out is no failure."""
    return any(finding.outcome is Outcome.WRONG for finding in findings)


def print_findings(findings: Sequence[Finding], console: Console | None = None) -> None:
    """Print them; long texts go on in further lines below their own column."""
    console = console or Console(highlight=False)
    checks = max((len(each.check) for each in findings if len(each.check) <= _LONGEST), default=0)
    results = max((len(each.outcome) for each in findings), default=0)
    for each in findings:
        result = Text(f"{each.outcome:<{results}}  ", _STYLES[each.outcome])
        if len(each.check) > checks:
            console.print(Text(printable(each.check)), soft_wrap=True)
        name = each.check if len(each.check) <= checks else ""
        # As text: brackets of a scheduler are no markup.
        head = Text(f"{printable(name):<{checks}}  ")
        indent = " " * (checks + results + 4)
        first, *more = _lines(each, console.width - len(indent))
        console.print(head + result + Text(first), soft_wrap=True)
        for line in more:
            console.print(Text(indent + line), soft_wrap=True)


def _lines(finding: Finding, width: int) -> Iterator[str]:
    """What was seen, and what to do, in lines."""
    told = [finding.seen or "-", f"→ {finding.remedy}" if finding.remedy else ""]
    for text in filter(None, told):
        # A path stays whole, to be copied, also where it is longer than the line.
        yield from textwrap.wrap(
            printable(text), max(width, 20), break_long_words=False, break_on_hyphens=False
        )
