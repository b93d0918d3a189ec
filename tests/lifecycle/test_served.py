"""A flow that is served: Prefect cancels its runs, and may have to kill their process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling

from ..flows.jobs import runs
from ..flows.seen import PROGRAMS, flow_run, logs, until, words

# Prefect waits 30 s before it kills a process that does not end.
pytestmark = [pytest.mark.usefixtures("blocks"), pytest.mark.slow, pytest.mark.timeout(600)]

FILE = PROGRAMS / "served.py"


@dataclass
class Cancelled:
    run: UUID
    work_dir: Path


@pytest.fixture(scope="module")
def serving(blocks: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    log = tmp_path_factory.mktemp("serving") / "log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, str(FILE)],
            stdout=out,
            stderr=out,
            env=os.environ | {"PREFECT_RUNNER_POLL_FREQUENCY": "1"},
        )
        try:
            until(lambda: all(map(_deployment, ("hooked", "unhooked"))))
            yield
        finally:
            process.terminate()
            process.wait(120)


def _deployment(name: str) -> UUID | None:
    with get_client(sync_client=True) as client:
        try:
            return client.read_deployment_by_name(f"{name}/test").id
        except ObjectNotFound:
            return None


def started(name: str, work_dir: Path) -> UUID:
    """A run of a deployment, whose job runs."""
    deployment = _deployment(name)
    assert deployment is not None
    with get_client(sync_client=True) as client:
        run = client.create_flow_run_from_deployment(
            deployment, parameters={"work_dir": str(work_dir)}
        )
    until(lambda: "wait" in runs(work_dir))
    return run.id


def cancelled(run: UUID) -> None:
    """As the UI does it, and until it is over."""
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run, Cancelling())
    until(lambda: (state := flow_run(run).state) is not None and state.is_final())
    state = flow_run(run).state
    assert state is not None
    assert state.name == "Cancelled"


@pytest.mark.usefixtures("serving")
def test_cancelling_a_served_run_cancels_its_job(tmp_path: Path, spool: Path) -> None:
    run = started("hooked", tmp_path)
    cancelled(run)
    until(lambda: words(spool, tmp_path) == ["CANCELLED"])


@pytest.mark.usefixtures("serving")
def test_the_hook_cancels_the_job_of_a_process_that_had_to_be_killed(
    tmp_path: Path, spool: Path
) -> None:
    run = started("hooked", tmp_path)
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGSTOP)  # it hangs
    cancelled(run)
    until(lambda: words(spool, tmp_path) == ["CANCELLED"])
    assert until(lambda: logs(run, "job wait ("))


@pytest.mark.usefixtures("serving")
def test_a_served_flow_without_the_hook_is_told_so(tmp_path: Path) -> None:
    run = started("unhooked", tmp_path)
    assert len(until(lambda: logs(run, "has no hook that cancels its jobs"))) == 1
    cancelled(run)
