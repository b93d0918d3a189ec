"""Writes the commands into a folder for PATH, and ends all jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypedDict, Unpack

from hpc_rehearsal.common import install as shared
from hpc_rehearsal.pbs.state import Server

_COMMANDS = ("qsub", "qstat", "qdel", "qselect", "qhold", "qrls", "qrerun")


class Queue(TypedDict, total=False):
    """The attributes of a queue, with PBS's own names."""

    enabled: bool
    started: bool
    max_queued: int
    max_run: int
    resources_max: dict[str, str | int]
    route_destinations: str  # with commas; the first that takes the job gets it
    default_chunk: dict[str, int]  # defaults for the resources of a chunk
    acl_groups: list[str]


class Options(TypedDict, total=False):
    """The options of `install`; each has a default."""

    qstat: Literal["openpbs", "table"]  # the scheduler's own, or a site's that prints a table
    commands: list[str]  # those of the scheduler's that the site has; all if not given
    path: list[str]  # folders that come first on a job's PATH
    environment: dict[str, str]  # what a job finds besides what the scheduler sets
    wait: float  # seconds a job waits at least before it starts
    queues: dict[str, Queue]
    default_queue: str
    nodes: int
    ncpus: int  # of each node
    mem: str  # of each node
    resources: list[str]  # that the site has added to PBS's own
    # The user's groups for -W group_list; None: the real ones; "any": every name.
    groups: list[str] | Literal["any"] | None
    home: str  # the jobs' $HOME and first folder; the user's if not given
    shell: str
    history: bool
    operator: bool  # whether the user may qrerun, as operators may
    enforce_mem: bool  # whether a job that uses more memory than it asked for is killed
    max_array_size: int  # how many jobs an array may have
    kill_grace: float  # seconds from SIGTERM to SIGKILL
    linger: float  # seconds a job stays in state R after its qdel
    exiting: float  # seconds from the delivery of the output to the end of state E


def install(folder: Path, state: Path, **options: Unpack[Options]) -> None:
    """Make the state folder, or keep it with its jobs, and the commands that use it."""
    shared.only(options, Options.__annotations__)
    config = _config(options)
    commands = {name: name for name in shared.chosen(_COMMANDS, options.get("commands"))}
    if config["qstat"] == "table":
        commands["qstat"] = "qstat-table"
    shared.write("pbs", folder, state, config, commands)
    (state / "undelivered").mkdir(mode=0o700, exist_ok=True)


def _config(options: Options) -> dict[str, object]:
    home, shell = shared.account()
    queues: dict[str, Queue] = options.get("queues") or {"workq": {}}
    return {
        "qstat": "openpbs",
        "path": [],
        "environment": {},
        "wait": 0.0,
        "default_queue": next(iter(queues)),
        "nodes": 4,
        "ncpus": 16,
        "mem": "8gb",
        "resources": [],
        "groups": None,
        "home": home,
        "shell": shell,
        "history": True,
        "operator": False,
        "enforce_mem": True,
        "max_array_size": 10_000,
        "kill_grace": 2.0,
        "linger": 0.3,
        "exiting": 0.1,
        **{name: value for name, value in options.items() if name != "commands"},
        "queues": queues,
    }


def stop(state: Path, *, patience: float = 30.0) -> None:
    """Lift all faults, delete all jobs and wait until nothing of them runs any more."""
    from hpc_rehearsal.pbs.commands import qdel

    shared.lift(state)
    server = Server(str(state))
    with server.lock:
        alive = [job["id"] for job in server.alive()]
    if alive:
        qdel(server, ["-W", "force", *alive])  # one that has ended meanwhile is only reported
    shared.await_ends(server, patience)
