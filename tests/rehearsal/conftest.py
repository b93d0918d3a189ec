"""A PBS or a PJM of the test's own, whose jobs are ended with it."""

import pytest

from .rig import Pbs, Pjm


@pytest.fixture
def pbs(tmp_path):
    pbs = Pbs(tmp_path)
    yield pbs
    pbs.stop()


@pytest.fixture
def pjm(tmp_path):
    pjm = Pjm(tmp_path)
    yield pjm
    pjm.stop()
