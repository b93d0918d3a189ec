"""What MLflow is told of a run, and what it keeps of it."""

from __future__ import annotations

import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from hpc_prefect.records import index
from hpc_prefect.records.export.tracked import parameters, points, tags
from hpc_prefect.server import free_port

from . import built, given

RUN = "import sys; from hpc_prefect.cli import main; sys.exit(main())"


def test_each_iteration_of_each_loop_is_a_step() -> None:
    one = built.run(iterations={"converge": [{"energy": -1.0}, {"energy": -2.0, "change": None}]})
    assert [(p.name, p.value, p.step) for p in points(one) if "/" not in p.name] == [
        ("energy", -1.0, 1),
        ("energy", -2.0, 2),
    ]
    two = built.run(iterations={"a": [{"energy": 1.0}], "b": [{"energy": 2.0}]})
    assert {"a/energy", "b/energy"} <= {point.name for point in points(two)}


def test_what_the_flow_recorded_does_not_mix_with_a_loops_column() -> None:
    run = built.run(
        iterations={"converge": [{"energy": -1.0}]},
        measures={"energy": -1.5, "label": "x", "good": True, "shots": 7},
    )
    found = {point.name: point.value for point in points(run)}
    assert (found["energy"], found["recorded/energy"], found["shots"]) == (-1.0, -1.5, 7.0)
    assert not {"label", "good"} & found.keys()


def test_parameters_in_mappings_are_told_by_their_paths() -> None:
    given_ = {"shots": 7, "options": {"seed": 1, "déjà*vu": "x"}, "../up": 1, "none": None}
    assert dict(parameters(given_)) == {
        "shots": "7", "options.seed": "1", "options.déjà_vu": "x", "up": "1", "none": "None",
    }  # fmt: skip


def test_tags_name_the_run_its_code_and_state() -> None:
    told = tags(built.run(state="failed", message="so"), "failed")
    assert told["hpc_prefect.state"] == "failed"
    assert told["hpc_prefect.message"] == "so"
    assert told["mlflow.source.git.commit"] == built.CODE["commit"]


def export(python: Path, folder: Path, *, to: str) -> str:
    done = subprocess.run(
        [str(python), "-c", RUN, "runs", "export", str(folder), "--format", "mlflow", "--to", to],
        capture_output=True, text=True, timeout=250,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The record of a run that goes on."""
    row = {"iteration": 1, "energy": -1.0}
    loop = {"loop": "converge", "folder": "/x", "number": 1, "row": row}
    events = [
        given.began("run-4711", parameters={"shots": 7, "api_token": "**********"}),
        given.event(given.BEGAN + 1, "iteration", **loop),
    ]
    folder = given.record(tmp_path / "work", events)
    index.put(given.summary(folder, events))
    (folder / "run.json").write_text('{"setup": ["export MY_TOKEN=hidden-4711"]}')
    return folder


def go_on(folder: Path) -> None:
    row = {"iteration": 2, "energy": -2.0}
    loop = {"loop": "converge", "folder": "/x", "number": 2, "row": row}
    with open(folder / "events.jsonl", "ab") as file:
        file.write(given.lines([given.event(given.BEGAN + 2, "iteration", **loop)]))
        file.write(given.lines([given.ended(given.BEGAN + 3)]))


@pytest.mark.timeout(900)  # it may wait for the installation
def test_a_folder_of_mlflow_has_a_run_once_and_no_secret(
    mlflow: Path, run: Path, tmp_path: Path
) -> None:
    store = tmp_path / "mlruns"
    first = export(mlflow, run, to=str(store))
    go_on(run)
    assert export(mlflow, run, to=str(store)) == first
    assert export(mlflow, run, to=str(store)) == first
    (kept,) = store.glob(f"*/{first}")
    assert (kept / "params" / "shots").read_text() == "7"
    values = [line.split() for line in (kept / "metrics" / "energy").read_text().splitlines()]
    assert [(float(value), step) for _, value, step in values] == [(-1.0, "1"), (-2.0, "2")]
    assert (kept / "tags" / "hpc_prefect.state").read_text() == "completed"
    assert "**********" in (kept / "artifacts" / "run.json").read_text()
    files = [path for path in store.rglob("*") if path.is_file()]
    assert [path for path in files if b"hidden-4711" in path.read_bytes()] == []


@pytest.fixture
def server(mlflow_server: Path, tmp_path: Path) -> Iterator[str]:
    """The address of MLflow's own server."""
    port = free_port()
    home = tmp_path / "server"
    home.mkdir()
    with open(home / "log", "wb") as log:
        process = subprocess.Popen(
            [mlflow_server, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
             "--workers", "1", "--backend-store-uri", f"sqlite:///{home}/db",
             "--artifacts-destination", str(home / "artifacts")],
            cwd=home, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        yield from _answering(f"http://127.0.0.1:{port}", process)
    finally:
        process.terminate()
        process.wait(timeout=60)


def _answering(url: str, process: subprocess.Popen[bytes]) -> Iterator[str]:
    from tests.flows.seen import until

    def answers() -> bool:
        assert process.poll() is None
        with suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
            return answer.status == 200
        return False

    until(answers)
    yield url


@pytest.mark.timeout(900)
def test_a_server_of_mlflow_has_a_run_once(
    server: str, mlflow: Path, run: Path, tmp_path: Path
) -> None:
    first = export(mlflow, run, to=server)
    go_on(run)
    assert export(mlflow, run, to=server) == first
    query = f"{server}/api/2.0/mlflow/metrics/get-history?run_id={first}&metric_key=energy"
    with urllib.request.urlopen(query, timeout=60) as answer:
        told = answer.read().decode()
    assert told.count('"step"') == 2
    kept = list((tmp_path / "server" / "artifacts").rglob("run.json"))
    assert len(kept) == 1
    assert b"hidden-4711" not in kept[0].read_bytes()
