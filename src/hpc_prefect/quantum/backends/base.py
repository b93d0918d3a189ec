"""What a sampling backend is.

A backend answers here and now: `run` returns when the samples are there. One that hands the work
to a service implements the same protocol and two more methods, `submit(pubs, options, tag)` → job
id and `fetch(job_id)` → `Sampled`; the caller writes the id into the sampling's record between the
two. Nothing in the record, the digest or the call has to change for it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from qiskit.primitives import PrimitiveResult
    from qiskit.primitives.containers.sampler_pub import SamplerPub

    from hpc_prefect.quantum.options import SamplerOptions


@dataclass(frozen=True)
class Sampled:
    """A result, and what is worth recording about how it was made (JSON values)."""

    result: PrimitiveResult
    facts: Mapping[str, Any] = field(default_factory=dict)


class SamplingBackend(Protocol):
    """Something that samples circuits."""

    @property
    def name(self) -> str:
        """What a person calls it: `simulator aer`."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """All of its own settings that can change the samples; part of the work's digest."""

    @property
    def honours(self) -> Collection[str]:
        """The options it uses besides `shots`; any other one is refused, none is dropped.

        A backend that honours `seed` is a simulator, and gets one.
        """

    @property
    def packages(self) -> Sequence[str]:
        """The distributions whose versions belong into the record, besides Qiskit and NumPy."""

    def run(self, pubs: Sequence[SamplerPub], options: SamplerOptions) -> Sampled:
        """Sample. Blocks; called in a thread. Every PUB brings its own shots."""
