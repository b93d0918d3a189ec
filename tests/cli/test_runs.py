"""`hpc-prefect runs`, as a user meets it."""

from __future__ import annotations

import csv
import io
import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from hpc_prefect.cli import main, runs_words
from hpc_prefect.errors import ConfigurationError
from hpc_prefect.records import index, runs
from hpc_prefect.records.read import read_run

from ..records import given

Said = tuple[int, str, str]
Command = Callable[..., Said]


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """`hpc-prefect runs …`: its status, and what it printed."""

    def run(*words: str) -> Said:
        try:
            status = main(["runs", *words])
        except SystemExit as end:
            status = int(str(end.code))
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    """Three runs: of 100, 1000 and 10000 shots, one of which failed."""
    folders = []
    for n, (shots, state) in enumerate(
        ((100, "completed"), (1000, "failed"), (10000, "completed"))
    ):
        folder = given.run(
            tmp_path / f"work-{n}",
            ident=f"{n}{n}{n}{n}1111-aaaa",
            name=f"run-{n}",
            time=given.BEGAN + 3600 * n,
            parameters={"shots": shots, "molecule": {"basis": "sto-3g"}},
            measures={"energy": -1.0 - n / 3},
            state=state,
            jobs=[
                given.job("k1", given.BEGAN + 3600 * n, node_hours=0.5, queue_seconds=2.0),
                given.job("k2", given.BEGAN + 3600 * n, state="failed", node_hours=None,
                          reason="oom"),
                given.job("k3", given.BEGAN + 3600 * n, collected=True, node_hours=4.0),
            ],
        )  # fmt: skip
        index.put(read_run(folder, with_jobs=False).summary())
        folders.append(folder)
    return folders


def names(text: str) -> list[str]:
    """The first words of a table's lines, without its head."""
    return [line.split()[0] for line in text.splitlines()[1:]]


def test_before_the_first_run_it_says_so(command: Command) -> None:
    status, out, err = command()
    assert (status, out) == (0, "")
    assert "no runs are known yet; `hpc-prefect runs scan DIR`" in err


