"""What is exported of a run to an experiment tracker: parameters, tags, numbers with steps."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from hpc_prefect.records.fold import Record

#: The tag that holds our run's id.
RUN_ID = "hpc_prefect.run_id"
#: The most letters that MLflow takes of a parameter's value, a tag's value, and a name.
_LONGEST_PARAMETER, _LONGEST_TAG, _LONGEST_NAME = 6000, 5000, 250
_FOREIGN = re.compile(r"[^\w\-. :/]")


class Point(NamedTuple):
    """A value of a measure, with its step and time (milliseconds since 1970)."""

    name: str
    value: float
    step: int
    time: int


def tags(record: Record, state: str) -> dict[str, str]:
    """The run's state, code, host and jobs, under our names and under those that MLflow knows."""
    code, environment = record.code, record.environment
    found = {
        RUN_ID: record.id,
        "hpc_prefect.state": state,
        "hpc_prefect.message": record.message,
        "hpc_prefect.flow": record.flow,
        "hpc_prefect.campaign": ", ".join(
            str(each.get("name", "")) for each in record.campaigns.values()
        ),
        "hpc_prefect.host": environment.get("host"),
        "hpc_prefect.record": record.folder,
        "hpc_prefect.code_sha256": code.get("sha256"),
        "hpc_prefect.code_changed": code.get("dirty"),
        "hpc_prefect.jobs": ", ".join(
            f"{count} {each}" for each, count in sorted(record.totals.jobs.items())
        ),
        "mlflow.user": environment.get("user"),
        "mlflow.source.type": "LOCAL",
        "mlflow.source.name": code.get("file"),
        "mlflow.source.git.commit": code.get("commit"),
        "mlflow.source.git.branch": code.get("branch"),
    }
    return {
        name: str(value)[:_LONGEST_TAG] for name, value in found.items() if value not in (None, "")
    }


def parameters(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Each value by its path, with dots for values in mappings."""
    for name, value in values.items():
        path = f"{above}{name}"
        if isinstance(value, Mapping) and value:
            yield from parameters(value, f"{path}.")
        else:
            yield _key(path), str(value)[:_LONGEST_PARAMETER]


def points(record: Record) -> list[Point]:
    """The numbers of a run: each loop's iterations, the recorded measures, and the costs.

    A measure of a loop has its column's name; if there are several loops, `<loop>/<column>`. A
    recorded measure whose name a loop has too is `recorded/<name>`.
    """
    end = round((record.ended or record.updated) * 1000)
    found = []
    for loop, rows in record.iterations.items():
        beginning = f"{loop}/" if len(record.iterations) > 1 else ""
        for number in sorted(rows):
            row = rows[number]
            at = _milliseconds(row.get("time"), end)
            for name, value in row.items():
                if name != "iteration" and _is_number(value):
                    found.append(Point(_key(f"{beginning}{name}"), float(value), number, at))
    loops = {point.name for point in found}
    for name, value in record.recorded.items():
        if _is_number(value):
            key = _key(name)
            taken = f"recorded/{key}" if key in loops else key
            found.append(Point(taken, float(value), 0, end))
    costs = record.totals.as_dict()["costs"] | {"wall_seconds": round(record.wall_seconds, 3)}
    found += [Point(f"costs/{name}", float(value), 0, end) for name, value in costs.items()]
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _milliseconds(time: Any, otherwise: int) -> int:
    with contextlib.suppress(ValueError, OverflowError):
        return round(datetime.fromisoformat(str(time)).timestamp() * 1000)
    return otherwise


def _key(name: str) -> str:
    """A name as MLflow takes it: letters, digits, and `-_. :/`, and no path above its place."""
    parts = [part for part in _FOREIGN.sub("_", name).split("/") if part.strip(". ")]
    return "/".join(parts)[:_LONGEST_NAME] or "_"
