"""A flow whose tasks run in a pool's processes, killed: its workers live on and hold nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpc_prefect.local_batch import process

from .. import warm
from ..flows.jobs import runs
from ..flows.seen import PROGRAMS, states, until

pytestmark = pytest.mark.usefixtures("blocks")

FILE = PROGRAMS / "pooled.py"


def begin(which: str, work_dir: Path) -> warm.Process:
    words = [str(FILE), which, str(work_dir)]
    return warm.Process(words, stdout=warm.PIPE, stderr=warm.STDOUT, start_new_session=True)


@pytest.fixture
def sessions() -> Iterator[list[int]]:
    """Sessions whose processes are ended after the test."""
    found: list[int] = []
    yield found
    for session in found:
        try:
            os.killpg(session, signal.SIGKILL)
        except ProcessLookupError:
            continue


@pytest.mark.parametrize("which", ["spawn", "fork"])
def test_what_a_killed_flow_left_is_taken_up_although_its_workers_live(which, tmp_path, sessions):
    with begin(which, tmp_path) as flow:
        sessions.append(flow.pid)
        until(lambda: "waits" in runs(tmp_path) or flow.poll() is not None)
        assert flow.poll() is None, flow.stdout.read()
        workers = process.tree(flow.pid)
        flow.kill()
        flow.wait()
        assert [who for who in workers if process.alive(who)], "its workers live on"
        with begin(which, tmp_path) as again:
            sessions.append(again.pid)
            until(lambda: "waits" in runs(tmp_path))
            (tmp_path / "go").touch()
            said, _ = again.communicate(timeout=200)
        assert states(said) == ["succeeded", "succeeded"], said
        assert runs(tmp_path) == ["first", "waits"], "each ran once"
        os.killpg(flow.pid, signal.SIGKILL)
