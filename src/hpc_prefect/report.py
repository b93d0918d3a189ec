"""What a flow run shows of its jobs in Prefect's UI: one table, and a page for each failed job."""

from __future__ import annotations

import json
import logging
import time
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactCreate

from hpc_prefect.campaigns import root_flow
from hpc_prefect.job.state import JobResult
from hpc_prefect.settings import HPCPrefectSettings

logger = logging.getLogger("hpc_prefect.report")

#: An artifact costs 8–15 ms of CPU, so the table is not renewed for each job.
REFRESH_EVERY = 10.0
#: Rows of the table; a longer one would not help anybody, and the run records hold everything.
MOST_ROWS = 1000


class _Table:
    """The jobs of one flow run, newest last, and when they were shown."""

    def __init__(self) -> None:
        # Read once a flow run: Prefect's settings look at five files each time they are read.
        self.wanted = HPCPrefectSettings().artifacts
        self.rows: dict[str, dict[str, Any]] = {}
        self.shown_at = float("-inf")
        self.changed = False


_tables: dict[str, _Table] = {}


async def show_result(result: JobResult, message: str = "") -> None:
    """Add a job to its flow run's table; show a failed one (with the error's text) on its own.

    Trouble with artifacts is logged and changes nothing for the job.
    """
    flow = root_flow()
    if flow is None or flow.flow_run is None:
        return
    run_id = flow.flow_run.id
    table = _tables.get(str(run_id))
    if table is None:
        table = _tables[str(run_id)] = _Table()
    if not table.wanted:
        return
    table.rows[result.folder] = _row(result)
    table.changed = True
    if flow.flow is not None:
        for hooks in (flow.flow.on_completion_hooks, flow.flow.on_failure_hooks):
            if _last_table not in hooks:
                hooks.append(_last_table)
    wanted = [_page(result, message)] if message else []
    if time.monotonic() - table.shown_at >= REFRESH_EVERY:
        wanted.append(_shown(table))
    for artifact in wanted:
        await _create(artifact, run_id)


async def _last_table(flow: object, flow_run: Any, state: object) -> None:
    """A flow hook: the table as it is at the end."""
    table = _tables.pop(str(flow_run.id), None)
    if table is not None and table.changed:
        await _create(_shown(table), flow_run.id)


def _shown(table: _Table) -> ArtifactCreate:
    table.shown_at, table.changed = time.monotonic(), False
    rows = list(table.rows.values())[-MOST_ROWS:]
    return ArtifactCreate(
        type="table",
        key="hpc-jobs",
        description=f"{len(table.rows)} jobs of this run",
        data=json.dumps(rows),
    )


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


def _page(result: JobResult, message: str) -> ArtifactCreate:
    return ArtifactCreate(
        type="markdown",
        key=f"hpc-job-{result.tag}",
        description=f"{result.name}: {result.verdict.reason}",
        data=f"## {result.name}: {result.verdict.reason}\n\n```\n{message}\n```\n",
    )


async def _create(artifact: ArtifactCreate, flow_run_id: UUID) -> None:
    artifact.flow_run_id = flow_run_id
    try:
        async with get_client() as client:
            await client.create_artifact(artifact)
    except Exception as error:  # noqa: BLE001 - a picture that is missing must not fail a job
        logger.warning("showing jobs as an artifact: %s", error)
