"""Uniformly random bits: a baseline for results, and the fake backend of tests.

Needs no simulator, takes circuits of any size and does not look at their gates.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hpc_prefect.quantum.backend import Sampled, Simulating

if TYPE_CHECKING:
    import numpy as np
    from qiskit.primitives import BitArray
    from qiskit.primitives.containers.sampler_pub import SamplerPub

    from hpc_prefect.quantum.options import SamplerOptions


class UniformBackend(Simulating):
    """Every classical bit of every shot is 0 or 1 with the same chance.

    Attributes:
        runs: how often this object has sampled.
    """

    def __init__(self) -> None:
        self.runs = 0

    @property
    def name(self) -> str:
        return "simulator uniform"

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"kind": "simulator", "name": "uniform"}

    @property
    def honours(self) -> Collection[str]:
        return ("seed",)

    @property
    def packages(self) -> Sequence[str]:
        return ()

    def run(self, pubs: Sequence[SamplerPub], options: SamplerOptions) -> Sampled:
        import numpy as np
        from qiskit.primitives import DataBin, PrimitiveResult, SamplerPubResult

        self.runs += 1
        generator = np.random.default_rng(options.seed)
        results = []
        for pub in pubs:
            shape = (*pub.shape, pub.shots)
            fields = {
                register.name: _random_bits(generator, shape, register.size)
                for register in pub.circuit.cregs
            }
            data = DataBin(**fields, shape=pub.shape)
            results.append(SamplerPubResult(data, metadata={"shots": pub.shots}))
        return Sampled(PrimitiveResult(results))


def _random_bits(generator: np.random.Generator, shape: tuple[int, ...], bits: int) -> BitArray:
    import numpy as np
    from qiskit.primitives import BitArray

    packed = generator.integers(0, 256, (*shape, -(-bits // 8)), dtype=np.uint8)
    if bits % 8:
        packed[..., 0] &= (1 << bits % 8) - 1  # the first byte holds the odd bits
    return BitArray(packed, bits)
