"""Ends an attempt: writes the result and the run record, and clears the queue."""

from __future__ import annotations

import hashlib
import logging
import platform
from functools import cache, partial
from importlib.metadata import version
from typing import Any

from hpc_prefect.executor.attempt import Attempt, result_in
from hpc_prefect.job import folder as names
from hpc_prefect.job.failure import Reason, Verdict
from hpc_prefect.job.result import JobResult
from hpc_prefect.job.state import Evidence, tells_second_start

logger = logging.getLogger("hpc_prefect.executor")

#: Reasons after which the job is cancelled: it would wait for ever, or may have been requeued.
MAY_STILL_BE_THERE = (
    *(Reason.CAN_NEVER_RUN, Reason.DEPENDENCY_NEVER_MET),
    *(Reason.NODE_FAILURE, Reason.PREEMPTED, Reason.NEVER_STARTED),
)


async def finalize(
    attempt: Attempt, verdict: Verdict, evidence: Evidence, *, confirmed: bool
) -> JobResult:
    """Write the verdict and the run record, and end what is left in the queue.

    Args:
        confirmed: False if it was cancelled and its end was not seen. Then the next call asks again
            before it submits.
    """
    connection = attempt.connection
    result = result_of(attempt, verdict, evidence)
    left = await connection.in_thread(
        partial(_write, attempt, result, evidence, confirmed=confirmed)
    )
    if confirmed:
        result = await connection.in_thread(partial(that_stands, attempt, result))
        verdict = result.verdict
    if verdict.reason in MAY_STILL_BE_THERE:
        left.append(attempt.job_id)
    for job_id in left:
        await connection.cancel(job_id, attempt.tag)
    attempt.request.listener.state(f"{verdict.reason}: {verdict.summary}")
    return result


def _write(
    attempt: Attempt, result: JobResult, evidence: Evidence, *, confirmed: bool
) -> list[str]:
    """Write what is to be kept; returns the ids of second jobs. Blocks."""
    attempt.claim.check()
    if not confirmed:
        attempt.folder.note("unconfirmed", durable=True)
        return []
    record = record_of(attempt, result)
    facts = {names.SECOND_START: True} if tells_second_start(evidence) else {}
    attempt.folder.write_verdict(attempt.request.spec, record, attempt.outputs_before, facts)
    # This process may have been stopped meanwhile: then the verdict of who has the job now counts.
    attempt.claim.check()
    duplicates = [job_id for job_id in attempt.folder.duplicates() if job_id != attempt.job_id]
    if duplicates:
        logger.error(
            "job %s: %s were duplicates of it in the scheduler; they did not start the program, and"
            " are cancelled now",
            attempt.request.spec.name,
            ", ".join(duplicates),
        )
    return duplicates


def that_stands(attempt: Attempt, result: JobResult) -> JobResult:
    """The result that the journal has, after ours was written. Blocks.

    The first one stands. That may be another process's: NFS may hide for a minute that it has
    taken the job over, and who has cancelled the job only that one knows.
    """
    first = result_in(attempt.folder, attempt.folder.ledger())
    if first is None or first.verdict.reason is result.verdict.reason:
        return result
    return first


def result_of(attempt: Attempt, verdict: Verdict, evidence: Evidence) -> JobResult:
    """The result of an attempt with this verdict."""
    start, end, seen = evidence.start, evidence.exit, evidence.observation
    used = dict(seen.used) if seen else {}
    if end is not None:
        used.setdefault("cpu_seconds", end.cpu_seconds)
    queued_at = (seen.queued_at if seen else 0.0) or attempt.submitted_at
    folder = attempt.folder
    return JobResult(
        job_id=attempt.job_id,
        name=attempt.request.spec.name,
        tag=attempt.tag,
        key=attempt.request.key,
        attempt=attempt.number,
        verdict=verdict,
        folder=folder.path,
        script_path=folder.file(names.SCRIPT),
        stdout_path=folder.file(names.STDOUT),
        stderr_path=folder.file(names.STDERR),
        host=start.host if start else "",
        queue_seconds=max(0.0, start.time - queued_at) if start and queued_at else None,
        run_seconds=end.time - start.time if start and end else None,
        resources_used=used,
        num_nodes=attempt.request.spec.resources.num_nodes,
    )


def record_of(attempt: Attempt, result: JobResult) -> dict[str, Any]:
    """The run record: all that this result came from. Has the names of secrets, not the values."""
    request = attempt.request
    script = attempt.folder.transport.read(attempt.folder.file(names.SCRIPT)) or b""
    return {
        "format": 1,
        "result": result.as_dict(),
        "job": request.spec.as_dict(),
        "key": request.key,
        "script_sha256": hashlib.sha256(script).hexdigest(),
        "loaded_modules": attempt.folder.loaded_modules(),
        "claimant": request.claimant.describe(),
        "versions": versions(),
        **request.provenance,
    }


@cache
def versions() -> dict[str, str]:
    """The versions that a run record names."""
    found = {name: version(name) for name in ("hpc-prefect", "prefect")}
    return found | {"python": platform.python_version()}
