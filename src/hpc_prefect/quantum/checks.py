"""What is wrong with a PUB, found with Qiskit alone; a service would accept, queue and then fail
it.

Each problem is the end of a sentence that begins with `pub 3: `, and names the value and its place.
"""

from __future__ import annotations

import keyword
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from qiskit.circuit import QuantumCircuit
from qiskit.primitives import DataBin
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.primitives.containers.sampler_pub import SamplerPub

from hpc_prefect.quantum.options import suggestion


def pub_problems(pub: SamplerPub | EstimatorPub) -> list[str]:
    """All problems of a PUB that can be found without asking a service."""
    sampled = isinstance(pub, SamplerPub)
    found = [*circuit_problems(pub.circuit, sampled=sampled), *_parameters(pub)]
    if 0 in pub.parameter_values.shape:
        found.append(
            f"its sweep of parameter values is empty (shape {pub.parameter_values.shape}); give"
            " at least one set of values"
        )
    return found if isinstance(pub, SamplerPub) else [*found, *_observables(pub)]


def circuit_problems(circuit: QuantumCircuit, *, sampled: bool) -> Iterator[str]:
    """The problems of a circuit alone; one that is sampled needs registers for its bits."""
    if circuit.num_qubits == 0:
        yield "the circuit has no qubits"
    for variable in circuit.iter_input_vars():
        yield (
            f"the circuit wants a value for its input {variable.name!r}, which no PUB can give;"
            " declare it with add_var and a value"
        )
    yield from _numbers(circuit, "")
    if sampled:
        yield from _registers(circuit)


def _numbers(circuit: QuantumCircuit, inside: str) -> Iterator[str]:
    """Numbers in a circuit that are nan or inf."""
    if _is_wrong(circuit.global_phase):
        yield f"the circuit's global phase{inside} is {circuit.global_phase}"
    for number, step in enumerate(circuit.data):
        operation = step.operation
        where = f"operation {number} ({operation.name!r}){inside}"
        for value in getattr(operation, "params", ()):
            if isinstance(value, QuantumCircuit):
                yield from _numbers(value, f" in {where}")
            elif _is_wrong(value):
                what = "an array that holds nan or inf" if hasattr(value, "shape") else value
                yield f"{where} has the parameter {what}"


def _is_wrong(value: object) -> bool:
    if isinstance(value, int | float | complex | np.ndarray | np.number):
        array = np.asarray(value)
        return array.dtype.kind in "fc" and not bool(np.isfinite(array).all())
    return False


def _parameters(pub: SamplerPub | EstimatorPub) -> Iterator[str]:
    wanted = {parameter.name for parameter in pub.circuit.parameters}
    given = [name for names in pub.parameter_values.data for name in names]
    for name in sorted(wanted - {*given}):
        yield f"the circuit's parameter {name!r} has no value"
    for name in sorted({*given} - wanted):
        yield f"the circuit has no parameter {name!r}{suggestion(name, wanted)}"
    for name in sorted({name for name in given if given.count(name) > 1}):
        yield f"the parameter {name!r} has values twice"
    for names, values in pub.parameter_values.data.items():
        array = np.asarray(values, dtype=float)
        for i, name in enumerate(names):
            bad = np.argwhere(~np.isfinite(array[..., i]))
            if len(bad):
                at = tuple(int(k) for k in bad[0])
                where = f" at point {at}" if at else ""
                more = f" ({len(bad)} such values in all)" if len(bad) > 1 else ""
                yield f"the parameter {name!r} is {array[(*at, i)]}{where}{more}"


def _registers(circuit: QuantumCircuit) -> Iterator[str]:
    """Classical registers whose names cannot be fields of a result, or that hold nothing."""
    if not circuit.cregs:
        yield "the circuit measures nothing; add measurements"
    for register in circuit.cregs:
        name = register.name
        if register.size == 0:
            yield f"the classical register {name!r} has no bits; remove it"
        if not name.isidentifier():
            yield (
                f"the classical register {name!r} cannot be a field of the result; use letters,"
                " digits and _"
            )
        elif keyword.iskeyword(name) or _is_taken(name):
            yield f"the classical register {name!r} has a name that is taken; choose another"


def _is_taken(name: str) -> bool:
    """Whether Qiskit's container of results uses this name for something else."""
    return hasattr(DataBin, name) or name in ("shape", "self")


def _observables(pub: EstimatorPub) -> Iterator[str]:
    if 0 in np.shape(pub.observables):
        yield "it has no observables (an empty list); give at least one"
    if pub.precision is not None and not np.isfinite(pub.precision):
        yield f"its precision is {pub.precision}"
    for at, observable in _each(pub):
        for term, weight in observable.items():
            if not np.isfinite(weight):
                yield f"the observable{at} has the weight {weight} at {term!r}"


def _each(pub: EstimatorPub) -> Iterator[tuple[str, Any]]:
    array = np.asarray(pub.observables)
    for index in np.ndindex(array.shape):
        yield (f" {index}" if index else ""), array[index]


def device_problems(
    pubs: Mapping[int, SamplerPub | EstimatorPub], device: Any, most_shots: int | None = None
) -> list[str]:
    """What the device cannot run: PUBs with too many qubits or too many shots.

    Args:
        pubs: by their number.
        device: anything with `name` and `num_qubits`.
        most_shots: of one circuit; None if there is no such limit.
    """
    found = []
    for number, pub in pubs.items():
        qubits, shots = pub.circuit.num_qubits, getattr(pub, "shots", None)
        if device.num_qubits is not None and qubits > device.num_qubits:
            found.append(
                f"pub {number}: it needs {qubits} qubits, and {device.name} has {device.num_qubits}"
            )
        if shots is not None and most_shots is not None and shots > most_shots:
            found.append(
                f"pub {number}: it asks for {shots} shots, and {device.name} takes at most"
                f" {most_shots} at a time; make several calls"
            )
    return found
