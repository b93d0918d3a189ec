"""Detects calls whose flow run, campaign and scope are not known.

Prefect's contexts and ours are context variables. A plain thread begins without them, and so does a
spawned process. A call made there would belong to another experiment.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager

from prefect.context import FlowRunContext

from hpc_prefect.flow_runs.inherited import inherited
from hpc_prefect.flow_runs.prefect_internals import living_flow_runs

#: The names of campaigns and scopes that are open now and were opened outside of flows.
_open: list[str] = []
_forked: list[bool] = []
os.register_at_fork(after_in_child=lambda: _forked.append(True))

_COPY = (
    "Use task.submit() instead of a plain thread, or start the thread's work with"
    " contextvars.copy_context().run(…), a copy for each"
)


@contextmanager
def opened(name: str) -> Iterator[None]:
    """Note a campaign or scope as open, if it is outside of flows."""
    outside = FlowRunContext.get() is None
    if outside:
        _open.append(name)
    try:
        yield
    finally:
        if outside:
            _open.remove(name)


def lost_here(*, named: bool) -> str:
    """Why the experiment of a call made here is not known; empty when it is known.

    Args:
        named: a campaign was named here.
    """
    if FlowRunContext.get() is not None:
        return ""
    if not named and multiprocessing.parent_process() is not None and not _forked:
        return (
            "it is made in a process that another one has started, in which the flow run and"
            " campaign are not known. Use task.submit() of a flow with"
            " ProcessPoolTaskRunner, or name the campaign there: with hpc_prefect.campaign('…'): …"
        )
    if inherited.get():
        return ""
    for flow_run in living_flow_runs():
        return f"it is made in a thread without the context of flow run {flow_run.name}. {_COPY}"
    if _open and not named:
        return (
            f"it is made in a thread without the context of the open campaigns and scopes"
            f" ({', '.join(map(repr, _open))}). {_COPY}"
        )
    return ""
