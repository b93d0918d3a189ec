"""Runs of the example ising compared, and the pictures of them in docs/records.md.

The pictures are written anew by `HPC_PREFECT_WRITE_DOCS=1 pytest tests/examples/test_compared.py`.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpc_prefect import QuantumBackendBlock, runs
from hpc_prefect.records.compare import Comparison
from hpc_prefect.records.fold import Record
from hpc_prefect.records.read import read_run
from hpc_prefect.server import Server

from .. import warm
from ..background import settle

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "ising" / "flow.py"
PICTURES = ROOT / "docs" / "pictures"

#: One after another: the first two differ in their shots alone.
SETTINGS = [(shots, seed) for seed in (1, 2, 3) for shots in (20, 2000, 200)]


def example() -> Any:
    spec = importlib.util.spec_from_file_location("ising_flow", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def recorded(prefect_server: Server, tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    """A run for each of the settings."""
    folder, module = tmp_path_factory.mktemp("ising"), example()
    QuantumBackendBlock(backend_name="aer").save(module.BACKEND, overwrite=True, _sync=True)
    for shots, seed in SETTINGS:
        asyncio.run(module.ising(str(folder), shots, seed))
        settle()
    records = [read_run(each) for each in folder.glob(".hpc-prefect/*/runs/*")]
    return sorted(records, key=lambda record: record.started)


def section(comparison: Comparison, name: str) -> list[str]:
    """What differs in a section, by its rows."""
    return [row.what for each in comparison.differences.sections if each.name == name
            for row in each.rows]  # fmt: skip


def test_two_runs_with_different_shots_differ_in_that_and_both_curves_are_shown(
    recorded: list[Record],
) -> None:
    comparison = runs.compare(*recorded[:2])
    assert section(comparison, "parameters") == ["shots"]
    # What follows from it, and nothing that it does not touch.
    follows = {"quantum options", "circuits", "quantum requests", "outputs"}
    names = {each.name for each in comparison.differences.sections if each.rows}
    assert names == {"parameters"} | follows, comparison.text()
    same = {*comparison.differences.same, *comparison.differences.likely}
    assert {"flow", "code", "blocks", "versions", "jobs", "devices", "seeds"} <= same
    few, many = comparison.curves["ising"]["energy"]
    assert [i for i, _ in few] == [i for i, _ in many] == list(range(1, 7))
    assert "loop ising: energy" in comparison.text()
    assert "### loop ising: energy" in comparison.markdown()


def test_a_run_at_another_commit_shows_the_diff(recorded: list[Record], tmp_path: Path) -> None:
    code = tmp_path / "code"
    code.mkdir()
    shutil.copy(EXAMPLE, code / "flow.py")

    def git(*words: str) -> None:
        who = ["-c", "user.name=ada", "-c", "user.email=ada@example.org"]
        subprocess.run(["git", *who, *words], cwd=code, check=True, capture_output=True)

    def run(name: str) -> Record:
        git("add", ".")
        git("commit", "-m", name)
        work_dir = tmp_path / name
        words = ["flow.py", "--work-dir", str(work_dir)]
        done = warm.run(words, cwd=code, capture_output=True, timeout=300)
        assert done.returncode == 0, done.stderr
        (record,) = work_dir.glob(".hpc-prefect/*/runs/*")
        return read_run(record)

    git("init", "-q")
    first = run("slow")
    text = (code / "flow.py").read_text()
    (code / "flow.py").write_text(text.replace("RATE = 0.5\n", "RATE = 0.4\n"))
    comparison = runs.compare(first, run("fast"))
    assert "commit" in section(comparison, "code")
    assert {"-RATE = 0.5", "+RATE = 0.4"} <= {*comparison.text().splitlines()}


# --- pictures


def drawn(svg: str) -> list[list[float]]:
    """The heights of the marks in each line of a picture; ticks are outside of the axes' clip."""
    groups = re.findall(r'<g clip-path="[^"]*">(.*?)</g>', svg, re.DOTALL)
    marks = [re.findall(r'<use [^>]*?y="([-.\d]+)"', each) for each in groups]
    return [list(map(float, each)) for each in marks if each]


def is_picture_of(heights: Sequence[float], values: Sequence[float]) -> bool:
    """Whether these are the values, in whatever scale: to a hundredth of the height."""
    if len(heights) != len(values):
        return False
    fitted = np.polyval(np.polyfit(values, heights, 1), values)
    return bool(np.abs(fitted - heights).max() <= 0.01 * np.ptp(heights))


def words(svg: str) -> set[str]:
    return {
        each for each in re.findall(r"<text[^>]*>([^<]*)</text>", svg) if re.search("[a-z]", each)
    }


def committed(name: str, made: bytes) -> str:
    """The picture of the page; written anew when that is asked for."""
    file = PICTURES / name
    if os.environ.get("HPC_PREFECT_WRITE_DOCS"):
        file.write_bytes(made)
    assert file.stat().st_size < 100_000
    assert f"](pictures/{name})" in (ROOT / "docs" / "records.md").read_text()
    return file.read_text()


def test_the_picture_of_two_runs_shows_their_curves(recorded: list[Record]) -> None:
    comparison = runs.compare(*recorded[:2])
    made = comparison.plot(form="svg", measures=["energy"])
    kept = committed("two-runs.svg", made)
    for svg in (made.decode(), kept):
        assert {"2 runs of ising by iteration", "iteration", "energy"} <= words(svg)
        assert any("shots=20" in each for each in words(svg))
        curves = comparison.curves["ising"]["energy"]
        values = [value for run in curves for _, value in run]
        assert is_picture_of([height for line in drawn(svg) for height in line], values)


def test_the_picture_of_a_sweep_shows_mean_and_spread_against_what_varies(
    recorded: list[Record],
) -> None:
    comparison = runs.compare(*recorded)
    made = comparison.plot(form="svg", measures=["error"], against="shots")
    kept = committed("sweep.svg", made)
    means = [setting.measures["error"].mean for setting in comparison.sweep.settings]
    assert all(setting.measures["error"].n == 3 for setting in comparison.sweep.settings)
    errors = comparison.figures["error"]
    dots = [errors[run] for setting in comparison.sweep.settings for run in setting.runs]
    for svg in (made.decode(), kept):
        assert {"9 runs of ising against shots", "error", "shots"} <= words(svg)
        assert any(is_picture_of(each, dots) for each in drawn(svg)), drawn(svg)
        assert any(is_picture_of(each, means) for each in drawn(svg)), drawn(svg)
