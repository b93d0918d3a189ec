"""The demo as a user runs it: `demo.py` in a process of its own, killed and started again."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hpc_prefect.server import Server

from .demo_rig import finish, result, rows, samplings, start, starts, until


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_killed_demo_goes_on_where_it_was_and_ends_with_the_same_bits(
    prefect_server: Server, tmp_path: Path
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    converged = re.compile(r"^RESULT energy=(\S+) error_mha=(\S+) iterations=(\d+) converged=true$")

    out = finish(start(whole, prefect_server))
    expected = converged.match(result(out))
    assert expected, out
    assert abs(float(expected[2])) <= 1.6
    assert (whole / "sqd-n2.png").read_bytes().startswith(b"\x89PNG")
    out = reproduced(whole, tmp_path / "again", prefect_server)
    assert f"the same to the last bit: the {expected[3]} iterations of loop sqd-n2" in out
    assert "NOT the same" not in out

    first = start(broken, prefect_server)
    until(lambda: len(rows(broken)) == 2 and len(starts(broken)) == 5, first)  # within iteration 3
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    sampled = samplings(broken)
    out = finish(start(broken, prefect_server))

    assert "This run went on at iteration 3 of an earlier one." in out
    assert result(out) == expected[0]
    assert len(starts(broken)) == 2 * int(expected[3])  # LUCJ and baseline, once an iteration
    assert len(samplings(broken)) == 2 * int(expected[3])
    assert sampled.items() <= samplings(broken).items()


def reproduced(work_dir: Path, again: Path, server: Server) -> str:
    """What `hpc-prefect runs reproduce` says of the run in a folder; it works in another one."""
    command = Path(sys.executable).with_name("hpc-prefect")
    done = subprocess.run(
        [command, "runs", "reproduce", str(work_dir), "--param", f"work_dir={again}"],
        env=os.environ | {"HOME": str(work_dir), "PREFECT_API_URL": server.url},
        text=True, stdout=-1, stderr=subprocess.STDOUT, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout
