"""Records made in memory, of the events that a run would have written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hpc_prefect.records.fold import Record, fold

CODE = {"file": "/x/flow.py", "sha256": "a" * 64, "commit": "1" * 40, "branch": "main",
        "dirty": False}  # fmt: skip
ENVIRONMENT = {"host": "login1", "user": "ada", "pid": 7, "cwd": "/x", "argv": ["flow.py"],
               "python": "3.11.7", "platform": "Linux", "packages": {"numpy": "2.1"}}  # fmt: skip


def batch_job(number: int = 1, **facts: Any) -> dict[str, Any]:
    """A batch job of an iteration, as it ended."""
    return {
        "key": f"key-{number}", "kind": "batch", "name": "evaluate", "n": 0,
        "scope": ["loop-0123abcd", f"iter-{number}"], "attempt": 1, "state": "succeeded",
        "reason": "success", "collected": False, "folder": f"/nowhere/key-{number}-1",
        "queue_seconds": 2.0, "run_seconds": 10.0, "node_hours": 0.5,
        "asked": {"nodes": 1, "gpus": 0, "walltime": "00:10:00"}, "scheduler": "slurm",
        "queue": "short", "command": "evaluate", "arguments": ["--in", f"{number}.npz"],
        "executable": {"path": "/bin/evaluate", "size": 10, "mtime": 1.0, "sha256": "e" * 64},
        "images": [], "inputs": {"in.npz": {"sha256": "d" * 64}}, **facts,
    }  # fmt: skip


def sampler_job(number: int = 1, **facts: Any) -> dict[str, Any]:
    """A sampling on a quantum computer."""
    return {
        "key": f"sample-{number}", "kind": "sampler", "name": "sample", "n": 0,
        "scope": ["loop-0123abcd", f"iter-{number}"], "attempt": 1, "state": "succeeded",
        "device": "ibm_torino", "calibrated_at": "2026-01-01T00:00:00", "shots": 1000,
        "options": {"seed": 1, "twirling": {"enable": True}}, "seed": 1, "qpu_seconds": 3.0,
        "circuits": [{"depth": 40, "size": 90, "two_qubit_gates": 12}], **facts,
    }  # fmt: skip


def block(kind: str, name: str, digest: str = "", **values: Any) -> dict[str, Any]:
    return {"digest": digest or f"{kind}-{name}", "kind": kind, "name": name, "values": values}


def run(
    name: str = "hot-polecat",
    *,
    id: str = "",
    flow: str = "sqd-loop",
    parameters: Mapping[str, Any] | None = None,
    code: Mapping[str, Any] | None = None,
    environment: Mapping[str, Any] | None = None,
    jobs: Sequence[Mapping[str, Any]] = (),
    blocks: Sequence[Mapping[str, Any]] = (),
    iterations: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    measures: Mapping[str, Any] | None = None,
    state: str = "completed",
    message: str = "",
    folder: str = "",
    campaign: Mapping[str, Any] | None = None,
    seconds: float = 60.0,
) -> Record:
    """A run with these parts; what is not given is the same in all of them."""
    about = {"id": id or f"id-{name}", "name": name, "kind": "flow", "flow": flow,
             "entrypoint": f"/x/flow.py:{flow}", "attempt": 1, "deployment": None}  # fmt: skip
    events: list[dict[str, Any]] = [
        {
            "event": "began",
            "run": about,
            "parameters": dict(parameters or {}),
            "code": CODE | dict(code or {}),
            "environment": ENVIRONMENT | dict(environment or {}),
        }
    ]
    events += [{"event": "campaign", **campaign}] if campaign else []
    events += [{"event": "block", **each} for each in blocks]
    for job in jobs:
        called = {each: job[each] for each in ("key", "kind", "name", "scope", "n")}
        events += [{"event": "job", **called, "blocks": []}, {"event": "job-ended", **job}]
    for loop, rows in (iterations or {}).items():
        events += [
            {"event": "iteration", "loop": loop, "number": i, "row": {"iteration": i, **row}}
            for i, row in enumerate(rows, start=1)
        ]
    events += [{"event": "measures", "values": dict(measures)}] if measures else []
    timed = [{"time": 1000.0, **each} for each in events]
    if state != "running":
        end = {"event": "ended", "state": state, "message": message}
        timed.append({"time": 1000.0 + seconds, **end})
    return fold(timed, folder=folder)


def rows(found, section: str) -> dict[str, tuple]:
    return {row.what: row.values for row in found.section(section).rows}


def one_row(found, section: str):
    (row,) = found.section(section).rows
    return row
