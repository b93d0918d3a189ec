"""The artifact of a flow run: its record on one page, renewed while it goes on.

Its key is of the flow and not of the run: Prefect's list of artifacts has one entry for a flow,
whose versions are the runs.
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
        """The page of the run around this call; None where none is shown."""
        home = home_of_run()
        if home is None or root is None or root.flow is None:
            return None
        key = f"run-{slug(root.flow.name)}"
        return cls(writer, LiveArtifact(key, home, known=not writer.is_first))

    def note(self, name: str, sentence: str) -> None:
        """Have a sentence on the page; the newest of a name counts."""
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
            self._artifact.show(self._content)  # they tell nobody that they go on
        return content
