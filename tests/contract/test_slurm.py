"""The contract on a real Slurm with accounting."""

from __future__ import annotations

import pytest

from ..engines import SlurmCluster
from .places import Place, Slurm
from .suite import Contract


@pytest.fixture(scope="module")
def place(slurm: SlurmCluster) -> Place:
    return Slurm.of(slurm, "slurm", accounting=True)


class TestSlurm(Contract):
    kind = Slurm
