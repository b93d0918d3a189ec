"""The list of runs: safe for many writers, made anew from the records, and asked by name."""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpc_prefect.errors import LedgerError, NotOurs, TransportError
from hpc_prefect.records import index
from hpc_prefect.records.index import UnknownRun, find_one, put, scan
from hpc_prefect.records.read import read_run

from . import given

Make = Callable[..., Path]


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A run that is in the list; its record's folder."""

    def one(ident: str, **more: Any) -> Path:
        folder = given.run(tmp_path / "work", ident=ident, **more)
        put(read_run(folder, with_jobs=False).summary())
        return folder

    return one


def listed() -> dict[str, dict[str, Any]]:
    return {each["id"]: each for each in index.entries()}


def test_before_the_first_run_the_list_is_empty() -> None:
    assert index.entries() == []


def test_what_is_put_is_there_and_nobody_elses_business(make: Make, data: Path) -> None:
    make("abcd-1", parameters={"shots": 10})
    files = list((data / "hpc-prefect" / "runs").iterdir())
    assert [file.name for file in files] == ["abcd-1.json"]
    assert [path.stat().st_mode & 0o777 for path in (files[0], *files[0].parents[:2])] == [
        0o600, 0o700, 0o700,
    ]  # fmt: skip
    assert listed()["abcd-1"]["parameters"] == {"shots": 10}


def test_a_run_has_one_entry_the_newest(tmp_path: Path) -> None:
    for state in ("running", "completed"):
        put(given.summary(tmp_path, [given.began("abcd-1"), given.ended(given.BEGAN, state)]))
    assert [each["state"] for each in index.entries()] == ["completed"]


@pytest.mark.parametrize("ident", ["", "..", "../../x", "a/b", ".hidden", "x" * 200, "a\n"])
def test_an_id_that_is_no_name_of_a_file_is_refused(ident: str, tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="is not a valid id of a run"):
        put({"format": 1, "id": ident})


def test_a_folder_in_which_others_may_write_is_not_used(data: Path) -> None:
    (data / "hpc-prefect").mkdir(parents=True)
    (data / "hpc-prefect").chmod(0o777)
    with pytest.raises(NotOurs, match="others may write"):
        put(given.summary(data, [given.began("abcd-1")]))


def test_a_place_where_nothing_can_be_written_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "/dev/null")
    with pytest.raises(TransportError, match="for the list of runs"):
        put(given.summary(Path("/w"), [given.began("abcd-1")]))


@pytest.mark.parametrize(
    "content",
    ["", '{"format": 1, "id"', "[]", '{"format": 2}', '{"format": 1, "id": "x"}', "[" * 100_000],
    ids=["empty", "torn", "no object", "later", "less", "deep"],
)
def test_an_entry_that_cannot_be_read_is_passed_over(
    content: str, make: Make, data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make("abcd-1")
    (data / "hpc-prefect" / "runs" / "bad.json").write_text(content)
    with caplog.at_level(logging.WARNING):
        assert list(listed()) == ["abcd-1"]
    assert "1 runs are missing from this list" in caplog.text
    assert "bad.json" in caplog.text


def test_a_time_in_an_entry_that_can_be_none_counts_as_not_known(make: Make, data: Path) -> None:
    make("abcd-1")
    path = data / "hpc-prefect" / "runs" / "abcd-1.json"
    strange = json.loads(path.read_text()) | {"started": float("nan"), "updated": float("inf")}
    path.write_text(json.dumps(strange | {"ended": 10**400}))
    (entry,) = index.entries()
    assert [entry[name] for name in ("started", "ended", "updated")] == [0, 0, 0]


def test_an_entry_that_fails_in_any_way_is_passed_over(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    make("abcd-1")
    make("abcd-2")
    read = index._read

    def fail(path: str) -> dict[str, Any] | None:
        if path.endswith("abcd-1.json"):
            raise MemoryError
        return read(path)

    monkeypatch.setattr(index, "_read", fail)
    with caplog.at_level(logging.WARNING):
        assert list(listed()) == ["abcd-2"]
    assert "(abcd-1.json: MemoryError)" in caplog.text


def test_what_is_being_written_is_not_read(make: Make, data: Path) -> None:
    make("abcd-1")
    (data / "hpc-prefect" / "runs" / ".abcd-2.json.1-2-3").write_text("{")
    assert list(listed()) == ["abcd-1"]


WRITER = """
import sys
from pathlib import Path
from hpc_prefect.records import index
base = {"format": 1, "name": "n", "flow": "f", "folder": "/", "state": "running", "started": 1,
        "ended": 0, "updated": 1, "parameters": {"long": "x" * 20000}, "measures": {}, "totals": {}}
for number in range(100):
    for ident in ("same-1", "same-2", "own-" + sys.argv[1]):
        index.put(base | {"id": ident, "host": sys.argv[1]})
"""


def test_many_processes_write_and_read_at_once(caplog: pytest.LogCaptureFixture) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(n)]) for n in range(3)]
    try:
        with caplog.at_level(logging.WARNING):
            while any(each.poll() is None for each in writers):
                index.entries()
    finally:
        ends = [each.wait() for each in writers]
    assert (ends, caplog.text) == ([0, 0, 0], "")
    assert sorted(listed()) == ["own-0", "own-1", "own-2", "same-1", "same-2"]


