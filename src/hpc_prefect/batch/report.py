"""A failed job's page in Prefect's UI. The run's own page has the summary of all jobs."""

from __future__ import annotations

import re

from hpc_prefect.flow_runs.artifacts import Content, LiveArtifact, home_of_run, link_to
from hpc_prefect.job.result import JobResult
from hpc_prefect.records.markdown import escaped, fenced


def show_failed(result: JobResult, message: str) -> str:
    """Show a failed job with the text of its error. Sends it in the background.

    Returns:
        The link to its page in Prefect's UI; empty when there is none.
    """
    home = home_of_run()
    if home is None:
        return ""
    title = f"{result.name}: {result.verdict.reason}"
    text = f"## {escaped(title)}\n\n{fenced(message.splitlines())}\n"
    page = LiveArtifact(page_key(result), home)
    page.show(lambda: Content(text, title))
    return link_to(page.key)


def page_key(result: JobResult) -> str:
    """The key of a failed job's page; Prefect shows it as the title and allows few characters."""
    name = re.sub(r"[^a-z0-9]+", "-", result.name.lower()).strip("-")[:40]
    return f"failed-{name}-{result.tag[:6]}" if name else f"failed-{result.tag}"
