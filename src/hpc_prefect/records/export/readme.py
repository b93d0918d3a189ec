"""The README of an exported run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hpc_prefect.records.export.moments import moment
from hpc_prefect.records.fold import Record


def readme(record: Record, state: str, jobs: int) -> str:
    """Markdown: what ran, its parameters, how it ended, its results, and where they are."""
    code, costs = record.code, record.totals.as_dict()["costs"]
    facts = {
        "flow": record.flow,
        "run": f"{record.name} ({record.id})",
        "state": f"{state}{f': {record.message}' if record.message else ''}",
        "began": moment(record.started),
        "ended": moment(record.ended) or "not known",
        "host": record.environment.get("host"),
        "user": record.environment.get("user"),
        "code": f"{code.get('file', 'unknown')}, git commit {code.get('commit', 'unknown')}"
        f"{', with changes that are not committed' if code.get('dirty') else ''}",
        "jobs": jobs,
    }
    parts = [
        f"# Run {record.name} of {record.flow}",
        _table(("", ""), facts),
        *_section("Parameters", record.parameters),
        *_section("Measures", record.measures),
        *_section("Costs", costs),
        "`ro-crate-metadata.json` describes all files (RO-Crate, Provenance Run Crate 0.5)."
        " `workflow/` has the flow's source, `record/` the run's own record, `jobs/` the scripts,"
        " records, logs and outputs of each job. Values that their names say to be secret are"
        " asterisks.",
    ]
    return "\n\n".join(parts) + "\n"


def _section(title: str, values: Mapping[str, Any]) -> list[str]:
    return [f"## {title}", _table(("name", "value"), values)] if values else []


def _table(head: tuple[str, str], values: Mapping[str, Any]) -> str:
    rows = [f"| {_cell(name)} | {_cell(value)} |" for name, value in values.items()]
    return "\n".join([f"| {head[0]} | {head[1]} |", "|---|---|", *rows])


def _cell(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    return " ".join(text.split()).replace("|", "\\|")