# Made anew


def test_a_scan_finds_the_records_below_a_folder(tmp_path: Path) -> None:
    given.run(tmp_path / "a" / "b", ident="abcd-1")
    given.run(tmp_path / "c", ident="abcd-2")

    first, again = scan([tmp_path]), scan([tmp_path / "a", tmp_path / "c"])

    assert (first.found, first.new, first.skipped) == (2, 2, 0)
    assert (again.found, again.new) == (2, 0)
    assert sorted(listed()) == ["abcd-1", "abcd-2"]


@pytest.mark.parametrize("above", range(6))
def test_a_scan_may_begin_anywhere_above_a_record(above: int, tmp_path: Path) -> None:
    folder = given.run(tmp_path / "work", ident="abcd-1")
    assert scan([(folder, *folder.parents)[above]]).found == 1


def test_a_scan_finds_what_was_moved(make: Make, tmp_path: Path) -> None:
    make("abcd-1")
    (tmp_path / "work").rename(tmp_path / "moved")
    assert scan([tmp_path / "moved"]).found == 1
    assert listed()["abcd-1"]["folder"].startswith(f"{tmp_path}/moved/")


def test_a_copy_of_a_record_does_not_take_its_place(make: Make, tmp_path: Path) -> None:
    folder = make("abcd-1")
    shutil.copytree(tmp_path / "work", tmp_path / "copy")
    scan([tmp_path])
    assert listed()["abcd-1"]["folder"] == str(folder)


def test_a_scan_does_not_undo_what_a_run_wrote_meanwhile(make: Make, tmp_path: Path) -> None:
    folder = make("abcd-1")
    newer = listed()["abcd-1"] | {"updated": given.BEGAN + 1000, "measures": {"energy": -9}}
    put(newer)
    scan([folder])
    assert listed()["abcd-1"]["measures"] == {"energy": -9}


def test_a_scan_does_not_go_round_in_circles(tmp_path: Path) -> None:
    given.run(tmp_path / "work", ident="abcd-1")
    (tmp_path / "work" / "circle").symlink_to(tmp_path)
    assert scan([tmp_path]).found == 1


def test_a_scan_follows_a_link_that_it_was_given(tmp_path: Path) -> None:
    given.run(tmp_path / "work", ident="abcd-1")
    (tmp_path / "link").symlink_to(tmp_path / "work")
    assert scan([tmp_path / "link"]).found == 1


def test_a_scan_passes_over_what_it_cannot_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given.run(tmp_path, ident="abcd-1")
    bad = given.run(tmp_path, ident="abcd-2")
    (bad / "events.jsonl").write_text("nonsense\n")
    strange = given.run(tmp_path, ident="abcd-3", campaign="")
    (strange / "events.jsonl").write_bytes(given.lines([given.began("../x")]))

    with caplog.at_level(logging.WARNING):
        done = scan([tmp_path])

    assert (done.found, done.skipped) == (1, 2)
    assert str(bad) in caplog.text


def test_a_record_that_fails_in_any_way_does_not_end_a_scan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folders = [given.run(tmp_path, ident=f"abcd-{n}") for n in range(3)]

    def fail_to_read(folder: str, **how: Any) -> Any:
        if folder == str(folders[0]):
            raise MemoryError
        return read_run(folder, **how)

    def fail_to_put(summary: dict[str, Any]) -> None:
        if summary["id"] == "abcd-1":
            raise RecursionError("too deep")
        put(summary)

    monkeypatch.setattr(index, "read_run", fail_to_read)
    monkeypatch.setattr(index, "put", fail_to_put)
    with caplog.at_level(logging.WARNING):
        done = scan([tmp_path])

    assert (done.found, done.skipped, list(listed())) == (1, 2, ["abcd-2"])
    assert f"the record in {folders[0]} cannot be read: MemoryError" in caplog.text
    assert f"the record in {folders[1]} cannot be read: too deep" in caplog.text


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_scan_passes_over_a_folder_that_it_may_not_look_into(tmp_path: Path) -> None:
    given.run(tmp_path / "open", ident="abcd-1")
    (tmp_path / "closed").mkdir(mode=0)
    assert scan([tmp_path]).found == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_the_runs_of_other_users_are_theirs(tmp_path: Path) -> None:
    given.run(tmp_path, ident="abcd-1")
    os.chown(tmp_path / ".hpc-prefect", 4242, -1)
    assert scan([tmp_path]).found == 0


def test_a_scan_of_nowhere_is_said(tmp_path: Path) -> None:
    with pytest.raises(UnknownRun, match="there is no folder"):
        scan([tmp_path / "nowhere"])


def test_what_is_gone_is_forgotten_when_that_is_asked_for(make: Make) -> None:
    make("abcd-1")
    shutil.rmtree(make("abcd-2"))
    assert index.prune() == 1
    assert list(listed()) == ["abcd-1"]


# Whether it goes on


