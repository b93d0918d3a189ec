"""What a flow run leaves in Prefect: nobody waits for it, and it is read before it is there."""

from __future__ import annotations

import time
from pathlib import Path
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    get_current_settings,
    temporary_settings,
)

from hpc_prefect.flow_runs.run_labels import leave_trace, read_trace

pytestmark = pytest.mark.usefixtures("prefect_server")


def own_run() -> FlowRun:
    context = FlowRunContext.get()
    assert context is not None
    assert context.flow_run is not None
    return context.flow_run


def stored(run_id: UUID) -> FlowRun:
    with get_client(sync_client=True) as client:
        return client.read_flow_run(run_id)


def note_of(run_id: UUID) -> Path:
    return get_current_settings().home / "hpc-prefect" / "flow-runs" / str(run_id)


def test_the_labels_come_to_prefect_and_the_file_goes() -> None:
    @flow
    def campaigns() -> UUID:
        for folder in ("/w/one", "/w/two", "/w/one"):
            leave_trace(folder, chosen_outside="n2")
        # Before anybody may have been told.
        assert read_trace(own_run()).folders == ("/w/one", "/w/two")
        return own_run().id

    run_id = campaigns()
    end = time.monotonic() + 120
    while note_of(run_id).exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    labels = stored(run_id).labels
    assert [labels[f"hpc-prefect.campaign.{n}"] for n in (1, 2)] == ["/w/one", "/w/two"]
    assert (read_trace(stored(run_id)).name, "hpc-prefect.cwd" in labels) == ("n2", True)


def test_what_prefect_did_not_take_is_read_from_the_file(caplog: pytest.LogCaptureFixture) -> None:
    nowhere = {PREFECT_API_URL: "http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES: 0}

    @flow
    def campaigns() -> UUID:
        with temporary_settings(nowhere):
            leave_trace("/w/one", chosen_outside="")
        return own_run().id

    run_id = campaigns()
    end = time.monotonic() + 120
    while "did not take the labels" not in caplog.text:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert "hpc-prefect.campaign.1" not in stored(run_id).labels
    with note_of(run_id).open("a") as note:
        note.write('{"hpc-prefect.campaign.2": "/w/to')  # killed while it wrote
    trace = read_trace(stored(run_id))
    assert trace.folders == ("/w/one",)
    assert trace.entrypoint.endswith("campaigns")
