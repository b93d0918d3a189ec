"""What a job's program finds in its environment on a real Slurm, alone and below srun.

It is what the profiles and their secrets say, byte for byte, and nothing of the flow's own but what
every process of a user has.
"""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from hpc_prefect.executor.connection import Connection
from hpc_prefect.executor.request import JobRequest, Silence
from hpc_prefect.executor.run import JobRun
from hpc_prefect.job import folder as names
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.result import JobResult
from hpc_prefect.job.spec import Executable, JobSpec, Resources, Site
from hpc_prefect.ledger.claim import this_process
from hpc_prefect.schedulers.slurm.scheduler import SlurmScheduler
from hpc_prefect.transports.local import LocalTransport

from ..engines import SlurmCluster

#: Of each cluster that the tests start.
NAME = "tests"
SRUN = "srun --mpi=none -n {ranks} {command}"
#: Values of which a shell, a row or a scheduler might make something else.
GIVEN = {
    "PLAIN": "1",
    "EMPTY": "",
    "HOSTILE": 'it\'s $(id) `id` "x" \\ | ; # % ~ é☃\n7|htag|COMPLETED|\nend\n',
    "PREFECT_API_URL": "http://of-the-profile",
}
SECRETS = {"TOKEN": 'se\'cret $1\n"two" \\', "API_KEY": "only-in-the-job"}
#: Of the flow: keys, set-up of its shell, and what Slurm's commands would take for options.
FLOWS = {
    "PREFECT_API_KEY": "key-of-the-flow",
    "PREFECT_API_URL": "http://of-the-flow",
    "MY_TOKEN": "token-of-the-flow",
    "LD_LIBRARY_PATH": "/lib-of-the-flow",
    "BASH_ENV": "/env-of-the-flow",
    "SBATCH_EXPORT": "ALL",
    "SLURM_EXPORT_ENV": "NONE",
    "SRUN_DEBUG": "3",
    "LANG": "C.UTF-8",
    "LC_MEASUREMENT": "C.UTF-8",
}
KEPT = ("HOME", "USER", "LOGNAME", "SHELL", "PATH", "TZ", "LANG", "LANGUAGE")
#: What Slurm, its launchers and the shell set themselves.
THEIRS = ("SLURM", "PMI", "SRUN_", "CUDA_", "GPU_", "ROCR_", "ZE_", "OMP_NUM_THREADS", "MAIL")
OF_A_JOB = ("ENVIRONMENT", "HOSTNAME", "TMPDIR", "PWD", "OLDPWD", "SHLVL", "_")


@pytest.fixture
def flows(slurm: SlurmCluster, monkeypatch: pytest.MonkeyPatch) -> SlurmCluster:
    """The cluster; this process has the environment of a flow there."""
    for name, value in (slurm.environment | FLOWS).items():
        monkeypatch.setenv(name, value)
    return slurm


def job(work: Path, program: tuple[str, ...], label: str, **fields: Any) -> JobRun:
    launch = fields.pop("launch", "single")
    options = {"requeue": "no", "accounting": True} | fields.pop("options", {})
    site = Site(
        scheduler="slurm",
        options=options,
        launcher=fields.pop("launcher", SRUN),
        setup=('quiet() { srun "$@" 2>/dev/null; }', "export SLURM_EXPORT_ENV=NONE"),
        environment=GIVEN,
    )
    spec = JobSpec(
        name=label,
        command_name="env",
        executable=Executable(path=program[0]),
        arguments=program[1:],
        site=site,
        resources=Resources(walltime=120, launch=launch, **fields),
        work_dir=str(work),
        secret_names=tuple(SECRETS),
    )
    request = JobRequest(
        spec=spec,
        secrets=SECRETS,
        base=f"{work}/{names.ROOT}/campaign/ab/{label}",
        key=label,
        claimant=this_process(),
        poll_interval=2.0,
        listener=Silence(),
    )
    connection = Connection(SlurmScheduler(), LocalTransport(), options, ThreadPoolExecutor(4))
    return JobRun(request, connection)


