"""Many jobs at once: what their logs tell, in few records."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest
from prefect import flow

from hpc_prefect import JobResult
from hpc_prefect.flow_runs.run_log import BURST

from ..flows.jobs import WAIT, job
from ..flows.seen import logs, until

pytestmark = pytest.mark.usefixtures("blocks")

QUICK = [f"quick-{n}" for n in range(BURST + 4)]


@flow
async def many(work_dir: str) -> list[JobResult]:
    return await asyncio.gather(
        job(work_dir, "long", WAIT), *(job(work_dir, label) for label in QUICK)
    )


async def test_each_of_many_jobs_tells_its_id_and_its_end_in_few_records(tmp_path: Path) -> None:
    running = asyncio.create_task(many(str(tmp_path)))
    claims = await asyncio.to_thread(
        until, lambda: list(tmp_path.glob(".hpc-prefect/*/*/*/claim-1"))
    )
    run = json.loads(claims[0].read_text())["flow_run"]
    try:
        await asyncio.to_thread(until, lambda: logs(run, "long: "))
        assert not running.done()
        first = logs(run, "long: ")[0].message
        assert re.match(r"long: (submitted|queued|running) as \d+\.", first)
    finally:
        (tmp_path / "go").touch()
        results = await running
    for result in results:
        told = await asyncio.to_thread(until, lambda name=result.name: told_of(run, name))
        assert any(result.job_id in message for message in told)
        assert len(told) <= 3


def told_of(run: str, name: str) -> list[str]:
    """What the run's log holds of a job, once it holds its end."""
    told = [each.message for each in logs(run, f"{name}: ")]
    return told if any("succeeded: the program ended with 0" in each for each in told) else []
