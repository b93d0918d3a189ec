"""`hpc-prefect rehearse`: run a command as if this machine were the login node of a site.

It is part of the product's command, so it may import the product's sites and errors.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from hpc_prefect.errors import ConfigurationError
from hpc_prefect.extras import missing
from hpc_prefect.sites import find_site
from hpc_prefect.terminal import line
from hpc_rehearsal.launchers.install import find_mpi
from hpc_rehearsal.session import KINDS, Session, read_options
from hpc_rehearsal.sites import Rehearsed, rehearsed

_USAGE = "hpc-prefect rehearse SITE [OPTION ...] -- COMMAND [ARGUMENT ...]"
#: For each scheduler: the option with its queues, and a queue's limit of running jobs.
_QUEUES = {"pbs": ("queues", "max_run"), "pjm": ("rscgrps", "run")}
#: Not a site, but the quantum service.
QUANTUM = "ibm-quantum"
_SHARED = ("state", "fault")
#: The modules that the extra `rehearsal` installs.
_SERVICE = ("fastapi", "uvicorn", "qiskit_aer", "qiskit_ibm_runtime")
_AT_ONCE = max(4, 2 * (os.cpu_count() or 1))


def main(words: list[str]) -> int:
    """Carry out what follows `hpc-prefect rehearse`; the exit status is that of COMMAND.

    Raises:
        ConfigurationError: an unknown option, site or fault.
    """
    cut = words.index("--") if "--" in words else len(words)
    ours, command = words[:cut], words[cut + 1 :]
    if QUANTUM in ours and {"-h", "--help"} & set(ours):
        return _run_quantum(argparse.Namespace(), ["--help"], command)
    arguments, more = _parser().parse_known_args(ours)
    if arguments.site == QUANTUM:
        return _run_quantum(arguments, more, command)
    if more:
        _parser().error(f"unrecognized arguments: {' '.join(more)}")
    if not command and not arguments.stop:
        raise ConfigurationError(f"there is no command: {_USAGE}")
    if arguments.stop and arguments.state is None:
        raise ConfigurationError("--stop is for a queue that is kept: name it with --state DIR")
    site = find_site(arguments.site)
    try:
        return _session(arguments, site.name, site.scheduler, rehearsed(site.name)).run(command)
    except ValueError as error:
        raise ConfigurationError(str(error)) from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hpc-prefect rehearse",
        usage=_USAGE,
        description="Run COMMAND with stand-ins for the site's commands on PATH, which run jobs as"
        " processes of this machine. Its exit status is COMMAND's.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "site", metavar="SITE", help="a name of `hpc-prefect sites`, or ibm-quantum"
    )
    _add_options(parser)
    return parser


def _add_options(parser: argparse.ArgumentParser) -> None:
    def option(name: str, default: object, text: str, **more: Any) -> None:
        parser.add_argument(name, default=default, help=text, **more)

    several: dict[str, Any] = {"action": "append", "metavar": "NAME"}
    option("--state", None, "keep the queue in this folder: jobs go on when COMMAND has ended, and"
           " the next rehearsal there meets them", type=Path, metavar="DIR")  # fmt: skip
    option("--stop", False, "with --state: end all jobs after COMMAND, or without one",
           action="store_true")  # fmt: skip
    option("--wait", 0.0, "a job waits at least so long before it starts",
           type=float, metavar="SECONDS")  # fmt: skip
    option("--at-once", _AT_ONCE, f"jobs that run at once in a queue (default: {_AT_ONCE})",
           type=int, metavar="N")  # fmt: skip
    option("--fault", None, "what goes wrong, such as `down`; may be given again", **several)
    option("--queue", None, "a queue or resource group that the site has besides", **several)
    option(
        "--project", None, "the only projects or groups that pay; otherwise any is taken", **several
    )
    option("--module", None, "a module that the site has besides", **several)
    option("--mpi", None, "the mpiexec of this machine that starts the ranks; empty: none",
           metavar="FILE")  # fmt: skip
    option("--set", None, "an option of the stand-in, such as nodes=2", action="append",
           metavar="NAME=VALUE")  # fmt: skip


def _run_quantum(arguments: argparse.Namespace, more: list[str], command: list[str]) -> int:
    """The quantum service has options of its own, which follow its name."""
    if told := missing("the rehearsal of IBM Quantum", *_SERVICE):
        raise ConfigurationError(told)
    from hpc_rehearsal.ibm_quantum import command as quantum

    ours = argparse.ArgumentParser(add_help=False)
    _add_options(ours)
    plain = vars(ours.parse_args([]))
    given = [name for name, value in plain.items() if getattr(arguments, name, value) != value]
    if foreign := [f"--{name.replace('_', '-')}" for name in given if name not in _SHARED]:
        raise ConfigurationError(f"{QUANTUM} has no option {' or '.join(foreign)}")
    shared = {name: getattr(arguments, name, None) for name in _SHARED}
    state = ["--state", str(shared["state"])] if shared["state"] else []
    faults = [word for fault in shared["fault"] or () for word in ("--fault", fault)]
    starting = line.shown(lambda: "waiting for the rehearsed service")
    return quantum.main([*state, *faults, *more, "--", *command], starting)


def _session(
    arguments: argparse.Namespace, name: str, kind: str, place: Rehearsed | None
) -> Session:
    """The session, from the site's data and the user's options."""
    if kind == "local":
        raise ValueError(f"{name} needs no rehearsal: its queue is this machine's own")
    if place is None or kind not in KINDS:
        raise ValueError(
            f"{name} cannot be rehearsed: there are stand-ins for {' and '.join(KINDS)} only"
        )
    options = {**place.scheduler, "wait": arguments.wait}
    where, most = _QUEUES[kind]
    queues: dict[str, dict[str, Any]] = {queue: {} for queue in arguments.queue or ()}
    queues |= options[where]
    options[where] = {
        queue: {**limits, most: min(limits.get(most, arguments.at_once), arguments.at_once)}
        for queue, limits in queues.items()
    }
    options["groups"] = arguments.project or "any"
    return Session(
        site=name,
        kind=kind,
        scheduler=options | read_options(arguments.set or []),
        launchers=place.launchers,
        modules=(*place.modules, *(arguments.module or ())),
        login_only=place.modules_in_login_shells,
        mpi=find_mpi() if arguments.mpi is None else _mpi(arguments.mpi),
        faults=tuple(arguments.fault or ()),
        state=arguments.state,
        stops=arguments.stop or arguments.state is None,
    )


def _mpi(given: str) -> str:
    if given and not os.access(given, os.X_OK):
        raise ValueError(f"--mpi: {given} cannot be executed")
    return os.path.abspath(given) if given else ""
