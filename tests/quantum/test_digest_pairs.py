"""10,000 pairs of samplings and estimations: equal digests exactly when the work is equal.

A seed of its own for each pair, so that a failing one can be made again by its number.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import numpy as np
from qiskit.circuit import ClassicalRegister, Parameter, QuantumCircuit, QuantumRegister
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.primitives.containers.sampler_pub import SamplerPub
from qiskit.quantum_info import Pauli, SparsePauliOp
from test_digest import Dress, Work, meaning
from test_digest import pub as sampler_pub

from hpc_prefect.quantum.circuit_digest import pub_digest

PAIRS = 10_000
LABELS = ("ZZ", "XI", "YX")


def angle(rng: random.Random) -> float:
    return rng.randint(-16, 16) / 8


def work(rng: random.Random) -> Work:
    kinds = [rng.choice(["rx", "rz", "half", "sum"]) for _ in range(rng.randint(0, 3))]
    gates = tuple((kind, rng.randint(0, 1), (angle(rng), angle(rng))) for kind in kinds)
    return Work(gates, 2, rng.choice([1, 2, 1000]), rng.choice(["c", "meas"]))


def dress(rng: random.Random) -> Dress:
    return Dress(
        names=rng.choice("ab"),
        dtype=rng.choice(["float32", "float64"]),
        values_as=rng.choice(["array", "list", "mapping", "reversed mapping"]),
        shots_as=rng.choice([int, np.int64]),
        literal=rng.random() < 0.5,
        metadata=rng.random() < 0.5,
    )


def changed(rng: random.Random, one: Work) -> Work:
    """The same work, or one that differs in one thing, or quite another one."""
    how = rng.choice(["nothing", "nothing", "angle", "spelling", "shots", "register", "all"])
    if how == "all":
        return work(rng)
    if how == "shots":
        return replace(one, shots=rng.choice([1, 2, 1000]))
    if how == "register":
        return replace(one, register=rng.choice(["c", "meas"]))
    if how in ("angle", "spelling") and one.gates:
        (kind, qubit, angles), *rest = one.gates
        if how == "angle":
            angles = (angles[0], angle(rng))
        elif kind == "rz":
            kind = rng.choice(["half", "sum"])
        return replace(one, gates=((kind, qubit, angles), *rest))
    return one


def sampling(rng: random.Random, one: Work) -> str:
    return pub_digest(SamplerPub.coerce(sampler_pub(one, dress(rng))))


# --- estimations: one angle for each of two points, two observables, a precision

BackendTerms = tuple[tuple[str, float], ...]
Estimation = tuple[tuple[float, ...], tuple[BackendTerms, ...], float]


def terms(rng: random.Random) -> BackendTerms:
    first, second = rng.sample(LABELS, 2)
    return (first, rng.choice([-0.5, 0.25, 0.5])), (second, rng.randint(-2, 2) / 4)


def estimation(rng: random.Random) -> Estimation:
    return (angle(rng), angle(rng)), (terms(rng), terms(rng)), rng.choice([0.25, 0.125])


def changed_estimation(rng: random.Random, one: Estimation) -> Estimation:
    angles, observables, precision = one
    how = rng.choice(["nothing", "nothing", "angle", "term", "order", "precision", "all"])
    if how == "angle":
        angles = (angles[0], angle(rng))
    elif how == "term":
        observables = (observables[0], (observables[1][0], (observables[1][1][0], 0.25)))
    elif how == "order":
        observables = (observables[0][::-1], observables[1])
    elif how == "precision":
        precision = rng.choice([0.25, 0.125])
    elif how == "all":
        return estimation(rng)
    return angles, observables, precision


def estimated(rng: random.Random, one: Estimation) -> str:
    """The digest of the estimation, written in one of many ways."""
    angles, observables, precision = one
    theta = Parameter(rng.choice("ab"))
    circuit = QuantumCircuit(QuantumRegister(2, rng.choice("qr")), name=rng.choice("xy"))
    circuit.rx(theta, 0)
    circuit.cx(0, 1)
    written = [observable(rng, each) for each in observables]
    values = np.array([[each] for each in angles], dtype=rng.choice(["f4", "f8"]))
    if rng.random() < 0.5:  # written out, where the other is broadcast
        values = np.broadcast_to(values[None, :, :], (2, 2, 1))
        column = [[each, each] for each in written]
    else:
        column = [[each] for each in written]
    return pub_digest(EstimatorPub.coerce((circuit, column, values, np.float64(precision))))


def observable(rng: random.Random, one: BackendTerms):
    if rng.random() < 0.5:
        return dict(rng.sample(one, len(one)))
    if rng.random() < 0.5:
        return {Pauli(label): weight for label, weight in one}
    return SparsePauliOp([label for label, _ in one], [weight for _, weight in one])


def estimation_meaning(one: Estimation):
    angles, observables, precision = one
    return angles, [{k: v for k, v in each if v} for each in observables], precision


def test_ten_thousand_pairs_have_equal_digests_exactly_when_the_work_is_equal():
    seen: Counter[tuple[str, bool]] = Counter()
    for number in range(PAIRS):
        rng = random.Random(number)
        if number % 2:
            one = work(rng)
            other = changed(rng, one)
            same = meaning(one) == meaning(other)
            digests = sampling(rng, one), sampling(rng, other)
        else:
            asked = estimation(rng)
            again = changed_estimation(rng, asked)
            same = estimation_meaning(asked) == estimation_meaning(again)
            digests = estimated(rng, asked), estimated(rng, again)
        assert (digests[0] == digests[1]) == same, f"pair {number}"
        seen["sampling" if number % 2 else "estimation", same] += 1

    assert sum(seen.values()) == PAIRS
    assert min(seen.values()) > PAIRS / 10  # neither is there by chance alone


def test_a_cached_transpilation_is_that_of_a_circuit_that_is_equal_but_for_its_values():
    from hpc_prefect.quantum.circuit_digest import structure_digest

    def turned(build, name="t", register="c"):
        theta = Parameter(name)
        circuit = QuantumCircuit(QuantumRegister(1, "q"), ClassicalRegister(1, register))
        circuit.rx(build(theta), 0)
        circuit.measure(0, 0)
        return structure_digest(circuit)

    assert turned(lambda t: 2 * t) == turned(lambda t: t + t)
    others = {
        turned(lambda t: t),
        turned(lambda t: 2 * t),
        turned(lambda t: t + 1),
        turned(lambda t: 0.5),
        turned(lambda t: t, name="u"),
        turned(lambda t: t, register="d"),
    }
    assert len(others) == 6
