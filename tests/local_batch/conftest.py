"""A queue of the test's own, which is emptied at its end."""

import pytest

from .rig import Engine


@pytest.fixture
def engine(tmp_path):
    engine = Engine(tmp_path)
    yield engine
    engine.stop_everything()
