"""Buying one job, waiting for it, keeping its result: the pieces in their order."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from hpc_prefect.errors import InvalidJob, LedgerError
from hpc_prefect.executor.service import executor
from hpc_prefect.ledger.quantum_journal import QuantumAttempt
from hpc_prefect.quantum.purchase import cancel, post, wait
from hpc_prefect.quantum.purchase.errand import Errand, Purchase, Transpiled, claimed
from hpc_prefect.quantum.purchase.show import Page
from hpc_prefect.quantum.service import Look

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from qiskit.primitives import PrimitiveResult

    from hpc_prefect.quantum.sampling import Request


@asynccontextmanager
async def _held(errand: Errand) -> AsyncIterator[Any]:
    """The claim on the folder, and what is to be done when the call is cancelled inside."""
    claim = await asyncio.to_thread(claimed, errand)
    try:
        yield claim
    except asyncio.CancelledError:
        await cancel.interrupted(errand)
        raise
    finally:
        executor().release(claim)


async def submit(purchase: Purchase) -> QuantumAttempt:
    """Buy the job, or find the one that was bought."""
    async with _held(purchase) as claim:
        await cancel.finish(purchase)
        return await post.bought(purchase, claim)


async def carry_out(purchase: Purchase) -> PrimitiveResult:
    """Buy the job, or find the one that was bought; wait for it; keep its result."""
    async with _held(purchase) as claim:
        await cancel.finish(purchase)
        return await _collected(purchase, await post.bought(purchase, claim))


async def collect(errand: Errand) -> PrimitiveResult:
    """Wait for a job that was bought, in this process or another; keep its result.

    Raises:
        LedgerError: none was bought.
    """
    async with _held(errand):
        attempt = await asyncio.to_thread(errand.journal.last)
        if attempt is None or not attempt.job_id:
            raise LedgerError(f"{errand.journal.path} knows of no job; submit it again")
        return await _collected(errand, attempt)


async def _collected(errand: Errand, attempt: QuantumAttempt) -> PrimitiveResult:
    page = Page(errand, attempt)
    try:
        look = await wait.ended(errand, attempt, page.seen)
    except Exception as error:
        page.failed(error)
        raise
    result = await wait.result_of(errand, attempt)
    kept = await asyncio.to_thread(_keep, errand, attempt, look, result)
    await wait.note_done(errand, attempt, look)
    page.done(look, kept)
    return kept


def _keep(errand: Errand, attempt: QuantumAttempt, look: Look, result: Any) -> PrimitiveResult:
    from hpc_prefect.quantum.result_file import read_asked
    from hpc_prefect.quantum.sampling import iso_time, keep

    actual = look.facts.get("qpu_seconds") is not None
    facts = read_asked(errand.folder, errand.kind) | {
        "digest": errand.digest,
        "asked_at": iso_time(attempt.intended_at),
        "job": {
            "id": attempt.job_id,
            "tag": attempt.tag,
            "attempt": attempt.number,
            **{name: attempt.intent.get(name) for name in _TOLD},
            **look.facts,
            "qpu_seconds_are": "actual" if actual else "estimated",
        },
    }
    return keep(errand, facts, result)


#: What the record repeats of the intent.
_TOLD = ("device", "interface", "calibrated_at", "transpiled", "campaign", "scope", "n")


async def transpile(request: Request, device: Any) -> Transpiled:
    """A request's PUBs in the device's own gates, each circuit by a cached Prefect task.

    Raises:
        InvalidJob: some cannot be transpiled.
    """
    from qiskit.exceptions import QiskitError

    from hpc_prefect.quantum.transpilation import transpilation, transpiled

    settings = {
        **request.backend.transpilation,
        "optimization_level": request.options.optimization_level,
        "seed_transpiler": request.backend.layout_seed(request.options),
    }
    as_it_is = bool(getattr(device, "simulator", False))  # a simulator of the service's
    calibrated_at = request.backend.service.calibrated_at
    calibrated = "" if as_it_is else await asyncio.to_thread(calibrated_at, device)
    done: dict[str, Any] = {}
    pubs, facts, problems = [], [], []
    for number, pub in enumerate(request.pubs):
        circuit = pub.circuit
        if not as_it_is:
            work = await asyncio.to_thread(transpilation, circuit, device, calibrated, settings)
            try:
                if work.key not in done:
                    done[work.key] = await transpiled(work)
            except QiskitError as error:
                problems.append(
                    f"pub {number}: it cannot be transpiled for {device.name}: {error.message}"
                )
                continue
            circuit = done[work.key]
        pubs.append(_native(request.kind, pub, circuit))
        facts.append(
            {
                "depth": circuit.depth(),
                "size": circuit.size(),
                "two_qubit_gates": circuit.num_nonlocal_gates(),
                "optimization_level": settings["optimization_level"],
                "seed_transpiler": settings["seed_transpiler"],
            }
        )
    if problems:
        raise InvalidJob(f"the job for {device.name}", problems)
    return Transpiled(pubs, facts)


def _native(kind: str, pub: Any, circuit: Any) -> Any:
    from qiskit.primitives.containers.estimator_pub import EstimatorPub
    from qiskit.primitives.containers.sampler_pub import SamplerPub

    if kind == "sampler":
        return SamplerPub(circuit, pub.parameter_values, pub.shots)
    observables = pub.observables.apply_layout(circuit.layout, circuit.num_qubits)
    return EstimatorPub(circuit, observables, pub.parameter_values, pub.precision)
