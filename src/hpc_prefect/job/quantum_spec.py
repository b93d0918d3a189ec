"""A quantum job as its intent describes it: plain values, from which any process can take it up."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from hpc_prefect.job.spec import Site


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantumSpec:
    """One job of a quantum service. It stands where a batch job has its `JobSpec`.

    Attributes:
        name: the name of its block.
        site: the service as `scheduler`, the device as `queue`.
        primitive: sampler or estimator.
        digest: of the work; see `quantum.sampling`.
        shots: in all, over all PUBs and their parameter values.
        estimated_seconds: its estimated cost in QPU seconds.
        allowed_seconds: QPU seconds that the experiment's budget had left; None without a limit.
        calibrated_at: when the device was calibrated last, if it tells that.
        transpiled: depth, size … of each circuit.
        on_cancel: `cancel` or `keep` the job when its run is cancelled.
        made_for: what the vendor's client needs to fetch the result, such as its interface.
    """

    name: str
    site: Site
    primitive: str = "sampler"
    digest: str = ""
    shots: int = 0
    estimated_seconds: float = 0.0
    allowed_seconds: float | None = None
    calibrated_at: str = ""
    transpiled: tuple[dict[str, Any], ...] = ()
    on_cancel: str = "cancel"
    made_for: dict[str, Any] = field(default_factory=dict)

    kind = "quantum"
    writes_output = False
    #: A service does not start a job a second time by itself.
    may_requeue = False
    #: It leaves no files in the work_dir.
    expected_outputs = ()
    #: It is no array.
    array = None

    @property
    def device(self) -> str:
        return self.site.queue

    @property
    def words(self) -> str:
        """What it asks for, for people."""
        price = f"about {self.estimated_seconds:g} QPU seconds" if self.estimated_seconds else ""
        asked = f"{self.shots} shots" if self.shots else ""
        return ", ".join(part for part in (self.primitive, asked, price) if part)

    def facts(self) -> dict[str, Any]:
        """Its values in lists of jobs that batch jobs do not have; JSON values."""
        return {
            "device": self.device,
            "interface": self.made_for.get("interface", ""),
            "shots": self.shots,
            "estimated_seconds": self.estimated_seconds,
        }

    def as_dict(self) -> dict[str, Any]:
        """JSON values only."""
        return {"kind": self.kind, **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> QuantumSpec:
        """The job that `as_dict` described; unknown keys of a later version are ignored.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: it is no job.
        """
        known = {each.name for each in dataclasses.fields(cls)}
        given = {name: value for name, value in values.items() if name in known}
        site = values["site"]
        place = Site(
            scheduler=str(site["scheduler"]),
            queue=str(site["queue"]),
            options=dict(site.get("options") or {}),
        )
        return cls(**given | {"site": place, "transpiled": tuple(given.get("transpiled") or ())})
