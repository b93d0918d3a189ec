"""A bare process that runs jobs, and kills itself where it is told to.

    python driver.py FOLDER JOBS TRAP

JOBS: a JSON list of {"program": path, "key": …, "arguments": […]}. TRAP: {} for none;
{"call": n, "when": "before" | "torn" | "after"} for the n-th call that changes something (a command
or a write), {"at": step, "when": …} for the first of that name (an engine's verb, an event of the
journal, "create" for the claim …); {"state": text} for the first state that holds the text.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from rig import Rig, Told, die

from hpc_prefect.transports.local import LocalTransport

_CHANGES = ("run", "make_folder", "write_atomic", "append", "create", "link", "remove")


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
    if name == "append" and arguments[1]:
        return str(json.loads(arguments[1])["event"])
    return name


async def main(folder: str, jobs: list[dict[str, Any]], trap: dict[str, Any]) -> None:
    rig = Rig(Path(folder))
    transport = Trapped(**trap)

    def on_state(text: str) -> None:
        if trap.get("state", "\0") in text:
            die()

    connection = rig.connection(transport=transport)
    requests = [
        rig.request(
            rig.spec(program=job["program"], arguments=tuple(job.get("arguments", ()))),
            job["key"],
            listener=Told(on_state),
        )
        for job in jobs
    ]
    results = await asyncio.gather(*(rig.run(request, connection) for request in requests))
    print(json.dumps({"results": [r.as_dict() for r in results], "calls": transport.log}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])))
