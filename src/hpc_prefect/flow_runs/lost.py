"""Calls from where nobody knows in which flow run, campaign and scope they are made.

Prefect's contexts and ours are kept in context variables. A plain thread begins with none of them,
and so does a process that is spawned. A call made there would be of another experiment.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from prefect.context import FlowRunContext

from hpc_prefect.flow_runs.prefect_internals import living_flow_runs

#: True in the context that imported us and in all that were copied from it.
_inherited: ContextVar[bool] = ContextVar("hpc_prefect_inherited", default=False)
_inherited.set(True)

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
    """A campaign or scope is open meanwhile."""
    outside = FlowRunContext.get() is None
    if outside:
        _open.append(name)
    try:
        yield
    finally:
        if outside:
            _open.remove(name)


def lost_here(*, named: bool) -> str:
    """Why it is not known in which experiment a call here is made; empty when it is.

    Args:
        named: a campaign was named here.
    """
    if FlowRunContext.get() is not None:
        return ""
    if not named and multiprocessing.parent_process() is not None and not _forked:
        return (
            "it is made in a process that another one has started, where nobody knows of which"
            " flow run or campaign it is part. Use task.submit() of a flow with"
            " ProcessPoolTaskRunner, or name the campaign there: with hpc_prefect.campaign('…'): …"
        )
    if _inherited.get():
        return ""
    for flow_run in living_flow_runs():
        return f"it is made in a thread that knows nothing of flow run {flow_run.name}. {_COPY}"
    if _open and not named:
        return (
            f"it is made in a thread that knows nothing of what is open around it"
            f" ({', '.join(map(repr, _open))}). {_COPY}"
        )
    return ""
