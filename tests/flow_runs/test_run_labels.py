"""What a flow run leaves in Prefect: nobody waits for it, and it is read before it is there."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    get_current_settings,
    temporary_settings,
)

from hpc_prefect.flow_runs.run_labels import forget_notes, leave_trace, read_trace
from hpc_prefect.flow_runs.scopes import current_run

from ..flows.seen import flow_run, until

pytestmark = pytest.mark.usefixtures("prefect_server")


def notes_folder(run_id: str) -> Path:
    return get_current_settings().home / "hpc-prefect" / "flow-runs" / run_id


def notes_of(run_id: str) -> list[Path]:
    return list(notes_folder(run_id).glob("*"))


@contextmanager
def prefect_away() -> Iterator[None]:
    nowhere = {PREFECT_API_URL: "http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES: 0}
    with temporary_settings(nowhere):
        yield


def test_the_labels_come_to_prefect_and_the_file_goes() -> None:
    @flow
    def campaigns() -> str:
        for folder in ("/w/one", "/w/two", "/w/one"):
            leave_trace(folder, chosen_outside="n2")
        # Before anybody may have been told.
        assert read_trace(flow_run(current_run())).folders == ("/w/one", "/w/two")
        return current_run()

    run_id = campaigns()
    until(lambda: not notes_of(run_id))
    labels = flow_run(run_id).labels
    assert [labels[key] for key in sorted(labels) if ".campaign." in key] == ["/w/one", "/w/two"]
    trace = read_trace(flow_run(run_id))
    assert (trace.folders, trace.name, trace.cwd) == (("/w/one", "/w/two"), "n2", os.getcwd())


def test_what_prefect_takes_while_somebody_reads_is_found() -> None:
    """The file goes then; and the run was read before, as the one that a hook is given."""

    @flow
    def campaigns() -> FlowRun:
        before = flow_run(current_run())
        leave_trace("/w/one", chosen_outside="")
        return before

    before = campaigns()
    until(lambda: not notes_of(str(before.id)))
    assert read_trace(before).folders == ("/w/one",)
    told = flow_run(before.id)
    with prefect_away():
        assert read_trace(told).folders == ("/w/one",)


def test_what_prefect_did_not_take_is_read_from_the_files(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @flow
    def campaigns() -> str:
        with prefect_away():
            leave_trace("/w/one", chosen_outside="")
        return current_run()

    run_id = campaigns()
    until(lambda: "did not take the labels" in caplog.text)
    assert not [key for key in flow_run(run_id).labels if key.startswith("hpc-prefect.")]
    (note,) = notes_of(run_id)
    with note.open("a") as file:
        file.write('7\n{"hpc-prefect.campaign.2-0": "/w/to')  # killed while it wrote
    trace = read_trace(flow_run(run_id))
    assert trace.folders == ("/w/one",)
    assert trace.entrypoint.endswith("campaigns")


def test_nobody_waits_for_a_prefect_that_does_not_answer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silence = {PREFECT_API_URL: f"http://127.0.0.1:{silent.getsockname()[1]}/api"}

        @flow
        def campaigns() -> str:
            with temporary_settings({**silence, PREFECT_CLIENT_MAX_RETRIES: 0}):
                for n in range(100):
                    leave_trace(f"/w/{n}", chosen_outside="")
            return current_run()

        run_id = campaigns()
        asked, _ = silent.accept()  # it was asked, and nobody has been answered or refused
        assert "did not take the labels" not in caplog.text
        assert read_trace(flow_run(run_id)).folders == tuple(f"/w/{n}" for n in range(100))
        asked.close()
    until(lambda: "did not take the labels" in caplog.text)


def test_a_run_that_completes_before_prefect_was_told_keeps_its_file_until_then() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silence = {PREFECT_API_URL: f"http://127.0.0.1:{silent.getsockname()[1]}/api"}

        @flow
        def campaigns() -> str:
            with temporary_settings({**silence, PREFECT_CLIENT_MAX_RETRIES: 0}):
                leave_trace("/w/one", chosen_outside="", for_others=True)
                asked, _ = silent.accept()
                forget_notes(UUID(current_run()))
                asked.close()
            return current_run()

        run_id = campaigns()
        assert read_trace(flow_run(run_id)).folders == ("/w/one",)


def test_of_a_run_that_prefect_knows_no_file_stays_after_its_end() -> None:
    @flow
    def campaigns() -> str:
        leave_trace("/w/one", chosen_outside="", for_others=True)
        return current_run()

    run_id = campaigns()
    until(lambda: "/w/one" in flow_run(run_id).labels.values())
    forget_notes(UUID(run_id))
    until(lambda: not notes_folder(run_id).exists())
    assert read_trace(flow_run(run_id)).folders == ("/w/one",)


def test_the_labels_of_a_runs_other_processes_stay() -> None:
    """As those of a pool, which began when none of them had told anything."""
    theirs = {"hpc-prefect.campaign.1-00000000": "/w/told"}

    @flow
    def campaigns() -> str:
        with get_client(sync_client=True) as client:
            client.update_flow_run_labels(UUID(current_run()), theirs)
        folder = notes_folder(current_run())
        folder.mkdir(parents=True)
        (folder / "theirs").write_text('{"hpc-prefect.campaign.1-11111111": "/w/noted"}\n')
        leave_trace("/w/ours", chosen_outside="")
        return current_run()

    run_id = campaigns()
    until(lambda: [note.name for note in notes_of(run_id)] == ["theirs"])
    assert set(read_trace(flow_run(run_id)).folders) == {"/w/told", "/w/noted", "/w/ours"}
    assert "/w/ours" in flow_run(run_id).labels.values()
