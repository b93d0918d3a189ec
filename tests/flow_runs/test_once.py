"""Results of `ONCE` in plain scripts: each finds its own, and no other one's."""

from __future__ import annotations

from pathlib import Path

import pytest

from .. import warm
from ..flows.seen import PROGRAMS

pytestmark = pytest.mark.usefixtures("blocks")

FILE = PROGRAMS / "lone_once.py"


def said_by(*arguments: object) -> str:
    words = [str(FILE), *map(str, arguments)]
    done = warm.run(words, stdout=warm.PIPE, stderr=warm.STDOUT, timeout=200)
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_a_script_outside_of_any_experiment_gets_no_other_scripts_result() -> None:
    for who in ("one", "other"):
        said = said_by(who)
        assert f"RESULT made by {who}" in said
        assert "it is in no flow run and has no input 'work_dir'" in said


def test_scripts_with_a_work_dir_are_told_apart_by_their_experiments(tmp_path: Path) -> None:
    for who in ("one", "other"):
        assert f"RESULT made by {who}" in said_by(who, tmp_path)
