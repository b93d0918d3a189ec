"""The demo as a user runs it: `demo.py` in a process of its own, killed and started again."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hpc_prefect.operations.find import list_jobs
from hpc_prefect.records.fold import CLOCK
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
    until(lambda: len(rows(broken)) == 2 and len(starts(broken)) >= 5, first)  # within iteration 3
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    sampled = samplings(broken)
    out = finish(start(broken, prefect_server))

    assert "This run went on at iteration 3 of an earlier one." in out
    assert result(out) == expected[0]
    assert len(starts(broken)) == 2 * int(expected[3])  # LUCJ and baseline, once an iteration
    assert len(samplings(broken)) == 2 * int(expected[3])
    assert sampled.items() <= samplings(broken).items()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_in_a_held_allocation_with_an_array_of_its_subspaces_the_bits_are_the_same(
    prefect_server: Server, tmp_path: Path
) -> None:
    plain, held = tmp_path / "plain", tmp_path / "held"
    plain.mkdir()
    held.mkdir()
    finish(start(plain, prefect_server))
    out = finish(start(held, prefect_server, "--hold"))
    assert bits(rows(held)) == bits(rows(plain))
    assert len(rows(plain)) > 2
    assert "node-hours, used" in out
    jobs = [job for job in list_jobs(held) if job.name.startswith("diag-")]
    assert {job.where.partition("@")[0] for job in jobs} == {"allocation-local"}
    assert len([job for job in list_jobs(held) if job.name == "allocation"]) == 1


def bits(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows without what a clock said."""
    return [{name: row[name] for name in row.keys() - set(CLOCK)} for row in found]


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
