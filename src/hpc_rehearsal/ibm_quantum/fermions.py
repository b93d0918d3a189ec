"""Sampling large LUCJ circuits: ffsim keeps only the states with the right number of particles.

ffsim recognizes its own gates by their classes, which a serialized circuit has lost. It also knows
some of Qiskit's gates, and its own decompose to these; so a circuit can be rebuilt if it was posted
as it was written. A circuit that was transpiled for a device (sx, cz, rz) cannot.
"""

from __future__ import annotations

from typing import Any

#: Qiskit's gates that ffsim applies (0.0.60 and later, `FfsimSampler`), besides the first x.
CONSERVING = frozenset(
    ("x", "cp", "cz", "global_phase", "iswap", "p", "rz", "rzz", "s", "sdg", "swap", "t", "tdg")
) | {"xx_plus_yy", "z"}
_BESIDE = frozenset({"barrier", "measure"})


class NotRebuilt(Exception):
    """The circuit has a gate that does not conserve the number of particles."""


def sample(pubs: list[Any], seed: int | None) -> Any:
    """Sample the PUBs exactly, one after the other; the result is a `PrimitiveResult`."""
    import numpy as np
    from ffsim.qiskit import FfsimSampler
    from qiskit.primitives import PrimitiveResult
    from qiskit.primitives.containers.sampler_pub import SamplerPub

    random = np.random.default_rng(seed)
    results = []
    for pub in pubs:
        circuit = rebuilt(pub.circuit)
        norb, nelec = _occupied(circuit)
        sampler = FfsimSampler(norb=norb, nelec=nelec, seed=random)
        native = SamplerPub(circuit, pub.parameter_values, pub.shots)
        results.append(sampler.run([native]).result()[0])
    return PrimitiveResult(results, metadata={"version": 2})


def rebuilt(circuit: Any) -> Any:
    """The same circuit in gates that ffsim knows.

    Raises:
        NotRebuilt: it has other gates, which have no definition in such gates.
    """
    from qiskit.circuit.library import get_standard_gate_name_mapping

    standard = get_standard_gate_name_mapping()
    while foreign := set(circuit.count_ops()) - CONSERVING - _BESIDE:
        basic = sorted(foreign & set(standard))
        if basic:
            raise NotRebuilt(
                f"the gate {basic[0]!r} does not conserve the number of particles: this backend"
                " samples LUCJ circuits as they were written, not transpiled for a device"
            )
        before = circuit.count_ops()
        circuit = circuit.decompose(gates_to_decompose=sorted(foreign))
        if circuit.count_ops() == before:
            raise NotRebuilt(f"the operation {sorted(foreign)[0]!r} has no definition")
    return circuit


def _occupied(circuit: Any) -> tuple[int, tuple[int, int]]:
    """The numbers of orbitals and of particles of each spin: x as first gate occupies a qubit."""
    norb = circuit.num_qubits // 2
    seen: set[int] = set()
    counts = [0, 0]
    for instruction in circuit.data:
        if instruction.operation.name in _BESIDE:
            continue
        for qubit in instruction.qubits:
            index = circuit.find_bit(qubit).index
            if index not in seen and instruction.operation.name == "x":
                counts[index >= norb] += 1
            seen.add(index)
    return norb, (counts[0], counts[1])
