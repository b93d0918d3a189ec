"""The runs of this user, in any folder: what ran, with which parameters, and what came of it.

from hpc_prefect import runs

runs.find(flow="sqd-loop", where=["shots>1000"], sort="energy")
runs.get("latest")
runs.to_frame()
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase
from importlib import import_module
from typing import Any

from hpc_prefect.errors import ConfigurationError, InvalidQuery
from hpc_prefect.extras import missing
from hpc_prefect.job import notebook
from hpc_prefect.records import index, query
from hpc_prefect.records.fold import Record
from hpc_prefect.records.read import STATES, read_run

#: Up to this size in bytes an export has an output's content; for a larger one its digest.
WHOLE_UP_TO = 16 << 20


@dataclass(frozen=True)
class RunSummary:
    """A run, as a list shows it.

    Attributes:
        id: the flow run's; for a script a random one.
        name: of the flow run.
        flow: its flow's name.
        campaign: the experiment that it works on; empty for none.
        state: running, completed, failed, cancelled, crashed; or died: its process on this host
            ended without recording an end.
        started: seconds since 1970.
        ended: the same; None while no end is known.
        updated: when its record was last written, in seconds since 1970.
        host: where its process runs, or ran.
        parameters: of the flow; secrets are asterisks.
        measures: the newest value of each measure, those of a loop's last iteration among them.
        totals: `jobs` by their state, `reused` of them; `costs` and what was `saved` by reusing:
            node_hours, core_hours, gpu_hours, and queue_seconds, run_seconds, qpu_seconds;
            `unknown`: for each cost, the number of jobs of which it is not known; `wall_seconds`.
        folder: of its record.
    """

    id: str
    name: str
    flow: str
    campaign: str
    state: str
    started: float
    ended: float | None
    updated: float
    host: str
    parameters: Mapping[str, Any]
    measures: Mapping[str, Any]
    totals: Mapping[str, Any]
    folder: str
    _whole: Mapping[str, Any] = field(repr=False, compare=False, default_factory=dict)

    @classmethod
    def of(cls, summary: Mapping[str, Any]) -> RunSummary:
        """From an entry of the index, or from `Record.summary()`."""
        same = ("id", "name", "flow", "state", "started", "updated", "folder")
        return cls(
            **{name: summary[name] for name in (*same, "parameters", "measures", "totals")},
            campaign=query.campaign_of(summary),
            ended=summary["ended"] or None,
            host=str(summary.get("host", "")),
            _whole=summary,
        )

    def value(self, name: str, default: Any = None) -> Any:
        """A parameter, measure, cost or other value, by a name as `where` takes it."""
        found = query.value(self._whole, name)
        return default if found is query.MISSING else found

    def record(self) -> Record:
        """Everything about it, with its jobs.

        Raises:
            LedgerError: its record is gone, or cannot be read.
        """
        return read_run(self.folder)

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON values; times in seconds since 1970, 0 for not known."""
        return dict(self._whole)


@dataclass(frozen=True)
class Selection:
    """What was found.

    Attributes:
        runs: those that are wanted, in order.
        gone: how many more would be found if their folders had not been removed.
        ids: of all runs in the index.
    """

    runs: list[RunSummary]
    gone: int
    ids: list[str]


class RunList(list[RunSummary]):
    """A list of runs, as `find` returns it. A notebook shows it as a table."""

    def _repr_html_(self) -> str:
        """A table of the newest runs, with parameters and measures."""
        shown = self[-notebook.MOST :]
        parameters = _names(each.parameters for each in shown)
        measures = _names(each.measures for each in shown)
        rows = [
            (
                *(each.name, each.id[:8], each.flow, each.state),
                time.strftime("%Y-%m-%d %H:%M", time.localtime(each.started)),
                *(notebook.number(each.parameters.get(name)) for name in parameters),
                *(notebook.number(each.measures.get(name)) for name in measures),
            )
            for each in shown
        ]
        head = ("run", "id", "flow", "state", "started", *parameters, *measures)
        more = f"the newest {len(shown)} of them" if len(shown) < len(self) else ""
        count = "1 run" if len(self) == 1 else f"{len(self)} runs"
        return notebook.heading(count, more=(more,)) + notebook.table(head, rows)


#: The most parameters, and the most measures, in a notebook's table of runs.
_MOST_NAMES = 4
#: The measures that every loop has.
_OF_LOOPS = ("iteration", "change")


