"""Ctrl-C with several jobs: each one's end is waited for, also when another one has ended."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from hpc_prefect import HPCProfileBlock
from hpc_prefect.ledger.job_folder import JobFolder
from hpc_prefect.transports.local import LocalTransport

from ..flows.jobs import runs
from ..flows.seen import ids, process, until, words

pytestmark = pytest.mark.usefixtures("blocks")


def verdicts(work_dir: Path) -> list[str]:
    folders = [path.parent for path in work_dir.glob(".hpc-prefect/*/*/*-1/journal.jsonl")]
    ledgers = [JobFolder(LocalTransport(), str(folder)).ledger() for folder in folders]
    return [str(ledger.result.get("state", "none")) for ledger in ledgers]


def test_a_queued_jobs_end_does_not_end_the_flow_before_the_running_ones(
    tmp_path: Path, spool: Path
) -> None:
    HPCProfileBlock(
        scheduler="local",
        executables={"sh": "/bin/sh"},
        queue_cpu="two",
        local={"slots": 2, "spool": str(spool), "kill_grace": 5.0},
    ).save("hpc-two", overwrite=True, _sync=True)
    with process("three_of_two", str(tmp_path)) as flow:
        until(lambda: len(runs(tmp_path)) == 2 and len(ids(tmp_path)) == 3)
        flow.send_signal(signal.SIGINT)
        said, _ = flow.communicate(timeout=120)
    assert flow.returncode != 0, said
    assert verdicts(tmp_path) == ["cancelled"] * 3, said
    assert words(spool, tmp_path) == ["CANCELLED"] * 3
