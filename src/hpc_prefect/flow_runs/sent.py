"""What goes with a task that Prefect sends to another process, such as one of a pool.

Prefect takes contexts of its own there, and no others. What tells a call's place goes as a label of
the flow run that is sent along: of this copy, never of the run at the server.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from prefect.context import FlowRunContext

from hpc_prefect.flow_runs.prefect_internals import context_around, label_sent_runs

_LABEL = "hpc-prefect.sent"
_told: dict[str, Callable[[], object]] = {}


def send_along(name: str, tell: Callable[[], object]) -> None:
    """From now on, what `tell` says where a task is sent is known in the process that runs it.

    Args:
        tell: gives JSON data; None for nothing.
    """
    if not _told:
        label_sent_runs(_LABEL, _all_told)
    _told[name] = tell


def _all_told() -> str:
    return json.dumps({name: tell() for name, tell in _told.items()})


def sent(name: str) -> Any:
    """What was told where the task around this call was sent from; None where nothing was."""
    flow = flow_sent_here()
    if flow is None or flow.flow_run is None:
        return None
    text = (flow.flow_run.labels or {}).get(_LABEL)
    return json.loads(str(text)).get(name) if text else None


def flow_sent_here() -> FlowRunContext | None:
    """The flow run of another process that a task of it brought here; None outside of such."""
    flow: object = FlowRunContext.get()
    while isinstance(flow, FlowRunContext):
        if flow.detached:
            return flow
        flow = context_around(flow)
    return None
