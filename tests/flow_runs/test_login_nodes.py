"""One experiment from two login nodes: the second one is this machine under another name."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.states import Crashed

from .. import warm
from ..flows import jobs
from ..flows.jobs import runs
from ..flows.seen import ended, process, run_of, until

pytestmark = [pytest.mark.usefixtures("blocks"), pytest.mark.slow]

#: Runs a flow of `jobs.py` on a host of another name.
ELSEWHERE = (
    "import runpy, socket, sys; socket.gethostname = lambda: 'login2';"
    " import hpc_prefect.local_batch.process as process; process._boot_id.append('boot-of-login2');"
    " sys.path.insert(0, sys.argv[1].rpartition('/')[0]); sys.argv = sys.argv[1:];"
    " runpy.run_path(sys.argv[0], run_name='__main__')"
)


@contextmanager
def elsewhere(*arguments: str) -> Iterator[warm.Process]:
    words = ["-c", ELSEWHERE, str(Path(jobs.__file__)), *arguments]
    started = warm.Process(words, stdout=warm.PIPE, stderr=warm.STDOUT)
    try:
        yield started
    finally:
        started.kill()
        started.communicate()


@pytest.fixture
def first(tmp_path: Path) -> Iterator[warm.Process]:
    """A flow on the first login node, whose job runs."""
    with process("alone", str(tmp_path)) as started:
        until(lambda: "wait" in runs(tmp_path))
        yield started
    (tmp_path / "go").touch()


def killed(process: warm.Process) -> None:
    process.kill()
    process.wait()


def made_old(work_dir: Path) -> None:
    """As if nobody had renewed the claims for ten minutes."""
    then = time.time() - 600
    for claim in work_dir.glob(".hpc-prefect/**/claim-1"):
        os.utime(claim, (then, then))


def taken_over(work_dir: Path) -> str:
    """What a start on the second node says, which takes the job up."""
    with elsewhere("alone", str(work_dir)) as second:
        until(lambda: list(work_dir.glob(".hpc-prefect/*/*/*/claim-2")) or second.poll())
        (work_dir / "go").touch()
        return ended(second)


def test_a_living_run_is_left_alone_and_the_error_says_how_to_take_over(
    tmp_path: Path, first: warm.Process
) -> None:
    with elsewhere("alone", str(tmp_path)) as second:
        said = ended(second, code=1)
    assert f"is held by flow run {run_of(tmp_path)}" in said
    assert "if you are sure that it is dead, remove" in said
    assert "with hpc_prefect.campaign('replica-2')" in said
    assert runs(tmp_path) == ["wait"]


def test_a_dead_run_of_the_other_node_is_dead_only_after_its_claim_grew_old(
    tmp_path: Path, first: warm.Process
) -> None:
    killed(first)
    with elsewhere("alone", str(tmp_path)) as second:
        assert "which still runs" in ended(second, code=1)
    made_old(tmp_path)
    said = taken_over(tmp_path)
    assert "continuing campaign" in said
    assert "wait: attached to" in said
    assert runs(tmp_path) == ["wait"]


def test_a_run_that_prefect_knows_to_be_over_is_taken_over_at_once(
    tmp_path: Path, first: warm.Process
) -> None:
    killed(first)
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(UUID(run_of(tmp_path)), Crashed(), force=True)
    assert "wait: attached to" in taken_over(tmp_path)
    assert runs(tmp_path) == ["wait"]


def test_a_claim_that_a_person_removed_is_nobodys(tmp_path: Path, first: warm.Process) -> None:
    killed(first)
    for claim in tmp_path.glob(".hpc-prefect/**/claim-1"):
        claim.unlink()
    with elsewhere("alone", str(tmp_path)) as second:
        until(lambda: list(tmp_path.glob(".hpc-prefect/*/*/*/claim-1")) or second.poll())
        (tmp_path / "go").touch()
        assert "wait: attached to" in ended(second)
    assert runs(tmp_path) == ["wait"]


def test_the_first_run_notices_that_it_was_taken_over(tmp_path: Path, first: warm.Process) -> None:
    """It was stopped for so long that it seemed dead: it may neither write nor submit any more."""
    first.send_signal(signal.SIGSTOP)  # or it would renew its claims meanwhile
    try:
        made_old(tmp_path)
        said = taken_over(tmp_path)
    finally:
        first.send_signal(signal.SIGCONT)
    assert "wait: attached to" in said
    assert "was taken over by flow run" in ended(first, code=1)
    assert runs(tmp_path) == ["wait"]
