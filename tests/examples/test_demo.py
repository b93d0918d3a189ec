"""The demo as a user runs it: `demo.py` in a process of its own, killed and started again."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hpc_prefect.server import Server

DEMO = Path(__file__).parents[2] / "examples" / "sqd_n2" / "demo.py"


def start(work_dir: Path, server: Server) -> subprocess.Popen[str]:
    arguments = ["--work-dir", str(work_dir), "--server-home", str(work_dir / "no-server")]
    return subprocess.Popen(
        [sys.executable, str(DEMO), *arguments],
        env=os.environ | {"HOME": str(work_dir), "PREFECT_API_URL": server.url},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(demo: subprocess.Popen[str]) -> str:
    out, _ = demo.communicate(timeout=900)
    assert demo.returncode == 0, out
    return out


def until(condition: Callable[[], object], demo: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 600
    while not condition():
        assert demo.poll() is None, demo.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def rows(work_dir: Path) -> list[dict[str, object]]:
    text = "".join(p.read_text() for p in work_dir.glob(".hpc-prefect/*/*/*/iterations.jsonl"))
    return [json.loads(line) for line in text.splitlines()]


def starts(work_dir: Path) -> list[str]:
    """Every start of a diagonalization: one line of its job's start record each."""
    found = work_dir.glob(".hpc-prefect/*/*/*/start")
    return [line for path in found for line in path.read_text().splitlines()]


def samplings(work_dir: Path) -> dict[str, float]:
    """Every finished sampling, by when its result was written."""
    found = work_dir.glob(".hpc-prefect/*/*/*/result.npz")
    return {str(path): path.stat().st_mtime for path in found}


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_killed_demo_goes_on_where_it_was_and_ends_with_the_same_bits(
    prefect_server: Server, tmp_path: Path
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    result = re.compile(r"^RESULT energy=(\S+) error_mha=(\S+) iterations=(\d+) converged=true$")

    out = finish(start(whole, prefect_server))
    expected = result.match(out.splitlines()[-1])
    assert expected, out
    assert abs(float(expected[2])) <= 1.6
    assert (whole / "sqd-n2.png").read_bytes().startswith(b"\x89PNG")

    first = start(broken, prefect_server)
    until(lambda: len(rows(broken)) == 2 and len(starts(broken)) == 5, first)  # within iteration 3
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    sampled = samplings(broken)
    out = finish(start(broken, prefect_server))

    assert "This run went on at iteration 3 of an earlier one." in out
    assert out.splitlines()[-1] == expected[0]
    assert len(starts(broken)) == 2 * int(expected[3])  # LUCJ and baseline, once an iteration
    assert len(samplings(broken)) == 2 * int(expected[3])
    assert sampled.items() <= samplings(broken).items()
