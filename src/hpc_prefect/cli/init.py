"""`hpc-prefect init`: a project that runs at once."""

from __future__ import annotations

import argparse
import os
import shlex
from pathlib import Path

from hpc_prefect.cli.verbs import Verbs

#: What templates are for, by their names; the first is the default.
_TEMPLATES = {
    "bitcount": "one MPI job",
    "sqd": "quantum samples, MPI jobs, a loop that converges",
    "sweep": "an array of jobs, and runs compared",
    "vqe": "a loop on a simulated quantum computer",
}


def add(verbs: Verbs) -> None:
    init = verbs.add_parser(
        "init",
        help="write a project that runs at once",
        description="Write flow.py, blocks.toml, README.md and what else a project needs. "
        "No file is ever replaced.",
    )
    init.add_argument(
        "folder", nargs="?", type=Path, default=Path(), metavar="DIR",
        help="made if it is not there (default: the current folder)",
    )  # fmt: skip
    told = "; ".join(f"{name}: {what}" for name, what in _TEMPLATES.items())
    init.add_argument(
        "--template", choices=tuple(_TEMPLATES), default="bitcount",
        help=f"{told} (default: %(default)s)",
    )  # fmt: skip
    init.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from hpc_prefect import templates

    name, folder = arguments.template, arguments.folder
    lacking, uses_mpi = templates.missing_for(name), templates.uses_mpi(name)
    # When mpi4py is still to be installed, the same installation brings MPI.
    with_mpi = uses_mpi and ("mpi4py" in lacking or templates.can_run_mpi())
    project = templates.project_name(folder, name)
    files = templates.template_files(name, project=project, with_mpi=with_mpi)
    templates.write_project(folder, files)
    print(f"wrote {', '.join(files)}{'' if folder == Path() else f' into {folder}'}")
    if uses_mpi and not with_mpi:
        print(
            "no MPI was found for this Python, so the program runs as one process; for two: `pip"
            " install 'hpc-prefect[mpi]'`, then see blocks.toml"
        )
    if lacking:
        print(lacking)
    there = "" if folder == Path() else f"cd {shlex.quote(os.fspath(folder))} && "
    print(f"{'then ' if lacking else ''}run it: {there}python flow.py")
    return 0
