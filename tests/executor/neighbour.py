"""A bare process that runs jobs beside others of its kind; what it does is in the file `done`.

    python neighbour.py FOLDER JOBS OPTIONS

JOBS: keys; each is the job's argument too. OPTIONS: {"limit": max_jobs_in_queue, "hang": true to
stay in its first question, "shared": the folder for the user's processes, "executor": true for the
process's own executor}. Each line of `done` is [time, pid, what, …]: `submit`, `ask` with how many
ids, `state` with what was told; programs add theirs.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

from rig import Rig, Told

from hpc_prefect.executor.coordination.host_coordination import peers_at
from hpc_prefect.executor.service import executor
from hpc_prefect.job.dialogue import Command, Reply
from hpc_prefect.schedulers.local.scheduler import LocalScheduler
from hpc_prefect.transports.local import LocalTransport

#: Seconds between two questions, hurried or not.
PACE = 0.4


class Steady(LocalScheduler):
    """Knows one pace."""

    hurry = PACE


class Noting(LocalTransport):
    def __init__(self, folder: Path, *, hang: bool) -> None:
        self.folder, self.hang = folder, hang

    def note(self, *what: Any) -> None:
        line = json.dumps([time.monotonic(), os.getpid(), *what]) + "\n"
        self.append(str(self.folder / "done"), line.encode())

    def run(self, command: Command) -> Reply:
        verb = command.argv[4]
        if verb == "jobs":
            self.note("ask", len(command.argv) - 7)  # python -I -S engine jobs --spool FOLDER
            while self.hang:
                time.sleep(60)
        elif verb == "submit":
            self.note("submit")
        return super().run(command)


async def main(folder: Path, keys: list[str], options: dict[str, Any]) -> None:
    rig = Rig(folder, slots=32)
    transport = Noting(folder, hang=options.get("hang", False))
    told = Told(lambda text: transport.note("state", text))
    requests = [
        rig.request(
            rig.spec(program=f"{folder}/program", arguments=(key,)),
            key,
            listener=told,
            poll_interval=PACE,
            max_jobs_in_queue=options.get("limit", 0),
        )
        for key in keys
    ]
    if options.get("executor"):
        handles = [executor().start(request) for request in requests]
        results = [await asyncio.wrap_future(handle.result) for handle in handles]
    else:
        root = options.get("shared") or str(folder / "shared")
        peers = peers_at(LocalScheduler(), rig.options, folders=lambda: iter([root]))
        connection = rig.connection(Steady(), transport, peers)
        results = await asyncio.gather(*(rig.run(request, connection) for request in requests))
    print(json.dumps([[result.state, result.verdict.exit_code] for result in results]))


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    asyncio.run(main(Path(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3])))
