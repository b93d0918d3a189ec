"""The hook by which a served flow cancels its jobs when its process was killed."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from prefect.client.schemas.objects import FlowRun, State
from prefect.flows import Flow
from prefect.logging.loggers import flow_run_logger

from hpc_prefect.flow_runs.run_labels import campaign_folders, read_trace
from hpc_prefect.operations import cancel_jobs_of
from hpc_prefect.quantum.jobs import make_known


async def cancel_jobs(flow: Flow[Any, Any], flow_run: FlowRun, state: State[Any]) -> None:
    """A hook for served flows, whose process may be killed before it can cancel its jobs.

        @flow(on_cancellation=[cancel_jobs])
        async def experiment(work_dir: str): ...

    It cancels by their folders the batch and quantum jobs of the run that have not ended, or whose
    end is not confirmed, and logs which of them did not confirm their end within 20 s.
    """
    log = flow_run_logger(flow_run, flow)
    run = str(flow_run.id)
    folders = await asyncio.to_thread(lambda: campaign_folders(read_trace(flow_run)))
    if not folders:
        log.info("this flow run began no job, so none is cancelled")
        return
    make_known()
    cancelled = await asyncio.to_thread(cancel_jobs_of, run, folders)
    for each in cancelled:
        level = logging.INFO if each.confirmed else logging.WARNING
        doubt = "" if each.confirmed else "; its end is not confirmed, look with `hpc-prefect jobs`"
        log.log(level, "job %s (%s): %s%s", each.job.name, each.job.job_id, each.words, doubt)
