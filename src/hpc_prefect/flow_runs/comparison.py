"""A comparison of runs as an artifact of the flow that makes it."""

from __future__ import annotations

from hpc_prefect.flow_runs.artifacts import Content, LiveArtifact, home_of_place
from hpc_prefect.job.identity import slug
from hpc_prefect.records.compare import Comparison


def show(comparison: Comparison) -> None:
    """Show it as an artifact of the run around, if there is one. Never raises, never waits."""
    first = comparison.records[0]
    artifact = LiveArtifact(f"compare-{slug(first.flow)}", home_of_place())
    about = f"{len(comparison.records)} runs compared: {', '.join(comparison.names)}"
    artifact.show(lambda: Content(comparison.markdown(), about[:500]))
