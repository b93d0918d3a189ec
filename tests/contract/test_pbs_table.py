"""The contract on a PBS site whose `qstat` prints a table of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .places import PBS, Place
from .suite import Contract


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    place = PBS.at(
        tmp_path_factory.mktemp("pbs"), "pbs-table", status_dialect="table", history_flag="-H"
    )
    yield place
    place.close()


class TestPBSTable(Contract):
    kind = PBS
