"""The public module `hpc_prefect.runs`: `hpc_prefect.records.runs`, with artifacts in Prefect.

Does not import Prefect, so that looking through runs need not wait for that.
"""

from __future__ import annotations

import sys

from hpc_prefect.errors import InvalidQuery
from hpc_prefect.records.compare import Comparison
from hpc_prefect.records.compare import compare as compared
from hpc_prefect.records.fold import Record
from hpc_prefect.records.runs import (
    RunSummary,
    export_crate,
    export_mlflow,
    find,
    get,
    to_frame,
)


def compare(*runs: str | RunSummary | Record, against: str = "") -> Comparison:
    """Compare two runs or more: what differs, and the results. In a flow also as an artifact.

        with_100, with_1000 = runs.find(flow="sqd-loop", sort="shots")
        print(runs.compare(with_100, with_1000).text())

    Reads their records and the scripts of their jobs, and asks git for differences of code.

    Args:
        runs: as `find` and `get` return them, or what `get` takes.
        against: a parameter to compare by, though its name looks like that of a seed.

    Raises:
        InvalidQuery: there are fewer than two.
        UnknownRun, LedgerError: as `get`.
    """
    if len(runs) < 2:
        raise InvalidQuery(f"to compare takes two runs or more, not {len(runs)}")
    found = compared([_record(run) for run in runs], against=against)
    if "prefect" in sys.modules:
        from hpc_prefect.flow_runs.comparison import show

        show(found)
    return found


def _record(run: str | RunSummary | Record) -> Record:
    if isinstance(run, Record):
        return run
    return get(run.folder if isinstance(run, RunSummary) else run)


__all__ = ["RunSummary", "compare", "export_crate", "export_mlflow", "find", "get", "to_frame"]
