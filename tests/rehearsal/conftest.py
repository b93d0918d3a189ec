"""A PBS of the test's own, whose jobs are ended with it."""

import pytest

from .rig import Pbs


@pytest.fixture
def pbs(tmp_path):
    pbs = Pbs(tmp_path)
    yield pbs
    pbs.stop()
