"""A request's circuits in the gates of its device."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hpc_prefect.errors import InvalidJob

if TYPE_CHECKING:
    from hpc_prefect.quantum.sampling import Request


@dataclass(frozen=True)
class Transpiled:
    """PUBs that the device can run, and facts about them for the record (JSON values)."""

    pubs: Sequence[Any]
    facts: Sequence[dict[str, Any]]


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