@pytest.mark.usefixtures("three")
def test_runs_are_listed_with_what_tells_them_apart(command: Command) -> None:
    status, out, err = command()
    lines = out.splitlines()
    assert (status, err) == (0, "")
    assert lines[0].split() == [
        *("RUN", "ID", "FLOW", "STATE", "STARTED", "WALL", "JOBS", "NODE-HOURS", "shots", "energy"),
    ]
    assert names(out) == ["run-0", "run-1", "run-2"]
    assert "11111111  sqd-loop  failed" in lines[2]
    assert "10.0s  1 ok, 1 failed, 1 reused        0.5+   1000" in lines[2]
    assert lines[2].endswith("-1.333333333")


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["list"], "012"),
        (["--where", "shots>100"], "12"),
        (["--where", "shots>100", "--where", "energy<=-1.5"], "2"),
        (["list", "--where", "molecule.basis=='sto-3g'"], "012"),
        (["--where", "shots>100", "list"], "12"),
        (["--where", "started>=2023-11-15T00:00+00:00"], "2"),
        (["--where", "ended<3d"], "012"),
        (["--state", "failed"], "1"),
        (["--state", "failed,completed", "--state", "died"], "012"),
        (["--flow", "sqd-*"], "012"),
        (["--flow", "other"], ""),
        (["--campaign", "h2"], ""),
        (["--since", "2023-11-15T00:00+00:00"], "2"),
        (["--until", "2023-11-14T23:00+00:00"], "0"),
        (["--since", "3d"], ""),
        (["--sort", "energy"], "210"),
        (["--sort", "energy", "-r"], "012"),
        (["--sort=-energy"], "012"),
        (["--reverse"], "210"),
        (["--limit", "2"], "12"),
        (["--limit", "1", "--sort", "shots"], "0"),
        (["--limit", "0"], ""),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, list) else each,
)
def test_runs_are_filtered_and_sorted(words: list[str], found: str, command: Command) -> None:
    status, out, err = command(*words)
    assert (status, names(out)) == (0, [f"run-{n}" for n in found])
    assert found or "none of the 3 known runs matches" in err


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--where", "shots"], "cannot be read: write a name"),
        (["--where", "shotz>1"], "did you mean shots"),
        (["--where", "shots>many"], "shots is a number in all known runs, and 'many' is not"),
        (["--where", "started>soon"], "'soon' is not a time; write a date"),
        (["--sort", "enrgy"], "did you mean energy"),
        (["--columns", "bases"], "did you mean molecule.basis"),
        (["--since", "soon"], "write a date"),
        (["--state", "done"], "there is no state 'done' of a run; there are running, completed"),
        (["show", "nobody"], "no run 'nobody' is known"),
        (["scan", "/no/where"], "there is no folder /no/where"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_what_cannot_be_meant_is_an_error_in_a_sentence(
    words: list[str], said: str, command: Command
) -> None:
    status, out, err = command(*words)
    assert (status, out) == (1, "")
    assert said in err


@pytest.mark.parametrize("words", [["--limit", "few"], ["scan"], ["nonsense"]])
def test_wrong_usage_is_said(words: list[str], command: Command) -> None:
    assert command(*words)[0] == 2


@pytest.mark.usefixtures("three")
def test_columns_are_what_one_asks_for(command: Command) -> None:
    head = command("--columns", "run,energy,molecule.basis,jobs.failed")[1].splitlines()[0]
    assert head.split() == ["RUN", "energy", "molecule.basis", "jobs.failed"]
    head = command("--columns", "+molecule.basis,host")[1].splitlines()[0]
    assert head.split()[-4:] == ["shots", "energy", "molecule.basis", "HOST"]


@pytest.mark.usefixtures("three")
def test_json_has_all_of_each_run(command: Command) -> None:
    found = json.loads(command("--json", "--sort", "shots")[1])
    assert [each["parameters"]["shots"] for each in found] == [100, 1000, 10000]
    assert (found[1]["state"], found[1]["started"]) == ("failed", given.BEGAN + 3600)
    assert json.loads(command("--json", "--flow", "other")[1]) == []


@pytest.mark.usefixtures("three")
def test_csv_is_a_table_of_everything(command: Command) -> None:
    rows = list(csv.DictReader(io.StringIO(command("--csv")[1])))
    assert [row["parameters.shots"] for row in rows] == ["100", "1000", "10000"]
    assert rows[0]["started"] == "2023-11-14T22:13:20+00:00"
    assert (rows[0]["costs.node_hours"], rows[0]["saved.node_hours"]) == ("0.5", "4.0")
    some = command("--csv", "--columns", "run,shots,wall", "--limit", "1")[1]
    assert some == "run,shots,wall\nrun-2,10000,10.0\n"


def test_csv_of_no_run_has_its_head(command: Command) -> None:
    assert command("--csv")[1].startswith("id,name,kind,flow,")


def test_a_run_whose_folder_is_gone_is_not_listed(command: Command, three: list[Path]) -> None:
    shutil.rmtree(three[0])
    status, out, err = command()
    assert (status, names(out)) == (0, ["run-1", "run-2"])
    assert "1 more whose folders are gone" in err
    assert command("scan", "--prune")[1] == "1 run forgotten, whose folders are gone\n"
    assert command()[2] == ""


@pytest.mark.usefixtures("three")
def test_a_scan_makes_the_list_anew(command: Command, data: Path, tmp_path: Path) -> None:
    shutil.rmtree(data)
    assert command("scan", str(tmp_path))[:2] == (0, "3 runs found, 3 of them new\n")
    assert command("scan", str(tmp_path))[1] == "3 runs found, 0 of them new\n"
    assert len(names(command()[1])) == 3


def test_a_run_that_died_is_listed_as_such(command: Command, tmp_path: Path) -> None:
    here = {"host": socket.gethostname(), "pid": given.dead_process()}
    events = [given.began("abcd-1", environment=here)]
    index.put(given.summary(given.record(tmp_path, events), events))
    assert " died " in command("--state", "died")[1]


def test_a_run_elsewhere_has_the_time_of_its_record(command: Command, tmp_path: Path) -> None:
    events = [given.began("abcd-1", environment={"host": "elsewhere", "pid": 1})]
    index.put(given.summary(given.record(tmp_path, events), events))
    head, line = command()[1].splitlines()
    assert "STATE    UPDATED" in head
    assert "running  2023-11-1" in line


def test_text_of_others_does_nothing_to_a_terminal(command: Command, tmp_path: Path) -> None:
    bad = "\x1b[31m\nred"
    folder = given.run(tmp_path, ident="abcd-1", name=bad, parameters={bad: bad}, flow=bad,
                       measures={bad: bad}, code={"file": bad, "commit": bad},
                       jobs=[given.job(bad, given.BEGAN)])  # fmt: skip
    index.put(read_run(folder).summary())
    for words in ([], ["show", "abcd-1", "--blocks"], ["--columns", bad]):
        status, out, _ = command(*words)
        assert (status, "\x1b" in out) == (0, False)


def strange(tmp_path: Path, *more: dict[str, Any], **facts: Any) -> Path:
    """The record of a run of which little makes sense, in the list; its folder."""
    folder = given.record(tmp_path, [given.began("abcd-1", **facts), *more])
    index.put(read_run(folder).summary())
    return folder


@pytest.mark.parametrize(
    "words",
    [[], ["--json"], ["--csv"], ["--sort", "n"], ["--where", "n>1"], ["--columns", "name,n,wall"],
     ["--csv", "--columns", "name,started"], ["show", "abcd-1"], ["show", "abcd-1", "--json"]],
    ids=" ".join,
)  # fmt: skip
@pytest.mark.parametrize(
    "environment",
    [
        {"pid": [1]},
        {"packages": [1], "argv": 5, "python": {}, "platform": [1]},
        {"packages": "x", "argv": "ls", "process": 7, "user": None},
    ],
    ids=",".join,
)
def test_a_record_that_makes_no_sense_is_listed_and_shown(
    environment: dict[str, Any], words: list[str], command: Command, tmp_path: Path
) -> None:
    huge = {"n": 10**400, "x": float("inf"), "deep": {"a": [float("nan")]}, "started": 1e300}
    costs = dict.fromkeys(("run_seconds", "queue_seconds", "node_hours", "qpu_seconds"), 1e999)
    job = {"key": "k", "state": ["x"], "ended_at": "x", "host": 10**400}
    strange(
        tmp_path,
        given.event(given.BEGAN, "job", scope=5, wanted_at="x", **job, **costs),
        given.event(given.BEGAN, "job-ended", node_hours=10**400, **job),
        given.event(given.BEGAN, "iteration", loop="l", number=1, row=huge),
        given.event(given.BEGAN, "block", digest="d", kind=5, values=[1]),
        environment=environment | {"host": socket.gethostname()}, code={"commit": 5, "branch": {}},
        name="\ud800x", parameters=huge, flow=[1],
    )  # fmt: skip
    status, out, _ = command(*words)
    assert status == 0
    assert out.encode()
    if "--json" in words:
        json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_what_cannot_be_shown_keeps_nothing_else_from_it(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = given.run(tmp_path, ident="abcd-1", parameters={"shots": 5})
    monkeypatch.setattr(runs_words, "_totals", lambda record: 1 / 0)
    out = command("show", str(folder))[1]
    assert "shots  5" in out
    assert "totals: cannot be shown, the record is damaged here; see --json" in out


def test_a_cell_that_makes_no_sense_is_a_question_mark(command: Command, three: list[Path]) -> None:
    entry = index.entry("00001111-aaaa") or {}
    index.put(entry | {"totals": {"jobs": {"ok": [1], "succeeded": "x"}, "costs": 5}})
    status, out, _ = command("--columns", "run,jobs,node-hours,wall")
    assert (status, len(out.splitlines())) == (0, 4)
    assert out.splitlines()[1].split() == ["run-0", "?", "?", "-"]


def test_a_number_that_json_does_not_have_is_null(command: Command, tmp_path: Path) -> None:
    strange(tmp_path, given.event(given.BEGAN, "measures", values={"e": float("nan"), "f": 1}))
    assert json.loads(command("--json")[1])[0]["measures"] == {"e": None, "f": 1}
    assert json.loads(command("show", "abcd-1", "--json")[1])["measures"] == {"e": None, "f": 1}


def test_csv_does_nothing_to_a_terminal(command: Command, tmp_path: Path) -> None:
    strange(tmp_path, name="\x1b[2J\x9b\r\ud800é", parameters={"a\x07": "two\nlines\tx"})
    (row,) = csv.DictReader(io.StringIO(command("--csv")[1]))
    assert row["name"] == r"\x1b[2J\x9b\r\ud800é"
    assert row[r"parameters.a\x07"] == "two\nlines\tx"


# One run


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize("which", ["run-1", "1111", "11111111-AAAA"])
def test_one_run_is_shown_in_sections(which: str, command: Command) -> None:
    status, out, _ = command("show", which)
    assert status == 0
    assert out.startswith("run-1  11111111-aaaa\n  state")
    assert "abc1234, with changes that were not committed" in out
    for section in ("parameters:", "measures:", "jobs (3):", "totals:"):
        assert f"\n{section}\n" in out
    assert "molecule.basis  sto-3g" in out
    assert "reused: done by an earlier run" in out
    assert "0.5+ node-hours, 4 node-hours saved by reusing" in out


def test_the_latest_is_shown_and_a_folder_may_name_it(command: Command, three: list[Path]) -> None:
    assert command("show", "latest")[1].startswith("run-2 ")
    assert command("show", str(three[0].parents[3]))[1].startswith("run-0 ")


@pytest.mark.usefixtures("three")
def test_json_of_one_run_is_its_whole_record(command: Command) -> None:
    whole = json.loads(command("show", "--json", "run-0")[1])
    assert (whole["state"], len(whole["jobs"]), whole["code"]["commit"]) == (
        "completed", 3, "abc1234",
    )  # fmt: skip


def test_blocks_are_shown_by_name_and_whole_when_asked_for(
    command: Command, tmp_path: Path
) -> None:
    block = {"digest": "d" * 64, "kind": "command", "name": "orca", "values": {"key": "orca-6"}}
    folder = given.record(tmp_path, [given.began("abcd-1"), given.event(1.0, "block") | block])
    assert "command  orca  dddddddddddd" in command("show", str(folder))[1]
    assert "orca-6" not in command("show", str(folder))[1]
    assert "key  orca-6" in command("show", "--blocks", str(folder))[1]


def test_of_many_jobs_and_iterations_some_are_shown(command: Command, tmp_path: Path) -> None:
    events = [given.began("abcd-1")]
    for n in range(30):
        events += given.job(f"key-{n}", given.BEGAN + n)
        row = {"iteration": n + 1, "energy": -float(n)}
        events.append(given.event(given.BEGAN + n, "iteration", loop="h2", number=n + 1, row=row))
    out = command("show", str(given.record(tmp_path, events)))[1]
    assert "jobs (30, the newest 20; all in --json):" in out
    assert "job-key-9 " not in out
    assert "job-key-29 " in out
    assert "… 25 more, all in --json" in out
    assert out.count("\n  … ") == 1


def test_a_record_with_nothing_in_it_is_shown(command: Command, tmp_path: Path) -> None:
    folder = given.record(tmp_path, [given.began("abcd-1", environment={}, code={})])
    assert command("show", str(folder))[:1] == (0,)


# From Python


@pytest.mark.usefixtures("three")
def test_runs_are_found_from_python() -> None:
    found = runs.find(where="shots>=1000", sort="-shots", state="completed")
    (one,) = found
    assert (one.name, one.state, one.parameters["shots"]) == ("run-2", "completed", 10000)
    assert one.ended == one.started + 10
    assert (one.value("energy"), one.value("none")) == (pytest.approx(-1.6667, abs=1e-3), None)
    assert sorted(one.record().jobs) == ["k1", "k2", "k3"]
    assert runs.get("run-2").id == one.id
    assert runs.find(state=["failed"], since=given.BEGAN)[0].name == "run-1"


@pytest.mark.usefixtures("three")
def test_runs_are_a_table_of_pandas() -> None:
    pytest.importorskip("pandas")
    frame = runs.to_frame()
    assert list(frame["parameters.shots"]) == [100, 1000, 10000]
    assert str(frame["started"].iloc[0]) == "2023-11-14 22:13:20+00:00"
    assert len(runs.to_frame([])) == 0


def test_without_pandas_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ConfigurationError, match="pip install pandas"):
        runs.to_frame()


# Words


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0s"),
        (3.21, "3.2s"),
        (float("inf"), "?"),
        (float("nan"), "?"),
        (10**400, "?"),
        (725, "12m05s"),
        (11520, "3h12m"),
        (183600, "2d03h"),
        (None, "-"),
    ],
)
def test_a_duration_is_short(seconds: Any, text: str) -> None:
    assert runs_words.duration(seconds) == text


