"""A flow run that is cancelled in Prefect while no call of ours waits, wherever its flow is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.states import Cancelling

from ..flows.between import FLOWS, MANY
from ..flows.jobs import runs
from ..flows.seen import PROGRAMS, flow_run, process, until, words

pytestmark = [pytest.mark.usefixtures("blocks"), pytest.mark.timeout(900)]

FILE = PROGRAMS / "between.py"
#: These return all the same: nothing that they call tells them.
RETURNING = {"no_more_calls", "swallows"}
AT_ONCE = 4


@dataclass
class Ended:
    work_dir: Path
    said: str
    code: int
    state: str


@pytest.fixture(scope="module")
def cancelled(blocks: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ended]:
    """A few at once: most of their time is Prefect's start, and waiting."""
    work_dirs = {name: tmp_path_factory.mktemp(name) for name in FLOWS}
    names, found = list(FLOWS), {}
    for first in range(0, len(names), AT_ONCE):
        found |= dict(_cancelled({name: work_dirs[name] for name in names[first:][:AT_ONCE]}))
    return found


def _cancelled(work_dirs: dict[str, Path]) -> Iterator[tuple[str, Ended]]:
    with contextlib.ExitStack() as stack, get_client(sync_client=True) as client:
        started = {
            name: stack.enter_context(process(name, str(work_dir), file=FILE))
            for name, work_dir in work_dirs.items()
        }
        for name, work_dir in work_dirs.items():
            begun = 2 if name == "second_job" else 1
            until(lambda work_dir=work_dir, begun=begun: len(runs(work_dir)) >= begun)
            run = UUID((work_dir / "flow-run").read_text())
            if name == "waits_for_retry":
                until(lambda run=run: flow_run(str(run)).state_name == "AwaitingRetry")
            client.set_flow_run_state(run, Cancelling(), force=False)
            (work_dir / "cancelled").touch()
        for name, work_dir in work_dirs.items():
            said, _ = started[name].communicate(timeout=300)
            state = flow_run((work_dir / "flow-run").read_text()).state
            yield name, Ended(work_dir, said, started[name].returncode, str(state and state.name))


@pytest.mark.parametrize("name", FLOWS)
def test_nothing_more_is_begun_in_it(name: str, cancelled: dict[str, Ended]) -> None:
    ended = cancelled[name]
    assert len(runs(ended.work_dir)) < MANY, ended.said
    assert "late" not in runs(ended.work_dir)


@pytest.mark.parametrize("name", FLOWS)
def test_it_ends_and_says_why(name: str, cancelled: dict[str, Ended]) -> None:
    ended = cancelled[name]
    assert (ended.code == 0) == (name in RETURNING), ended.said
    # Prefect itself may end a flow that is cancelled before its retry.
    if name not in RETURNING | {"flow_retried"}:
        assert "was cancelled in Prefect" in ended.said


@pytest.mark.parametrize("name", FLOWS)
def test_it_is_shown_as_cancelled(name: str, cancelled: dict[str, Ended]) -> None:
    assert cancelled[name].state == "Cancelled", cancelled[name].said


@pytest.mark.parametrize("name", FLOWS)
def test_its_campaign_is_not_completed(name: str, cancelled: dict[str, Ended]) -> None:
    assert not list(cancelled[name].work_dir.glob(".hpc-prefect/*/completed"))


def test_a_second_job_is_cancelled_as_the_first_would_have_been(
    cancelled: dict[str, Ended], spool: Path
) -> None:
    ended = cancelled["second_job"]
    assert words(spool, ended.work_dir)[1:] == ["CANCELLED"], ended.said
