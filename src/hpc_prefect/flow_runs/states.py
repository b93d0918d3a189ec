"""What Prefect says of other flow runs, and what it is told of them. Asks its API: blocks."""

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
    """The state of a flow run; None when it is not known."""
    try:
        with get_client(sync_client=True) as client:
            return client.read_flow_run(flow_run_id).state  # type: ignore[arg-type]
    except ObjectNotFound:
        return None
    except Exception as error:  # noqa: BLE001 - any trouble with the API means: not known
        logger.warning("asking Prefect about flow run %s: %s", flow_run_id, error)
        return None


def has_ended(flow_run_id: str) -> bool:
    """Whether Prefect says that a flow run has ended; False when it does not know. Blocks."""
    state = state_of(flow_run_id)
    return state is not None and state.is_final()


def is_cancelled(flow_run_id: str) -> bool:
    """Whether Prefect says that a flow run is, or is being, cancelled. Blocks."""
    state = state_of(flow_run_id)
    return state is not None and (state.is_cancelled() or state.is_cancelling())


def tell_taken_over(flow_run_id: str, by: str) -> None:
    """Have a flow run whose process is dead, and which Prefect has as running, end as crashed.

    In the background: nothing waits for it, and nothing depends on it.
    """
    # Not a daemon: a short script would end before it, and the run would stay Running for ever.
    threading.Thread(target=_crash, args=(flow_run_id, by), name="hpc-prefect-tells").start()


def _crash(flow_run_id: str, by: str) -> None:
    state = state_of(flow_run_id)
    if state is None or not state.is_running():
        return
    crashed: State[Any] = Crashed(message=f"Its process died; its work was taken over by {by}.")
    try:
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(flow_run_id, crashed, force=True)
    except Exception as error:  # noqa: BLE001 - it is only told; the work goes on
        logger.warning("telling Prefect that flow run %s was taken over: %s", flow_run_id, error)
