"""Mistakes planted in a profile or its place are each found, with the remedy."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest

from hpc_prefect.blocks import HPCProfileBlock
from hpc_prefect.doctor import Terms, examine
from hpc_prefect.executor.request import Silence
from hpc_prefect.schedulers.finding import Outcome

from .rig import Place, local, of, on_path, pbs, wrong


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with pbs(tmp_path) as found:
        yield found


def said(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout


async def test_a_right_profile_has_nothing_wrong_with_and_without_a_job(place: Place) -> None:
    without, submitted = await place.examined(), await place.examined(submit=True)

    assert (wrong(without), wrong(submitted)) == ([], [])
    assert of(without, "executable diag").outcome is Outcome.UNKNOWN
    for check in ("job", "executable diag", "launcher", "work_dir in a job", "clock"):
        assert of(submitted, check).outcome is Outcome.OK
    assert of(submitted, "status of a job").outcome is Outcome.OK
    assert not list(place.work.glob(".hpc-prefect-doctor-*"))


async def test_1_a_queue_that_is_not_there(place: Place) -> None:
    found = await place.examined(queue_cpu="nosuch", submit=True)

    assert wrong(found) == ["queue"]
    assert of(found, "queue").seen == "there is no queue 'nosuch'"
    assert (
        "set queue_cpu of the HPC profile to one that is open: workq" in of(found, "queue").remedy
    )
    assert of(found, "job").seen == "not submitted: first correct what is wrong above"


@pytest.mark.parametrize("queue", ["disabled", "stopped", "others"])
async def test_2_a_queue_that_is_closed(place: Place, queue: str) -> None:
    found = await place.examined(queue_cpu=queue)

    assert wrong(found) == ["queue"]
    assert "to one that is open: workq" in of(found, "queue").remedy


async def test_3_a_command_that_is_not_on_path(place: Place) -> None:
    (place.folder / "bin" / "qselect").unlink()
    with on_path(place.folder / "bin", alone=True):
        found = await place.examined()

    assert wrong(found) == ["commands"]
    assert of(found, "commands").seen == "'qselect' is not on PATH"
    assert "login node" in of(found, "commands").remedy


async def test_4_a_status_dialect_that_the_site_does_not_speak(place: Place) -> None:
    with on_path(place.folder / "table"):
        for_table = await place.examined()
    for_json = await place.examined(pbs={"status_dialect": "table"})

    assert wrong(for_table) == wrong(for_json) == ["status dialect"]
    assert of(for_table, "status dialect").remedy.startswith(
        "set pbs.status_dialect = 'table', pbs.history_flag = '-H' in the HPC profile"
    )
    assert of(for_json, "status dialect").remedy.startswith("set pbs.status_dialect = 'json'")


async def test_5_a_history_flag_that_the_site_does_not_know(place: Place) -> None:
    """`qstat -H` is a table there, and nothing as long as no job has ended."""
    first = await place.examined(submit=True, pbs={"history_flag": "-H"})
    then = await place.examined(pbs={"history_flag": "-H"})

    assert wrong(first) == ["status of a job"]
    assert "`pbs.…`" in of(first, "status of a job").remedy
    assert wrong(then) == ["status dialect"]
    assert of(then, "status dialect").remedy.startswith("set pbs.history_flag = '-x'")


async def test_6_an_executable_that_is_missing(place: Place) -> None:
    found = await place.examined(submit=True, executables={"diag": "/no/such", "sh": "/bin/sh"})

    assert wrong(found) == ["executable diag"]
    assert of(found, "executable sh").outcome is Outcome.OK
    assert "correct the path" in of(found, "executable diag").remedy


async def test_7_an_executable_that_may_not_be_executed(place: Place) -> None:
    place.program.chmod(0o600)

    found = await place.examined(submit=True)

    assert wrong(found) == ["executable diag"]
    assert of(found, "executable diag").remedy == f"chmod +x {place.program}"


async def test_8_a_module_that_is_not_there(place: Place) -> None:
    found = await place.examined(submit=True, modules=["no-such-module"])

    assert wrong(found) == ["modules and set-up"]
    assert "module: command not found" in of(found, "modules and set-up").seen
    assert "login_shell" in of(found, "modules and set-up").remedy
    assert of(found, "executable diag").outcome is Outcome.UNKNOWN


async def test_9_a_launcher_that_is_missing(place: Place) -> None:
    found = await place.examined(submit=True, launcher="no-such-mpiexec -n {ranks} {command}")

    assert wrong(found) == ["launcher"]
    assert of(found, "launcher").remedy.startswith("correct the launcher of the HPC profile")


async def test_10_a_work_dir_that_cannot_be_written(place: Place) -> None:
    found = await place.examined(submit=True, work_dir="/proc/no-such-folder")

    assert wrong(found) == ["work_dir"]
    assert "--work-dir" in of(found, "work_dir").remedy
    assert of(found, "job").outcome is Outcome.UNKNOWN


async def test_11_a_project_that_is_no_group_of_the_user(place: Place) -> None:
    found = await place.examined(project_cpu="nosuch", pbs={"account_flag": "-W group_list"})

    assert wrong(found) == ["project"]
    assert of(found, "project").remedy.startswith("set project_cpu of the HPC profile to one of: ")


async def test_12_a_launcher_line_with_a_placeholder_that_is_none(place: Place) -> None:
    hpc = HPCProfileBlock(**place.fields).model_copy(update={"launcher": "mpirun -n {rank}"})

    found = await examine(hpc, Terms(work_dir=str(place.work)))

    assert wrong(found) == ["profile"]
    assert "unknown placeholder {rank}" in of(found, "profile").seen


async def test_each_set_up_is_tried_in_a_job_of_its_own(tmp_path: Path) -> None:
    place = local(tmp_path)
    bad = {"path": "/bin/sh", "setup": ["(exit 9) || exit"]}

    found = await place.examined(submit=True, executables={"a": "/bin/sh", "b": bad})

    assert wrong(found) == ["modules and set-up"]
    assert of(found, "executable a").outcome is Outcome.OK
    assert of(found, "executable b").outcome is Outcome.UNKNOWN


async def test_on_this_machine_an_executable_is_looked_at_without_a_job(tmp_path: Path) -> None:
    place = local(tmp_path)
    executables = {"a": "/bin/sh", "b": "/no/such", "c": "sh", "d": "no-such-command"}

    found = await place.examined(executables=executables)

    assert wrong(found) == ["executable b", "executable d"]


async def test_a_job_that_does_not_start_in_time_is_cancelled_and_nothing_is_concluded(
    place: Place,
) -> None:
    later = "-a 203001010000"
    hpc = HPCProfileBlock(**place.fields | {"pbs": {"directives": [later]}})

    found = await examine(hpc, Terms(work_dir=str(place.work), submit=True, wait=1.0))

    assert "wait" in of(found, "job").remedy
    assert of(found, "job").outcome is Outcome.UNKNOWN
    assert wrong(found) == []
    assert said("qselect") == ""


async def test_an_interrupted_examination_cancels_its_job(tmp_path: Path) -> None:
    place = local(tmp_path)
    running = asyncio.Event()
    loop = asyncio.get_running_loop()

    class Told(Silence):
        def state(self, text: str, *, warning: bool = False, **_: object) -> None:
            if "running" in text:
                loop.call_soon_threadsafe(running.set)

    hpc = HPCProfileBlock(**place.fields | {"setup": ["sleep 1000"]})
    terms = Terms(work_dir=str(place.work), submit=True)
    task = asyncio.ensure_future(examine(hpc, terms, Told()))
    await asyncio.wait_for(running.wait(), 240)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    engine = str(resources.files("hpc_prefect.local_batch") / "engine.py")
    assert said(sys.executable, "-I", "-S", engine, "jobs", "--spool", f"{tmp_path}/spool") == ""
