"""What a profile says of itself, and the jobs that are made of it."""

from __future__ import annotations

from typing import Any

from hpc_prefect.blocks import HPCProfileBlock
from hpc_prefect.doctor.profile import Side, by_set_up, read_side
from hpc_prefect.schedulers.finding import Outcome

from .rig import wrong


def side(resource_class: Any = "cpu", **fields: Any) -> Side:
    hpc = HPCProfileBlock(**{"scheduler": "slurm", **fields})
    found, findings = read_side(
        hpc, resource_class, work_dir="/w", walltime="00:05:00", machine_cores=2
    )
    assert wrong(findings) == []
    assert found is not None
    return found


def test_the_gpu_side_has_its_own_queue_launcher_and_executables() -> None:
    gpu = {"launcher": "mpirun {command}", "executables": {"a": "/gpu/a"}, "gpus_per_node": 4}

    found = side(
        "gpu",
        queue_cpu="c",
        queue_gpu="g",
        launcher="srun {command}",
        executables={"a": "/cpu/a", "b": "/cpu/b"},
        gpu=gpu,
    )

    assert (found.spec.site.queue, found.spec.site.launcher) == ("g", "mpirun {command}")
    assert found.spec.resources.gpus_per_node == 1
    paths = {key: each.path for key, each in found.executables.items()}
    assert paths == {"a": "/gpu/a", "b": "/cpu/b"}


def test_executables_with_the_same_set_up_share_a_job() -> None:
    loaded = {"modules": ["gcc/13"]}
    executables = {
        "a": "/a",
        "b": {"path": "/b", **loaded},
        "c": "/c",
        "d": {"path": "/d", **loaded},
    }

    jobs = by_set_up(side(executables=executables, modules=["base"]))

    assert [paths for _, paths in jobs] == [{"a": "/a", "c": "/c"}, {"b": "/b", "d": "/d"}]
    assert [spec.executable.modules for spec, _ in jobs] == [(), ("gcc/13",)]
    assert {spec.executable.path for spec, _ in jobs} == {"/bin/bash"}


def test_a_profile_without_executables_is_tried_all_the_same() -> None:
    ((spec, paths),) = by_set_up(side())

    assert (spec.executable.path, paths) == ("/bin/bash", {})


def test_one_wrong_executable_does_not_hide_the_rest() -> None:
    hpc = HPCProfileBlock(scheduler="slurm", executables={"a": "/a", "b": "/b"})
    hpc = hpc.model_copy(update={"executables": {"a": {"pth": "/a"}, "b": "/b", "c": "bin/c"}})

    found, findings = read_side(hpc, "cpu", work_dir="/w", walltime="00:05:00", machine_cores=2)

    assert sorted(set(wrong(findings))) == ["executable a", "executable c"]
    assert found is not None
    assert list(found.executables) == ["b"]


def test_secrets_are_in_no_finding() -> None:
    hpc = HPCProfileBlock(scheduler="slurm", secret_environment={"TOKEN": "s3cret"})
    hpc = hpc.model_copy(update={"launcher": "mpirun {nosuch}"})

    found, findings = read_side(hpc, "cpu", work_dir="/w", walltime="00:05:00", machine_cores=2)

    assert found is None
    assert [each.outcome for each in findings][:1] == [Outcome.WRONG]
    assert "s3cret" not in repr(findings)
