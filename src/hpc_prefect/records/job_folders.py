"""The events of ended jobs for a run's record, read from the jobs' folders."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from hpc_prefect.errors import HpcPrefectError
from hpc_prefect.executor.request import JobRequest
from hpc_prefect.job import folder as names
from hpc_prefect.job.outputs import is_same
from hpc_prefect.job.result import JobResult
from hpc_prefect.ledger.quantum_folder import RECORDS, attempts
from hpc_prefect.operations.snapshot import JobSnapshot, read_job
from hpc_prefect.records.job_events import batch_job, failed_quantum_job, output_paths, quantum_job
from hpc_prefect.records.write.digests import file_facts
from hpc_prefect.transports.base import Transport
from hpc_prefect.transports.local import LocalTransport

#: Up to this size in bytes an output is read whole: so the digests of a job take about 1 ms.
WHOLE_OUTPUT = 1 << 20


def record_of(folder: str, transport: Transport | None = None) -> dict[str, Any]:
    """A batch job's own record; empty if there is none that can be read."""
    return _json(transport or LocalTransport(), f"{folder}/{names.RECORD}")


def _json(transport: Transport, path: str) -> dict[str, Any]:
    try:
        found = json.loads(transport.read(path) or b"{}")
    except (ValueError, RecursionError, HpcPrefectError):
        return {}
    return found if isinstance(found, dict) else {}


def batch_end(result: JobResult) -> dict[str, Any]:
    """An attempt of a batch job that ended just now, with the digests of what it wrote."""
    job = batch_job(result, record_of(result.folder))
    paths = output_paths(job) if result.succeeded else {}
    return job | {"outputs": {name: _output(path) for name, path in paths.items()}}


def batch_end_before(
    job: JobSnapshot, result: JobResult, transport: LocalTransport, *, with_digests: bool
) -> dict[str, Any]:
    """An attempt of a batch job that ended some time ago, by its folder.

    Args:
        with_digests: with digests of those outputs that are still as the job left them.
    """
    facts = {"job": job.intent.get("job") or {}, **job.provenance}
    found = record_of(job.folder.path, transport) or facts
    told = batch_job(replace(result, folder=job.folder.path), found)
    if not with_digests:
        return told
    outputs = {}
    for name, path in output_paths(told).items() if result.succeeded else ():
        left = job.ledger.outputs.get(name, {}).get("")  # None for a folder
        now = transport.left_now(path, "")
        same = left and now and is_same(left, now, partial(transport.digest, path, ""))
        outputs[name] = _output(path) if same else {"path": path}
    return told | {"outputs": outputs}


def _output(path: str) -> dict[str, Any]:
    return file_facts(path, whole_up_to=WHOLE_OUTPUT)


def may_run(request: JobRequest) -> bool:
    """Whether a job of this call was submitted, or may have been, and its end is not known."""
    above, _, key = request.base.rpartition("/")
    tails = [name.removeprefix(f"{key}-") for name in _listed(above) if name.startswith(f"{key}-")]
    numbers = [int(tail) for tail in tails if tail.isdecimal()]
    if not numbers:
        return False
    job = read_job(f"{request.base}-{max(numbers)}")
    return bool(job.problem) or (job.ledger.intended and not job.is_over)


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


class QuantumWork(NamedTuple):
    """A sampling or an estimation: kind, folder, key and name as in the record of a run."""

    kind: str
    folder: str
    key: str
    name: str


def quantum_ends(
    work: QuantumWork, asked_after: float, transport: Transport | None = None
) -> Iterator[dict[str, Any]]:
    """The ends of its jobs: failed jobs, then the result, which may come without a service's job.

    Args:
        asked_after: when the call was made, in seconds since 1970: jobs that failed before that
            are left out.
    """
    transport = transport or LocalTransport()
    record = _json(transport, f"{work.folder}/{RECORDS[work.kind]}")
    finished = record.get("state") == "finished"
    settled_at = float("inf")
    for job in quantum_jobs(work.folder, transport):
        if job.result is None:
            continue
        ended_at = job.status.known_at
        if job.result.succeeded:
            settled_at = ended_at
        elif ended_at >= asked_after:
            yield failed_quantum_job(job, **work._asdict())
    if finished:
        ended = quantum_job(record, **work._asdict(), asked_after=asked_after)
        yield ended | {"collected": ended["collected"] or settled_at < asked_after}


def quantum_jobs(work: str, transport: Transport) -> list[JobSnapshot]:
    """The jobs that were bought for a sampling or an estimation, the newest last."""
    folders = attempts(transport, work)
    return [read_job(each.path, transport, campaign_name="") for each in folders]


def made_by(folder: str, kind: str, transport: Transport) -> str:
    """The id of the run that asked for a sampling or an estimation; empty if not recorded."""
    return str(_json(transport, f"{folder}/{RECORDS[kind]}").get("made_by") or "")


def is_open(work: QuantumWork, transport: Transport | None = None) -> bool:
    """Whether a job of it was posted, or may have been, and its end is not known."""
    jobs = quantum_jobs(work.folder, transport or LocalTransport())
    last = jobs[-1] if jobs else None
    return last is not None and last.ledger.intended and not last.is_over