def dead(ident: str) -> dict[str, Any]:
    environment = {"host": socket.gethostname(), "pid": given.dead_process()}
    return given.began(ident, environment=environment)


def test_a_run_that_died_is_found_dead_once(tmp_path: Path) -> None:
    events = [dead("abcd-1")]
    put(given.summary(given.record(tmp_path, events), events))
    (entry,) = index.entries()
    assert index.current(entry)["state"] == "died"
    assert listed()["abcd-1"]["state"] == "died"


def test_an_end_that_the_list_has_missed_is_read_from_the_record(tmp_path: Path) -> None:
    events = [dead("abcd-1"), given.ended(given.BEGAN + 5, "failed")]
    put(given.summary(given.record(tmp_path, events), events[:1]))
    (entry,) = index.entries()
    assert (entry["state"], index.current(entry)["state"]) == ("running", "failed")
    assert listed()["abcd-1"]["state"] == "failed"


def test_a_run_that_died_with_its_folder_has_died(tmp_path: Path) -> None:
    put(given.summary(tmp_path / "gone", [dead("abcd-1")]))
    (entry,) = index.entries()
    assert index.current(entry)["state"] == "died"


# By name


@pytest.mark.parametrize("name", ["abcd-1234", "abcd-1", "ABCD-1", "red-fox"])
def test_a_run_is_named_by_its_id_its_beginning_or_its_name(name: str, make: Make) -> None:
    make("abcd-1234", name="red-fox")
    make("abcd-5678", name="blue-jay")
    assert find_one(name)["id"] == "abcd-1234"


def test_a_whole_id_is_meant_though_another_one_begins_with_it(make: Make) -> None:
    make("abcd")
    make("abcd-2")
    assert find_one("abcd")["id"] == "abcd"


@pytest.mark.parametrize("name", ["abcd", "hot-polecat"])
def test_a_name_of_several_runs_lists_them(name: str, make: Make) -> None:
    make("abcd-1", time=given.BEGAN)
    make("abcd-2", time=given.BEGAN + 60)
    with pytest.raises(UnknownRun, match=r"matches 2 runs[^\n]*\n  abcd-2 .*\n  abcd-1 "):
        find_one(name)


def test_names_of_others_do_nothing_to_a_terminal(make: Make) -> None:
    for ident in ("abcd-1", "abcd-2"):
        make(ident, name="\x1b[2J\nevil")
    with pytest.raises(UnknownRun) as said:
        find_one("abcd")
    assert "\x1b" not in str(said.value)
    assert "  ?[2J?evil  " in str(said.value)


def test_of_several_runs_those_that_are_gone_are_not_meant(make: Make) -> None:
    make("abcd-1")
    shutil.rmtree(make("abcd-2"))
    assert find_one("hot-polecat")["id"] == "abcd-1"


@pytest.mark.parametrize("name", ["abc", "none-such", "", "latest", "./nowhere"])
def test_a_name_of_no_run_is_said(name: str, make: Make) -> None:
    if name != "latest":
        make("abcd-1")
    with pytest.raises(UnknownRun, match=r"known|no folder"):
        find_one(name)


def test_the_latest_is_the_newest_that_is_there(make: Make) -> None:
    make("abcd-1", time=given.BEGAN)
    make("abcd-2", time=given.BEGAN + 60)
    shutil.rmtree(make("abcd-3", time=given.BEGAN + 90))
    assert find_one("latest")["id"] == "abcd-2"


def test_a_run_is_named_by_its_records_folder_known_or_not(tmp_path: Path) -> None:
    folder = given.run(tmp_path, ident="abcd-1")
    assert find_one(str(folder))["id"] == "abcd-1"


def test_several_are_read_whole_by_their_ids_names_and_folders(make: Make, tmp_path: Path) -> None:
    make("abcd-1", jobs=[given.job("k", given.BEGAN)])
    folder = given.run(tmp_path, ident="abcd-2", jobs=[given.job("l", given.BEGAN)])
    found = index.read_each(["abcd-1", str(folder)])
    assert [(each.id, list(each.jobs)) for each in found] == [("abcd-1", ["k"]), ("abcd-2", ["l"])]
    with pytest.raises(UnknownRun, match="no run 'abcd-3'"):
        index.read_each([str(folder), "abcd-3"])


@pytest.mark.parametrize("known", [True, False])
def test_of_a_folder_above_the_newest_is_taken_and_that_is_said(
    known: bool, make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make("abcd-1", time=given.BEGAN)
    make("abcd-2", time=given.BEGAN + 60)
    if not known:
        shutil.rmtree(tmp_path / "data")
    with caplog.at_level(logging.WARNING):
        assert find_one(str(tmp_path / "work"))["id"] == "abcd-2"
    assert "2 runs are in" in caplog.text


def test_a_folder_without_a_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(UnknownRun, match="no record of a run is in"):
        find_one(str(tmp_path))


def test_an_entry_is_one_object_of_json(make: Make, data: Path) -> None:
    make("abcd-1")
    entry = json.loads((data / "hpc-prefect" / "runs" / "abcd-1.json").read_text())
    assert (entry["format"], entry["id"]) == (1, "abcd-1")
