"""The contract on PJM, whose queue and history are apart."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .places import PJM, Place
from .suite import Contract


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    place = PJM.at(tmp_path_factory.mktemp("pjm"), "pjm")
    yield place
    place.close()


class TestPJM(Contract):
    kind = PJM
