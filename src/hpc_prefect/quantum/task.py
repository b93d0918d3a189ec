"""Sampling and estimating as steps of a Prefect flow."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
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
from hpc_prefect.flow_runs.cancellation import (
    cancelled_state,
    raise_if_cancelled,
    run_is_cancelled,
)
from hpc_prefect.flow_runs.recording import recorded_run
from hpc_prefect.flow_runs.run_log import RunLog
from hpc_prefect.flow_runs.scopes import root_flow
from hpc_prefect.flow_runs.sync import run_sync
from hpc_prefect.flow_runs.task_arguments import ONCE_ONLY
from hpc_prefect.flow_runs.uncaught import forget_frames
from hpc_prefect.flow_runs.waiting import Simulation, outcome_of
from hpc_prefect.flow_runs.workers import flow_process
from hpc_prefect.job import notebook
from hpc_prefect.ledger.claim import this_process
from hpc_prefect.ledger.quantum_folder import attempts
from hpc_prefect.quantum.block import QuantumBackendBlock
from hpc_prefect.quantum.purchase.words import place_of
from hpc_prefect.quantum.recording import note_wanted, recorded
from hpc_prefect.quantum.resolve import Resolved, name_of, resolve
from hpc_prefect.records.job_folders import QuantumWork
from hpc_prefect.transports.local import LocalTransport

if TYPE_CHECKING:
    from qiskit.primitives import EstimatorPubLike, PrimitiveResult, SamplerPubLike

    from hpc_prefect.quantum.sampling import Request

T = TypeVar("T")

#: What to do with a job whose run is cancelled; None: as the block says.
OnCancel = Literal["cancel", "keep"] | None


@dataclass(frozen=True, kw_only=True)
class QuantumJob:
    """A sampling or estimation that was submitted: plain values, valid in any later process.

    Attributes:
        job_id: of the service; empty for a simulator, which has finished already.
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
    quantum_backend_block_name: str | QuantumBackendBlock,
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
        quantum_backend_block_name: the `QuantumBackendBlock` to sample on: its name, or the block
            itself.
        work_dir: the record goes below `<work_dir>/.hpc-prefect/`.
        variable_name: a Prefect Variable, a JSON object of options; or an object whose key
            `"sampler"` holds them, beside other values of the flow's.
        options: options of this call (see `SamplerOptions`); they win over the Variable.
        on_cancel: `keep` or `cancel` a job on a quantum computer when the run is cancelled; None:
            as the block says.

    Returns:
        Qiskit's own `PrimitiveResult`, one result for each PUB.

    Raises:
        InvalidJob: with all problems of the call; nothing was sampled.
        BudgetExceeded: the job would cost more QPU seconds than are left; nothing was bought.
        QuantumJobFailed: the job ended without a result.
        QuantumServiceError: the service refuses, or cannot be asked.
    """
    call = _call("sampler", quantum_backend_block_name, work_dir, on_cancel)
    return await _carry_out(call, await _found(call, pubs, variable_name, options))


async def estimate(
    pubs: Iterable[EstimatorPubLike],
    *,
    quantum_backend_block_name: str | QuantumBackendBlock,
    work_dir: str | PathLike[str],
    variable_name: str | None = None,
    options: Mapping[str, Any] | None = None,
    on_cancel: OnCancel = None,
) -> PrimitiveResult:
    """Estimate expectation values, once; in everything else as `sample`.

    Args:
        pubs: PUBs as Qiskit's primitives take them: tuples (circuit, observables, parameter
            values, precision). All of them are one job.
        quantum_backend_block_name: the `QuantumBackendBlock` to estimate on: its name, or the block
            itself.
        work_dir: the record goes below `<work_dir>/.hpc-prefect/`.
        variable_name: a Prefect Variable, a JSON object of options; or an object whose key
            `"estimator"` holds them.
        options: options of this call (see `EstimatorOptions`); they win over the Variable.
        on_cancel: as for `sample`.

    Returns:
        Qiskit's own `PrimitiveResult`, with `evs` and `stds` for each PUB.
    """
    call = _call("estimator", quantum_backend_block_name, work_dir, on_cancel)
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
    """Submit a sampling and go on; `fetch` waits for it. Arguments are those of `sample`, but the
    block must be a stored one, by whose name another process finds it.

    A simulator has no queue: it does its work here, and `fetch` reads the record.
    """
    _need_stored(quantum_backend_block_name)
    call = _call("sampler", quantum_backend_block_name, work_dir, on_cancel)
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
    """Submit an estimation and go on; `fetch` waits for it. Arguments are those of `estimate`, but
    the block must be a stored one, by whose name another process finds it.
    """
    _need_stored(quantum_backend_block_name)
    call = _call("estimator", quantum_backend_block_name, work_dir, on_cancel)
    return await _submit(call, await _found(call, pubs, variable_name, options))


async def fetch(job: QuantumJob, *, on_cancel: OnCancel = None) -> PrimitiveResult:
    """The result of a submitted job, waiting for it; in any process, as often as it is asked for.

    Once fetched, it is read from its record without asking the service.

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
    """What a caller has given.

    Attributes:
        backend: the block's name; of one that is not stored, its name in records.
        given: the name, or the block.
    """

    kind: str
    backend: str
    given: str | QuantumBackendBlock
    work_dir: str
    on_cancel: OnCancel


