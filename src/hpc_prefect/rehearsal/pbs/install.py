"""Writing the commands into a folder for PATH, and ending all that they have started."""

from __future__ import annotations

import json
import os
import pwd
import sys
import time
from pathlib import Path
from typing import Literal, TypedDict, Unpack

from .server import DONE, Server
from .words import shell_quoted

_PROGRAM = Path(__file__).with_name("program.py")
_FOLDERS = ("jobs", "faults", "undelivered", "aux", "tmp")
_LOOK_SECONDS = 0.02


class Queue(TypedDict, total=False):
    """A queue, by PBS's own words for what it allows."""

    enabled: bool
    started: bool
    max_queued: int
    max_run: int
    resources_max: dict[str, str | int]
    route_destinations: str
    acl_groups: list[str]


class Options(TypedDict, total=False):
    """What `install` can be told; each has a default."""

    qstat: Literal["openpbs", "table"]  # the scheduler's own, or a site's that prints a table
    queues: dict[str, Queue]
    default_queue: str
    nodes: int
    ncpus: int  # of each node
    mem: str  # of each node
    resources: list[str]  # that the site has added to PBS's own
    groups: list[str] | None  # those the user is in for -W group_list; None: the real ones
    home: str  # the jobs' $HOME and first folder; the user's if not given
    shell: str
    history: bool
    enforce_mem: bool  # whether a job that uses more memory than it asked for is killed
    kill_grace: float  # seconds from SIGTERM to SIGKILL
    linger: float  # seconds a job stays in state R after its qdel
    exiting: float  # seconds from the delivery of the output to the end of state E


def install(folder: Path, state: Path, **options: Unpack[Options]) -> None:
    """Make the state folder, empty or with the jobs of before, and the commands that use it."""
    config = _config(folder, options)
    folder.mkdir(parents=True, exist_ok=True)
    for name in _FOLDERS:
        (state / name).mkdir(mode=0o700, parents=True, exist_ok=True)
    (state / "config.json").write_text(json.dumps(config, indent=1))
    for name in ("qsub", "qstat", "qdel", "qselect", "qhold", "qrls"):
        table = name == "qstat" and config["qstat"] == "table"
        program = [sys.executable, "-I", "-S", str(_PROGRAM), "qstat-table" if table else name]
        words = " ".join(shell_quoted(word) for word in [*program, str(state.resolve())])
        command = folder / name
        command.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        command.chmod(0o755)


def _config(folder: Path, options: Options) -> dict[str, object]:
    if unknown := options.keys() - Options.__annotations__.keys():
        raise TypeError(f"install has no option {sorted(unknown)[0]!r}")
    try:
        account = pwd.getpwuid(os.getuid())
        home, shell = account.pw_dir, account.pw_shell
    except KeyError:
        home, shell = "", ""
    queues: dict[str, Queue] = options.get("queues") or {"workq": {}}
    return {
        "qstat": "openpbs",
        "default_queue": next(iter(queues)),
        "nodes": 4,
        "ncpus": 16,
        "mem": "8gb",
        "resources": [],
        "groups": None,
        "home": home or "/",
        "shell": shell or "/bin/bash",
        "history": True,
        "enforce_mem": True,
        "kill_grace": 2.0,
        "linger": 0.3,
        "exiting": 0.1,
        **options,
        "queues": queues,
        "commands": str(folder.resolve()),
    }


def stop(state: Path, *, patience: float = 30.0) -> None:
    """Lift all faults, delete all jobs and wait until nothing of them runs any more."""
    from .commands import qdel

    for fault in (state / "faults").iterdir():
        fault.unlink()
    server = Server(str(state))
    with server.lock:
        alive = [job["id"] for job in server.jobs() if job["state"] != DONE]
    if alive:
        qdel(server, ["-W", "force", *alive])  # one that has ended meanwhile is only reported
    end = time.monotonic() + patience
    while alive:
        if time.monotonic() > end:
            raise TimeoutError(f"{', '.join(alive)} in {state} did not end; see mom.log there")
        time.sleep(_LOOK_SECONDS)
        with server.lock:
            alive = [job["id"] for job in server.jobs() if job["state"] != DONE]
