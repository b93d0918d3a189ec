"""Sampling and estimating as steps of a Prefect flow."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

from prefect import get_run_logger, task
from prefect.client.schemas.objects import State

from hpc_prefect.errors import ConfigurationError, FlowRunCancelled, InvalidJob
from hpc_prefect.extras import missing
from hpc_prefect.flow_runs.campaigns import (
    CallIdentity,
    absolute_work_dir,
    identity_problems,
    locate,
)
from hpc_prefect.flow_runs.campaigns.end import note_unfinished
from hpc_prefect.flow_runs.cancellation import raise_if_cancelled
from hpc_prefect.flow_runs.recording import recorded_run
from hpc_prefect.flow_runs.scopes import root_flow
from hpc_prefect.flow_runs.sync import run_sync
from hpc_prefect.flow_runs.task_arguments import ONCE_ONLY
from hpc_prefect.flow_runs.workers import flow_process
from hpc_prefect.job import notebook
from hpc_prefect.ledger.claim import this_process
from hpc_prefect.quantum.cancellation import attended
from hpc_prefect.quantum.purchase.look import place_of
from hpc_prefect.quantum.recording import note_wanted, recorded
from hpc_prefect.quantum.resolve import Resolved, resolve
from hpc_prefect.records.job_folders import QuantumWork

if TYPE_CHECKING:
    from qiskit.primitives import EstimatorPubLike, PrimitiveResult, SamplerPubLike

    from hpc_prefect.quantum.purchase.errand import Purchase
    from hpc_prefect.quantum.sampling import Request

T = TypeVar("T")

#: What a caller may say about a job whose run is cancelled; None is what the block says.
OnCancel = Literal["cancel", "keep"] | None


@dataclass(frozen=True, kw_only=True)
class QuantumJob:
    """A sampling or estimation that was submitted: plain values, good in any later process.

    Attributes:
        job_id: of the service; empty on a simulator, which has done its work already.
        folder: of its record.
    """

    kind: str
    backend: str
    job_id: str
    digest: str
    folder: str
    work_dir: str

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        rows = [("digest", self.digest[:12]), ("work_dir", self.work_dir), ("record", self.folder)]
        return notebook.heading(
            f"{self.kind} {self.backend}", more=(self.job_id,)
        ) + notebook.facts(rows)


async def sample(
    pubs: Iterable[SamplerPubLike],
    *,
    quantum_backend_block_name: str,
    work_dir: str | PathLike[str],
    variable_name: str | None = None,
    options: Mapping[str, Any] | None = None,
    on_cancel: OnCancel = None,
) -> PrimitiveResult:
    """Sample circuits, once.

    A sampling that an earlier run of the same campaign finished is read back from its record, to
    the last bit; a job on a quantum computer that an earlier run posted is attached again. Two
    identical calls in one scope are two samplings; with one seed on a simulator they give the same
    bits.

    Cancelling cancels a job on a quantum computer. It does not interrupt a simulation that has
    begun: it ends in its thread, and its result is recorded.

    Args:
        pubs: PUBs as Qiskit's primitives take them: circuits, or tuples (circuit, parameter
            values, shots). All of them are one job.
        quantum_backend_block_name: the `QuantumBackendBlock` to sample on.
        work_dir: the record goes below `<work_dir>/.hpc-prefect/`.
        variable_name: a Prefect Variable with the options, a JSON object; or with a key
            `"sampler"` that holds them, and whatever else the flow needs beside it.
        options: options of this call (see `SamplerOptions`); they win over the Variable.
        on_cancel: `keep` a job on a quantum computer when the run is cancelled, or `cancel` it;
            None is what the block says.

    Returns:
        Qiskit's own `PrimitiveResult`, one result for each PUB.

    Raises:
        InvalidJob: with everything that is wrong with the call; nothing was sampled.
        BudgetExceeded: the job would cost more QPU seconds than are left; nothing was bought.
        QuantumJobFailed: the job ended without a result.
        QuantumServiceError: the service refuses, or cannot be asked.
    """
    call = _Call("sampler", quantum_backend_block_name, absolute_work_dir(work_dir), on_cancel)
    return await _carry_out(call, await _found(call, pubs, variable_name, options))


async def estimate(
    pubs: Iterable[EstimatorPubLike],
    *,
    quantum_backend_block_name: str,
    work_dir: str | PathLike[str],
    variable_name: str | None = None,
    options: Mapping[str, Any] | None = None,
    on_cancel: OnCancel = None,
) -> PrimitiveResult:
    """Estimate expectation values, once; all that is said of `sample` holds.

    Args:
        pubs: PUBs as Qiskit's primitives take them: tuples (circuit, observables, parameter
            values, precision). All of them are one job.
        quantum_backend_block_name: the `QuantumBackendBlock` to estimate on.
        work_dir: the record goes below `<work_dir>/.hpc-prefect/`.
        variable_name: a Prefect Variable with the options; its key `"estimator"` holds them if
            there is more in it.
        options: options of this call (see `EstimatorOptions`); they win over the Variable.
        on_cancel: as for `sample`.

    Returns:
        Qiskit's own `PrimitiveResult`, with `evs` and `stds` for each PUB.
    """
    call = _Call("estimator", quantum_backend_block_name, absolute_work_dir(work_dir), on_cancel)
    return await _carry_out(call, await _found(call, pubs, variable_name, options))


async def submit_sampling(
    pubs: Iterable[SamplerPubLike],
    *,
    quantum_backend_block_name: str,
    work_dir: str | PathLike[str],
    variable_name: str | None = None,
    options: Mapping[str, Any] | None = None,
    on_cancel: OnCancel = None,
) -> QuantumJob:
    """Submit a sampling and go on; `fetch` waits for it. Arguments are those of `sample`.

    A simulator has no queue: it does its work here, and `fetch` reads the record.
    """
    call = _Call("sampler", quantum_backend_block_name, absolute_work_dir(work_dir), on_cancel)
    return await _submit(call, await _found(call, pubs, variable_name, options))


async def submit_estimation(
    pubs: Iterable[EstimatorPubLike],
    *,
    quantum_backend_block_name: str,
    work_dir: str | PathLike[str],
    variable_name: str | None = None,
    options: Mapping[str, Any] | None = None,
    on_cancel: OnCancel = None,
) -> QuantumJob:
    """Submit an estimation and go on; `fetch` waits for it. Arguments are those of `estimate`."""
    call = _Call("estimator", quantum_backend_block_name, absolute_work_dir(work_dir), on_cancel)
    return await _submit(call, await _found(call, pubs, variable_name, options))


async def fetch(job: QuantumJob, *, on_cancel: OnCancel = None) -> PrimitiveResult:
    """The result of a submitted job, waiting for it; in any process, as often as it is asked for.

    A result that was fetched once is read from its record, which asks nobody.

    Args:
        on_cancel: as for `sample`.
    """
    _need_qiskit("fetching a result")
    from hpc_prefect.quantum.result_file import read_finished

    await raise_if_cancelled()
    with recorded(QuantumWork(job.kind, job.folder, Path(job.folder).name, job.backend)):
        finished = await asyncio.to_thread(read_finished, Path(job.folder), job.digest, job.kind)
        if finished is not None:
            return finished
        resolved: Resolved = await resolve(job.kind, job.backend, None, None)
        if resolved.backend is None or resolved.problems:
            raise InvalidJob(f"fetching from {job.backend!r}", resolved.problems)
        work = partial(_collect, job, resolved.backend, on_cancel)
        return await _noting(job.folder, _fetch_task(job.backend, work))


def sample_sync(pubs: Iterable[SamplerPubLike], **arguments: Any) -> PrimitiveResult:
    """`sample` for sync flows and tasks and for plain scripts; same arguments and errors."""
    return run_sync(lambda: sample(pubs, **arguments))


def estimate_sync(pubs: Iterable[EstimatorPubLike], **arguments: Any) -> PrimitiveResult:
    """`estimate` for sync flows and tasks and for plain scripts; same arguments and errors."""
    return run_sync(lambda: estimate(pubs, **arguments))


class _Call(NamedTuple):
    kind: str
    backend: str
    work_dir: str
    on_cancel: OnCancel


class _Found(NamedTuple):
    """A valid request in its place of the experiment."""

    request: Request
    place: CallIdentity
    described: Mapping[str, Mapping[str, Any]]


async def _found(
    call: _Call,
    pubs: Iterable[Any],
    variable_name: str | None,
    options: Mapping[str, Any] | None,
) -> _Found:
    await raise_if_cancelled()
    try:
        return await _checked(call, pubs, variable_name, options)
    except BaseException:
        note_unfinished()
        raise


async def _checked(
    call: _Call,
    pubs: Iterable[Any],
    variable_name: str | None,
    options: Mapping[str, Any] | None,
) -> _Found:
    subject = f"{'sampling' if call.kind == 'sampler' else 'estimation'} with {call.backend!r}"
    _need_qiskit(subject)
    resolved: Resolved = await resolve(call.kind, call.backend, variable_name, options)
    if call.on_cancel not in (None, "cancel", "keep"):
        resolved.problems.append(
            f"on_cancel is {call.on_cancel!r}; it must be 'cancel', 'keep' or None"
        )
    resolved.problems.extend(identity_problems())
    # Circuits can be large: canonical form and simulation run off the loop, other tasks go on.
    request = await asyncio.to_thread(_ask, subject, pubs, resolved, call.kind)
    # The place is found before the task run starts: inside, it would be a place of that task.
    name = "sample" if call.kind == "sampler" else "estimate"
    place = await locate(work_dir=call.work_dir, name=name, digest=request.digest)
    return _Found(request, place, resolved.described)


def _need_qiskit(what: str) -> None:
    if told := missing(what, "qiskit"):
        raise ConfigurationError(told)


def _ask(subject: str, pubs: Iterable[Any], call: Resolved, kind: str) -> Request:
    from hpc_prefect.quantum.sampling import ask

    return ask(pubs, call.options, call.backend, subject=subject, problems=call.problems, kind=kind)


async def _noting(folder: str | PathLike[str], work: Awaitable[T]) -> T:
    """Do some work of a place; when it does not succeed, its campaign is not complete."""
    try:
        result = await work
        if isinstance(result, State):
            await raise_if_cancelled()
            raise FlowRunCancelled(result.message)
    except BaseException:
        note_unfinished(folder)
        raise
    return result


async def _carry_out(call: _Call, found: _Found) -> PrimitiveResult:
    work, name = partial(_result, call, found), _named(call, found)
    with _recorded(call, name, found):
        return await _noting(found.place.folder, _task_of(call.kind)(name, work))


def _recorded(call: _Call, name: str, found: _Found) -> AbstractContextManager[None]:
    wanted = QuantumWork(call.kind, str(found.place.folder), found.place.key, name)
    note_wanted(wanted, found.place, found.described)
    return recorded(wanted)


def _named(call: _Call, found: _Found) -> str:
    """What the task run is called after: the backend, and the iteration that it samples for."""
    where = place_of(found.place.scope)
    return f"{call.backend}, {where}" if where else call.backend


async def _submit(call: _Call, found: _Found) -> QuantumJob:
    request, place = found.request, found.place
    work, name = partial(_job_id, call, found), _named(call, found)
    with _recorded(call, name, found):  # a simulator has done it then
        job_id = await _noting(place.folder, _submit_task(name, work))
    return QuantumJob(
        kind=call.kind,
        backend=call.backend,
        job_id=job_id,
        digest=request.digest,
        folder=str(place.folder),
        work_dir=call.work_dir,
    )


async def _result(call: _Call, found: _Found, log: Any) -> PrimitiveResult:
    from hpc_prefect.quantum.sampling import read_earlier, sample_once

    request, place = found.request, found.place
    if request.backend.simulates:
        return await asyncio.to_thread(
            sample_once, request, place.folder, made_by=recorded_run(), log=log
        )
    earlier = await asyncio.to_thread(read_earlier, request, place.folder, log)
    if earlier is not None:
        return earlier
    from hpc_prefect.quantum.purchase.run import carry_out

    return await carry_out(_purchase(call, found, log))


async def _job_id(call: _Call, found: _Found, log: Any) -> str:
    from hpc_prefect.quantum.sampling import read_earlier, sample_once

    request, place = found.request, found.place
    if request.backend.simulates:
        await asyncio.to_thread(sample_once, request, place.folder, made_by=recorded_run(), log=log)
        return ""
    from hpc_prefect.quantum.purchase.run import submit

    purchase = _purchase(call, found, log)
    last = await asyncio.to_thread(purchase.journal.last)
    earlier = await asyncio.to_thread(read_earlier, request, place.folder, log)
    if last is not None and earlier is not None:
        return last.job_id
    return (await submit(purchase)).job_id


def _purchase(call: _Call, found: _Found, log: Any) -> Purchase:
    from hpc_prefect.quantum.purchase.errand import Purchase
    from hpc_prefect.quantum.purchase.run import transpile

    request, place = found.request, found.place
    return Purchase(
        kind=call.kind,
        digest=request.digest,
        folder=place.folder,
        claimant=place.claimant,
        terms=_terms(request.backend, call.on_cancel),
        service=request.backend.service,
        log=log,
        block=call.backend,
        made_by=recorded_run(),
        request=request,
        place=place,
        transpile=transpile,
    )


async def _collect(job: QuantumJob, backend: Any, on_cancel: OnCancel, log: Any) -> PrimitiveResult:
    from hpc_prefect.quantum.purchase.errand import Errand
    from hpc_prefect.quantum.purchase.run import collect

    flow = root_flow()
    run = None if flow is None else flow.flow_run
    errand = Errand(
        kind=job.kind,
        digest=job.digest,
        folder=Path(job.folder),
        claimant=this_process("" if run is None else str(run.id), flow_process()),
        terms=_terms(backend, on_cancel),
        service=backend.service,
        log=log,
    )
    return await collect(errand)


def _terms(backend: Any, on_cancel: OnCancel) -> Any:
    return backend.terms if on_cancel is None else replace(backend.terms, on_cancel=on_cancel)


Work = Callable[[Any], Awaitable[Any]]


# The record decides what is repeated, not Prefect's cache (which would also drop an intended
# second sampling). `work` is opaque to Prefect, which would look into every circuit otherwise.
@task(name="sample", task_run_name="sample {backend}", **ONCE_ONLY)
async def _sample(backend: str, work: Work) -> Any:
    return await attended(work, get_run_logger())


@task(name="estimate", task_run_name="estimate {backend}", **ONCE_ONLY)
async def _estimate(backend: str, work: Work) -> Any:
    return await attended(work, get_run_logger())


@task(name="submit", task_run_name="submit {backend}", **ONCE_ONLY)
async def _submit_task(backend: str, work: Work) -> Any:
    return await attended(work, get_run_logger())


@task(name="fetch", task_run_name="fetch {backend}", **ONCE_ONLY)
async def _fetch_task(backend: str, work: Work) -> Any:
    return await attended(work, get_run_logger())


def _task_of(kind: str) -> Any:
    return _sample if kind == "sampler" else _estimate
