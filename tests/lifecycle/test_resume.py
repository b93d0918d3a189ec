"""A flow run that was killed goes on as itself: `hpc-prefect resume`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client

from hpc_prefect import ONCE, resume
from hpc_prefect.errors import CannotResume

from .. import warm
from ..flows.jobs import job, runs
from ..flows.seen import MAIN, PROGRAMS, command, ended, flow_run, process, run_of, until

pytestmark = pytest.mark.usefixtures("blocks")

FILE = PROGRAMS / "resumable.py"


@contextmanager
def killed(which: str, work_dir: Path, last: str) -> Iterator[str]:
    """The flow run of a process that is killed when the program `last` runs; its id."""
    with process(which, str(work_dir), file=FILE):
        until(lambda: last in runs(work_dir))
        yield run_of(work_dir)


def tasks_of(work_dir: Path) -> Counter[str]:
    return Counter((work_dir / "tasks").read_text().split())


# --- killed in the second iteration


@dataclass
class Resumed:
    work_dir: Path
    run: str
    plan: str
    state_after_plan: str
    said: str
    code: int


@pytest.fixture(scope="module")
def resumed(blocks: None, tmp_path_factory: pytest.TempPathFactory) -> Resumed:
    work_dir = tmp_path_factory.mktemp("resumed")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    with killed("resumable", work_dir, "step-1") as run:
        pass
    plan = command("resume", "--plan", run, cwd=elsewhere).stdout
    state = flow_run(run).state
    words = ["-c", MAIN, "resume", run]
    going = warm.Process(words, stdout=warm.PIPE, stderr=warm.STDOUT, cwd=elsewhere)
    try:
        until(lambda: list(work_dir.glob(".hpc-prefect/*/*/*/claim-2")))
        (work_dir / "go").touch()
        said, _ = going.communicate(timeout=200)
    finally:
        going.kill()
    return Resumed(work_dir, run, plan, state.name if state else "", said, going.wait())


def test_it_is_completed_as_the_same_flow_run(resumed: Resumed) -> None:
    assert resumed.code == 0, resumed.said
    found = flow_run(resumed.run)
    assert found.state is not None
    assert found.state.name == "Completed"
    assert found.run_count == 2


def test_every_program_ran_once(resumed: Resumed) -> None:
    assert runs(resumed.work_dir) == ["step-0", "step-1", "step-2"]


def test_tasks_with_the_policy_ran_once_each_also_identical_ones(resumed: Resumed) -> None:
    found = tasks_of(resumed.work_dir)
    assert found["kept-a"] == 2
    assert found["kept-b"] == 3  # one an iteration
    assert found["end"] == 1


def test_a_task_without_it_ran_again_and_that_was_said_before(resumed: Resumed) -> None:
    assert tasks_of(resumed.work_dir)["not-kept"] == 2
    assert "task not_kept: 1 finished, but run again: its result was not stored" in resumed.plan
    assert "cache_policy=hpc_prefect.ONCE" in resumed.plan
    assert "task kept: 4 finished, from stored results" in resumed.plan


def test_the_plan_changes_nothing(resumed: Resumed) -> None:
    assert resumed.state_after_plan == "Running"
    assert "in Prefect's state Running" in resumed.plan


def test_it_is_said_what_is_continued_from_when_and_by_whom(resumed: Resumed) -> None:
    (line,) = [each for each in resumed.said.splitlines() if "continuing campaign" in each]
    assert f"of flow run {resumed.run}" in line
    assert "1 job running" not in line  # nobody asked; it is not known
    assert "1 job succeeded" in line
    assert "step-1 (" in line
    assert "last seen 20" in line


def test_the_running_job_was_taken_up(resumed: Resumed) -> None:
    assert "step-0: already done as" in resumed.said
    assert "step-1: attached to" in resumed.said


def test_what_has_completed_is_not_resumed(resumed: Resumed) -> None:
    again = command("resume", resumed.run)
    assert again.returncode == 1
    assert "it has completed; start the flow again" in again.stdout


def test_a_run_that_began_its_campaign_afresh_goes_on_with_that(tmp_path: Path) -> None:
    with killed("anew", tmp_path, "wait") as run:
        pass
    (tmp_path / "go").touch()
    resume(run)
    assert runs(tmp_path) == ["wait"]


# --- what cannot be resumed


def test_a_living_run_is_not_resumed(tmp_path: Path) -> None:
    with killed("resumable", tmp_path, "step-1") as run, pytest.raises(CannotResume) as caught:
        resume(run)
    assert "it is still running: flow run" in str(caught.value)
    (tmp_path / "go").touch()


def test_a_run_whose_campaign_is_not_there_is_not_resumed(tmp_path: Path) -> None:
    """Its file system is not mounted, say: all of its jobs would run again."""
    with killed("resumable", tmp_path, "step-1") as run:
        pass
    (tmp_path / ".hpc-prefect").rename(tmp_path / "elsewhere")
    with pytest.raises(CannotResume, match="all of its jobs would run again"):
        resume(run)
    (tmp_path / "elsewhere").rename(tmp_path / ".hpc-prefect")
    (tmp_path / "go").touch()
    resume(run)
    assert set(Counter(runs(tmp_path)).values()) == {1}


def test_parameters_that_prefect_does_not_hold_are_refused_by_name(tmp_path: Path) -> None:
    with killed("lossy", tmp_path, "wait") as run:
        pass
    with pytest.raises(CannotResume, match="does not hold its parameters what as they were given"):
        resume(run)
    (tmp_path / "go").touch()


def test_a_run_before_its_first_job_is_resumed_only_on_somebodys_word(tmp_path: Path) -> None:
    with process("before_any_job", str(tmp_path), file=FILE) as started:
        run = until(lambda: _named_in(started.stdout.readline()))  # type: ignore[union-attr]
        until((tmp_path / "tasks").exists)
    with pytest.raises(CannotResume) as caught:
        resume(run)
    assert "add --dead" in str(caught.value)
    assert "give it as --entrypoint FILE:FLOW" in str(caught.value)
    (tmp_path / "go").touch()
    resume(run, dead=True, entrypoint=f"{FILE}:before_any_job")
    assert runs(tmp_path) == ["first"]


def _named_in(line: str) -> str:
    _, found, rest = line.partition("/runs/flow-run/")
    return rest.strip() if found else ""


def test_an_unknown_flow_run_is_an_error_in_a_sentence() -> None:
    with pytest.raises(CannotResume, match="Prefect knows no such flow run"):
        resume(uuid4())


def test_a_notebook_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with killed("resumable", tmp_path, "step-1") as run:
        pass
    cell = "/tmp/ipykernel_4711/123456.py:resumable"
    with get_client(sync_client=True) as client:
        client.update_flow_run_labels(UUID(run), {"hpc-prefect.entrypoint": cell})
    with pytest.raises(CannotResume, match="run the cell again"):
        resume(run)
    (tmp_path / "go").touch()


# --- started again as a script, which is another flow run


def test_a_script_that_is_started_again_finds_finished_tasks_too(tmp_path: Path) -> None:
    with killed("resumable", tmp_path, "step-1"):
        pass
    (tmp_path / "go").touch()
    with process("resumable", str(tmp_path), file=FILE) as again:
        ended(again)
    assert tasks_of(tmp_path)["kept-a"] == 2
    assert tasks_of(tmp_path)["kept-b"] == 3
    assert runs(tmp_path) == ["step-0", "step-1", "step-2"]


async def test_a_new_instance_of_a_completed_campaign_does_its_tasks_again(tmp_path: Path) -> None:
    @task(cache_policy=ONCE)
    def counted(work_dir: str) -> None:
        with Path(work_dir, "tasks").open("a") as file:
            file.write("counted\n")

    @flow
    async def whole(work_dir: str) -> None:
        counted(work_dir)
        await job(work_dir, "only")

    await whole(str(tmp_path))
    await whole(str(tmp_path))
    assert tasks_of(tmp_path)["counted"] == 2
    assert runs(tmp_path) == ["only", "only"]
