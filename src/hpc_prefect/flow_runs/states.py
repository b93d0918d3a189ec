"""Reads and sets the states of other flow runs, by Prefect's API. Blocks."""

from __future__ import annotations

import logging
import threading
from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed

logger = logging.getLogger("hpc_prefect.flow_runs.campaigns")


def state_of(flow_run_id: str) -> State[Any] | None:
    """The state of a flow run; None when it is unknown."""
    try:
        with get_client(sync_client=True) as client:
            return client.read_flow_run(flow_run_id).state  # type: ignore[arg-type]
    except ObjectNotFound:
        return None
    except Exception as error:  # noqa: BLE001 - any trouble with the API means: not known
        logger.warning(
            "Prefect gave no answer about the state of flow run %s: %s", flow_run_id, error
        )
        return None


def has_ended(flow_run_id: str) -> bool:
    """Whether Prefect says that a flow run has ended; False when it does not know. Blocks."""
    state = state_of(flow_run_id)
    return state is not None and state.is_final()


def is_cancelled(flow_run_id: str) -> bool:
    """Whether Prefect says that a flow run is, or is being, cancelled. Blocks."""
    state = state_of(flow_run_id)
    return state is not None and (state.is_cancelled() or state.is_cancelling())


def end_as_crashed(flow_run_id: str, by: str) -> None:
    """Set a flow run whose process is dead, but which is Running for Prefect, to Crashed.

    In the background: nothing waits for it or depends on it.
    """
    # Not a daemon: a short script would end before it, and the run would stay Running for ever.
    threading.Thread(
        target=_crash, args=(flow_run_id, by), name="hpc-prefect-crashed-run", daemon=False
    ).start()


def _crash(flow_run_id: str, by: str) -> None:
    state = state_of(flow_run_id)
    if state is None or not state.is_running():
        return
    crashed: State[Any] = Crashed(message=f"Its process died; its work was taken over by {by}.")
    try:
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(flow_run_id, crashed, force=True)
    except Exception as error:  # noqa: BLE001 - only a report; the work goes on
        logger.warning(
            "Prefect still shows flow run %s as running, though its process died; its state could"
            " not be set: %s",
            flow_run_id,
            error,
        )
