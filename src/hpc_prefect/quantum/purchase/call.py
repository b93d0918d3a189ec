"""From a call to the executor's request, and from the job's end to a result or an error."""

from __future__ import annotations

import asyncio
from contextvars import copy_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect.client.schemas.objects import State

from hpc_prefect.errors import (
    BudgetExceeded,
    QuantumJobFailed,
    QuantumServiceError,
    SchedulerError,
)
from hpc_prefect.executor.request import JobSubmitted
from hpc_prefect.executor.service import Handle
from hpc_prefect.flow_runs.campaigns import CallIdentity
from hpc_prefect.flow_runs.campaigns.opening import is_over
from hpc_prefect.flow_runs.recording import recorded_run
from hpc_prefect.flow_runs.run_log import RunLog
from hpc_prefect.flow_runs.scopes import root_flow
from hpc_prefect.flow_runs.waiting import Kept, outcome_of
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.quantum_spec import QuantumSpec
from hpc_prefect.job.result import JobResult
from hpc_prefect.job.spec import Site
from hpc_prefect.ledger.claim import Claimant
from hpc_prefect.quantum.purchase.provider import provider_of
from hpc_prefect.quantum.purchase.request import Purchase, QuantumRequest
from hpc_prefect.quantum.purchase.run import QuantumRun
from hpc_prefect.quantum.purchase.show import Page
from hpc_prefect.quantum.result_file import read_finished
from hpc_prefect.quantum.service import ServiceBackend

__all__ = ["QuantumRun", "outcome", "to_attach", "to_buy"]

if TYPE_CHECKING:
    from hpc_prefect.quantum.sampling import Request
    from hpc_prefect.quantum.task import QuantumJob


def to_buy(
    request: Request,
    place: CallIdentity,
    block: str,
    on_cancel: str | None,
    *,
    submit_only: bool = False,
) -> QuantumRequest:
    """The request for a call's job; to be made in the context of the call."""
    backend: ServiceBackend = request.backend
    flow = root_flow()
    run = None if flow is None else flow.flow_run
    return QuantumRequest(
        spec=_spec(block, backend, request.kind, request.digest, on_cancel),
        provider=provider_of(backend.service),
        base=str(place.folder),
        key=place.key,
        claimant=place.claimant,
        submit_only=submit_only,
        provenance={
            "campaign": place.campaign,
            "scope": list(place.scope),
            "n": place.n,
            "flow_run": None if run is None else {"id": str(run.id), "name": run.name},
        },
        is_over=is_over,
        purchase=Purchase(request=request, made_by=recorded_run(), context=copy_context()),
        page=Page(place.folder, place.scope),
    )


def to_attach(
    job: QuantumJob, backend: ServiceBackend, claimant: Claimant, on_cancel: str | None
) -> QuantumRequest:
    """The request to attach to a job that was submitted by this process or another."""
    work = Path(job.folder)
    return QuantumRequest(
        spec=_spec(job.backend, backend, job.kind, job.digest, on_cancel),
        provider=provider_of(backend.service),
        base=job.folder,
        key=work.name,
        claimant=claimant,
        attach_only=True,
        is_over=is_over,
        page=Page(work, ()),
    )


def _spec(
    block: str, backend: ServiceBackend, primitive: str, digest: str, on_cancel: str | None
) -> QuantumSpec:
    return QuantumSpec(
        name=block,
        site=Site(scheduler=backend.service.name, options={"block": block}),
        primitive=primitive,
        digest=digest,
        on_cancel=on_cancel or backend.terms.on_cancel,
    )


async def outcome(handle: Handle[JobResult], wanted: QuantumRequest, listener: RunLog) -> Any:
    """The result of a job that was handed over, whoever bought it; with `submit_only` its id. A
    State in a run that was cancelled.

    Raises:
        HpcPrefectError: there is no result; see `raise_for`.
    """
    work = Kept(handle, listener) if wanted.spec.on_cancel == "keep" else handle
    try:
        ended = await outcome_of(work, listener, "leave")
    except SchedulerError as error:
        raise QuantumServiceError(str(error)) from error
    if isinstance(ended, State):
        return ended
    if isinstance(ended, JobSubmitted):
        return ended.job_id
    raise_for(ended, wanted.work)
    if wanted.submit_only:
        return ended.job_id
    spec = wanted.spec
    return await asyncio.to_thread(read_finished, wanted.work, spec.digest, spec.primitive)


def raise_for(result: JobResult, work: Path) -> None:
    """Raise the error of a job that did not succeed.

    Raises:
        BudgetExceeded: it would cost more than is left.
        QuantumServiceError: the service refused it.
        QuantumJobFailed: it ended without a result.
    """
    verdict = result.verdict
    if result.succeeded:
        return
    if verdict.reason is Reason.OVER_BUDGET and not result.job_id:
        raise BudgetExceeded(verdict.summary)
    if verdict.reason is Reason.OVER_BUDGET:
        raise BudgetExceeded(
            f"the service estimates job {result.job_id} at more QPU seconds than are left of the"
            " block's max_qpu_seconds; it was cancelled in the queue"
        )
    if verdict.reason is Reason.REJECTED:
        raise QuantumServiceError(
            f"the service refuses the job: {verdict.said}; nothing was bought"
        )
    if not result.job_id:
        raise QuantumJobFailed(f"job {result.name}: {verdict.summary}", "", "CANCELLED")
    status, _, reason = verdict.said.partition(" ")
    raise QuantumJobFailed(
        f"job {result.job_id} on {result.host} ended as {status}{': ' if reason else ''}{reason}."
        f" Running the same again buys another job. What is known of it: {work}",
        result.job_id,
        status,
    )
