"""A plain script is complete when it ran to its last line: then, and only then, it begins anew."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .. import warm
from ..flows.jobs import runs
from ..flows.seen import PROGRAMS

pytestmark = pytest.mark.usefixtures("blocks")

FILE = PROGRAMS / "script_ends.py"
PROFILED = ["-m", "cProfile", "-o", os.devnull]
#: As `-m` does it, where Prefect is imported already: to profile that takes ten seconds.
RUN_MODULE = "import runpy; runpy.run_module('cProfile', run_name='__main__', alter_sys=True)"
FORKED_PROFILED = ["-c", RUN_MODULE, *PROFILED[2:]]


#: Ways to leave that are told in a process that was started like any, and in one that was forked.
FORKED = ("SystemExit", "os._exit", "error")


def said_by(work_dir: Path, how: str, *before: str) -> str:
    words = [*before, str(FILE), str(work_dir), how]
    if before == tuple(FORKED_PROFILED) or (how in FORKED and not before):
        return warm.run(words, capture_output=True, timeout=200).stderr
    return subprocess.run(
        [sys.executable, *words],
        text=True, capture_output=True, timeout=200, check=False, stdin=subprocess.DEVNULL,
    ).stderr  # fmt: skip


@pytest.mark.parametrize(
    ("how", "before"),
    [
        ("sys.exit", []),
        ("SystemExit", []),
        ("os._exit", []),
        ("error", []),
        ("sys.exit", FORKED_PROFILED),
        ("returns", ["-i"]),
    ],
)
def test_a_script_that_did_not_run_to_its_end_is_continued(
    tmp_path: Path, how: str, before: list[str]
) -> None:
    said_by(tmp_path, how, *before)
    assert "continuing campaign" in said_by(tmp_path, how, *before)
    assert runs(tmp_path) == ["x"]


@pytest.mark.parametrize("before", [[], PROFILED])
def test_a_script_that_ran_to_its_end_begins_anew_and_says_so(
    tmp_path: Path, before: list[str]
) -> None:
    said_by(tmp_path, "returns", *before)
    said = said_by(tmp_path, "returns", *before)
    assert "script_ends.py begins anew (number 2), because number 1 is complete" in said
    assert runs(tmp_path) == ["x", "x"]
