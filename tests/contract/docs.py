"""The tables of what a user sees, docs/ends.md: one for each place, made by its contract."""

from __future__ import annotations

import os
import re
from pathlib import Path

from .endings import Ended, Ending, possible
from .places import Place

ENDS = Path(__file__).parents[2] / "docs" / "ends.md"
HEAD = """\
| what happens | reason | exit code or signal | run in Prefect | what is said |
|---|---|---|---|---|
"""


def check(place: Place, ended: Ended) -> None:
    """Compare the section of a place with what was seen; HPC_PREFECT_WRITE_DOCS=1 writes it anew.

    The scheduler's own words, the last column, are those of the run that wrote them: they may name
    a node, and they may have been read from the queue or from the history.
    """
    text = ENDS.read_text()
    begin, end = f"<!-- {place.name}: by tests/contract -->\n", f"<!-- /{place.name} -->"
    before, found, rest = text.partition(begin)
    assert found, f"docs/ends.md has no section for {place.name}"
    old, _, after = rest.partition(end)
    new = HEAD + "".join(_row(ending, ended) for ending in possible(place))
    if os.environ.get("HPC_PREFECT_WRITE_DOCS"):
        ENDS.write_text(f"{before}{begin}{new}{end}{after}")
    else:
        assert _without_words(old) == _without_words(new)


def _row(ending: Ending, ended: Ended) -> str:
    verdict = ended.results[ending.name].verdict
    code = verdict.signal or ("" if verdict.exit_code is None else verdict.exit_code)
    state = ended.states[ending.name].capitalize()
    cells = (ending.name, verdict.reason, code if ending.code is not None else "", state)
    return f"| {' | '.join(map(str, cells))} | {_plain(verdict.summary)} |\n"


def _plain(text: str) -> str:
    """One line without what is another in each run."""
    text = re.sub(r"\S+@\S+ \d+", "USER@HOST PID", " ".join(text.split()))
    return re.sub(r"\d{5,}", "N", text).replace("|", "\\|")


def _without_words(table: str) -> list[str]:
    return [line.rsplit(" | ", 1)[0] for line in table.splitlines()]
