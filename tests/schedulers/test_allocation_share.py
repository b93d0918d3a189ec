"""Which share of an allocation a job gets, and how its program is started on it."""

from __future__ import annotations

from typing import Any

import pytest

from hpc_prefect.job.spec import Executable, JobSpec, Resources, Site, parse_memory
from hpc_prefect.schedulers.allocation.share import Held


def _held(**changes: Any) -> Held:
    plain: dict[str, Any] = {
        "scheduler": "slurm",
        "options": {},
        "num_nodes": 2,
        "cores_per_node": 4,
        "memory_per_node": 8 * 1024**3,
        "gpus_per_node": 0,
        "walltime": 3600,
    }
    return Held(**plain | changes)


def _job(launcher: str = "", launch: str = "mpi", **resources: Any) -> JobSpec:
    share_line = resources.pop("in_allocation", "")
    return JobSpec(
        name="n",
        command_name="c",
        executable=Executable(path="/bin/true"),
        site=Site(scheduler="slurm", launcher=launcher, launcher_in_allocation=share_line),
        resources=Resources(launch=launch, **resources),  # type: ignore[arg-type]
        work_dir="/w",
    )


def test_a_job_of_as_much_memory_as_the_allocation_has_fits_into_it() -> None:
    held = _held(memory_per_node=parse_memory("1.3G"))  # not a whole number of MiB
    job = _job("srun {command}", memory_per_node=parse_memory("1.3G"))
    assert held.refuses(job) == ""
    assert held.share(job).memory <= held.mib_per_node


def test_on_slurm_a_sites_own_srun_line_becomes_a_step_of_the_share() -> None:
    job = _job("srun --mpi=pmix -n {ranks} {command}", ranks_per_node=2)
    assert _held().launcher(job) == (
        'srun --job-name="$HPC_ALLOCATION_JOB_ID" --exact --nodes={nodes} --nodelist={hosts}'
        " --mem=4096M --mpi=pmix -n {ranks} {command}"
    )


def test_a_program_of_one_process_is_put_on_its_node_by_srun() -> None:
    line = _held().launcher(_job(launch="single"))
    assert line == (
        'srun --job-name="$HPC_ALLOCATION_JOB_ID" --exact --nodes={nodes} --nodelist={hosts}'
        " --mem=2048M --ntasks=1 --cpus-per-task={threads}"
    )


def test_a_launcher_that_cannot_be_told_its_nodes_takes_all_of_them_or_none() -> None:
    held = _held(scheduler="pbs")
    assert held.refuses(_job("mpiexec -n {ranks} {command}", num_nodes=2)) == ""
    assert "launcher_in_allocation" in held.refuses(_job("mpiexec -n {ranks} {command}"))
    told = _job("mpiexec -n {ranks} {command}", in_allocation="mpiexec -hosts {hosts} {command}")
    assert held.refuses(told) == ""


@pytest.mark.parametrize(
    "asked",
    [
        {"num_nodes": 3},
        {"ranks_per_node": 5},
        {"memory_per_node": 9 * 1024**3},
        {"gpus_per_node": 1},
        {"walltime": 3590},
    ],
)
def test_what_is_larger_than_the_allocation_is_refused(asked: dict[str, Any]) -> None:
    assert _held().refuses(_job("srun {command}", **asked))
