"""Records of runs that nobody has run: their events, written as their processes would."""

from __future__ import annotations

import json
import os
import socket
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hpc_prefect.local_batch import process
from hpc_prefect.records.fold import EVENTS, fold

#: When runs began that do not say so: seconds since 1970.
BEGAN = 1_700_000_000.0


def event(time: float, name: str, /, **facts: Any) -> dict[str, Any]:
    return {"time": time, "event": name, **facts}


def began(
    ident: str, time: float = BEGAN, *, environment: dict[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    """The first event of a run, whose process is this one."""
    run = {"id": ident, "name": "hot-polecat", "kind": "flow", "flow": "sqd-loop", "attempt": 1}
    here = {"host": socket.gethostname(), "pid": os.getpid(), "user": "ada", "python": "3.11.7"}
    here["process"] = process.identity(os.getpid())
    parameters = more.pop("parameters", {})
    code = more.pop("code", {"file": "/x/flow.py", "commit": "abc1234", "dirty": True})
    return event(
        time, "began", run=run | more, parameters=parameters, code=code,
        environment=here if environment is None else environment,
    )  # fmt: skip


def job(key: str, time: float, *, state: str = "succeeded", **facts: Any) -> list[dict[str, Any]]:
    """A job that was wanted and has ended."""
    same = {"key": key, "kind": "batch", "name": f"job-{key}", "folder": f"/w/{key}"}
    return [
        event(time, "job", **same, scope=[], n=0, blocks=[]),
        event(time + 1, "job-ended", **same, attempt=1, state=state, **facts),
    ]


def ended(time: float, state: str = "completed", message: str = "") -> dict[str, Any]:
    return event(time, "ended", state=state, message=message)


def lines(events: Iterable[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in events)


def record(work_dir: Path, events: Sequence[dict[str, Any]], campaign: str = "h2-0123abcd") -> Path:
    """A record in a work_dir's folder of a campaign; its folder."""
    ident = next(each["run"]["id"] for each in events if each["event"] == "began")
    folder = work_dir / ".hpc-prefect" / campaign / "runs" / ident
    folder.mkdir(mode=0o700, parents=True)
    for made in (folder, *folder.parents[:3]):
        made.chmod(0o700)
    (folder / EVENTS).write_bytes(lines(events))
    return folder


def run(
    work_dir: Path,
    *,
    ident: str = "",
    time: float = BEGAN,
    measures: dict[str, Any] | None = None,
    state: str = "completed",
    jobs: Sequence[list[dict[str, Any]]] = (),
    **more: Any,
) -> Path:
    """The record of a run that has ended; its folder."""
    events = [began(ident or str(uuid.uuid4()), time, **more)]
    events += [each for pair in jobs for each in pair]
    events += [event(time + 2, "measures", values=measures)] if measures else []
    events += [ended(time + 10, state)] if state else []
    return record(work_dir, events)


def summary(folder: Path, events: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return fold(events, folder=str(folder), with_jobs=False).summary()


def dead_process() -> int:
    """The pid of a process that has ended."""
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(pid, 0)
    return pid
