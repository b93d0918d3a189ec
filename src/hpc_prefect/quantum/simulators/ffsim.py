"""ffsim, which keeps only the states with the right number of particles.

It samples circuits of its own gates (LUCJ, for one) exactly and reaches sizes that a state vector
over all bitstrings does not.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hpc_prefect.quantum.backend import Sampled, Simulating

if TYPE_CHECKING:
    from qiskit.primitives.containers.sampler_pub import SamplerPub

    from hpc_prefect.quantum.options import SamplerOptions


class FfsimBackend(Simulating):
    """For the circuits it takes see `ffsim.qiskit.FfsimSampler`."""

    @property
    def name(self) -> str:
        return "simulator ffsim"

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"kind": "simulator", "name": "ffsim"}

    @property
    def honours(self) -> Collection[str]:
        return ("seed", "depolarizing")

    @property
    def packages(self) -> Sequence[str]:
        return ("ffsim",)

    def run(self, pubs: Sequence[SamplerPub], options: SamplerOptions) -> Sampled:
        from ffsim.qiskit import FfsimSampler

        sampler = FfsimSampler(seed=options.seed, global_depolarizing=options.depolarizing)
        return Sampled(sampler.run(pubs).result())
