"""Flows under `hpc-prefect rehearse`: killed and started again, and many jobs at once."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hpc_prefect import CommandBlock, ExecutionProfileBlock, HPCProfileBlock
from hpc_prefect.server import Server

from .rig import until
from .test_verb import PROGRAM, an_mpi, rehearse

BENCH = Path(__file__).parents[2] / "bench" / "rehearsal.py"
FLOW = """
import asyncio, sys
from prefect import flow
from hpc_prefect import run_job_from_blocks

@flow
async def one(work_dir: str) -> str:
    result = await run_job_from_blocks(
        command_block_name="cmd-rehearsed",
        execution_profile_block_name="exec-rehearsed",
        hpc_profile_block_name=f"hpc-rehearsed-{sys.argv[1]}",
        work_dir=work_dir,
        script_filename="job",
        user_args=["echo started >> runs; while [ ! -e end ]; do sleep 0.1; done; echo fine"],
    )
    print(result.job_id, open(result.stdout_path).read())

asyncio.run(one("work"))
"""


def save_blocks(kind: str) -> None:
    command = CommandBlock(command_name="sh", executable_key="sh", default_args=["-c"])
    command.save("cmd-rehearsed", overwrite=True, _sync=True)
    how = ExecutionProfileBlock(profile_name="sh", command_name="sh", walltime="00:10:00")
    how.save("exec-rehearsed", overwrite=True, _sync=True)
    there = HPCProfileBlock(scheduler=kind, executables={"sh": "/bin/sh"}, poll_interval=2.0)
    there.save(f"hpc-rehearsed-{kind}", overwrite=True, _sync=True)


@pytest.mark.parametrize("kind", ["pbs", "pjm"])
def test_a_flow_that_was_killed_meets_its_job_in_the_queue_that_was_kept(
    kind: str, prefect_server: Server, tmp_path: Path
) -> None:
    save_blocks(kind)
    (tmp_path / "flow.py").write_text(FLOW)
    kept = (kind, "--state", "queue")
    flow = ("--", sys.executable, "flow.py", kind)
    with subprocess.Popen(
        [PROGRAM, "rehearse", *kept, *flow],
        cwd=tmp_path,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as running:
        until((tmp_path / "work" / "runs").exists, "the job's start", patience=120)
        os.killpg(running.pid, signal.SIGKILL)  # the flow and the rehearsal around it
    (tmp_path / "work" / "end").touch()

    code, out, err = rehearse(tmp_path, *kept, *flow)

    assert (code, out.split()[-1:]) == (0, ["fine"]), err
    assert (tmp_path / "work" / "runs").read_text() == "started\n"
    assert rehearse(tmp_path, *kept, "--stop")[0] == 0


@pytest.mark.parametrize("kind", ["pbs", "pjm"])
def test_the_doctor_finds_nothing_wrong_with_a_rehearsed_place(
    kind: str, prefect_server: Server, tmp_path: Path
) -> None:
    fields = {"queue_cpu": "long", "launcher": "mpiexec -n {ranks} {command}"}
    executables = {"sh": "/bin/sh"}
    there = HPCProfileBlock(
        scheduler=kind, executables=executables, modules=["gcc/13"], poll_interval=2.0, **fields
    )
    there.save(f"hpc-rehearsed-doctor-{kind}", overwrite=True, _sync=True)

    doctor = ("doctor", f"hpc-rehearsed-doctor-{kind}", "--work-dir", str(tmp_path), "--submit")
    code, out, err = rehearse(
        tmp_path, kind, "--queue", "long", *an_mpi(tmp_path), "--", PROGRAM, *doctor, COLUMNS="200"
    )

    assert (code, "wrong" in out) == (0, False), out + err
    assert re.search(r"launcher +│? *ok", out), out


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_many_jobs_at_once_have_the_verdicts_that_they_should() -> None:
    """The benchmark's mix of ends, smaller than there."""
    done = subprocess.run(
        [sys.executable, str(BENCH), "--jobs", "100"], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("verdicts: 100 right, 0 wrong") == 2, done.stdout
    assert done.stdout.count("programs that succeed: 60 of 60 ran, 0 of them twice") == 2
