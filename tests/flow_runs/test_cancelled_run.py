"""A flow run that is cancelled in Prefect's UI, which nobody serves: nothing is delivered to it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.states import Cancelling

from ..flows.jobs import runs
from ..flows.seen import flow_run, process, run_of, task_runs, until, words

pytestmark = [pytest.mark.usefixtures("blocks"), pytest.mark.timeout(900)]

#: Flows of `jobs.py`, and the programs of each that run when it is cancelled.
FLOWS = {
    "alone": {"wait"},
    "alone_sync": {"wait"},
    "in_a_thread": {"wait"},
    "stubborn": {"wait", "long"},
    "grouped": {"wait"},
    "heedless": {"wait"},
}


@dataclass
class Ended:
    """A process whose flow run was cancelled while its jobs ran."""

    work_dir: Path
    said: str
    code: int


@pytest.fixture(scope="module")
def cancelled(blocks: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Ended]]:
    """All at once: most of their time is Prefect's start, and waiting."""
    work_dirs = {name: tmp_path_factory.mktemp("cancelled") for name in FLOWS}
    with contextlib.ExitStack() as stack, get_client(sync_client=True) as client:
        started = {name: stack.enter_context(process(name, str(work_dirs[name]))) for name in FLOWS}
        for name, programs in FLOWS.items():
            until(lambda name=name, programs=programs: programs <= set(runs(work_dirs[name])))
            run = UUID(run_of(work_dirs[name]))
            client.set_flow_run_state(run, Cancelling(), force=False)
        found = {}
        for name, each in started.items():
            said, _ = each.communicate(timeout=240)
            found[name] = Ended(work_dirs[name], said, each.returncode)
        yield found


@pytest.mark.parametrize("name", FLOWS)
def test_its_jobs_are_cancelled_and_it_ends(
    name: str, cancelled: dict[str, Ended], spool: Path
) -> None:
    ended = cancelled[name]
    assert words(spool, ended.work_dir) == ["CANCELLED"] * len(FLOWS[name]), ended.said
    if name != "heedless":  # which asked not to be told
        assert ended.code != 0
        assert "was cancelled in Prefect" in ended.said


@pytest.mark.parametrize("name", FLOWS)
def test_it_is_shown_as_cancelled(name: str, cancelled: dict[str, Ended]) -> None:
    run = run_of(cancelled[name].work_dir)
    state = flow_run(run).state
    assert state is not None
    assert state.name == "Cancelled", cancelled[name].said


def test_nothing_more_is_begun_in_it(cancelled: dict[str, Ended]) -> None:
    assert set(runs(cancelled["stubborn"].work_dir)) == {"wait", "long"}


@pytest.mark.parametrize("name", FLOWS)
def test_its_campaign_is_not_completed(name: str, cancelled: dict[str, Ended]) -> None:
    assert not list(cancelled[name].work_dir.glob(".hpc-prefect/*/completed"))


def test_its_task_run_is_shown_as_cancelled(cancelled: dict[str, Ended]) -> None:
    (task_run,) = task_runs(run_of(cancelled["alone"].work_dir))
    assert task_run.state_name == "Cancelled"
