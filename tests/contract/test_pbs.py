"""The contract on PBS, whose answers are JSON."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .places import PBS, Place
from .suite import Contract


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    place = PBS.at(tmp_path_factory.mktemp("pbs"), "pbs")
    yield place
    place.close()


class TestPBS(Contract):
    kind = PBS