def test_ids_are_as_short_as_tells_them_apart() -> None:
    short = runs_words.short_ids(["0123456789ab-1", "0123456789ab-2", "f" * 20])
    assert list(short.values()) == ["0123456789ab-1", "0123456789ab-2", "f" * 8]


def test_a_narrow_terminal_gets_less(three: list[Path]) -> None:
    found = runs.find()
    ids = [each.id for each in found]
    for width in (40, 60, 80, 100, 120):
        lines = runs_words.table(found, ids, width=width).splitlines()
        assert width == 40 or max(map(len, lines)) <= width
        assert lines[0].startswith("RUN    ID        ")
    assert "energy" in runs_words.table(found, ids, width=120)


def test_a_wide_letter_takes_two_places() -> None:
    lines = runs_words.lay_out({"A": ["水", "abc"], "B": ["x", "y"]}).splitlines()
    assert lines == ["A    B", "水   x", "abc  y"]


def loaded_by(arguments: Sequence[str], *names: str) -> list[str]:
    """Which of these modules a command has loaded in the end."""
    code = (
        "import sys; from hpc_prefect.cli import main\n"
        f"assert main({list(arguments)!r}) == 0\n"
        f"print(*[name for name in {names!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1].split()


def test_the_list_of_no_prefect_is_quick_to_import() -> None:
    assert loaded_by(["runs"], "prefect", "rich", "pandas", "asyncio") == []


def test_a_comparison_with_its_plot_loads_no_more_than_it_needs(
    three: list[Path], tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    command = ["runs", "compare", *map(str, three), "--plot", str(tmp_path / "plot.svg")]
    not_needed = ("prefect", "pandas", "asyncio", "matplotlib.pyplot", "hpc_prefect.executor")
    assert loaded_by(command, *not_needed, "matplotlib") == ["matplotlib"]
