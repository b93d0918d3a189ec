"""A bare process that runs jobs, and kills itself where it is told to.

    python driver.py FOLDER JOBS TRAP

JOBS: a JSON list of {"program": path, "key": …, "arguments": […]}; one that has "lines" is an array
of a member a line ("per_element"; "elements": on a scheduler with arrays of so many).

TRAP: {} for none; {"call": n, "when": "before" | "torn" | "after"} for the n-th call that changes
something (a command or a write), {"at": step, "when": …} for the first of that name (an engine's
verb, an event of the journal, "create" for the claim, "ended.jsonl" …); {"state": text} for the
first state that holds the text.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from elements import Elements
from rig import Rig, Told, die

from hpc_prefect.executor.arrays.request import ArrayRequest
from hpc_prefect.executor.connection import Connection
from hpc_prefect.job import folder as names
from hpc_prefect.job import members
from hpc_prefect.transports.local import LocalTransport

_CHANGES = ("run", "make_folder", "write_atomic", "append", "create", "link", "relink", "remove")


class Trapped(LocalTransport):
    """Dies at a call that changes something, given by its number or by what it does."""

    def __init__(self, call: int = -1, at: str = "", when: str = "", **_: object) -> None:
        self.call, self.at, self.when = call, at, when
        self.calls = itertools.count()
        self.log: list[str] = []
        self.lock = threading.Lock()
        for name in _CHANGES:
            setattr(self, name, self._counted(name, getattr(self, name)))

    def _counted(self, name: str, act: Any) -> Any:
        def counted(*arguments: Any, **options: Any) -> Any:
            with self.lock:
                n = next(self.calls)
                self.log.append(name)
            here = n == self.call or (self.at != "" and self.at == _step(name, arguments))
            if here and self.when == "before":
                die()
            if here and self.when == "torn":
                if name == "append":
                    path, data = arguments
                    act(path, data[: len(data) // 2], **options)
                elif name == "run":  # the command goes on without us
                    pipe = subprocess.PIPE
                    subprocess.Popen(
                        arguments[0].argv, start_new_session=True, stdout=pipe, stderr=pipe
                    )
                die()
            result = act(*arguments, **options)
            if here:
                die()
            return result

        return counted


def _step(name: str, arguments: tuple[Any, ...]) -> str:
    if name == "run":
        return str(arguments[0].argv[4])
    if name in ("append", "write_atomic") and arguments[1]:
        path = Path(arguments[0])
        if name == "append" and path.name in (names.JOURNAL, names.CANCEL):
            return str(json.loads(arguments[1])["event"])
        return path.name if path.name in (members.ASKED, members.ENDED) else name
    return name


def _array(rig: Rig, job: dict[str, Any], listener: Told) -> ArrayRequest:
    request = rig.array(
        rig.spec(program=job["program"]),
        job["lines"],
        per_element=job.get("per_element", 1),
        listener=listener,
    )
    base = f"{request.base.removesuffix('k')}{job['key']}"
    return dataclasses.replace(request, base=base, key=job["key"])


async def _run(rig: Rig, job: dict[str, Any], connection: Connection, listener: Told) -> Any:
    if "lines" in job:
        results = await rig.run_array(_array(rig, job, listener), connection)
        return {key: result.as_dict() for key, result in results.items()}
    spec = rig.spec(program=job["program"], arguments=tuple(job.get("arguments", ())))
    return (await rig.run(rig.request(spec, job["key"], listener=listener), connection)).as_dict()


async def main(folder: str, jobs: list[dict[str, Any]], trap: dict[str, Any]) -> None:
    rig = Rig(Path(folder))
    transport = Trapped(**trap)

    def on_state(text: str) -> None:
        if trap.get("state", "\0") in text:
            die()

    limits = [job["elements"] for job in jobs if "elements" in job]
    scheduler = Elements(limits[0]) if limits else None
    connection = rig.connection(scheduler, transport)
    results = await asyncio.gather(*(_run(rig, job, connection, Told(on_state)) for job in jobs))
    print(json.dumps({"results": results, "calls": transport.log}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])))
