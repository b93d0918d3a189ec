"""Each place is made once for all tests of a process."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..engines import SlurmCluster

sys.path.insert(0, str(Path(__file__).parent))

import places
from lives import Driver


def _driven(place: places.Place) -> Iterator[Driver]:
    driver = Driver(place)
    yield driver
    driver.close()
    place.end()


@pytest.fixture(scope="session")
def driver_local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    yield from _driven(places.local(tmp_path_factory.mktemp("local")))


@pytest.fixture(scope="session")
def driver_pbs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    yield from _driven(places.in_pbs(tmp_path_factory.mktemp("pbs")))


@pytest.fixture(scope="session")
def driver_pjm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    yield from _driven(places.in_pjm(tmp_path_factory.mktemp("pjm")))


@pytest.fixture(scope="session")
def driver_slurm(slurm: SlurmCluster) -> Iterator[Driver]:
    yield from _driven(places.in_slurm(slurm.environment))


@pytest.fixture
def driver(request: pytest.FixtureRequest) -> Driver:
    """The driver of the place that the test is parametrized with."""
    found: Driver = request.getfixturevalue(f"driver_{request.param}")
    return found
