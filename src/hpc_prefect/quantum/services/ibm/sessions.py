"""One batch or session for each run and device; a resumed run goes on in it."""

from __future__ import annotations

import asyncio
import json
import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc_prefect.flow_runs.hooks import hook_once
from hpc_prefect.flow_runs.scopes import root_flow
from hpc_prefect.job.identity import slug
from hpc_prefect.quantum.purchase.retry import first_line
from hpc_prefect.transports.local import read_private, write_atomic

if TYPE_CHECKING:
    from hpc_prefect.quantum.purchase.attempt import QuantumAttempt
    from hpc_prefect.quantum.services.ibm.client import Client

logger = logging.getLogger("hpc_prefect.quantum")

_locks: dict[tuple[Path, int], asyncio.Lock] = {}
_open: dict[str, list[tuple[Client, str, str]]] = {}


async def session_for(attempt: QuantumAttempt, client: Client, *, mode: str, seconds: int) -> str:
    """The id of the run's batch or session on the attempt's device, opened by the first job in it.

    Args:
        seconds: how long it may be open; 0 for as long as the plan allows.
    """
    request, device = attempt.request, attempt.spec.device
    path = request.campaign / f"{mode}-{slug(device)}.json"
    lock = _locks.setdefault((path, id(asyncio.get_running_loop())), asyncio.Lock())
    async with lock:
        known = _read(path)
        ask = partial(client.accepts_jobs, mode, known)
        is_open = bool(known) and await request.ask(ask, f"asking for the {mode}")
        if is_open:
            _close_at_end(client, mode, known)
            return known
        start = partial(client.open_session, mode, device, seconds)
        new = await request.ask(start, f"opening a {mode}")
        write_atomic(path, json.dumps({"id": new}).encode(), durable=True)
        request.listener.state(f"opened the {mode} {new} on {device}")
        _close_at_end(client, mode, new)
        return new


def _read(path: Path) -> str:
    try:
        return str(json.loads(read_private(path) or b"")["id"])
    except (ValueError, KeyError, TypeError):
        return ""


def _close_at_end(client: Client, mode: str, session_id: str) -> None:
    """Close it when the flow run ends, however it ends: an open session costs."""
    root = root_flow()
    if root is None or root.flow is None or root.flow_run is None:
        return
    mine = _open.setdefault(str(root.flow_run.id), [])
    if (client, mode, session_id) not in mine:
        mine.append((client, mode, session_id))
    hook_once(root.flow, _close, "completion", "failure", "cancellation")


def _close(flow: object, flow_run: Any, state: object) -> None:
    for client, mode, session_id in _open.pop(str(flow_run.id), ()):
        try:
            client.close_session(mode, session_id)
        except Exception as error:  # noqa: BLE001 - the run is over; the service closes it by itself
            logger.warning("the %s %s could not be closed: %s", mode, session_id, first_line(error))
