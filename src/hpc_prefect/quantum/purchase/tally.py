"""The total cost of a flow run's quantum jobs, logged when the run ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefect.logging.loggers import flow_run_logger

from hpc_prefect.flow_runs.hooks import hook_once
from hpc_prefect.flow_runs.recording import note_on_page
from hpc_prefect.job.result import JobResult
from hpc_prefect.quantum.purchase.budget import Budget


@dataclass
class Tally:
    """The jobs of one flow run that have ended.

    Attributes:
        seconds: QPU seconds by job, from the service, or else the estimate.
        estimated: the jobs for which the service gave no figure.
        campaigns: folders of their experiments.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    estimated: set[str] = field(default_factory=set)
    campaigns: set[Path] = field(default_factory=set)

    def count(self, result: JobResult, campaign: Path) -> None:
        """Count a job that has ended; one that was counted already counts once."""
        used = result.resources_used
        actual = used.get("qpu_seconds")
        self.seconds[result.job_id] = used["estimated_qpu_seconds"] if actual is None else actual
        self.estimated.discard(result.job_id)
        if actual is None:
            self.estimated.add(result.job_id)
        self.campaigns.add(campaign)

    def words(self) -> str:
        """The total in one sentence."""
        jobs = "1 job" if len(self.seconds) == 1 else f"{len(self.seconds)} jobs"
        some = f", {len(self.estimated)} of them estimated" if self.estimated else ""
        experiment = sum(Budget(campaign).total() for campaign in self.campaigns)
        return (
            f"{_number(sum(self.seconds.values()))} QPU seconds in {jobs}{some};"
            f" {_number(experiment)} in the experiment, all of its runs together"
        )


def _number(seconds: float) -> str:
    return f"{seconds:,.1f}"


_tallies: dict[str, Tally] = {}


def count(root: Any, result: JobResult, campaign: Path) -> None:
    """Count an ended job for the flow run around its call, which logs the total at its end.

    Args:
        root: the context of that flow run; None outside of any.
    """
    if root is None or root.flow is None or root.flow_run is None:
        return
    _tallies.setdefault(str(root.flow_run.id), Tally()).count(result, campaign)
    hook_once(root.flow, _log_total, "completion", "failure", "cancellation", "crashed")


def _log_total(flow: Any, flow_run: Any, state: object) -> None:
    tally = _tallies.pop(str(flow_run.id), None)
    if tally is None:
        return
    words = tally.words()
    flow_run_logger(flow_run, flow).info("this run has used %s", words)
    note_on_page(str(flow_run.id), "quantum", f"This run has used {words}.")
