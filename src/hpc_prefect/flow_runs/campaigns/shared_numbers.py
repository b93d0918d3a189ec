"""Numbers identical calls when several processes make calls of one flow run.

Each process of a pool counts by itself. They agree by files, each of which only one process can
create.
"""

from __future__ import annotations

from itertools import count
from uuid import uuid4

from prefect.context import FlowRunContext
from prefect.task_runners import ThreadPoolTaskRunner

from hpc_prefect.flow_runs.scopes import innermost_task_run, root_flow
from hpc_prefect.flow_runs.sent import flow_sent_here, send_along, sent
from hpc_prefect.job.identity import Path, digest
from hpc_prefect.transports.local import LocalTransport

#: Identifies the flow's process. A run that is paused and goes on in another process keeps its id
#: and its count of attempts, and makes all of its calls again.
_LIFE = uuid4().hex[:12]


def _life() -> str:
    return str(sent("life") or _LIFE)


send_along("life", _life)


def are_needed() -> bool:
    """Whether several processes may make calls of the flow run around this call."""
    flow = FlowRunContext.get()
    if flow is None:
        return False
    return flow_sent_here() is not None or not isinstance(flow.task_runner, ThreadPoolTaskRunner)


def shared_number(campaign: str, path: Path, what: str, own: int) -> int:
    """A call's number among the identical calls of all processes of a flow run's attempt. Blocks.

    Args:
        campaign: its folder.
        path: the call's place.
        what: the call's work.
        own: its number among identical calls in this process.
    """
    root, transport = root_flow(), LocalTransport()
    run = root.flow_run if root is not None else None
    attempt = f"{_life()}-{run.id}-{run.run_count}" if run is not None else _life()
    caller = f"{innermost_task_run()} {own}".encode()
    folder = f"{campaign}/numbers/{digest([path, what])[:32]}"
    transport.make_folder(folder)
    for number in count():
        file = f"{folder}/{attempt}-{number}"
        # A retry of the task run finds its earlier number.
        if transport.create(file, caller) or transport.read(file) == caller:
            return number
    raise AssertionError("numbers have no end")
