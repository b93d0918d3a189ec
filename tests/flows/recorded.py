"""The records that runs wrote in a work_dir."""

from __future__ import annotations

from pathlib import Path

from hpc_prefect.records.fold import Record
from hpc_prefect.records.read import read_run

from ..records.schema import faults
from .seen import until


def records(work_dir: Path) -> list[Record]:
    folders = sorted(work_dir.glob(".hpc-prefect/*/runs/*"))
    found = [read_run(folder) for folder in folders if (folder / "events.jsonl").exists()]
    return sorted(found, key=lambda record: record.started)


def record_of(work_dir: Path) -> Record:
    """The only run's record, once the run has ended in it: it is written by a thread."""
    until(lambda: [each for each in records(work_dir) if each.state != "running"])
    (found,) = records(work_dir)
    assert faults(found.as_dict()) == []
    return found
