"""Writes a run into MLflow, by its own client: parameters, measures per iteration, tags, record.

MLflow's run has our run's id in the tag `hpc_prefect.run_id`: a later export of the same run finds
it by this tag and adds what is new.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from hpc_prefect.errors import ConfigurationError, TransportError
from hpc_prefect.records.export.files import JobFiles
from hpc_prefect.records.export.job_secrets import secrets_of
from hpc_prefect.records.export.redaction import Secrets
from hpc_prefect.records.export.tracked import RUN_ID, Point, parameters, points, tags
from hpc_prefect.records.fold import DIFF, RUN, Record
from hpc_prefect.records.read import read_run, standing

T = TypeVar("T")

_STATUS = {"completed": "FINISHED", "cancelled": "KILLED", "running": "RUNNING"}
#: MLflow refuses a request with more than 1000 values, 100 parameters, or 100 tags.
_MOST_METRICS, _MOST_OTHERS = 1000, 100
#: MLflow's settings, unless the user has set them: later versions must be told to allow a folder
#: as a store; a server that does not answer is given up within a minute.
_SETTINGS = {
    "MLFLOW_ALLOW_FILE_STORE": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
}


def write_run(folder: str, *, to: str, experiment: str) -> str:
    """Write the run whose record is in a folder; see `runs.export_mlflow`."""
    record = read_run(folder, with_jobs=False)
    uri = to or os.environ.get("MLFLOW_TRACKING_URI", "")
    if not uri:
        raise ConfigurationError(
            "it is not known where MLflow stores runs; give a folder or a server's address with"
            " --to, or set MLFLOW_TRACKING_URI; nothing was written"
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
                f"MLflow at {where} did not accept the run: {said}. What it has stored stays; the"
                f" next export of the run goes on from there"
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
    told = {name: secrets.text(value) for name, value in tags(record, state).items()}
    known = client.search_runs([number], filter_string=f"tags.`{RUN_ID}` = '{record.id}'")
    if known:
        run = known[0]
    else:
        begin = round(record.started * 1000)
        run = client.create_run(number, start_time=begin, tags=told, run_name=record.name or None)
    id: str = run.info.run_id
    given = {name: secrets.text(value) for name, value in parameters(record.parameters)}
    _add_parameters(client, id, given, run.data.params)
    for chunk in _batches(list(told.items()), _MOST_OTHERS):
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


def _add_parameters(
    client: MlflowClient, id: str, wanted: Mapping[str, str], known: Mapping[str, str]
) -> None:
    """Add the parameters that are not there yet: MLflow changes none."""
    if other := [name for name, value in wanted.items() if known.get(name, value) != value]:
        raise ConfigurationError(
            f"MLflow's run {id} has another value of the parameter {other[0]!r}, and MLflow changes"
            " none: delete that run there, or name another --experiment"
        )
    new = [Param(name, value) for name, value in wanted.items() if name not in known]
    for chunk in _batches(new, _MOST_OTHERS):
        client.log_batch(id, params=chunk)


def _add_points(client: MlflowClient, id: str, found: list[Point], *, known: bool) -> None:
    """Add the points that are not there yet: a file store would keep them twice."""
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
    """Add the run's record and diff; they replace those of an earlier export."""
    with tempfile.TemporaryDirectory(prefix="hpc-prefect-") as folder:
        for name, hide in ((RUN, secrets.json_data), (DIFF, secrets.source_data)):
            if data := files.read_record(f"{record.folder}/{name}"):
                path = Path(folder, name)
                path.write_bytes(hide(data))
                client.log_artifact(id, str(path))
