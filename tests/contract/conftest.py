"""What a module of the contract needs besides its `place`: one run of all endings."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hpc_prefect.server import Server

from .endings import Ended, run_all
from .places import Place


@pytest.fixture(scope="module")
def entered(place: Place, prefect_server: Server) -> Iterator[Place]:
    """The place, with its environment around this process."""
    with place.entered():
        yield place


@pytest.fixture(scope="module")
def ended(entered: Place, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    return run_all(entered, tmp_path_factory.mktemp("endings"))
