"""The program of a worker's job: one Dask worker, or in an MPI job one on each rank.

It ends by itself: when the flow has no more work for it, before the job's walltime, or when the
flow's process is gone.
"""

from __future__ import annotations

import argparse
import os
import socket
import stat
import sys
import tempfile
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

#: Seconds to wait for a connection to Prefect's server.
_CONNECT = 20

#: The variables in which launchers tell a process its rank. Slurm's is last, because it is also set
#: for a batch script itself.
_RANKS = ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "PALS_RANKID", "SLURM_PROCID")


def rank_of(environment: Mapping[str, str]) -> str:
    """This process's rank in its MPI job.

    Raises:
        SystemExit: no launcher has set it.
    """
    for name in _RANKS:
        if environment.get(name, "").isdecimal():
            return environment[name]
    raise SystemExit(
        f"this process does not know its rank (none of {', '.join(_RANKS)} is set), so two workers"
        " would have the same name. Give the workers an execution profile with launch = 'single'"
    )


def dask_arguments(given: argparse.Namespace, environment: Mapping[str, str]) -> list[str]:
    """The arguments of Dask's own worker program."""
    name = f"{given.name}-{rank_of(environment)}" if given.ranks else given.name
    arguments = [given.scheduler, "--name", name, "--nthreads", str(given.threads)]
    arguments += ["--nworkers", "1", "--no-dashboard", "--death-timeout", str(given.patience)]
    # Even without a dashboard a worker has a web server, which by default everyone can reach.
    arguments += ["--dashboard-address", "127.0.0.1:0"]
    if (host := urlsplit(given.scheduler).hostname) == "127.0.0.1":
        arguments += ["--host", host]
    # Without Dask's nanny, which would restart a worker that needs too much memory again and again
    # in the same job. So the job ends, and its scheduler tells why.
    arguments += ["--no-nanny", "--memory-limit", str(given.memory)]
    if given.lifetime:
        arguments += ["--lifetime", f"{given.lifetime}s"]
    return arguments


def reach(url: str) -> None:
    """Check that Prefect's server can be reached: else a task cannot report its state, and is lost.

    With a proxy nothing is checked: a connection would not tell.

    Raises:
        SystemExit: it cannot be reached.
    """
    parts = urlsplit(url)
    if not parts.hostname or any(os.environ.get(name) for name in ("HTTPS_PROXY", "HTTP_PROXY")):
        return
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname, port), timeout=_CONNECT).close()
    except OSError as error:
        raise SystemExit(
            f"Prefect's server at {url} cannot be reached from {socket.gethostname()} ({error})."
            " Workers report the states of their tasks to it: set PREFECT_API_URL, where the flow"
            " is started, to an address that compute nodes can reach"
        ) from None


def main() -> None:
    """Parse the command line, and run a worker until the flow needs none."""
    parser = argparse.ArgumentParser(prog="hpc-prefect worker")
    parser.add_argument("scheduler")
    parser.add_argument("--name", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--memory", type=int, default=0, help="bytes of a worker; 0: not limited")
    parser.add_argument("--ranks", action="store_true", help="one worker on each rank")
    parser.add_argument("--lifetime", type=int, default=0, help="seconds; 0: without end")
    parser.add_argument("--patience", type=int, default=60, help="seconds without the flow")
    parser.add_argument("--path", action="append", default=[], help="where the flow's modules are")
    parser.add_argument("--api", default="", help="the address of Prefect's server")
    given = parser.parse_args()
    reach(given.api)
    sys.path += [each for each in given.path if each not in sys.path]
    settle(os.environ, own_scratch())
    from distributed.cli.dask_worker import main as dask_worker

    forget_keys(os.environ)
    dask_worker(dask_arguments(given, os.environ))


def own_scratch() -> str:
    """A folder for Dask's files on this machine's own disk, in which nobody else can write.

    Dask imports modules and reads pickles from it. Dask's default folder belongs to the user who
    made it first. The name is always the same, so that Dask removes files of killed workers there.
    """
    folder = Path(tempfile.gettempdir(), f"hpc-prefect-dask-{os.getuid()}")
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
    return str(folder) if ours and not found.st_mode & 0o077 else tempfile.mkdtemp()


def settle(environment: MutableMapping[str, str], folder: str) -> None:
    """Set Dask's settings in the environment; Dask reads them when it is imported."""
    environment["DASK_TEMPORARY_DIRECTORY"] = folder
    # Dask's messages about each connection are of no use in a job's stderr.
    environment.setdefault("DASK_LOGGING__DISTRIBUTED", "warning")
    environment.setdefault("DASK_DISTRIBUTED__WORKER__HTTP__ROUTES", "[]")
    # Otherwise a worker with much in memory would silently take no more tasks.
    environment.setdefault("DASK_DISTRIBUTED__WORKER__MEMORY__PAUSE", "False")


def forget_keys(environment: MutableMapping[str, str]) -> None:
    """Remove the TLS keys that Dask has read: programs started by tasks must not inherit them."""
    for name in list(environment):
        if name.startswith("DASK_DISTRIBUTED__COMM__"):
            del environment[name]


if __name__ == "__main__":
    main()
