"""qstat -Q and qstat -B: the queues and the server, as JSON, as text, and as tables.

Recorded, except for the counts of jobs in the tables. Only a few of the server's attributes are
shown.
"""

from __future__ import annotations

import json
import sys
import time

from hpc_rehearsal.pbs.formats import SERVER, UNKNOWN_QUEUE, VERSION
from hpc_rehearsal.pbs.job_record import line
from hpc_rehearsal.pbs.state import DONE, Server

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Record = dict[str, Any]

_QUEUE_HEAD = """\
Queue              Max   Tot Ena Str   Que   Run   Hld   Wat   Trn   Ext Type
---------------- ----- ----- --- --- ----- ----- ----- ----- ----- ----- ----
"""
_SERVER_HEAD = """\
Server             Max   Tot   Que   Run   Hld   Wat   Trn   Ext Status
---------------- ----- ----- ----- ----- ----- ----- ----- ----- -----------
"""
_STATES = (
    *(("Transit", "T"), ("Queued", "Q"), ("Held", "H"), ("Waiting", "W")),
    *(("Running", "R"), ("Exiting", "E"), ("Begun", "B")),
)
_LETTERS = ("Q", "R", "H", "W", "T", "E")


def show(server: Server, options: dict[str, str], names: list[str]) -> int:
    """Print what was asked for; the exit status."""
    with server.lock:
        jobs = [job for job in server.jobs() if job["state"] != DONE]
    if "B" in options:
        return _server(server, options, jobs)
    queues = server.config["queues"]
    status = 0
    for name in names:
        if name not in queues:
            print(f"qstat: Unknown queue {name}", file=sys.stderr)
            status = UNKNOWN_QUEUE
    shown = [name for name in (names or queues) if name in queues]
    if "f" not in options:
        if shown:
            print(_QUEUE_HEAD, end="")
        for name in shown:
            print(_queue_row(name, queues[name], [job for job in jobs if job["queue"] == name]))
        return status
    found = {name: _attributes(name, queues[name], jobs) for name in shown}
    _print_records(options, "Queue", found)
    return status


def _server(server: Server, options: dict[str, str], jobs: list[Record]) -> int:
    if "f" not in options:
        counts = " ".join(f"{_count(jobs, letter):5}" for letter in _LETTERS)
        print(f"{_SERVER_HEAD}{SERVER:16} {0:5} {len(jobs):5} {counts} Active")
        return 0
    record = {
        "server_state": "Active",
        "server_host": SERVER,
        "total_jobs": len(jobs),
        "default_queue": server.config["default_queue"],
        "pbs_version": VERSION,
        "job_history_enable": str(server.history()),
    }
    _print_records(options, "Server", {SERVER: record})
    return 0


def _print_records(options: dict[str, str], kind: str, records: dict[str, Record]) -> None:
    if "F" in options:
        head = {"timestamp": int(time.time()), "pbs_version": VERSION, "pbs_server": SERVER}
        print(json.dumps({**head, kind: records}, indent="\t", separators=(",", ":\t")))
        return
    for name, record in records.items():
        lines = []
        for key, value in record.items():
            if isinstance(value, dict):
                parts = [(f"{key}.{inner}", each) for inner, each in value.items()]
            else:
                parts = [(key, value)]
            lines += [line(each, str(text), wide=False) for each, text in parts]
        print("\n".join([f"{kind}: {name}", *lines]) + "\n")


def _attributes(name: str, queue: Record, jobs: list[Record]) -> Record:
    route = queue.get("route_destinations")
    inside = [job for job in jobs if job["queue"] == name]
    found: Record = {
        "queue_type": "Route" if route else "Execution",
        "total_jobs": len(inside),
        "state_count": "".join(f"{word}:{_count(inside, c)} " for word, c in _STATES),
    }
    if queue.get("acl_groups") is not None:
        found |= {"acl_group_enable": "True", "acl_groups": ",".join(queue["acl_groups"])}
    if queue.get("resources_max"):
        found["resources_max"] = queue["resources_max"]
    if route:
        found["route_destinations"] = route
    for limit in ("max_queued", "max_run"):
        if queue.get(limit) is not None:
            found[limit] = f"[u:PBS_GENERIC={queue[limit]}]"
    found |= {key: str(bool(queue.get(key, True))) for key in ("enabled", "started")}
    return found


def _queue_row(name: str, queue: Record, jobs: list[Record]) -> str:
    words = ["yes" if queue.get(key, True) else "no" for key in ("enabled", "started")]
    counts = " ".join(f"{_count(jobs, letter):5}" for letter in _LETTERS)
    kind = "Rou*" if queue.get("route_destinations") else "Exe*"
    return f"{name[:16]:16} {0:5} {len(jobs):5} {words[0]:>3} {words[1]:>3} {counts} {kind}"


def _count(jobs: list[Record], letter: str) -> int:
    return sum(job["state"] == letter for job in jobs)