def printed(result: JobResult) -> dict[str, str]:
    """The environment that `env -0` wrote."""
    text = (Path(result.folder) / names.STDOUT).read_bytes().decode()
    return dict(line.split("=", 1) for line in text.split("\0") if line)


@pytest.mark.parametrize("launch", ["single", "mpi"])
async def test_a_program_finds_what_the_profiles_say_and_nothing_of_the_flows(
    flows: SlurmCluster, tmp_path: Path, launch: str
) -> None:
    result = await job(tmp_path, ("/usr/bin/env", "-0"), launch, launch=launch).carry_out()

    assert result.verdict.reason is Reason.SUCCEEDED
    found = printed(result)
    given = GIVEN | SECRETS
    assert {name: found.get(name) for name in given} == given
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    kept |= {name: value for name, value in os.environ.items() if name.startswith("LC_")}
    assert {name: found.get(name) for name in kept} == kept
    rest = set(found) - set(given) - set(kept)
    assert {name for name in rest if not name.startswith(THEIRS)} <= set(OF_A_JOB)
    assert "SLURM_JWT" not in found
    assert not [value for value in found.values() if "of-the-flow" in value]


async def test_slurm_itself_is_told_nothing_of_the_flows_and_no_secret(
    flows: SlurmCluster, tmp_path: Path
) -> None:
    run = job(tmp_path, ("/bin/true",), "held", options={"directives": ("--hold",)})
    task = asyncio.create_task(run.carry_out())
    try:
        async with asyncio.timeout(120):
            while not run.job_id:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        (saved,) = (flows.dir / "state").glob(f"hash.*/job.{run.job_id}/environment")
        text = saved.read_bytes()
    finally:
        run.cancel("user")
        await task
    assert f"HOME={os.environ['HOME']}".encode() in text
    assert b"of-the-flow" not in text
    assert not [value for value in SECRETS.values() if value.encode() in text]


async def test_a_rank_that_srun_lost_to_the_kernel_was_out_of_memory(
    flows: SlurmCluster, tmp_path: Path
) -> None:
    """Its step has a cgroup of its own, and what srun says of it goes elsewhere."""
    if not Path("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists():
        pytest.skip("needs cgroup v1's memory controller")
    program = "[ $SLURM_PROCID = 0 ] || x=$(head -c 400000000 /dev/zero | tr '\\0' x); exit 7"
    run = job(
        *(tmp_path, ("/bin/bash", "-c", program), "oom"),
        launch="mpi",
        launcher="quiet --mpi=none -n {ranks} {command}",
        num_nodes=2,
        memory_per_node=64 << 20,
    )

    result = await run.carry_out()

    assert result.verdict.reason is Reason.OUT_OF_MEMORY, result.verdict


async def test_jobs_of_a_named_cluster_are_submitted_seen_and_cancelled_there(
    flows: SlurmCluster, tmp_path: Path
) -> None:
    named = {"cluster": NAME}
    three = job(tmp_path, ("/bin/sh", "-c", "exit 3"), "three", options=named)
    long = job(tmp_path, ("/bin/sleep", "100"), "long", options=named)
    ended = asyncio.create_task(three.carry_out())
    cancelled = asyncio.create_task(long.carry_out())
    result = await ended
    assert (result.verdict.reason, result.exit_code) == (Reason.PROGRAM_FAILED, 3)
    long.cancel("user")
    assert (await cancelled).verdict.reason is Reason.CANCELLED


async def test_nothing_is_submitted_to_a_cluster_that_is_not_there(
    flows: SlurmCluster, tmp_path: Path
) -> None:
    result = await job(tmp_path, ("/bin/true",), "no", options={"cluster": "nosuch"}).carry_out()
    assert result.verdict.reason is Reason.REJECTED
    assert "nosuch" in result.verdict.said
