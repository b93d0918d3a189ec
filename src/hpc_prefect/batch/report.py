"""What a flow run shows of its jobs in Prefect's UI: one table, and a page for each failed job."""

from __future__ import annotations

import json
import logging
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.settings import PREFECT_UI_URL

from hpc_prefect.flow_runs.hooks import hook_once
from hpc_prefect.flow_runs.scopes import root_flow
from hpc_prefect.job.result import JobResult
from hpc_prefect.settings import HPCPrefectSettings

logger = logging.getLogger("hpc_prefect.batch.report")

#: An artifact costs 8–15 ms of CPU, so the table is not renewed for each job.
REFRESH_EVERY = 10.0
#: Rows of the table; a longer one would not help anybody, and the run records hold everything.
MOST_ROWS = 1000


class _Table:
    """The jobs of one flow run; one artifact, renewed in place."""

    def __init__(self, flow_run_id: UUID) -> None:
        self.flow_run_id = flow_run_id
        self.results: dict[str, JobResult] = {}
        self.shown_at = float("-inf")
        self.changed = False
        self.artifact_id: UUID | None = None
        # Once a flow run: reading settings looks at several files, which is 12 ms.
        self.wanted = HPCPrefectSettings().artifacts

    def add(self, result: JobResult) -> None:
        self.results[result.folder] = result
        self.changed = True

    async def show(self, client: PrefectClient) -> None:
        self.shown_at, self.changed = time.monotonic(), False
        results = list(self.results.values())
        data, about = json.dumps(rows(results)), summary(results)
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


async def show_result(result: JobResult, message: str = "") -> str:
    """Add a job to its flow run's table; show a failed one (with the error's text) on its own.

    Trouble with artifacts is logged and changes nothing for the job.

    Returns:
        The link to the failed job's page in Prefect's UI; empty when there is none.
    """
    flow = root_flow()
    if flow is None or flow.flow_run is None:
        return ""
    run_id = flow.flow_run.id
    table = _tables.get(str(run_id)) or _tables.setdefault(str(run_id), _Table(run_id))
    if not table.wanted:
        return ""
    table.add(result)
    if flow.flow is not None:
        hook_once(flow.flow, hpc_jobs_table, "completion", "failure")
    pages: list[UUID] = []
    if message:
        await _send(lambda client: _show_failed(client, result, message, run_id, pages))
    if time.monotonic() - table.shown_at >= REFRESH_EVERY:
        await _send(table.show)
    return _link(pages[0]) if pages else ""


def _link(artifact: UUID) -> str:
    """Prefect's own `url_for` knows no artifacts."""
    ui = PREFECT_UI_URL.value()
    return f"{ui.rstrip('/')}/artifacts/artifact/{artifact}" if ui else ""


async def hpc_jobs_table(flow: object, flow_run: Any, state: object) -> None:
    """A flow hook: the table as it is at the end."""
    table = _tables.pop(str(flow_run.id), None)
    if table is not None and table.changed:
        await _send(table.show)


def rows(results: Sequence[JobResult]) -> list[dict[str, Any]]:
    """The table: what failed stands first, the rest in its order; at most `MOST_ROWS`. Pure."""
    failed = [each for each in results if not each.succeeded]
    others = [each for each in results if each.succeeded]
    room = max(0, MOST_ROWS - len(failed))
    shown = [*failed[-MOST_ROWS:], *others[len(others) - min(room, len(others)) :]]
    table = [_row(each) for each in shown]
    if not any(each.collected for each in shown):
        for row in table:
            del row["earlier run"]
    return table


def summary(results: Sequence[JobResult]) -> str:
    """`5 jobs: 1 failed, 4 succeeded; 0.25 node-hours`. Pure."""
    count = Counter(each.state for each in results)
    order = ("failed", "lost", "cancelled", "succeeded")
    parts = [f"{count[state]} {state}" for state in order if count[state]]
    earlier = sum(each.collected for each in results)
    parts += [f"{earlier} of them in an earlier run"] if earlier else []
    used = [each.node_hours for each in results if not each.collected]
    hours = [each for each in used if each is not None]
    told = f"; {_hours(sum(hours))} node-hours in this run" if hours else ""
    if hours and (unknown := len(used) - len(hours)):
        told += f", those of {unknown} job{'s' if unknown > 1 else ''} not known"
    return f"{len(results)} job{'s' if len(results) != 1 else ''}: {', '.join(parts)}{told}"


def _row(result: JobResult) -> dict[str, Any]:
    return {
        "job": result.name,
        "result": str(result.verdict.reason),
        "exit code": "" if result.exit_code is None else result.exit_code,
        "id": result.job_id,
        "attempt": result.attempt,
        "in queue (s)": _seconds(result.queue_seconds),
        "on nodes (s)": _seconds(result.run_seconds),
        "node-hours": _hours(result.node_hours),
        "host": result.host,
        "earlier run": "yes" if result.collected else "",
        "folder": result.folder,
    }


def _seconds(number: float | None) -> float | str:
    if number is None:
        return ""
    return round(number) if number >= 100 else round(number, 2)


def _hours(number: float | None) -> float | str:
    if number is None:
        return ""
    return "< 0.001" if 0 < number < 0.001 else round(number, 3 if number < 1 else 1)


def page_key(result: JobResult) -> str:
    """The title of a failed job's page: Prefect shows keys as titles, and takes few letters."""
    name = re.sub(r"[^a-z0-9]+", "-", result.name.lower()).strip("-")[:40]
    return f"failed-{name}-{result.tag[:6]}" if name else f"failed-{result.tag}"


async def _show_failed(
    client: PrefectClient, result: JobResult, message: str, flow_run_id: UUID, pages: list[UUID]
) -> None:
    page = ArtifactCreate(
        type="markdown",
        key=page_key(result),
        description=f"{result.name}: {result.verdict.reason}",
        data=f"## {result.name}: {result.verdict.reason}\n\n```\n{message}\n```\n",
        flow_run_id=flow_run_id,
    )
    pages.append((await client.create_artifact(page)).id)


async def _send(action: Callable[[PrefectClient], Awaitable[None]]) -> None:
    try:
        async with get_client() as client:
            await action(client)
    except Exception as error:  # noqa: BLE001 - a picture that is missing must not fail a job
        logger.warning("showing jobs as an artifact: %s", error)
