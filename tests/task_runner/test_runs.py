"""Flows on workers: results, the ends of the jobs, and what is told when workers cannot come."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import TypeVar
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.states import Cancelling

from ..engines import SlurmCluster
from .conftest import Workers

T = TypeVar("T")
_MPIEXEC = Path(sys.executable).with_name("mpiexec")  # of the development packages
_ENGINE = str(resources.files("hpc_prefect.local_batch") / "engine.py")


def until(condition: Callable[[], T], seconds: float = 240) -> T:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.05)
    return found


def queue(workers: Workers) -> dict[str, str]:
    """The jobs of the queue that have not ended, and their states."""
    listed = subprocess.run(
        [sys.executable, _ENGINE, "jobs", "--spool", str(workers.spool)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    jobs = [json.loads(line) for line in listed.stdout.splitlines()]
    return {job["id"]: job["state"] for job in jobs if job["state"] != "ENDED"}


def begun(folder: Path) -> list[Path]:
    return list(folder.glob("begun-*"))


def test_tasks_run_on_jobs_and_no_job_is_left(workers: Workers) -> None:
    end = workers.start("sums", workers.profile("plain"), workers.shape("one"), "2", "12")()
    assert end["state"] == "Completed", end["out"]
    assert end["squares"] == [number**2 for number in range(12)]
    assert end["sum"] == 5
    assert "succeeded: the program ended with 0" in end["out"]  # told to leave, not cancelled
    assert queue(workers) == {}


def test_each_rank_of_an_mpi_job_is_a_worker(workers: Workers, tmp_path: Path) -> None:
    profile = workers.profile("mpi", launcher=f"{_MPIEXEC} -n {{ranks}}")
    shape = workers.shape("ranks", launch="mpi", ranks_per_node=2)
    started = workers.start("held", profile, shape, "1", str(tmp_path), "2")
    until(lambda: len(begun(tmp_path)) == 2)  # at once: a worker has one thread
    assert len(queue(workers)) == 1
    (tmp_path / "go").touch()
    end = started()
    assert (end["state"], end["done"], queue(workers)) == ("Completed", 2, {})


def test_more_jobs_come_while_tasks_wait_and_go_when_none_do(
    workers: Workers, tmp_path: Path
) -> None:
    started = workers.start(
        "in_two_parts", workers.profile("plain"), workers.shape("one"), "0-3", str(tmp_path), "3"
    )
    until(lambda: len(begun(tmp_path)) == 3)
    assert len(queue(workers)) == 3
    (tmp_path / "go").touch()
    until(lambda: not queue(workers))  # the flow itself goes on
    (tmp_path / "on").touch()
    end = started()
    assert (end["state"], end["squares"]) == ("Completed", [0, 1]), end["out"]


def test_what_is_wrong_with_the_blocks_is_told_at_once(workers: Workers) -> None:
    end = workers.start("sums", "no-such-place", "no-such-shape", "1", "1")()
    assert end["state"] == "Failed"
    assert "no HPC Profile block 'no-such-place'" in end["message"]
    assert "'no-such-shape'" in end["message"]
    assert not workers.spool.exists()


def test_a_flow_whose_workers_do_not_come_is_told_why(workers: Workers) -> None:
    broken = workers.profile("broken", executables={"hpc-worker": "/bin/false"})
    shape = workers.shape("one")
    end = workers.start("told", broken, shape, "0-2")()
    assert "worker jobs in a row ended before their worker connected" in end["said"]
    assert "program failed: ended with exit code 1" in end["said"]
    assert (end["state"], end["task"]) == ("Completed", "Failed")
    end = workers.start("returned", broken, shape, "0-2")()
    assert (end["state"], end["message"]) == ("Failed", "2/2 states failed.")
    assert queue(workers) == {}


def test_a_lost_worker_s_task_goes_to_another_job(workers: Workers, tmp_path: Path) -> None:
    started = workers.start(
        "held", workers.profile("plain"), workers.shape("one"), "1", str(tmp_path), "1"
    )
    [first] = until(lambda: begun(tmp_path))
    os.kill(int(first.name.removeprefix("begun-")), signal.SIGKILL)
    first.unlink()
    until(lambda: begun(tmp_path))
    (tmp_path / "go").touch()
    end = started()
    assert (end["state"], end["done"], queue(workers)) == ("Completed", 1, {})


def test_threads_that_submit_at_once_share_the_workers(workers: Workers) -> None:
    end = workers.start("from_threads", workers.profile("plain"), workers.shape("one"), "1", "4")()
    assert (end["state"], end["asked"], len(end["jobs"])) == ("Completed", 4, 1), end["out"]
    assert end["out"].count("worker-1: submitted") == 1


def test_tasks_may_have_tasks_of_their_own(workers: Workers) -> None:
    end = workers.start("of_tasks", workers.profile("plain"), workers.shape("one"), "1", "4")()
    assert (end["state"], end["sums"]) == ("Completed", [14, 14, 14]), end["out"]


def test_a_task_that_ends_its_workers_is_given_up_and_the_flow_goes_on(workers: Workers) -> None:
    end = workers.start("deadly", workers.profile("plain"), workers.shape("one"), "1")()
    assert end["state"] == "Completed", end["out"]
    assert "4 workers, one after another, died while they ran this task" in end["said"]
    assert "ended with exit code 3" in end["said"]
    assert (end["task"], end["other"], queue(workers)) == ("Failed", 9, {})


def test_a_task_may_end_by_what_is_no_exception(workers: Workers) -> None:
    end = workers.start("left", workers.profile("plain"), workers.shape("one"), "1")()
    assert (end["state"], end["said"], end["task"]) == ("Completed", "the task has left", "Crashed")
    assert "worker-2" not in end["out"]  # the worker goes on


def test_workers_find_the_modules_of_the_flow(workers: Workers, tmp_path: Path) -> None:
    given = [workers.profile("plain"), workers.shape("one"), "1", str(tmp_path)]
    end = workers.start("of_a_module", *given, "keep")()
    assert end.get("tripled") == [3 * number for number in range(40)], end["out"]


def test_a_flow_whose_tasks_no_worker_can_read_is_told_why(
    workers: Workers, tmp_path: Path
) -> None:
    given = [workers.profile("plain"), workers.shape("one"), "1", str(tmp_path)]
    end = workers.start("of_a_module", *given, "hide")()
    assert "No module named 'module_of_the_flow'" in end["said"]
    assert queue(workers) == {}


def test_a_cancelled_run_ends_its_workers(workers: Workers, tmp_path: Path) -> None:
    started = workers.start(
        "held", workers.profile("plain"), workers.shape("one"), "1", str(tmp_path), "2"
    )
    until(lambda: begun(tmp_path))
    with get_client(sync_client=True) as client:
        [run] = client.read_flow_runs(limit=1, sort="START_TIME_DESC")
        client.set_flow_run_state(UUID(str(run.id)), Cancelling(), force=True)
    until(lambda: not queue(workers))
    out, _ = started.process.communicate(timeout=240)
    with get_client(sync_client=True) as client:
        state = until(lambda: client.read_flow_run(run.id).state)
    assert state.name == "Cancelled", out


def test_workers_of_a_killed_flow_end_by_themselves(workers: Workers, tmp_path: Path) -> None:
    started = workers.start(
        "held", workers.profile("plain"), workers.shape("one"), "1", str(tmp_path), "1"
    )
    until(lambda: begun(tmp_path))
    started.process.kill()
    started.process.communicate()
    (tmp_path / "go").touch()
    until(lambda: not queue(workers))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_task_that_takes_longer_than_the_walltime_is_not_begun_for_ever(
    workers: Workers, tmp_path: Path
) -> None:
    # Time enough for a worker to connect.
    shape = workers.shape("short", walltime="00:00:12")
    end = workers.start("held", workers.profile("plain"), shape, "1", str(tmp_path), "1")()
    assert end["state"] == "Failed"
    assert "9 worker jobs in a row ended without finishing a task" in end["message"]
    assert queue(workers) == {}


@pytest.mark.slow
def test_on_a_real_slurm(workers: Workers, slurm: SlurmCluster) -> None:
    profile = workers.profile("slurm", scheduler="slurm")
    shape = workers.shape("large", memory_per_node="1G")
    end = workers.start("sums", profile, shape, "2", "12", env=slurm.environment)()
    assert end["state"] == "Completed", end["out"]
    assert end["sum"] == 5
    assert all(job.isdecimal() for job in end["jobs"])  # in jobs of Slurm
    # Other tests have jobs there too. A job that has ended is shown until its nodes are free.
    submitted = set(re.findall(r"worker-\d+: \w+ as (\d+)", end["out"]))
    assert submitted >= set(end["jobs"])
    until(
        lambda: not submitted & set(slurm.run("squeue", "--noheader", "--format=%A").stdout.split())
    )
