"""A job's environment at its start: its variables, its node file, its shell."""

from __future__ import annotations

import os

from hpc_rehearsal.common.text import shell_quoted
from hpc_rehearsal.pjm.state import Server

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Record = dict[str, Any]


def variables(server: Server, job: Record) -> dict[str, str]:
    """The whole environment. Of the submitter's it has only what was asked for."""
    nodefile, scratch = server.path("aux", job["id"]), server.path("tmp", job["id"])
    # All nodes are this machine, so each has this machine's name.
    with open(nodefile, "w") as file:
        file.write(f"{os.uname().nodename}\n" * job["nodes"])
    os.makedirs(scratch, mode=0o700, exist_ok=True)
    config = server.config
    found = {
        "HOME": config["home"],
        "LOGNAME": job["user"],
        "PATH": ":".join([*config["path"], "/usr/local/bin:/usr/bin:/bin", config["commands"]]),
        "SHELL": config["shell"],
        "USER": job["user"],
        **config["environment"],
        **job["variables"],
        "PJM_APPNAME": "",
        "PJM_COMMENT": job["comment"],
        "PJM_ENVIRONMENT": "BATCH",
        "PJM_JOBDIR": job["work"],
        # Assumed: for a sub job it is the number of the whole.
        "PJM_JOBID": str(job.get("parent", job["n"])),
        "PJM_SUBJOBID": job["id"],
        "PJM_BULKNUM": str(job.get("number", "")),
        "PJM_JOBNAME": job["name"],
        "PJM_LOCALTMP": scratch,
        "PJM_MPI_PROC": job["mpi"],
        "PJM_NODE": str(job["nodes"]),
        "PJM_O_NODEINF": nodefile,
        "PJM_O_WORKDIR": job["work"],
        "PJM_RSCGRP": job["rscgrp"],
        "PJM_RSCUNIT": job["rscunit"],
        "PJM_ELAPSE_LIMIT": str(job["elapse"]),
    }
    return {name: value for name, value in found.items() if value}


def shell_script(server: Server, job: Record) -> str:
    """What the engine runs: the copy of the script, with its arguments."""
    words = [*_shell(server, job), _script(server, job), *job["arguments"]]
    return f"#!/bin/sh\nexec {' '.join(shell_quoted(word) for word in words)}\n"


def _script(server: Server, job: Record) -> str:
    """Its copy of the script; sub jobs share that of the whole."""
    return server.file(job["parent"] if "parent" in job else job["n"], "SC")


def _shell(server: Server, job: Record) -> list[str]:
    """The words after `#!`; the user's own shell for a script without them."""
    with open(_script(server, job), "rb") as file:
        first = os.fsdecode(file.readline())
    words = first[2:].split(None, 1) if first.startswith("#!") else []
    return [word.strip() for word in words] or [str(server.config["shell"])]


def obstacle(server: Server, job: Record) -> str:
    """Why the job cannot be started, as a key for its end; empty if it can."""
    if not os.access(job["work"], os.X_OK | os.W_OK):
        return "no folder"
    for path in (job["out"],) if job["join"] else (job["out"], job["err"]):
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o666))
        except OSError:
            return "no file"
    return "" if os.access(_shell(server, job)[0], os.X_OK) else "no shell"
