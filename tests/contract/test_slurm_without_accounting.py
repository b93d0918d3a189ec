"""The contract on a real Slurm whose history nobody keeps."""

from __future__ import annotations

import pytest

from ..engines import SlurmCluster
from .places import Place, Slurm
from .suite import Contract


@pytest.fixture(scope="module")
def place(slurm_without_accounting: SlurmCluster) -> Place:
    return Slurm.of(slurm_without_accounting, "slurm-light", accounting=False)


class TestSlurmWithoutAccounting(Contract):
    kind = Slurm
