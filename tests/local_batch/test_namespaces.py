"""A container with PIDs of its own (`apptainer --pid`): same host, same files, other numbers."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from hpc_prefect.local_batch import process

from .rig import PATIENCE

IDENTITY = (
    "import os; from hpc_prefect.local_batch import process; print(process.identity(os.getpid()))"
)


@pytest.fixture
def inside(engine, own_pids):
    """The engine's commands as they are given inside."""

    def run(verb, *words):
        argv = [*own_pids, *engine.command(verb, "--spool", engine.spool, *words)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    return run


def test_a_job_outside_goes_on_when_it_is_asked_for_from_inside(engine, inside):
    job = engine.submit("sleep 1000")
    engine.running(job)
    assert '"state": "RUNNING"' in inside("jobs", job)
    assert engine.job(job)["state"] == "RUNNING"


def test_a_job_that_waits_outside_goes_on_waiting_when_it_is_asked_for_from_inside(engine, inside):
    engine.running(engine.submit("sleep 1000", slots=1))
    waits = engine.submit("sleep 1000", slots=1)
    assert '"state": "QUEUED"' in inside("jobs", waits)
    assert engine.job(waits)["state"] == "QUEUED"


def test_a_script_whose_supervisor_was_killed_outside_goes_on_for_those_inside(engine, inside):
    job = engine.submit("sleep 1000")
    engine.running(job)
    engine.kill_supervisor(job)
    assert '"state": "RUNNING"' in inside("jobs", job)


def test_a_cancel_from_inside_reaches_a_job_outside(engine, inside):
    job = engine.submit("sleep 1000")
    engine.running(job)
    assert inside("cancel", job) == f"cancelled {job}\n"
    assert engine.ended(job)["end"] == "CANCELLED"


def test_a_job_whose_container_has_gone_is_a_node_failure(engine, own_pids):
    """Its processes cannot be looked up from here; that nobody holds its lock tells."""
    argv = engine.command("submit", *engine.options(), engine.script("sleep 1000"))
    shell = [*own_pids, "sh", "-c", '"$@" && read wait', "sh", *argv]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(shell, **pipes, text=True) as container:
        job = container.stdout.readline().strip()
        engine.running(job)
        container.kill()
    assert engine.ended(job)["end"] == "NODE_FAIL"


def test_a_process_is_neither_dead_nor_alive_for_those_who_cannot_look_it_up(own_pids):
    argv = [*own_pids, sys.executable, "-c", IDENTITY]
    said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    boot, pid, _, namespace = said.split()
    assert (boot, pid) == (process.boot_id(), "1")
    assert namespace != process.namespace()
    assert (process.alive(said), process.dead(said)) == (False, False)


def test_without_a_proc_of_its_own_nothing_is_submitted(engine, own_pids):
    argv = [word for word in own_pids if word != "--mount-proc"]
    submit = engine.command("submit", *engine.options(), engine.script("exit 0"))
    done = subprocess.run([*argv, *submit], capture_output=True, text=True)
    assert done.returncode == 1
    assert "/proc does not show this process" in done.stderr


def test_an_identity_of_an_older_version_can_be_told_alive_and_not_dead():
    boot, pid, start, namespace = process.identity(os.getpid()).split()
    assert process.alive(f"{boot} {pid} {start}")
    gone = f"{boot} {pid} {int(start) + 1}"
    assert (process.alive(gone), process.dead(gone)) == (False, False)
    assert process.dead(f"{gone} {namespace}")
