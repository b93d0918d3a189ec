"""What the journals of quantum jobs say, for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def events(folder: Path) -> list[dict[str, Any]]:
    """All entries below a work_dir, but for what was observed: how often, is the clock's choice."""
    paths = sorted(folder.glob(".hpc-prefect/*/*/*/journal.jsonl"))
    entries = [json.loads(line) for path in paths for line in path.read_text().splitlines()]
    return [entry for entry in entries if entry["event"] != "observed"]


def words(folder: Path) -> list[str]:
    return [event["event"] for event in events(folder)]


def reason(event: dict[str, Any]) -> str:
    """Of a verdict: its code."""
    return event["result"]["verdict"]["reason"]


def cost(event: dict[str, Any]) -> float:
    """Of a verdict: the QPU seconds, as the service said."""
    return event["result"]["resources_used"]["qpu_seconds"]
