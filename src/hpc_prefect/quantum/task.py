"""Sampling and estimating as steps of a Prefect flow."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from prefect import Task, get_run_logger, task
from prefect.client.schemas.objects import State

from hpc_prefect.errors import ConfigurationError, FlowRunCancelled, InvalidJob
from hpc_prefect.executor.service import executor
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

    from hpc_prefect.quantum.purchase.request import QuantumRequest
    from hpc_prefect.quantum.sampling import Request

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
    result: PrimitiveResult = await _carry_out(call, pubs, variable_name, options)
    return result


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
    result: PrimitiveResult = await _carry_out(call, pubs, variable_name, options)
    return result


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
    job: QuantumJob = await _carry_out(call, pubs, variable_name, options, submit_only=True)
    return job


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
    job: QuantumJob = await _carry_out(call, pubs, variable_name, options, submit_only=True)
    return job


async def fetch(job: QuantumJob, *, on_cancel: OnCancel = None) -> PrimitiveResult:
    """The result of a submitted job, waiting for it; in any process, as often as it is asked for.

    Once fetched, it is read from its record without asking the service.

    Args:
        on_cancel: as for `sample`.
    """
    _need_qiskit("fetching a result")
    from hpc_prefect.quantum.result_file import read_finished

    await raise_if_cancelled()
    try:
        with recorded(QuantumWork(job.kind, job.folder, Path(job.folder).name, job.backend)):
            kept = await asyncio.to_thread(read_finished, Path(job.folder), job.digest, job.kind)
            if kept is not None:
                return kept
            resolved: Resolved = await resolve(job.kind, job.backend, None, None)
            if resolved.backend is None or resolved.problems:
                raise InvalidJob(f"fetching from {job.backend!r}", resolved.problems)
            work = _Fetching(job, resolved.backend, on_cancel)
            result: PrimitiveResult = await _fetch_task(job.backend, work)
            await _raise_if_ended(result)
    except BaseException as error:
        note_unfinished(job.folder)
        forget_frames(error)
        raise
    return result


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


async def _carry_out(
    call: _Call,
    pubs: Iterable[Any],
    variable_name: str | None,
    options: Mapping[str, Any] | None,
    *,
    submit_only: bool = False,
) -> Any:
    """What every such call comes to: its result, or with `submit_only` its `QuantumJob`."""
    await raise_if_cancelled()
    folder: Path | None = None
    try:
        found = await _checked(call, pubs, variable_name, options)
        folder, name = found.place.folder, _named(call, found)
        wanted = _submit_task if submit_only else _TASKS[call.kind]
        with _recorded(call, name, found):  # what is submitted to a simulator is done then
            result = await wanted(name, _Sampling(call, found, submit_only=submit_only))
            await _raise_if_ended(result)
    except BaseException as error:
        note_unfinished(folder)
        forget_frames(error)
        raise
    return _submitted(call, found, result) if submit_only else result


async def _raise_if_ended(result: object) -> None:
    """A task run gives a State in place of a result when the run around it was cancelled."""
    if isinstance(result, State):
        await raise_if_cancelled()
        raise FlowRunCancelled(result.message)


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


def _recorded(call: _Call, name: str, found: _Found) -> AbstractContextManager[None]:
    wanted = QuantumWork(call.kind, str(found.place.folder), found.place.key, name)
    note_wanted(wanted, found.place, found.described)
    return recorded(wanted)


def _named(call: _Call, found: _Found) -> str:
    """The task run's name: the backend, and the iteration that it samples for."""
    where = place_of(found.place.scope)
    return f"{call.backend}, {where}" if where else call.backend


def _submitted(call: _Call, found: _Found, job_id: str) -> QuantumJob:
    return QuantumJob(
        kind=call.kind,
        backend=call.backend,
        job_id=job_id,
        digest=found.request.digest,
        folder=str(found.place.folder),
        work_dir=call.work_dir,
    )


# --- the task runs


class _Sampling:
    """What a call's task run does. Opaque to Prefect, which would look into every circuit."""

    def __init__(self, call: _Call, found: _Found, *, submit_only: bool) -> None:
        """With `submit_only` its job's id stands for the result; empty on a simulator."""
        self.block = call.backend
        self._call, self._found, self._submit_only = call, found, submit_only

    async def known(self, log: Any) -> Any:
        """What needs no job: what an earlier run left, or a simulator makes; else None."""
        from hpc_prefect.quantum.sampling import read_earlier, sample_once

        request, work = self._found.request, self._found.place.folder
        if request.backend.simulates:
            do = partial(sample_once, request, work, made_by=recorded_run(), log=log)
            result = await outcome_of(Simulation(do), RunLog(self.block, log), "cancel")
            return "" if self._submit_only and not isinstance(result, State) else result
        earlier = await asyncio.to_thread(read_earlier, request, work, log)
        if earlier is None or not self._submit_only:
            return earlier
        return await asyncio.to_thread(_known_id, work)

    def wanted(self) -> QuantumRequest:
        """The job to buy, or to attach to."""
        from hpc_prefect.quantum.purchase.call import to_buy

        found, only = self._found, self._submit_only
        on_cancel = self._call.on_cancel
        return to_buy(found.request, found.place, self.block, on_cancel, submit_only=only)


class _Fetching:
    """The same for a job that was submitted."""

    def __init__(self, job: QuantumJob, backend: Any, on_cancel: OnCancel) -> None:
        self.block = job.backend
        self._job, self._backend, self._on_cancel = job, backend, on_cancel

    async def known(self, log: Any) -> None:
        """Whoever fetches has looked already."""

    def wanted(self) -> QuantumRequest:
        """The job to attach to."""
        from hpc_prefect.quantum.purchase.call import to_attach

        flow = root_flow()
        run = "" if flow is None or flow.flow_run is None else str(flow.flow_run.id)
        claimant = this_process(run, flow_process())
        return to_attach(self._job, self._backend, claimant, self._on_cancel)


def _known_id(work: Path) -> str:
    """The id of the newest job that was bought for a work."""
    jobs = [*attempts(LocalTransport(), str(work))]
    return jobs[-1].ledger().job_id if jobs else ""


def _task(function: str, name: str) -> Task[[str, _Sampling | _Fetching], Coroutine[Any, Any, Any]]:
    """A task of this name. `function` stands in its key, by which `resume` counts runs.

    The record decides what is repeated, not Prefect's cache, which would also drop an intended
    second sampling.
    """

    async def once(backend: str, work: _Sampling | _Fetching) -> Any:
        if await run_is_cancelled():
            return cancelled_state()
        log = get_run_logger()
        if (known := await work.known(log)) is not None:
            return known
        from hpc_prefect.quantum.purchase.call import QuantumRun, outcome

        wanted, listener = work.wanted(), RunLog(work.block, log)
        handle = executor().start(replace(wanted, listener=listener), QuantumRun)
        return await outcome(handle, wanted, listener)

    once.__name__ = once.__qualname__ = function
    return task(name=name, task_run_name=f"{name} {{backend}}", **ONCE_ONLY)(once)


_sample, _estimate = _task("_sample", "sample"), _task("_estimate", "estimate")
_submit_task = _task("_submit_task", "submit")
_fetch_task = _task("_fetch_task", "fetch")
_TASKS = {"sampler": _sample, "estimator": _estimate}
