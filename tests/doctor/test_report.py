"""What the trial's job tells, read from its text."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_prefect.doctor.profile import launcher_word
from hpc_prefect.doctor.report import (
    PROGRAM,
    Moments,
    ahead,
    clock_findings,
    executable_findings,
    launcher_findings,
    read_report,
)
from hpc_prefect.schedulers.finding import Outcome


def report(folder: Path, *look: str, first: str = "", line: str = "", file: str = "f") -> str:
    """What the program prints in that folder."""
    argv = ["/bin/bash", "-c", PROGRAM, "doctor", file, "content", first, line, *look]
    return subprocess.run(
        argv, cwd=folder, capture_output=True, text=True, timeout=60, check=True
    ).stdout


def test_the_program_tells_each_executable_in_its_order(tmp_path: Path) -> None:
    for name, mode in (("good", 0o700), ("closed", 0o600)):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(mode)
    paths = {
        "a": str(tmp_path / "good"),
        "b": str(tmp_path / "closed"),
        "c": str(tmp_path),
        "d": str(tmp_path / "no such"),
        "e": "no-such-command",
        "f": "sh",
    }

    found = executable_findings(read_report(report(tmp_path, *paths.values())), paths)

    assert [each.outcome for each in found] == [Outcome.OK, *[Outcome.WRONG] * 4, Outcome.OK]
    assert found[1].remedy == f"chmod +x {paths['b']}"
    assert found[2].seen == f"{tmp_path} is a folder"
    assert found[3].seen == f"{paths['d']} does not exist, in a job's shell"
    assert found[4].seen == "'no-such-command' is not on PATH after set-up, in a job's shell"


def test_the_program_writes_its_file_and_says_so(tmp_path: Path) -> None:
    assert read_report(report(tmp_path)).wrote is True
    assert (tmp_path / "f").read_text() == "content\n"
    assert read_report(report(tmp_path, file="no/such/folder")).wrote is False


def test_a_launcher_that_is_not_there_is_told_before_it_is_run(tmp_path: Path) -> None:
    line = "no-such-mpiexec -n 1 /bin/true"

    (found,) = launcher_findings(
        read_report(report(tmp_path, first="no-such-mpiexec", line=line)), line, "no-such-mpiexec"
    )

    assert found.outcome is Outcome.WRONG
    assert "modules" in found.remedy


def test_a_launcher_that_fails_is_told_with_its_words_on_one_line(tmp_path: Path) -> None:
    line = "printf 'a\\tb\\nc'; exit 7"

    (found,) = launcher_findings(read_report(report(tmp_path, line=line)), line, "")

    assert (found.outcome, found.seen) == (Outcome.WRONG, "it ended with 7: a b c")
    assert line in found.remedy


def test_a_launcher_that_works_is_fine(tmp_path: Path) -> None:
    text = report(tmp_path, first="env", line="env X=1 '/bin/true'")

    (found,) = launcher_findings(read_report(text), "env X=1 '/bin/true'", "env")

    assert found.outcome is Outcome.OK


@given(st.text())
def test_any_text_is_read_and_what_was_not_told_is_not_called_fine(text: str) -> None:
    seen = read_report(text)

    found = executable_findings(seen, {"a": "/x"})
    assert (found[0].outcome is Outcome.OK) == (seen.executables.get(0, ("",))[0] == "ok")


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("mpiexec -n {ranks} {command}", "mpiexec"),
        ("OMP_PROC_BIND=close /opt/mpi/bin/mpirun -n 1", "/opt/mpi/bin/mpirun"),
        ("$MPI_HOME/bin/mpirun -n 1", ""),
        ("(cd /x && mpirun)", ""),
        ("", ""),
        ("mpirun 'unclosed", ""),
    ],
)
def test_the_first_word_of_a_launcher_is_found_or_left_to_the_shell(line: str, word: str) -> None:
    assert launcher_word(line) == word


def moments(**changes: float) -> Moments:
    usual = {"submitted": 100, "started": 110, "ended": 120, "seen": 121, "stamped": 110}
    return Moments(**{**usual, "file_server": 0.0, **changes})


@pytest.mark.parametrize(
    ("changes", "skew"),
    [
        ({}, 0.0),
        ({"stamped": 100}, 10.0),  # the file server agrees with us, the node is ahead of both
        ({"stamped": 125}, -15.0),
        ({"stamped": 90, "file_server": -20.0}, 0.0),  # only the file server is behind
        ({"started": 70, "ended": 80, "stamped": 70}, -30.0),  # a node that stamps files itself
        ({"started": 150, "ended": 160, "stamped": 150}, 39.0),
    ],
)
def test_a_clocks_skew_is_told_by_the_file_server_or_by_what_must_come_first(
    changes: dict[str, float], skew: float
) -> None:
    assert ahead(moments(**changes)) == pytest.approx(skew)


def test_a_clock_that_is_off_and_a_record_that_comes_late_are_wrong() -> None:
    off, late = clock_findings(moments(stamped=100)), clock_findings(moments(seen=300))

    assert [each.outcome for each in off] == [Outcome.WRONG, Outcome.OK]
    assert "NTP" in off[0].remedy
    assert [each.outcome for each in late] == [Outcome.OK, Outcome.WRONG]
    assert "work_dir" in late[1].remedy