def _call(
    kind: str,
    given: str | QuantumBackendBlock,
    work_dir: str | PathLike[str],
    on_cancel: OnCancel,
) -> _Call:
    return _Call(kind, name_of(given), given, absolute_work_dir(work_dir), on_cancel)


def _need_stored(given: object) -> None:
    """Another process may fetch the job, and finds the backend by its block's name."""
    if not isinstance(given, str):
        wanted = "the name of a stored Quantum Backend block is needed"
        raise InvalidJob("submission", [f"{type(given).__name__} was given where {wanted}"])


class _Found(NamedTuple):
    """A valid request with its identity in the experiment."""

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
    except BaseException as error:
        note_unfinished()
        forget_frames(error)
        raise


async def _checked(
    call: _Call,
    pubs: Iterable[Any],
    variable_name: str | None,
    options: Mapping[str, Any] | None,
) -> _Found:
    subject = f"{'sampling' if call.kind == 'sampler' else 'estimation'} with {call.backend!r}"
    _need_qiskit(subject)
    resolved: Resolved = await resolve(call.kind, call.given, variable_name, options)
    if call.on_cancel not in (None, "cancel", "keep"):
        resolved.problems.append(
            f"on_cancel is {call.on_cancel!r}; it must be 'cancel', 'keep' or None"
        )
    resolved.problems.extend(identity_problems())
    # Circuits can be large: digest and simulation run in threads, so that other tasks go on.
    request = await asyncio.to_thread(_ask, subject, pubs, resolved, call.kind)
    # The identity is found before the task run starts: inside, it would be that of a call in this
    # task.
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
    """Do some work of a campaign; when it does not succeed, the campaign is not complete."""
    try:
        result = await work
        if isinstance(result, State):
            await raise_if_cancelled()
            raise FlowRunCancelled(result.message)
    except BaseException as error:
        note_unfinished(folder)
        forget_frames(error)
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
    """The task run's name: the backend, and the iteration that it samples for."""
    where = place_of(found.place.scope)
    return f"{call.backend}, {where}" if where else call.backend


async def _submit(call: _Call, found: _Found) -> QuantumJob:
    request, place = found.request, found.place
    work, name = partial(_result, call, found, submit_only=True), _named(call, found)
    with _recorded(call, name, found):  # a simulator has finished then
        job_id = await _noting(place.folder, _submit_task(name, work))
    return QuantumJob(
        kind=call.kind,
        backend=call.backend,
        job_id=job_id,
        digest=request.digest,
        folder=str(place.folder),
        work_dir=call.work_dir,
    )


async def _result(call: _Call, found: _Found, log: Any, *, submit_only: bool = False) -> Any:
    """The result, from the record, a simulator or a job; with `submit_only` the job's id."""
    from hpc_prefect.quantum.sampling import read_earlier, sample_once

    request, work = found.request, found.place.folder
    if request.backend.simulates:
        sampled = Simulation(partial(sample_once, request, work, made_by=recorded_run(), log=log))
        result = await outcome_of(sampled, RunLog(call.backend, log), "cancel")
        return "" if submit_only else result
    earlier = await asyncio.to_thread(read_earlier, request, work, log)
    if earlier is not None:
        return await asyncio.to_thread(_known_id, work) if submit_only else earlier
    from hpc_prefect.quantum.purchase.call import carried_out, to_buy

    wanted = to_buy(request, found.place, call.backend, call.on_cancel, submit_only=submit_only)
    return await carried_out(wanted, RunLog(call.backend, log))


def _known_id(work: Path) -> str:
    """The id of the newest job that was bought for a work."""
    jobs = [*attempts(LocalTransport(), str(work))]
    return jobs[-1].ledger().job_id if jobs else ""


async def _collect(job: QuantumJob, backend: Any, on_cancel: OnCancel, log: Any) -> PrimitiveResult:
    from hpc_prefect.quantum.purchase.call import carried_out, to_attach

    flow = root_flow()
    run = "" if flow is None or flow.flow_run is None else str(flow.flow_run.id)
    claimant = this_process(run, flow_process())
    wanted = to_attach(job, backend, claimant, on_cancel)
    result: PrimitiveResult = await carried_out(wanted, RunLog(job.backend, log))
    return result


Work = Callable[[Any], Awaitable[Any]]


async def _attended(work: Work) -> Any:
    """The body of a task run, unless its flow run was cancelled."""
    return cancelled_state() if await run_is_cancelled() else await work(get_run_logger())


# The record decides what is repeated, not Prefect's cache (which would also drop an intended second
# sampling). `work` is a function, so that Prefect does not search every circuit.
@task(name="sample", task_run_name="sample {backend}", **ONCE_ONLY)
async def _sample(backend: str, work: Work) -> Any:
    return await _attended(work)


@task(name="estimate", task_run_name="estimate {backend}", **ONCE_ONLY)
async def _estimate(backend: str, work: Work) -> Any:
    return await _attended(work)


@task(name="submit", task_run_name="submit {backend}", **ONCE_ONLY)
async def _submit_task(backend: str, work: Work) -> Any:
    return await _attended(work)


@task(name="fetch", task_run_name="fetch {backend}", **ONCE_ONLY)
async def _fetch_task(backend: str, work: Work) -> Any:
    return await _attended(work)


def _task_of(kind: str) -> Any:
    return _sample if kind == "sampler" else _estimate
