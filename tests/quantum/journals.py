"""What the journals of quantum jobs say, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hpc_prefect.job.folder import read_entries


def events(folder: Path) -> list[dict[str, Any]]:
    """All entries below a work_dir, but for what was observed: how often, is the clock's choice."""
    paths = sorted(folder.glob(".hpc-prefect/*/*/*/journal.jsonl"))
    entries = [entry for path in paths for entry in read_entries(path.read_bytes())]
    return [entry for entry in entries if entry["event"] != "observed"]


def words(folder: Path) -> list[str]:
    return [event["event"] for event in events(folder)]


def reason(event: dict[str, Any]) -> str:
    """Of a verdict: its code."""
    return event["result"]["verdict"]["reason"]


def cost(event: dict[str, Any]) -> float:
    """Of a verdict: the QPU seconds, as the service said."""
    return event["result"]["resources_used"]["qpu_seconds"]
