"""Artifacts: made once, renewed at their pace, and in nobody's way."""

from __future__ import annotations

import json
import socket
import time
import uuid
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from prefect import flow
from prefect.settings import PREFECT_API_URL, temporary_settings

from hpc_prefect.flow_runs.artifacts import Content, Home, LiveArtifact, home_of_place, home_of_run
from hpc_prefect.server import Server

from ..background import settle

NOWHERE = Home(None)


def unique() -> str:
    return f"live-{uuid.uuid4().hex[:12]}"


def saying(text: str) -> Callable[[], Content]:
    return lambda: Content(text, f"about {text}")


def sent(server: Server, key: str) -> list[dict[str, Any]]:
    """The artifacts of this key, once all that is due is sent."""
    settle()
    wanted = {"artifacts": {"key": {"any_": [key]}}}
    answer = httpx.post(f"{server.url}/artifacts/filter", json=wanted, timeout=60)
    found: list[dict[str, Any]] = answer.raise_for_status().json()
    return found


def test_an_artifact_is_made_once_and_then_renewed(prefect_server: Server) -> None:
    artifact = LiveArtifact(unique(), NOWHERE, every=0.0)
    artifact.show(saying("one"))
    (first,) = sent(prefect_server, artifact.key)
    artifact.show(saying("two"))
    (second,) = sent(prefect_server, artifact.key)
    assert (first["data"], second["data"]) == ("one", "two")
    assert (second["description"], second["type"]) == ("about two", "markdown")
    assert first["id"] == second["id"]


def test_what_comes_before_its_time_waits_and_only_what_is_wanted_now_does_not(
    prefect_server: Server,
) -> None:
    artifact = LiveArtifact(unique(), NOWHERE, every=3600.0, kind="table")
    artifact.show(saying("[]"))
    assert [each["data"] for each in sent(prefect_server, artifact.key)] == ["[]"]
    artifact.show(saying("[1]"))
    assert [each["data"] for each in sent(prefect_server, artifact.key)] == ["[]"]
    artifact.show(saying(json.dumps([2])), now=True)
    assert [each["data"] for each in sent(prefect_server, artifact.key)] == ["[2]"]


def test_what_waits_is_sent_when_it_is_due_though_nobody_says_more(prefect_server: Server) -> None:
    artifact = LiveArtifact(unique(), NOWHERE, every=1.0)
    artifact.show(saying("one"))
    settle()
    artifact.show(saying("two"))
    deadline = time.monotonic() + 300
    while [each["data"] for each in sent(prefect_server, artifact.key)] != ["two"]:
        assert time.monotonic() < deadline


def test_whoever_goes_on_with_a_run_renews_the_artifact_of_the_process_before(
    prefect_server: Server,
) -> None:
    @flow
    def shown() -> Home | None:
        return home_of_run()

    home, key = shown(), unique()
    assert home is not None
    for text, known in (("one", False), ("two", True)):
        LiveArtifact(key, home, known=known).show(saying(text))
        settle()
    (only,) = sent(prefect_server, key)
    assert (only["data"], only["flow_run_id"]) == ("two", str(home.flow_run))


def test_content_that_cannot_be_made_is_logged_once_and_the_next_is_shown(
    prefect_server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> Content:
        raise ValueError("no content today")

    artifact = LiveArtifact(unique(), NOWHERE, every=0.0)
    for _ in range(2):
        artifact.show(broken)
        settle()
    assert caplog.text.count("no content today") == 1
    artifact.show(saying("one"))
    assert [each["data"] for each in sent(prefect_server, artifact.key)] == ["one"]


class Impatient(LiveArtifact):
    patience = 10.0  # on a busy machine a thousand pages may take some seconds


def test_a_server_that_hangs_keeps_nobody_and_is_given_one_patience_for_all_that_waits(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hangs:
        port = hangs.getsockname()[1]
        with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{port}/api"}):
            pages = [Impatient(unique(), NOWHERE) for _ in range(1000)]
            for page in pages:
                page.show(saying("one"))
        assert "did not take the artifact" not in caplog.text  # nobody has waited for it
        settle()  # and not for a thousand seconds
    assert 1 <= caplog.text.count("did not take the artifact") <= 20


def test_there_is_nothing_to_show_outside_of_a_flow() -> None:
    assert (home_of_run(), home_of_place()) == (None, None)
    artifact = LiveArtifact(unique(), None)
    artifact.show(lambda: pytest.fail("nobody needs the content"), now=True)
    settle()
