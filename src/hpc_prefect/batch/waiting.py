"""A task run that waits for what the executor does, and is ended when the run around it is."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

from prefect.client.schemas.objects import State

from hpc_prefect.batch.run_log import RunLog
from hpc_prefect.executor.service import Handle
from hpc_prefect.flow_runs.cancellation import (
    LeftRunning,
    RunCancelled,
    cancellable,
    cancelled_state,
    interrupted,
)
from hpc_prefect.flow_runs.signals import noticing_sigterm

T = TypeVar("T")

LEFT = "this process was told to end; the job is left running"


async def outcome_of(handle: Handle[T], listener: RunLog, on_sigterm: str) -> T | State[Any]:
    """The result of what was handed over; a Cancelled state when a run around it was cancelled."""
    with noticing_sigterm(), cancellable(handle) as call:
        try:
            result: T = await call.outcome()
            return result
        except RunCancelled:
            return cancelled_state()
        except LeftRunning:
            listener.state(LEFT)
            raise asyncio.CancelledError(LEFT) from None
        except (asyncio.CancelledError, KeyboardInterrupt):
            if await interrupted(handle, on_sigterm):
                listener.state(LEFT)
            raise
        finally:
            listener.close()
