"""A quantum job by its folder alone: how its service is reached, and its result fetched."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, cast

from hpc_prefect.errors import ConfigurationError, LedgerError
from hpc_prefect.executor.request import Listener
from hpc_prefect.executor.service import executor
from hpc_prefect.flow_runs.campaigns.opening import is_over
from hpc_prefect.flow_runs.sync import run_sync
from hpc_prefect.job.dialogue import Dialogue
from hpc_prefect.job.provider import NoAnswer, Provider
from hpc_prefect.job.quantum_spec import QuantumSpec
from hpc_prefect.job.result import JobResult
from hpc_prefect.job.spec import Site
from hpc_prefect.job.state import Patience
from hpc_prefect.ledger import claim as claims
from hpc_prefect.operations.attach import must_be_ours
from hpc_prefect.operations.snapshot import JobSnapshot
from hpc_prefect.quantum.purchase.call import raise_for
from hpc_prefect.quantum.purchase.provider import ServiceProvider, provider_of
from hpc_prefect.quantum.purchase.request import QuantumRequest
from hpc_prefect.quantum.purchase.run import QuantumRun
from hpc_prefect.quantum.resolve import resolve
from hpc_prefect.quantum.services import vendor


def provider_at(site: Site) -> Provider:
    """The service with the credentials of the job's block, or else of the environment.

    Never raises: a service that cannot be reached gives no answer.
    """
    try:
        return _provider(site)
    except Exception as error:  # noqa: BLE001 - of whatever client: then nobody can be asked
        return cast(Provider, _NotReached(site.scheduler, str(error) or repr(error)))


def attach(job: JobSnapshot, listener: Listener, job_id: str) -> JobResult:
    """Wait for a job and store its result, as the process that bought it would. Blocks.

    The service is not asked when the result is already stored.

    Raises:
        JobHeld: the process that bought it is alive.
        QuantumJobFailed, QuantumServiceError, LedgerError: as `fetch`.
    """
    must_be_ours(job)
    spec, work = job.spec, job.folder.path.rpartition("-")[0]
    assert isinstance(spec, QuantumSpec)
    provider = _provider(spec.site)
    claimant = claims.this_process()
    if job_id:
        _note_id(job, job_id, provider, claimant)
    elif not job.job_id:
        raise LedgerError(f"{job.folder.path}: no job is known, so there is nothing to attach to")
    request = QuantumRequest(
        spec=spec,
        provider=provider,
        base=work,
        key=job.key,
        claimant=claimant,
        attach_only=True,
        is_over=is_over,
        provenance=job.provenance,
        listener=listener,
    )
    result = executor().start(request, QuantumRun).result.result()
    raise_for(result, Path(work))
    return result


def _note_id(
    job: JobSnapshot, job_id: str, provider: ServiceProvider, claimant: claims.Claimant
) -> None:
    """Note a given id as that of the attempt's job, after the service confirmed that it exists."""
    if job.job_id not in ("", job_id):
        raise LedgerError(f"{job.folder.path}: its job is {job.job_id}, and not {job_id}")
    claims.take(job.folder.transport, job.folder.path, claimant, is_over)
    provider.service.look(job_id)
    job.folder.note("submitted", durable=True, id=job_id)


def _provider(site: Site) -> ServiceProvider:
    block = str(site.options.get("block", ""))
    try:
        resolved = run_sync(partial(resolve, "sampler", block, None, None))
    except Exception:  # the block is in Prefect, which does not answer
        here = vendor(site.scheduler).of_environment()
        if here is None:
            raise
        return provider_of(here)
    backend: Any = resolved.backend
    if backend is None:
        raise ConfigurationError("; ".join(resolved.problems))
    return provider_of(backend.service)


class _NotReached:
    """A service whose account is not known here: every question gets no answer."""

    patience, ids_per_question, searchable, hurry = Patience(), 1000, True, 1.0

    def __init__(self, name: str, said: str) -> None:
        self.name, self._said = name, said

    def _says_nothing(self, *_: object) -> Dialogue[Any]:
        yield from ()
        return NoAnswer(self._said)

    submit = observe = find = cancel = _says_nothing
