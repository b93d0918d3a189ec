"""`hpc-prefect doctor`, as a user meets it."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from hpc_prefect.blocks import HPCProfileBlock
from hpc_prefect.doctor import failed, print_findings
from hpc_prefect.schedulers.finding import ok, unknown, wrong

from ..blocks.test_cli import run
from .rig import local


@pytest.mark.usefixtures("prefect_server")
def test_the_exit_status_tells_and_the_table_has_the_remedy(tmp_path: Path) -> None:
    fields = local(tmp_path).fields
    name = f"hpc-doctor-{tmp_path.name.replace('_', '-')}"
    work = str(tmp_path / "work")
    HPCProfileBlock(**fields).save(name, overwrite=True)
    fine = run("doctor", name, "--work-dir", work, "--submit", COLUMNS="200")
    HPCProfileBlock(**fields | {"executables": {"diag": "/no/such"}}).save(name, overwrite=True)
    bad = run("doctor", name, "--work-dir", work, COLUMNS="200")

    assert (fine.returncode, bad.returncode) == (0, 1), (fine, bad)
    assert "executable diag" in fine.stdout
    assert "job: " in fine.stderr
    (row,) = [line for line in bad.stdout.splitlines() if "executable diag" in line]
    assert "wrong" in row
    assert "/no/such does not exist" in row
    assert "→ correct the path" in bad.stdout


@pytest.mark.usefixtures("prefect_server")
def test_a_profile_that_is_not_there_is_a_sentence() -> None:
    done = run("doctor", "no-such-profile")

    assert done.returncode == 1
    assert done.stderr.startswith("hpc-prefect: HPC profile 'no-such-profile': 1 problem")
    assert "Traceback" not in done.stderr


def test_what_cannot_be_told_is_no_failure() -> None:
    assert not failed([ok("a", "b"), unknown("c", "d")])
    assert failed([ok("a", "b"), unknown("c", "d"), wrong("e", "f", "g")])


def test_what_a_scheduler_says_is_printed_as_it_is() -> None:
    console = Console(width=120, record=True, file=io.StringIO())

    print_findings([wrong("queue", "[red]n[1-4][/red]", "do")], console)

    assert "[red]n[1-4][/red]" in console.export_text()


def test_in_eighty_columns_words_stay_whole_and_what_to_do_stands_below() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    seen = "the queue regular-c is there, and takes no jobs: it is stopped for maintenance"
    findings = [ok("profile", "a job can be made from it"), wrong("queue", seen, "choose another")]

    print_findings(findings, console)

    assert console.export_text().splitlines() == [
        "profile  ok     a job can be made from it",
        "queue    wrong  the queue regular-c is there, and takes no jobs: it is stopped",
        "                for maintenance",
        "                → choose another",
    ]


def test_a_path_is_never_broken() -> None:
    console = Console(width=40, record=True, file=io.StringIO())
    path = "/work/gz00/me/first/.hpc-prefect/doctor/1b/mse5qqij2pqgwklcqome-1"

    print_findings([ok("job", f"4711 ran on n1; see {path}")], console)

    assert path in console.export_text().split()


def test_a_check_of_a_long_name_has_a_line_of_its_own() -> None:
    console = Console(width=80, record=True, file=io.StringIO())

    print_findings([ok("queue", "fine"), ok("executable of-a-very-long-name", "there")], console)

    assert console.export_text().splitlines() == [
        "queue  ok  fine", "executable of-a-very-long-name", "       ok  there",
    ]  # fmt: skip


def test_a_walltime_that_is_none_is_wrong_usage() -> None:
    done = run("doctor", "any", "--walltime", "soon")

    assert done.returncode == 2
    assert "write HH:MM:SS" in done.stderr
