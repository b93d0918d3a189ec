"""From a backend's own result to the result of a sampler.

The bits of a shot come as one text, `0x…` or binary digits with a space between registers; the
last character is the first classical bit (Qiskit's order, `qiskit.result.Result`). A backend
without a memory of its shots gives only the count of each text; then the order of shots is lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from qiskit.primitives import BitArray, DataBin, PrimitiveResult, SamplerPubResult


def layout_of(pubs: Sequence[Any]) -> list[dict[str, Any]]:
    """The layout of a job's experiments, as JSON values for the journal.

    For each PUB: its shape, its shots, and each register with its first bit and its size. The
    experiments are the points of all PUBs, one PUB after another.
    """
    return [
        {
            "shape": list(pub.shape),
            "shots": int(pub.shots),
            "registers": [
                [each.name, pub.circuit.find_bit(each[0]).index, each.size]
                for each in pub.circuit.cregs
            ],
        }
        for pub in pubs
    ]


def bound(pubs: Sequence[Any]) -> list[Any]:
    """The circuits of a job: each PUB's at each of its points."""
    return [
        circuit
        for pub in pubs
        for circuit in np.ravel(pub.parameter_values.bind_all(pub.circuit)).tolist()
    ]


def sampled(result: Any, layout: Sequence[Mapping[str, Any]]) -> PrimitiveResult:
    """The result of a job as Qiskit's sampler gives it.

    Args:
        result: the vendor's, `qiskit.result.Result` or the like.
        layout: of `layout_of`.

    Raises:
        ValueError: the result is incomplete; the message says what is missing.
    """
    start, pubs = 0, []
    for pub in layout:
        shape = tuple(pub["shape"])
        size = int(np.prod(shape, dtype=int))
        shots = [_shots(result, start + i, pub["shots"]) for i in range(size)]
        start += size
        data = {
            name: BitArray(_packed(shots, first, bits).reshape(*shape, pub["shots"], -1), bits)
            for name, first, bits in pub["registers"]
        }
        pubs.append(SamplerPubResult(DataBin(**data, shape=shape), {"shots": pub["shots"]}))
    return PrimitiveResult(pubs, metadata={"version": 2})


def _shots(result: Any, experiment: int, wanted: int) -> list[int]:
    """The bits of each shot as a number."""
    found = getattr(result.results[experiment].data, "memory", None)
    if found:
        values = [_number(text) for text in found]
    else:
        counts: Mapping[str, int] = result.get_counts(experiment)
        values = [_number(text) for text, count in counts.items() for _ in range(int(count))]
    if len(values) != wanted:
        raise ValueError(
            f"experiment {experiment} has {len(values)} shots, and {wanted} were asked for"
        )
    return values


def _number(text: str) -> int:
    return int(text, 16) if text.startswith("0x") else int(text.replace(" ", ""), 2)


def _packed(experiments: Sequence[Sequence[int]], first: int, bits: int) -> np.ndarray:
    """The bits of one register in bytes, big-endian, as `BitArray` has them."""
    count, mask = -(-bits // 8), (1 << bits) - 1
    data = b"".join(
        ((value >> first) & mask).to_bytes(count, "big") for shots in experiments for value in shots
    )
    return np.frombuffer(data, dtype=np.uint8)
