"""A run in MLflow, by MLflow's own client: parameters, measures of each iteration, tags, record.

MLflow's run has ours in the tag `hpc_prefect.run_id`: a later export of the same run finds it by
that and adds what is new.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from hpc_prefect.errors import ConfigurationError, TransportError
from hpc_prefect.records.export.files import JobFiles
from hpc_prefect.records.export.job_secrets import secrets_of
from hpc_prefect.records.export.redaction import Secrets
from hpc_prefect.records.fold import DIFF, RUN, Record
from hpc_prefect.records.read import read_run, standing

T = TypeVar("T")

RUN_ID = "hpc_prefect.run_id"
_STATUS = {"completed": "FINISHED", "cancelled": "KILLED", "running": "RUNNING"}
#: MLflow refuses a request with more than 1000 values, 100 parameters, or 100 tags.
_MOST_METRICS, _MOST_OTHERS = 1000, 100
#: Letters of a parameter's value that MLflow takes, and of a tag's.
_LONGEST_PARAMETER, _LONGEST_TAG = 6000, 5000
_FOREIGN = re.compile(r"[^\w\-. :/]")
#: As MLflow understands them, where the user has not said otherwise: a folder as a store has to be
#: allowed in later versions; a server that is not there is told of within a minute.
_SETTINGS = {
    "MLFLOW_ALLOW_FILE_STORE": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
}


class Point(NamedTuple):
    """A value of a measure: its step, and when it was (milliseconds since 1970)."""

    name: str
    value: float
    step: int
    time: int


def write_run(folder: str, *, to: str, experiment: str) -> str:
    """Write the run whose record is in a folder; see `runs.export_mlflow`."""
    record = read_run(folder, with_jobs=False)
    uri = to or os.environ.get("MLFLOW_TRACKING_URI", "")
    if not uri:
        raise ConfigurationError(
            "where does MLflow track? Name a folder or a server's address with --to, or set"
            " MLFLOW_TRACKING_URI; nothing was written"
        )
    if "://" not in uri:
        uri = Path(os.path.abspath(os.path.expanduser(uri))).as_uri()
    with _settings():
        try:
            return _written(MlflowClient(tracking_uri=uri), record, experiment)
        except MlflowException as error:
            where = re.sub(r"//[^/@]*@", "//", uri)  # without a password
            said = str(error).partition("\n")[0].replace(uri, where)
            raise TransportError(
                f"MLflow at {where} did not take the run: {said}. What it took already stays; the"
                " next export of the run goes on with it"
            ) from error


@contextlib.contextmanager
def _settings() -> Iterator[None]:
    added = {name: value for name, value in _SETTINGS.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _written(client: MlflowClient, record: Record, experiment: str) -> str:
    name = experiment or record.flow or "hpc-prefect"
    found = client.get_experiment_by_name(name)
    number = found.experiment_id if found else client.create_experiment(name)
    state = standing(record)
    files = JobFiles(record.folder)
    secrets = secrets_of(record, files)
    tags = {name: secrets.text(value) for name, value in _tags(record, state).items()}
    known = client.search_runs([number], filter_string=f"tags.`{RUN_ID}` = '{record.id}'")
    if known:
        run = known[0]
    else:
        begin = round(record.started * 1000)
        run = client.create_run(number, start_time=begin, tags=tags, run_name=record.name or None)
    id: str = run.info.run_id
    parameters = {name: secrets.text(value) for name, value in _parameters(record.parameters)}
    _add_parameters(client, id, parameters, run.data.params)
    for chunk in _batches(list(tags.items()), _MOST_OTHERS):
        client.log_batch(id, tags=[RunTag(*each) for each in chunk])
    _add_points(client, id, points(record), known=bool(known))
    _add_files(client, id, record, files, secrets)
    status = _STATUS.get(state, "FAILED")
    if status == "RUNNING":
        client.update_run(id, status=status)
    else:
        ended = record.ended or record.updated
        client.set_terminated(id, status, end_time=round(ended * 1000))
    return id


def _batches(items: Sequence[T], most: int) -> Iterator[Sequence[T]]:
    for begin in range(0, len(items), most):
        yield items[begin : begin + most]


def _tags(record: Record, state: str) -> dict[str, str]:
    code, environment = record.code, record.environment
    tags = {
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
        name: str(value)[:_LONGEST_TAG] for name, value in tags.items() if value not in (None, "")
    }


def _add_parameters(
    client: MlflowClient, id: str, wanted: Mapping[str, str], known: Mapping[str, str]
) -> None:
    """Those that are not there yet: MLflow changes none."""
    if other := [name for name, value in wanted.items() if known.get(name, value) != value]:
        raise ConfigurationError(
            f"MLflow's run {id} has another value of the parameter {other[0]!r}, and MLflow changes"
            " none: delete that run there, or name another --experiment"
        )
    new = [Param(name, value) for name, value in wanted.items() if name not in known]
    for chunk in _batches(new, _MOST_OTHERS):
        client.log_batch(id, params=chunk)


def _parameters(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Each value; what is in a mapping by its path, with points."""
    for name, value in values.items():
        path = f"{above}{name}"
        if isinstance(value, Mapping) and value:
            yield from _parameters(value, f"{path}.")
        else:
            yield _key(path), str(value)[:_LONGEST_PARAMETER]


def points(record: Record) -> list[Point]:
    """The numbers of a run: of each loop's iterations, what the flow recorded, and the costs.

    A measure of a loop has its column's name, with several loops `<loop>/<column>`; what the flow
    recorded under a name that a loop has too is `recorded/<name>`.
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
    return "/".join(parts)[:250] or "_"


def _add_points(client: MlflowClient, id: str, found: list[Point], *, known: bool) -> None:
    """Those that are not there: a store of files would keep them twice."""
    there: set[tuple[str, int, float]] = set()
    for name in {point.name for point in found} if known else ():
        history = client.get_metric_history(id, name)
        there |= {(name, each.step, each.value) for each in history}
    new = [point for point in found if (point.name, point.step, point.value) not in there]
    for chunk in _batches(new, _MOST_METRICS):
        metrics = [Metric(each.name, each.value, each.time, each.step) for each in chunk]
        client.log_batch(id, metrics=metrics)


def _add_files(
    client: MlflowClient, id: str, record: Record, files: JobFiles, secrets: Secrets
) -> None:
    """The run's record and diff, in the place of those of an earlier export."""
    with tempfile.TemporaryDirectory(prefix="hpc-prefect-") as folder:
        for name, hide in ((RUN, secrets.json_data), (DIFF, secrets.source_data)):
            if data := files.read_record(f"{record.folder}/{name}"):
                path = Path(folder, name)
                path.write_bytes(hide(data))
                client.log_artifact(id, str(path))
