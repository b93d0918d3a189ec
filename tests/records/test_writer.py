"""Who appends to a record: several processes, a file server in trouble, Python that ends."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from hpc_prefect.records.fold import Record
from hpc_prefect.records.read import read_run
from hpc_prefect.records.write.writer import RunWriter
from hpc_prefect.transports.local import LocalTransport

from ..tasks.seen import until

RUN = {"id": "0a0b0c0d-1", "name": "n", "kind": "flow", "flow": "f", "attempt": 1}


@pytest.fixture(autouse=True)
def _own_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path / ".hpc-prefect" / "c-1" / "runs" / "r")


def begin(writer: RunWriter) -> None:
    writer.note("began", format=1, run=RUN, parameters={}, environment={})


def done(writer: RunWriter, key: str, hours: float) -> None:
    facts = {"state": "succeeded", "attempt": 1, "job_id": key, "node_hours": hours}
    writer.note("job-ended", key=key, kind="batch", **facts)


def listed(folder: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(folder, "run.json").read_text())
    return found


def written(folder: str) -> Record:
    until(lambda: not [each for each in threading.enumerate() if "record" in each.name])
    return read_run(folder)


def test_run_json_has_what_all_processes_of_the_run_wrote(folder: str) -> None:
    flow, worker = RunWriter(folder), RunWriter(folder)
    begin(flow)
    for number in range(3):
        done(worker, f"w{number}", 10.0)
    written(folder)
    done(flow, "f", 1.0)
    flow.note("ended", state="completed", message="")
    assert written(folder).totals.costs == {"node_hours": 31.0}
    assert listed(folder)["totals"]["costs"] == {"node_hours": 31.0}
    done(worker, "late", 10.0)
    assert written(folder).totals.costs == {"node_hours": 41.0}
    assert (listed(folder)["state"], listed(folder)["totals"]["reused"]) == ("completed", 0)


class Troubled(LocalTransport):
    """A file server that fails some appends, one of them in the middle."""

    def __init__(self, *faults: int) -> None:
        super().__init__()
        self.faults = list(faults)

    def append(self, path: str, data: bytes, *, durable: bool = False) -> None:
        if self.faults:
            super().append(path, data[: self.faults.pop(0)], durable=durable)
            raise OSError(errno.ENOSPC, "No space left on device")
        super().append(path, data, durable=durable)


@pytest.mark.parametrize("faults", [(0,), (40,), (40, 90), (0, 0, 0, 7)])
def test_what_could_not_be_written_is_written_later(
    folder: str, faults: tuple[int, ...], caplog: pytest.LogCaptureFixture
) -> None:
    writer = RunWriter(folder, transport=Troubled(*faults))
    begin(writer)
    written_jobs = [done(writer, f"j{number}", 1.0) for number in range(3)]
    until(lambda: not [each for each in threading.enumerate() if "record" in each.name])
    writer.note("ended", state="completed", message="")
    record = written(folder)
    assert (record.state, record.totals.jobs) == ("completed", {"succeeded": len(written_jobs)})
    assert caplog.text.count("misses something") == 1


SCRIPT = """
import atexit, sys
from hpc_prefect.records.write.writer import RunWriter
writer = RunWriter(sys.argv[1])
def end():
    RunWriter.threads_end()
    writer.note("ended", state="completed", message="")
atexit.register(end)
writer.note("began", format=1, run={run}, parameters={{}}, environment={{}})
"""


def test_what_is_told_while_the_interpreter_ends_is_written(folder: str) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT.format(run=RUN), folder], timeout=100)
    assert done.returncode == 0
    assert read_run(folder).state == "completed"
