"""The doctor on a real Slurm."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpc_prefect.schedulers.finding import Outcome

from ..engines import SlurmCluster
from .rig import Place, of, wrong


@pytest.fixture
def place(slurm: SlurmCluster, tmp_path: Path) -> Iterator[Place]:
    yield from at(slurm, tmp_path)


@pytest.fixture
def light(slurm_without_accounting: SlurmCluster, tmp_path: Path) -> Iterator[Place]:
    yield from at(slurm_without_accounting, tmp_path)


def at(cluster: SlurmCluster, folder: Path) -> Iterator[Place]:
    before = dict(os.environ)
    os.environ.update(cluster.environment)
    fields = {
        "scheduler": "slurm",
        "queue_cpu": "normal",
        "launcher": "srun --mpi=none -n {ranks} {command}",
        "poll_interval": 2.0,
    }
    yield Place(folder, fields)
    os.environ.clear()
    os.environ.update(before)


async def test_a_right_profile_has_nothing_wrong(place: Place) -> None:
    found = await place.examined(submit=True)

    assert [each for each in found if each.outcome is Outcome.WRONG] == []
    for check in ("project", "submission", "job", "launcher", "status of a job"):
        assert of(found, check).outcome is Outcome.OK


async def test_mistakes_are_found_before_anything_is_submitted(
    place: Place, slurm: SlurmCluster
) -> None:
    slurm.run("scontrol", "update", "PartitionName=requeueable", "State=INACTIVE")
    try:
        closed = await place.examined(queue_cpu="requeueable", submit=True)
    finally:
        slurm.run("scontrol", "update", "PartitionName=requeueable", "State=UP")
    nowhere = await place.examined(queue_cpu="nosuch", submit=True)
    refused = await place.examined(project_cpu="nosuch", submit=True)
    no_qos = await place.examined(slurm={"qos": "nosuch"}, submit=True)

    assert wrong(closed) == wrong(nowhere) == ["queue"]
    assert (wrong(refused), wrong(no_qos)) == (["project"], ["submission"])
    assert "an account of yours: " in of(refused, "project").remedy
    assert not (place.work / ".hpc-prefect").exists()


async def test_mistakes_that_only_a_job_shows_are_found(place: Place) -> None:
    found = await place.examined(
        submit=True, launcher="srun --mpi=nosuch {command}", executables={"diag": "/no/such"}
    )

    assert wrong(found) == ["executable diag", "launcher"]
    assert "mpi/nosuch" in of(found, "launcher").seen


async def test_a_place_without_accounting_wants_it_said(light: Place) -> None:
    unsaid = await light.examined(submit=True)
    said = await light.examined(submit=True, slurm={"accounting": False})

    assert wrong(unsaid) == ["history"]
    assert wrong(said) == []
    assert of(said, "status of a job").outcome is Outcome.OK
