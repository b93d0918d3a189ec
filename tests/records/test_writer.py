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


def written(*writers: RunWriter) -> Record:
    assert all(writer.settle(100) for writer in writers)
    return read_run(writers[0].folder)


def test_run_json_has_what_all_processes_of_the_run_wrote(folder: str) -> None:
    flow, worker = RunWriter(folder), RunWriter(folder)
    begin(flow)
    for number in range(3):
        done(worker, f"w{number}", 10.0)
    written(flow, worker)
    done(flow, "f", 1.0)
    flow.note("ended", state="completed", message="")
    assert written(flow).totals.costs == {"node_hours": 31.0}
    assert listed(folder)["totals"]["costs"] == {"node_hours": 31.0}
    done(worker, "late", 10.0)
    assert written(worker).totals.costs == {"node_hours": 41.0}
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
    assert writer.settle(100)
    writer.note("ended", state="completed", message="")
    record = written(writer)
    assert (record.state, record.totals.jobs) == ("completed", {"succeeded": len(written_jobs)})
    assert caplog.text.count("could not be written into") == 1


SCRIPT = """
import atexit, sys
from hpc_prefect.records.write import leaving
from hpc_prefect.records.write.writer import RunWriter
writer = RunWriter(sys.argv[1])
def end():
    writer.note("ended", state="completed", message="")
    leaving.leave_all()
atexit.register(end)
writer.note("began", format=1, run={run}, parameters={{}}, environment={{}})
"""
POOL = """
import multiprocessing, sys, threading
from hpc_prefect.records.write.writer import RunWriter
def work(folder):  # in a daemon, as calls of a flow's thread are
    thread = threading.Thread(target=tell, args=(folder,), daemon=True)
    thread.start()
    thread.join()
def tell(folder):
    writer = RunWriter(folder)
    writer.note("began", format=1, run={run}, parameters={{}}, environment={{}})
    for number in range(500):
        writer.note("job-ended", key=str(number), attempt=1, state="succeeded")
if __name__ == "__main__":
    RunWriter(sys.argv[1] + "-of-another").note("measures", values={{}})
    child = multiprocessing.get_context("fork").Process(target=work, args=sys.argv[1:])
    child.start()
    child.join()
"""


def test_what_is_told_while_the_interpreter_ends_is_written(folder: str) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT.format(run=RUN), folder], timeout=100)
    assert done.returncode == 0
    assert read_run(folder).state == "completed"


def test_what_a_pools_process_has_told_is_written_when_it_ends(folder: str) -> None:
    done = subprocess.run([sys.executable, "-c", POOL.format(run=RUN), folder], timeout=100)
    assert done.returncode == 0
    assert read_run(folder).totals.jobs == {"succeeded": 500}


class Hanging(LocalTransport):
    """A file server that takes nothing before it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.released = threading.Event()

    def append(self, path: str, data: bytes, *, durable: bool = False) -> None:
        assert self.released.wait(100)
        super().append(path, data, durable=durable)


def test_nobody_waits_for_a_file_server_that_hangs(folder: str) -> None:
    server = Hanging()
    writer = RunWriter(folder, transport=server)
    begin(writer)
    for number in range(3):
        done(writer, f"j{number}", 1.0)
    writer.note("ended", state="completed", message="")
    writer.close()
    assert not writer.settle(0.01)
    server.released.set()
    record = written(writer)
    assert (record.state, record.totals.jobs) == ("completed", {"succeeded": 3})


DEAD = """
import sys, threading
from hpc_prefect.records.write.writer import RunWriter
from hpc_prefect.transports.local import LocalTransport
class Dead(LocalTransport):
    def append(self, *_, **__):
        threading.Event().wait()
writer = RunWriter(sys.argv[1], transport=Dead(), patience=float(sys.argv[2]))
writer.note("began", format=1, run={run}, parameters={{}}, environment={{}})
print("the results are there")
"""


def test_a_record_alone_does_not_hold_an_interpreter_for_ever(folder: str) -> None:
    program = [sys.executable, "-c", DEAD.format(run=RUN), folder, "0.5"]
    done = subprocess.run(program, timeout=100, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "the results are there\n")
    assert "the last entries of this run's record" in done.stderr


SLOW = """
import sys, time
from hpc_prefect.records.write.writer import RunWriter
from hpc_prefect.transports.local import LocalTransport
writer = RunWriter(sys.argv[1], patience=15.0)  # a busy machine may stand still for some seconds
def digest(number):
    time.sleep(0.8)
    return [("job-ended", dict(key=str(number), attempt=1, state="succeeded"))]
writer.note("began", format=1, run={run}, parameters={{}}, environment={{}})
for number in range(20):  # longer than its patience, and each much shorter
    writer.later(lambda number=number: digest(number))
"""


def test_a_process_that_ends_waits_for_as_long_as_something_is_written(folder: str) -> None:
    done = subprocess.run([sys.executable, "-c", SLOW.format(run=RUN), folder], timeout=100)
    assert done.returncode == 0
    assert read_run(folder).totals.jobs == {"succeeded": 20}
