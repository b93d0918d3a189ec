"""Writes the commands into a folder for PATH, and ends all jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypedDict, Unpack

from hpc_rehearsal.common import install as shared
from hpc_rehearsal.pjm.state import Server

_COMMANDS = ("pjsub", "pjstat", "pjdel", "pjwait", "pjhold", "pjrls", "pjacl")


class ResourceGroup(TypedDict, total=False):
    """A resource group (-L rscgrp=) and what it allows."""

    enabled: bool
    started: bool
    node: tuple[int, int]  # the least and the most nodes of a job
    elapse: tuple[int, int]  # the least and the most seconds of a job
    elapse_default: int
    accept: int  # jobs that may wait or run at once
    run: int  # jobs that may run at once
    gate: str  # what the site's own check says to every job
    yields: bool  # whether its jobs are stopped when one of another group lacks their nodes


class Options(TypedDict, total=False):
    """The options of `install`; each has a default."""

    commands: list[str]  # those of the scheduler's that the site has; all if not given
    path: list[str]  # folders that come first on a job's PATH
    environment: dict[str, str]  # what a job finds besides what the scheduler sets
    wait: float  # seconds a job waits at least before it starts
    rscunits: list[str]
    default_rscunit: str
    rscgrps: dict[str, ResourceGroup]
    default_rscgrp: str
    nodes: int
    resources: list[str]  # -L items that the site has added
    # The user's groups for -g; None: the real ones; "any": every name.
    groups: list[str] | Literal["any"] | None
    home: str  # the jobs' $HOME; the user's if not given
    shell: str
    again: Literal["restart", "norestart"]  # the default of jobs
    enforce_mem: bool  # whether a job that uses more memory than it asked for is killed
    oom_killer: bool  # by the kernel (PC 23) rather than by the job manager (PC 12)
    bulk: bool  # whether its users may submit bulk jobs
    kill_grace: float  # seconds from SIGXCPU to SIGKILL at the elapse limit
    acquire: float  # seconds in state RNA
    linger: float  # seconds a job stays in its state after its pjdel
    runout: float  # seconds in state RNO
    gap: float  # seconds that an ended job is neither in the queue nor in the history


def install(folder: Path, state: Path, **options: Unpack[Options]) -> None:
    """Make the state folder, or keep it with its jobs, and the commands that use it."""
    shared.only(options, Options.__annotations__)
    home, shell = shared.account()
    config = {
        "path": [],
        "environment": {},
        "wait": 0.0,
        "rscunits": ["rscunit_ft01"],
        "rscgrps": {"small": {"node": (1, 384)}, "large": {"node": (385, 12288)}},
        "nodes": 384,
        "resources": [],
        "groups": None,
        "home": home,
        "shell": shell,
        "again": "norestart",
        "enforce_mem": True,
        "oom_killer": False,
        "bulk": True,
        "kill_grace": 2.0,
        "acquire": 0.05,
        "linger": 0.3,
        "runout": 0.05,
        "gap": 0.2,
        **{name: value for name, value in options.items() if name != "commands"},
    }
    config.setdefault("default_rscunit", next(iter(config["rscunits"])))  # type: ignore[call-overload]
    config.setdefault("default_rscgrp", next(iter(config["rscgrps"])))  # type: ignore[call-overload]
    commands = {name: name for name in shared.chosen(_COMMANDS, options.get("commands"))}
    shared.write("pjm", folder, state, config, commands)


def stop(state: Path, *, patience: float = 30.0) -> None:
    """Lift all faults, delete all jobs and wait until nothing of them runs any more."""
    from hpc_rehearsal.pjm.commands import delete

    shared.lift(state)
    server = Server(str(state))
    with server.lock:
        for job in server.alive():
            delete(server, job, enforce=True)
        server.wake()
    shared.await_ends(server, patience)