def _names(values: Iterable[Mapping[str, Any]]) -> list[str]:
    """Names of single values, those of the newest run first."""
    found = dict.fromkeys(
        name
        for each in reversed(list(values))
        for name, value in each.items()
        if isinstance(value, int | float | str) and name not in _OF_LOOPS
    )
    return list(found)[:_MOST_NAMES]


def find(
    *,
    flow: str | None = None,
    campaign: str | None = None,
    state: str | Iterable[str] | None = None,
    since: str | float | datetime | None = None,
    until: str | float | datetime | None = None,
    where: str | Iterable[str] = (),
    sort: str | None = None,
    limit: int | None = None,
) -> RunList:
    """This user's runs, the newest last. Runs whose folders were removed are not among them.

    Args:
        flow: the flow's name; `*` and `?` stand for any letters, and for one.
        campaign: the experiment's name; the same.
        state: one, or several: running, completed, failed, cancelled, crashed, died.
        since: those that began then or later: a date or time (ISO, local), how long ago (`12h`,
            `3d`, `2w`), a datetime, or seconds since 1970.
        until: those that began until then; a date's day is included.
        where: conditions that all must hold, such as `"shots>1000"` or `'basis == "sto-3g"'`. A
            name is looked for in the parameters (a dot leads into a mapping), then in the measures,
            the costs and the other fields of `RunSummary`. A run without the name is not found.
            `started`, `ended` and `updated` are compared with times as `since` takes them.
        sort: by such a name, the smallest first, runs without it last; with `-` before it the
            largest first.
        limit: at most so many: the first ones by `sort`, without it the newest.

    Raises:
        InvalidQuery: a condition, state or time cannot be read; no run has a name that is asked
            for; or a condition compares numbers with a word by order.
    """
    found = select(
        flow=flow, campaign=campaign, state=state, since=since, until=until, where=where,
        sort=sort, limit=limit,
    )  # fmt: skip
    return RunList(found.runs)


def select(
    *,
    flow: str | None = None,
    campaign: str | None = None,
    state: str | Iterable[str] | None = None,
    since: str | float | datetime | None = None,
    until: str | float | datetime | None = None,
    where: str | Iterable[str] = (),
    sort: str | None = None,
    limit: int | None = None,
    names: Iterable[str] = (),
) -> Selection:
    """As `find`, with what else a list says.

    Args:
        names: of columns; each must be in at least one run.
    """
    now = time.time()
    texts = [where] if isinstance(where, str) else where
    conditions = [query.condition(text, now) for text in texts]
    states = _states(state)
    begin = None if since is None else query.moment(since, now)
    end = None if until is None else query.moment(until, now, end=True)
    known = [index.current(entry) for entry in index.entries()]
    order = sort.removeprefix("-") if sort else "started"
    query.check([*(each.name for each in conditions), order, *names], known)
    query.check_orders(conditions, known)
    wanted = [
        run
        for run in known
        if _is_like(run["flow"], flow)
        and _is_like(query.campaign_of(run), campaign)
        and (not states or run["state"] in states)
        and (begin is None or run["started"] >= begin)
        and (end is None or run["started"] <= end)
        and all(each.holds(run) for each in conditions)
    ]
    # First by their start times: runs that are equal by `sort` keep this order.
    in_order: list[query.Run] = sorted(
        wanted, key=lambda run: (run["started"], run["id"]), reverse=not sort
    )
    if sort:
        in_order = query.ordered(in_order, order, descending=sort.startswith("-"))
    shown, gone = _present(in_order, limit)
    runs = [RunSummary.of(run) for run in shown]
    ids = [str(run["id"]) for run in known]
    return Selection(runs if sort else runs[::-1], gone, ids)


def _present(runs: Iterable[query.Run], limit: int | None) -> tuple[list[query.Run], int]:
    """The first `limit` runs whose folders exist, and how many runs without a folder were met.

    No more folders are looked at than needed: their file systems may be slow.
    """
    shown: list[query.Run] = []
    gone = 0
    for run in runs:
        if limit is not None and len(shown) >= limit:
            break
        if index.is_gone(run):
            gone += 1
        else:
            shown.append(run)
    return shown, gone


def _is_like(name: str, pattern: str | None) -> bool:
    return pattern is None or name == pattern or fnmatchcase(name, pattern)


