"""A run's record is read whatever has happened to its files, and says whether the run goes on."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given as given_any
from hypothesis import strategies as st

from hpc_prefect.errors import LedgerError, NotOurs
from hpc_prefect.local_batch import process
from hpc_prefect.records import read
from hpc_prefect.records.fold import EVENTS, RUN
from hpc_prefect.records.read import read_run, standing

from . import given


def test_a_record_is_what_its_events_say(tmp_path: Path) -> None:
    folder = given.run(
        tmp_path,
        ident="abcd-1",
        parameters={"shots": 1000},
        measures={"energy": -1.1},
        jobs=[given.job("k1", given.BEGAN + 1, node_hours=0.5)],
    )

    record = read_run(folder)

    assert (record.id, record.name, record.flow) == ("abcd-1", "hot-polecat", "sqd-loop")
    assert (record.parameters, record.measures) == ({"shots": 1000}, {"energy": -1.1})
    assert record.jobs["k1"]["state"] == "succeeded"
    assert record.totals.as_dict()["costs"] == {"node_hours": 0.5}
    assert (record.state, record.wall_seconds) == ("completed", 10)
    assert record.folder == str(folder)


def test_the_jobs_are_counted_where_they_are_not_wanted(tmp_path: Path) -> None:
    folder = given.run(tmp_path, jobs=[given.job(f"k{n}", given.BEGAN + n) for n in range(3)])
    record = read_run(folder, with_jobs=False)
    assert (record.jobs, record.totals.jobs["succeeded"]) == ({}, 3)


def test_events_of_several_processes_are_put_in_their_order(tmp_path: Path) -> None:
    began = given.began("abcd-1")
    late = given.event(given.BEGAN + 30, "measures", values={"energy": -2})
    early = given.event(given.BEGAN + 20, "measures", values={"energy": -1, "spread": 3})
    folder = given.record(tmp_path, [began, late])
    (folder / "events-2.jsonl").write_bytes(given.lines([early]))
    (folder / "events-10.jsonl").write_bytes(given.lines([given.ended(given.BEGAN + 40)]))

    record = read_run(folder)

    assert record.measures == {"energy": -2, "spread": 3}
    assert record.state == "completed"


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    folder = given.run(tmp_path, ident="abcd-1", state="")
    whole = given.lines([given.ended(given.BEGAN + 5, "failed")])
    with (folder / EVENTS).open("ab") as file:
        file.write(whole[:-2])
    assert read_run(folder).state == "running"


@given_any(
    junk=st.lists(
        st.binary(max_size=40)
        | st.dictionaries(st.sampled_from(["time", "event", "values", "key"]), st.none()
                          | st.floats() | st.sampled_from(["began", "job-ended", "measures"]))
        .map(lambda found: json.dumps(found).encode()),
        max_size=5,
    )
)  # fmt: skip
def test_lines_that_make_no_sense_are_left_out(
    junk: list[bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = given.run(tmp_path_factory.mktemp("w"), ident="abcd-1", state="")
    with (folder / EVENTS).open("ab") as file:
        file.write(b"".join(line.replace(b"\n", b"") + b"\n" for line in junk))
        file.write(given.lines([given.ended(given.BEGAN + 5, "failed")]))
    record = read_run(folder)
    assert (record.id, record.state) == ("abcd-1", "failed")


def test_a_line_may_be_longer_than_what_is_read_at_a_time(tmp_path: Path) -> None:
    long = "x" * (3 * read._PIECE)
    folder = given.run(tmp_path, parameters={"long": long}, measures={"energy": -1})
    assert read_run(folder).parameters == {"long": long}


@pytest.mark.parametrize("end", [b"", b"\n", b"\n{}\n"], ids=["torn", "whole", "not the last"])
def test_a_line_that_is_too_long_is_passed_over_in_no_time(end: bytes, tmp_path: Path) -> None:
    folder = given.run(tmp_path, ident="abcd-1", state="")
    path = folder / "events-2.jsonl"
    path.touch()
    os.truncate(path, 200 << 20)
    with path.open("ab") as file:
        file.write(end + given.lines([given.ended(given.BEGAN + 5, "failed")]) * bool(end))
    before = time.process_time()
    assert read_run(folder).state == ("failed" if end else "running")
    assert time.process_time() - before < 5


def test_a_run_json_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    folder = given.run(tmp_path, ident="abcd-1")
    (folder / RUN).touch()
    os.truncate(folder / RUN, 60 << 30)
    assert read_run(folder).id == "abcd-1"


@pytest.mark.parametrize("when", ["1e999", "-1e999", "NaN", "1" + "0" * 400, "1e300", "-1", '"x"'])
def test_an_event_at_no_time_is_left_out(when: str, tmp_path: Path) -> None:
    folder = given.run(tmp_path, ident="abcd-1")
    with (folder / EVENTS).open("a") as file:
        file.write(f'{{"event": "ended", "time": {when}, "state": "failed"}}\n')
    record = read_run(folder)
    assert (record.state, record.updated) == ("completed", given.BEGAN + 10)


@pytest.mark.parametrize("number", ["1e999", "NaN", "1" + "0" * 400])
def test_an_event_with_an_absurd_number_keeps_no_other_from_being_read(
    number: str, tmp_path: Path
) -> None:
    folder = given.run(tmp_path, ident="abcd-1", state="")
    with (folder / EVENTS).open("a") as file:
        for event in (
            f'"iteration", "loop": "l", "number": {number}, "row": {{}}',
            f'"job-ended", "key": "k", "state": "succeeded", "run_seconds": {number}',
            '"ended", "state": "failed"',
        ):
            file.write(f'{{"time": {given.BEGAN + 5}, "event": {event}}}\n')
    assert read_run(folder).summary()["state"] == "failed"


def test_a_folder_without_a_record_is_said(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match=r"has no record of a run.*runs scan"):
        read_run(tmp_path)
    with pytest.raises(LedgerError, match="has no record of a run"):
        read_run(tmp_path / "not" / "there")


def test_a_record_without_a_beginning_is_said(tmp_path: Path) -> None:
    folder = given.run(tmp_path)
    (folder / EVENTS).write_bytes(given.lines([given.ended(given.BEGAN)]))
    with pytest.raises(LedgerError, match="do not say which run they belong to"):
        read_run(folder)


@pytest.mark.parametrize("name", [RUN, EVENTS])
def test_a_record_of_a_later_format_is_not_guessed_at(name: str, tmp_path: Path) -> None:
    folder = given.run(tmp_path, ident="abcd-1")
    later = {"time": given.BEGAN, "event": "began", "format": 2, "run": {"id": "abcd-1"}}
    (folder / name).write_bytes(given.lines([later]))
    with pytest.raises(LedgerError, match=r"of format 2.*reads format 1"):
        read_run(folder)


def test_a_torn_run_json_does_not_matter(tmp_path: Path) -> None:
    folder = given.run(tmp_path, ident="abcd-1")
    (folder / RUN).write_text('{"format": 2')
    assert read_run(folder).id == "abcd-1"


def test_events_in_which_others_may_have_written_are_not_believed(tmp_path: Path) -> None:
    folder = given.run(tmp_path)
    folder.chmod(0o777)
    with pytest.raises(NotOurs):
        read_run(folder)


# Whether it goes on


def running(environment: dict[str, Any], updated: float | None = None) -> dict[str, Any]:
    """The summary of a run without an end."""
    at = time.time() if updated is None else updated
    return given.summary(Path("/w"), [given.began("abcd-1", at, environment=environment)])


def test_a_run_whose_process_lives_is_running() -> None:
    assert standing(given.summary(Path("/w"), [given.began("abcd-1", time.time())])) == "running"
    by_pid = {"host": socket.gethostname(), "pid": os.getpid()}
    assert standing(running(by_pid)) == "running"


@pytest.mark.parametrize("known", ["process", "pid"])
def test_a_run_whose_process_was_killed_has_died(known: str) -> None:
    child = subprocess.Popen(["sleep", "60"])
    environment = {"host": socket.gethostname(), "pid": child.pid}
    if known == "process":
        environment["process"] = process.identity(child.pid)
    summary = running(environment)
    before = standing(summary)
    child.kill()
    child.wait()
    assert (before, standing(summary)) == ("running", "died")


def test_a_run_has_died_when_somebody_else_has_its_pid() -> None:
    long_before = time.time() - 10 * 365 * 86400
    summary = running({"host": socket.gethostname(), "pid": os.getpid()}, updated=long_before)
    assert standing(summary) == "died"


def test_a_run_of_an_earlier_boot_has_died() -> None:
    who = f"00000000-0000-0000-0000-000000000000 {os.getpid()} 12 4026531836"
    environment = {"host": socket.gethostname(), "pid": os.getpid(), "process": who}
    assert standing(running(environment, updated=1000.0)) == "died"
    # Heard of since this host was booted: it is another machine of the same name.
    assert standing(running(environment)) == "running"


@pytest.mark.parametrize("environment", [{}, {"host": "elsewhere", "pid": 1}])
def test_of_a_run_elsewhere_nothing_is_concluded(environment: dict[str, Any]) -> None:
    assert standing(running(environment, updated=1000.0)) == "running"


@pytest.mark.parametrize("pid", ["many", [1], {}, True, -1, 10**400, float("inf")])
def test_a_process_that_makes_no_sense_proves_nothing(pid: Any) -> None:
    here = {"host": socket.gethostname(), "pid": pid}
    assert standing(running(here)) in ("running", "died")
    assert standing(running(here) | {"updated": 10**400}) in ("running", "died")


def test_a_process_of_which_a_part_is_missing_proves_nothing() -> None:
    here = {"host": socket.gethostname(), "pid": os.getpid()}
    boot = process.boot_id()
    assert standing(running(here | {"process": boot})) == "running"


@pytest.mark.parametrize("state", ["completed", "failed", "cancelled", "crashed"])
def test_a_run_that_has_ended_stays_what_it_was(state: str, tmp_path: Path) -> None:
    assert standing(read_run(given.run(tmp_path, state=state))) == state
