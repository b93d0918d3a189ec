"""`demo.py` of examples/sqd_n2 in a process of its own, and what its folder tells of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hpc_prefect.server import Server

SQD = Path(__file__).parents[2] / "examples" / "sqd_n2"


def start(
    work_dir: Path, server: Server, *options: str, example: Path = SQD
) -> subprocess.Popen[str]:
    """The demo, with a queue of its own: the work_dir is its home."""
    folders = ["--work-dir", str(work_dir), "--server-home", str(work_dir / "no-server")]
    return subprocess.Popen(
        [sys.executable, str(example / "demo.py"), *folders, *options],
        env=os.environ | {"HOME": str(work_dir), "PREFECT_API_URL": server.url},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(demo: subprocess.Popen[str]) -> str:
    out, _ = demo.communicate(timeout=900)
    assert demo.returncode == 0, out
    return out


def result(out: str) -> str:
    """The demo's RESULT line; a logger of Prefect's may write after it."""
    [line] = [line for line in out.splitlines() if line.startswith("RESULT ")]
    return line


def until(condition: Callable[[], object], demo: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 600
    while not condition():
        assert demo.poll() is None, demo.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def rows(work_dir: Path) -> list[dict[str, Any]]:
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
