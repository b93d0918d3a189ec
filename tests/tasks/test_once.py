"""Results of `ONCE` in plain scripts: each finds its own, and no other one's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("blocks")

FILE = Path(__file__).with_name("lone_once.py")


def said_by(*arguments: object) -> str:
    return subprocess.run(
        [sys.executable, str(FILE), *map(str, arguments)],
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=200, check=True,
    ).stdout  # fmt: skip


def test_a_script_outside_of_any_experiment_gets_no_other_scripts_result() -> None:
    for who in ("one", "other"):
        said = said_by(who)
        assert f"RESULT made by {who}" in said
        assert "it is in no flow run and has no input 'work_dir'" in said


def test_scripts_with_a_work_dir_are_told_apart_by_their_experiments(tmp_path: Path) -> None:
    for who in ("one", "other"):
        assert f"RESULT made by {who}" in said_by(who, tmp_path)
