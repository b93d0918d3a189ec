"""The artifact of a flow run: its record on one page, updated while it runs.

Its key is made of the flow, not of the run: so Prefect's list has one artifact for a flow, whose
versions are the runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect.context import FlowRunContext

from hpc_prefect.flow_runs.artifacts import Content, LiveArtifact, home_of_run
from hpc_prefect.job.identity import slug
from hpc_prefect.records.page import Jobs, page, summary
from hpc_prefect.records.write.writer import RunWriter


class RunPage:
    """Follows the record of one flow run, and shows it."""

    def __init__(self, writer: RunWriter, artifact: LiveArtifact) -> None:
        self._writer, self._artifact = writer, artifact
        self._jobs = Jobs()
        self._notes: dict[str, str] = {}
        writer.follow(self)

    @classmethod
    def of(cls, writer: RunWriter, root: FlowRunContext | None) -> RunPage | None:
        """The page of the run around this call; None if artifacts are off."""
        home = home_of_run()
        if home is None or root is None or root.flow is None:
            return None
        key = f"run-{slug(root.flow.name)}"
        return cls(writer, LiveArtifact(key, home, known=not writer.is_first))

    def note(self, name: str, sentence: str) -> None:
        """Put a sentence on the page; it replaces an earlier one of the same name."""
        self._notes[name] = sentence
        self.written()

    def add(self, event: Mapping[str, Any]) -> None:
        self._jobs.add(event, self._writer.record)

    def written(self) -> None:
        self._artifact.show(self._content, now=self._writer.record.state != "running")

    def _content(self) -> Content:
        with self._writer.folding:
            self._writer.read_others()
            record = self._writer.record
            content = Content(
                page(record, self._jobs, list(self._notes.values())),
                summary(record, len(self._jobs.under_way)),
            )
        if record.state == "running" and self._writer.has_others:
            self._artifact.show(self._content)  # they do not report when they go on
        return content
