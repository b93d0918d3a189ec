"""What the examples' tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from hpc_prefect.server import Server, ensure_server, free_port, stop_server


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Prefect server of the file's own: others save the same names on the session's server."""
    home = tmp_path_factory.mktemp("prefect")
    # While the session's server runs, it is the one that the user's settings name.
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        server = ensure_server(home, port=free_port())
    assert server.started
    yield server
    stop_server(home)
