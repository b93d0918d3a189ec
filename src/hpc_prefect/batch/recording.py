"""What the run's record is told of a batch job."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from hpc_prefect.executor.request import JobRequest
from hpc_prefect.flow_runs.recording import note_blocks, note_event, note_later
from hpc_prefect.job import folder as names
from hpc_prefect.job.result import JobResult
from hpc_prefect.ledger.job_folder import JobFolder
from hpc_prefect.records.job_events import batch_job, output_paths
from hpc_prefect.records.write.digests import file_facts
from hpc_prefect.records.write.writer import Event
from hpc_prefect.transports.local import LocalTransport

#: Bytes up to which an output is read whole, so that a job costs a millisecond of digests at most.
WHOLE_OUTPUT = 1 << 20
#: How a record calls the blocks, by how a call names them.
_KINDS = {"command": "command", "execution": "execution-profile", "hpc": "hpc-profile"}


def note_wanted(request: JobRequest) -> None:
    """A call wants this job."""
    made = request.provenance
    blocks = made.get("blocks") or {}
    note_event(
        "job",
        key=request.key,
        kind="batch",
        name=request.spec.name,
        folder=request.base,
        scope=made.get("scope") or [],
        n=made.get("n"),
        blocks=note_blocks({_KINDS[kind]: block for kind, block in blocks.items()}),
    )


def note_ended(result: JobResult) -> None:
    """An attempt of it has ended."""

    def facts() -> Iterable[Event]:
        job = batch_job(result.as_dict(), record_of(result))
        outputs = {
            name: file_facts(path, whole_up_to=WHOLE_OUTPUT)
            for name, path in output_paths(job).items()
            if result.succeeded
        }
        yield "job-ended", job | {"outputs": outputs}

    note_later(facts)


def record_of(result: JobResult) -> dict[str, Any]:
    """The job's own record; empty when it has none, or none that can be read."""
    folder = JobFolder(LocalTransport(), result.folder)
    try:
        record = json.loads(folder.transport.read(folder.file(names.RECORD)) or b"{}")
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}
