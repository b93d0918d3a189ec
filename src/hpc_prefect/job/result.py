"""What one call returns."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from hpc_prefect.job import notebook
from hpc_prefect.job.failure import Reason, Verdict

#: Reasons of an end that somebody asked for.
_WISHED = (Reason.CANCELLED, Reason.CANCELLED_ELSEWHERE, Reason.TIMED_OUT)


def state_of(reason: Reason) -> str:
    """How a job that ended for this reason stands: `succeeded`, `failed`, `cancelled`, `lost`."""
    if reason is Reason.SUCCEEDED:
        return "succeeded"
    if reason is Reason.LOST:
        return "lost"
    return "cancelled" if reason in _WISHED else "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobResult:
    """What one call returns, the same for every scheduler.

    Attributes:
        job_id: the scheduler's id; empty when the submission was refused.
        name, tag: what a person calls it, and its name in the scheduler.
        state: `succeeded`, `failed`, `cancelled` or `lost`.
        attempt: 1 for the first submission of this job, one more for each after a failure.
        queue_seconds, run_seconds: time in the queue and on the nodes; None when not known.
        resources_used: what the scheduler told, such as `max_rss` (bytes) and `cpu_seconds`.
        collected: the result is that of an earlier run of the same experiment.
        num_nodes: nodes that it had; 0 in results that an older version wrote.
    """

    job_id: str
    name: str
    tag: str
    key: str
    attempt: int
    verdict: Verdict
    folder: str
    script_path: str
    stdout_path: str
    stderr_path: str
    host: str = ""
    queue_seconds: float | None = None
    run_seconds: float | None = None
    resources_used: dict[str, float] = field(default_factory=dict)
    collected: bool = False
    num_nodes: int = 0

    @property
    def node_hours(self) -> float | None:
        """Nodes × hours of running; None when not known."""
        known = self.num_nodes and self.run_seconds is not None
        return self.num_nodes * (self.run_seconds or 0.0) / 3600 if known else None

    @property
    def state(self) -> str:
        return state_of(self.verdict.reason)

    @property
    def succeeded(self) -> bool:
        return self.verdict.succeeded

    @property
    def exit_code(self) -> int | None:
        return self.verdict.exit_code

    @property
    def signal(self) -> str:
        return self.verdict.signal

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        verdict = self.verdict
        rows: list[tuple[str, object]] = []
        if not verdict.succeeded:
            rows += [("reason", f"{verdict.reason}: {verdict.summary}")]
            rows += [("what to do", verdict.remedy), ("stderr", self.stderr_path)]
        rows += [
            ("seconds in the queue", notebook.number(self.queue_seconds)),
            ("seconds of running", notebook.number(self.run_seconds)),
            ("node-hours", notebook.number(self.node_hours)),
            ("stdout", self.stdout_path),
            ("everything about it", self.folder),
        ]
        more = (self.job_id, self.host, f"attempt {self.attempt}" if self.attempt > 1 else "")
        told = "result of an earlier run" if self.collected else ""
        return notebook.heading(self.name, self.state, (*more, told)) + notebook.facts(rows)

    def as_dict(self) -> dict[str, Any]:
        """JSON values only, for the journal and the run record."""
        values = {name: getattr(self, name) for name in _FIELDS}
        verdict = {name: getattr(self.verdict, name) for name in _OF_VERDICT}
        used = {"resources_used": dict(self.resources_used)}
        return values | used | {"verdict": verdict, "state": self.state}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> JobResult:
        """The result that `as_dict` described; unknown keys of a later version are ignored.

        Raises:
            KeyError, TypeError, ValueError: it is no result.
        """
        given = values["verdict"]
        verdict = Verdict(
            reason=Reason(given["reason"]),
            summary=str(given["summary"]),
            said=str(given.get("said", "")),
            exit_code=given.get("exit_code"),
            signal=str(given.get("signal", "")),
        )
        return cls(**({k: v for k, v in values.items() if k in _FIELDS} | {"verdict": verdict}))


_FIELDS = tuple(field.name for field in dataclasses.fields(JobResult))
_OF_VERDICT = tuple(field.name for field in dataclasses.fields(Verdict))
