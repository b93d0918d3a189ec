"""What goes with a task that Prefect sends to another process, such as one of a pool.

Prefect sends its own contexts, and no others. So our values go as a label of the flow run that is
sent along: in this copy only, never of the run on the server.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from prefect.context import FlowRunContext

from hpc_prefect.flow_runs.prefect_internals import context_around, label_sent_runs

_LABEL = "hpc-prefect.sent"
_values: dict[str, Callable[[], object]] = {}


def send_along(name: str, make: Callable[[], object]) -> None:
    """Have a value sent along with every task, for `sent` in the process that runs it.

    Args:
        make: makes the value, JSON data, when a task is sent; None for nothing.
    """
    if not _values:
        label_sent_runs(_LABEL, _all_values)
    _values[name] = make


def _all_values() -> str:
    return json.dumps({name: make() for name, make in _values.items()})


def sent(name: str) -> Any:
    """The value that was sent along with the task around this call; None if there is none."""
    flow = flow_sent_here()
    if flow is None or flow.flow_run is None:
        return None
    text = (flow.flow_run.labels or {}).get(_LABEL)
    return json.loads(str(text)).get(name) if text else None


def flow_sent_here() -> FlowRunContext | None:
    """The flow run of another process whose task runs here; None outside of such a task."""
    flow: object = FlowRunContext.get()
    while isinstance(flow, FlowRunContext):
        if flow.detached:
            return flow
        flow = context_around(flow)
    return None