def _states(state: str | Iterable[str] | None) -> set[str]:
    wanted = {state} if isinstance(state, str) else set(state or ())
    if unknown := sorted(wanted - set(STATES)):
        raise InvalidQuery(
            f"there is no state {unknown[0]!r} of a run; there are {', '.join(STATES)}"
        )
    return wanted


def get(name: str) -> Record:
    """Everything about one run, read from its record.

    Args:
        name: its id, or the beginning of it; the flow run's name; `latest`; the folder of its
            record; or another folder: the newest run below it is taken.

    Raises:
        UnknownRun: it means none, or several, which the message lists.
        LedgerError: its record is gone, or cannot be read.
    """
    return index.read_one(name)


def to_frame(runs: Sequence[RunSummary] | None = None) -> Any:
    """The runs as a `pandas.DataFrame`, one row for each, with their ids as index.

    Its columns are `name`, `kind`, `flow`, `campaign`, `state`, `started`, `ended` and `updated`
    (times with a zone), `host`, `folder`, `wall_seconds`, `reused`, then `jobs.<state>`,
    `costs.<name>` and `saved.<name>` (hours and seconds, as their names say),
    `parameters.<name>` and `measures.<name>`, with further dots for values in mappings. What a run
    does not have is missing (NaN).

    Args:
        runs: all that `find()` finds, when not given.

    Raises:
        ConfigurationError: pandas is not installed.
    """
    try:
        pandas = import_module("pandas")
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "a table of runs needs pandas, which is not installed here; run: pip install pandas."
            " Without it, `hpc-prefect runs --csv` writes the same table"
        ) from error
    rows = [query.flat(run.as_dict()) for run in (find() if runs is None else runs)]
    frame = pandas.DataFrame(rows, columns=None if rows else list(query.flat({})))
    for name in ("started", "ended", "updated"):
        known = frame[name].where(frame[name] != 0)
        frame[name] = pandas.to_datetime(known, unit="s", utc=True, errors="coerce")
    return frame.set_index("id")


def export_crate(
    name: str,
    path: str | os.PathLike[str],
    *,
    whole_up_to: int = WHOLE_UP_TO,
    licence: str = "",
) -> None:
    """Write a run as an RO-Crate, of the profile Provenance Run Crate.

    It holds the source, the record, and each job's scripts, records, logs and outputs, with size
    and SHA-256. Values whose names say that they are secrets are replaced by asterisks. A run
    without jobs becomes a Workflow Run Crate, because the other profile asks for tools.

    Args:
        name: as `get` takes it.
        path: of a folder, or of a zip file if it ends with `.zip`; it appears whole, or not at all.
        whole_up_to: outputs up to so many bytes are copied. For larger ones, and for those that
            have changed since the job ended, the crate has the recorded size and digest. Of a log
            that is larger it has the last MiB.
        licence: of all that is in it: an address, an SPDX identifier such as `CC-BY-4.0`, or words;
            without it the crate says that none was named.

    Raises:
        UnknownRun, LedgerError: as `get`.
        ConfigurationError: something is at the path already, or rocrate is not installed.
    """
    if absent := missing("an RO-Crate", "rocrate"):
        raise ConfigurationError(absent)
    from hpc_prefect.records.export.crate import write_crate

    write_crate(
        index.find_one(name)["folder"], path, whole_up_to=whole_up_to, licence=licence.strip()
    )


def export_mlflow(name: str, *, to: str | os.PathLike[str] = "", experiment: str = "") -> str:
    """Write a run into MLflow: parameters, measures, costs, tags, record. Returns its id there.

    The values of a loop's iteration have its number as their step. A second export updates the same
    MLflow run, which is found by its tag `hpc_prefect.run_id`.

    Args:
        name: as `get` takes it.
        to: a folder, or an MLflow tracking URI (`http://…`); by default MLFLOW_TRACKING_URI.
        experiment: the MLflow experiment; by default the flow's name.

    Raises:
        UnknownRun, LedgerError: as `get`.
        ConfigurationError: mlflow is not installed, or there is no tracking URI.
        TransportError: MLflow did not take all of it.
    """
    if absent := missing("MLflow", "mlflow"):
        raise ConfigurationError(absent)
    from hpc_prefect.records.export.mlflow import write_run

    return write_run(
        index.find_one(name)["folder"], to=os.fspath(to), experiment=experiment.strip()
    )


__all__ = ["RunSummary", "export_crate", "export_mlflow", "find", "get", "to_frame"]
