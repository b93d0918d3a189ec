"""A browser on the pages of the session's Prefect server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page

from hpc_prefect.server import Server

from .. import engines
from .pages import browser_page


@pytest.fixture(scope="module")
def page(prefect_server: Server) -> Iterator[Page]:
    """A page of a browser; where there is none the test is skipped, and fails on CI."""
    with browser_page(engines.chromium(), prefect_server.ui_url) as opened:
        yield opened
