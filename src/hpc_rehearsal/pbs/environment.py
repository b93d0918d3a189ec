"""A job's environment at its start: its variables, its node file, its shell."""

from __future__ import annotations

import os

from hpc_rehearsal.common.state import user
from hpc_rehearsal.common.text import shell_quoted
from hpc_rehearsal.pbs.formats import SERVER, decoded
from hpc_rehearsal.pbs.state import Server

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Record = dict[str, Any]

_CANNOT_RUN = 254  # what a job ends with whose shell or program is not there


def variables(server: Server, job: Record) -> dict[str, str]:
    """The whole environment. Of the submitter's it has only what is in the Variable_List."""
    nodefile, scratch = server.path("aux", job["id"]), server.path("tmp", f"pbs.{job['id']}")
    first = job["resources"]["chunks"][0]
    threads = str(first.get("ompthreads", first["ncpus"]))
    _write_nodefile(nodefile, job)
    os.makedirs(scratch, mode=0o700, exist_ok=True)
    me, config = user(), server.config
    return {
        "HOME": job["home"],
        "LOGNAME": me,
        "NCPUS": threads,
        "OMP_NUM_THREADS": threads,
        "PATH": ":".join([*config["path"], "/usr/local/bin:/usr/bin:/bin", config["commands"]]),
        "SHELL": _shell(server, job),
        "USER": me,
        **config["environment"],
        # Assumed: the submitter's variables come before those that the daemon sets.
        **{name: decoded(value) for name, value in _split(job["variables"])},
        "ENVIRONMENT": "BATCH",
        "PBS_ENVIRONMENT": "PBS_BATCH",
        "PBS_JOBCOOKIE": os.urandom(16).hex().upper(),
        "PBS_JOBDIR": job["home"],
        "PBS_JOBID": job["id"],
        **_array(job),
        "PBS_JOBNAME": job["name"],
        "PBS_MOMPORT": "15003",
        "PBS_NODEFILE": nodefile,
        "PBS_NODENUM": "0",
        "PBS_QUEUE": job["queue"],
        "PBS_TASKNUM": "1",
        "TMPDIR": scratch,
    }


def _array(job: Record) -> dict[str, str]:
    if "parent" not in job:
        return {}
    return {"PBS_ARRAY_INDEX": str(job["index"]), "PBS_ARRAY_ID": f"{job['parent']}[].{SERVER}"}


def _split(items: list[str]) -> list[tuple[str, str]]:
    pairs = [item.partition("=") for item in items]
    return [(name, value) for name, _, value in pairs]


def _write_nodefile(path: str, job: Record) -> None:
    """Write a line for each MPI process. All nodes are this machine, so each line has its name,
    which an MPI launcher recognizes as local."""
    lines = []
    for chunk in job["resources"]["chunks"]:
        lines += [os.uname().nodename] * chunk["count"] * chunk.get("mpiprocs", 1)
    with open(path, "w") as file:
        file.write("".join(f"{line}\n" for line in lines))


def _shell(server: Server, job: Record) -> str:
    given = str(job["options"].get("S", "")).partition("@")[0]
    return given or str(server.config["shell"])


def shell_script(server: Server, job: Record) -> str:
    """The script that the engine runs for the job.

    PBS gives the job's script to a login shell as a line of input: so if the script is killed,
    `-bash: line 1:` reports it and the code is 128+signal. `qsub -- command` runs the command
    itself.
    """
    if job["command"]:
        words = " ".join(shell_quoted(word) for word in job["command"])
        program = shell_quoted(job["command"][0])
        return f"#!/bin/bash\ntype -P {program} > /dev/null || exit {_CANNOT_RUN}\nexec {words}\n"
    shell, given = _shell(server, job), server.file(job["n"], "in")
    with open(given, "wb") as file:
        script = server.file(job["parent"] if "parent" in job else job["n"], "SC")
        file.write(os.fsencode(shell_quoted(script) + "\n"))
    name = shell_quoted("-" + os.path.basename(shell))
    quoted = shell_quoted(shell)
    return (
        f"#!/bin/bash\n[ -x {quoted} ] || exit {_CANNOT_RUN}\n"
        f"exec -a {name} {quoted} < {shell_quoted(given)}\n"
    )
