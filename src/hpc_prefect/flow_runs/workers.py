"""Whether this process works for a flow of another one, such as a pool's worker does."""

from __future__ import annotations

import multiprocessing
import os

from hpc_prefect.flow_runs.scopes import root_flow

#: The flow run inside which this process was forked; None when it was not, or outside of any.
_forked_in: list[str] = []


def _note_fork() -> None:
    _forked_in[:] = [_root_id()]


os.register_at_fork(after_in_child=_note_fork)


def _root_id() -> str:
    flow = root_flow()
    return str(flow.flow_run.id) if flow and flow.flow_run else ""


def flow_process() -> int:
    """The pid of the process whose flow run, or script, this process works for.

    0 when it is this process, also for a flow that was begun here in a child process. -1 when that
    process has ended.
    """
    parent = multiprocessing.parent_process()
    if parent is None or parent.pid is None:
        return 0
    flow = root_flow()
    begun_here = flow is not None and not flow.detached and _root_id() not in _forked_in
    if begun_here:
        return 0
    return parent.pid if parent.is_alive() else -1
