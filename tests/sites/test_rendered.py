"""What is submitted at each place: the whole script and the command, as files to read.

Written anew by `HPC_PREFECT_WRITE_DOCS=1 pytest tests/sites`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

from hpc_prefect.batch.preview import render_preview
from hpc_prefect.blocks import Call, CommandBlock, ExecutionProfileBlock, resolve
from hpc_prefect.job.identity import job_tag
from hpc_prefect.job.spec import JobSpec
from hpc_prefect.schedulers import scheduler_for

from .profiles import SITES, WITH_GPUS, profile

SNAPSHOTS = Path(__file__).parent / "snapshots"

#: The same intent everywhere: what differs in the files is what differs between the places.
SHAPE = {"num_nodes": 2, "ranks_per_node": 4, "walltime": "00:10:00", "launch": "mpi"}
SIDES = {
    "cpu": {"resource_class": "cpu", "threads_per_rank": 2, "memory_per_node": "16G"},
    "gpu": {"resource_class": "gpu", "ranks_per_node": 1, "gpus_per_node": 1},
}
JOBS = [(name, side) for name in SITES for side in SIDES if side == "cpu" or name in WITH_GPUS]


def is_spoken(name: str) -> bool:
    """Whether this version has the dialect of the place."""
    try:
        scheduler_for(SITES[name].scheduler)
    except KeyError:
        return False
    return True


def job(name: str, side: str) -> JobSpec:
    if not is_spoken(name):
        pytest.skip(f"this version does not speak {SITES[name].scheduler}")
    spec, secrets = resolve(
        CommandBlock(command_name="diag", executable_key="diag"),
        ExecutionProfileBlock(profile_name="diag", command_name="diag", **SHAPE | SIDES[side]),
        profile(name),
        Call(script_filename="diag", work_dir="/data/me/run", user_args=["--tolerance", 1e-4]),
        machine_cores=16,
    )
    assert secrets == {}
    return spec


@pytest.mark.parametrize(("name", "side"), JOBS)
def test_script_and_command_are_those_of_the_snapshot(name: str, side: str) -> None:
    shown = render_preview(job(name, side))
    text = f"{shown.script}\n# Submitted by: {shown.command}\n"
    # Both are digests of all fields, also of those that a later version adds.
    key = Path(shown.folder).name.removesuffix("-1")
    tag = job_tag(key, 1)
    for what, word in (
        (key, "KEY"),
        (tag, "TAG"),
        (sys.executable, "PYTHON"),
        (str(resources.files("hpc_prefect")), "HPC_PREFECT"),
    ):
        text = text.replace(what, word)

    file = SNAPSHOTS / f"{name}-{side}.sh"
    if os.environ.get("HPC_PREFECT_WRITE_DOCS"):
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8")


def test_there_is_no_other_snapshot() -> None:
    assert {file.stem for file in SNAPSHOTS.iterdir()} == {"-".join(each) for each in JOBS}


@pytest.mark.parametrize(("name", "side"), JOBS)
def test_the_script_is_one_for_bash(name: str, side: str) -> None:
    script = render_preview(job(name, side)).script
    done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_ranks_write_into_files_of_their_own_comes_into_the_jobs_output(
    tmp_path: Path,
) -> None:
    """Where mpiexec has no output: a stand-in writes the files, as the site's guide names them."""
    (setup,) = profile("fugaku").setup
    mpiexec = tmp_path / "mpiexec"
    mpiexec.write_text(
        "#!/bin/bash\n"
        'mkdir -p "output.$PJM_JOBID/0/1" && cd "output.$PJM_JOBID/0/1"\n'
        'for rank in 0 1; do echo "$rank: $*" > stdout.1.$rank; done\n'
        "echo wrong > stderr.1.1\n"
        "exit 3\n"
    )
    mpiexec.chmod(0o755)

    done = subprocess.run(
        ["bash", "-c", f"{setup}\nranks -n 2 ./prog 'a b'"],
        cwd=tmp_path,
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "PJM_JOBID": "77"},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.stdout == "0: -n 2 ./prog a b\n1: -n 2 ./prog a b\n"
    assert (done.stderr, done.returncode) == ("wrong\n", 3)
