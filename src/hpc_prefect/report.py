"""What a flow run shows of its jobs in Prefect's UI: one table, and a page for each failed job."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate

from hpc_prefect.job.result import JobResult
from hpc_prefect.scopes import root_flow
from hpc_prefect.settings import HPCPrefectSettings

logger = logging.getLogger("hpc_prefect.report")

#: An artifact costs 8–15 ms of CPU, so the table is not renewed for each job.
REFRESH_EVERY = 10.0
#: Rows of the table; a longer one would not help anybody, and the run records hold everything.
MOST_ROWS = 1000


class _Table:
    """The jobs of one flow run, newest last; one artifact, renewed in place."""

    def __init__(self, flow_run_id: UUID) -> None:
        self.flow_run_id = flow_run_id
        self.rows: dict[str, dict[str, Any]] = {}
        self.shown_at = float("-inf")
        self.changed = False
        self.artifact_id: UUID | None = None
        # Once a flow run: reading settings looks at several files, which is 12 ms.
        self.wanted = HPCPrefectSettings().artifacts

    def add(self, result: JobResult) -> None:
        self.rows[result.folder] = _row(result)
        self.changed = True

    async def show(self, client: PrefectClient) -> None:
        self.shown_at, self.changed = time.monotonic(), False
        data = json.dumps(list(self.rows.values())[-MOST_ROWS:])
        about = f"{len(self.rows)} jobs of this run"
        if self.artifact_id is not None:
            renewed = ArtifactUpdate(data=data, description=about)
            await client.update_artifact(self.artifact_id, renewed)
            return
        artifact = ArtifactCreate(
            type="table",
            key="hpc-jobs",
            description=about,
            data=data,
            flow_run_id=self.flow_run_id,
        )
        self.artifact_id = (await client.create_artifact(artifact)).id


_tables: dict[str, _Table] = {}


async def show_result(result: JobResult, message: str = "") -> None:
    """Add a job to its flow run's table; show a failed one (with the error's text) on its own.

    Trouble with artifacts is logged and changes nothing for the job.
    """
    flow = root_flow()
    if flow is None or flow.flow_run is None:
        return
    run_id = flow.flow_run.id
    table = _tables.get(str(run_id)) or _tables.setdefault(str(run_id), _Table(run_id))
    if not table.wanted:
        return
    table.add(result)
    if flow.flow is not None:
        for hooks in (flow.flow.on_completion_hooks, flow.flow.on_failure_hooks):
            if _last_table not in hooks:
                hooks.append(_last_table)
    if message:
        await _send(lambda client: _show_failed(client, result, message, run_id))
    if time.monotonic() - table.shown_at >= REFRESH_EVERY:
        await _send(table.show)


async def _last_table(flow: object, flow_run: Any, state: object) -> None:
    """A flow hook: the table as it is at the end."""
    table = _tables.pop(str(flow_run.id), None)
    if table is not None and table.changed:
        await _send(table.show)


def _row(result: JobResult) -> dict[str, Any]:
    return {
        "job": result.name,
        "id": result.job_id,
        "state": result.state,
        "reason": str(result.verdict.reason),
        "attempt": result.attempt,
        "queue s": _rounded(result.queue_seconds),
        "run s": _rounded(result.run_seconds),
        "host": result.host,
        "from an earlier run": result.collected,
        "folder": result.folder,
    }


def _rounded(seconds: float | None) -> float | str:
    return "" if seconds is None else round(seconds, 2)


async def _show_failed(
    client: PrefectClient, result: JobResult, message: str, flow_run_id: UUID
) -> None:
    page = ArtifactCreate(
        type="markdown",
        key=f"hpc-job-{result.tag}",
        description=f"{result.name}: {result.verdict.reason}",
        data=f"## {result.name}: {result.verdict.reason}\n\n```\n{message}\n```\n",
        flow_run_id=flow_run_id,
    )
    await client.create_artifact(page)


async def _send(action: Callable[[PrefectClient], Awaitable[None]]) -> None:
    try:
        async with get_client() as client:
            await action(client)
    except Exception as error:  # noqa: BLE001 - a picture that is missing must not fail a job
        logger.warning("showing jobs as an artifact: %s", error)
