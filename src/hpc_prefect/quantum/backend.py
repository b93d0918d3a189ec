"""What a backend is.

A backend of this process computes the result itself: `run` and `estimate` return it. Others hand
the work to a service: see `hpc_prefect.quantum.service`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from qiskit.primitives import PrimitiveResult
    from qiskit.primitives.containers.estimator_pub import EstimatorPub
    from qiskit.primitives.containers.sampler_pub import SamplerPub

    from hpc_prefect.quantum.options import EstimatorOptions, PrimitiveOptions, SamplerOptions


@dataclass(frozen=True)
class Sampled:
    """A result, and what is worth recording about how it was made (JSON values)."""

    result: PrimitiveResult
    facts: Mapping[str, Any] = field(default_factory=dict)


class Backend(Protocol):
    """Something that takes PUBs."""

    @property
    def name(self) -> str:
        """Its name in messages, such as `simulator aer`."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """All of its own settings that can change the samples; part of the work's digest."""

    @property
    def honours(self) -> Collection[str]:
        """The options it uses besides `shots` and `precision`; others are refused, not dropped."""

    @property
    def packages(self) -> Sequence[str]:
        """The distributions whose versions belong in the record, besides Qiskit and NumPy."""

    @property
    def simulates(self) -> bool:
        """Whether it is a simulator, which needs a seed."""

    def layout_seed(self, options: PrimitiveOptions) -> int | None:
        """The transpiler's seed; None if nothing is transpiled."""


class SamplingBackend(Backend, Protocol):
    """Something that samples circuits in this process."""

    def run(self, pubs: Sequence[SamplerPub], options: SamplerOptions) -> Sampled:
        """Sample. Blocks; called in a thread. Every PUB has its shots set."""


class EstimatingBackend(Backend, Protocol):
    """Something that estimates expectation values in this process."""

    def estimate(self, pubs: Sequence[EstimatorPub], options: EstimatorOptions) -> Sampled:
        """Estimate. Blocks; called in a thread. Every PUB has its precision set."""


class Simulating:
    """The base of the backends of this process."""

    simulates = True

    def layout_seed(self, options: PrimitiveOptions) -> int | None:
        return options.layout_seed
