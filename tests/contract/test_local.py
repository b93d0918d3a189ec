"""The contract on this machine's own queue."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .places import Local, Place
from .suite import Contract


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    place = Local.at(tmp_path_factory.mktemp("local"))
    yield place
    place.close()


class TestLocal(Contract):
    kind = Local
