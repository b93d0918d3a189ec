"""Example projects for `hpc-prefect init`: a folder for each, with its files.

To add one, make a folder here, with a README whose first line says what it shows, and add a line to
`NEEDS` if it needs more than this package itself.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from hpc_prefect.errors import ConfigurationError
from hpc_prefect.extras import missing

#: Optional modules without which a template's flow does not run.
NEEDS: dict[str, tuple[str, ...]] = {
    "sqd": ("qiskit", "ffsim", "pyscf", "qiskit_addon_sqd", "mpi4py"),
    "vqe": ("qiskit", "qiskit_aer"),
}
#: The placeholder for the project's name in a template.
_PROJECT = "PROJECT"
_GITIGNORE = "__pycache__/\nwork/\n"
#: The lines of a template's block file that start its program with MPI, and those that do not.
_WITH_MPI = 'ranks_per_node = 2\nlaunch = "mpi"\n'
_WITHOUT_MPI = '# With mpi4py and mpiexec: ranks_per_node = 2, launch = "mpi"\nlaunch = "single"\n'
_TRIAL = "from mpi4py.MPI import COMM_WORLD as world; world.rank or print(world.size)"


def template_names() -> list[str]:
    """The names of all templates; the first one is the default."""
    return sorted(each.name for each in resources.files(__name__).iterdir() if _is_template(each))


def _is_template(folder: Traversable) -> bool:
    return folder.is_dir() and folder.joinpath("flow.py").is_file()


def project_name(folder: Path, template: str) -> str:
    """The project's name in its blocks: its folder's name, as Prefect allows it."""
    plain = re.sub("[^a-z0-9]+", "-", folder.resolve().name.lower()).strip("-")
    return plain[:40].strip("-") or template


def template_files(name: str, *, project: str = "project", with_mpi: bool) -> dict[str, str]:
    """The files of a project, by their names.

    Args:
        project: part of the names of its blocks, so that two projects do not share blocks.
    """
    folder = resources.files(__name__).joinpath(name)
    found = {
        each.name: each.read_text(encoding="utf-8").replace(_PROJECT, project)
        for each in folder.iterdir()
        if each.is_file()
    }
    if not with_mpi:
        found["blocks.toml"] = found["blocks.toml"].replace(_WITH_MPI, _WITHOUT_MPI)
    return dict(sorted(found.items())) | {".gitignore": _GITIGNORE}


def uses_mpi(name: str) -> bool:
    """Whether its program is started with MPI if MPI is there."""
    return _WITH_MPI in template_files(name, with_mpi=True)["blocks.toml"]


def missing_for(name: str) -> str:
    """What has to be installed for a template, in a sentence; empty if nothing is missing."""
    return missing(f"template {name}", *NEEDS.get(name, ()))


def write_project(folder: Path, files: dict[str, str]) -> None:
    """Write files into a folder, which is made if needed. No file is replaced.

    Raises:
        ConfigurationError: some are there already; the message names them. Nothing was written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    there = [name for name in files if os.path.lexists(folder / name)]
    if there:
        raise ConfigurationError(
            f"{folder} has {', '.join(there)} already, and nothing is ever replaced: nothing was"
            " written; choose another folder, or move them"
        )
    for name, text in files.items():
        with (folder / name).open("x", encoding="utf-8") as file:
            file.write(text)
        if text.startswith("#!"):
            (folder / name).chmod(0o755)


def can_run_mpi() -> bool:
    """Whether mpiexec and mpi4py work together: two ranks are started to find out."""
    path = f"{sys.prefix}/bin{os.pathsep}{os.environ.get('PATH', '')}"
    launcher = shutil.which("mpiexec", path=path)
    if launcher is None:
        return False
    try:
        tried = subprocess.run(
            [launcher, "-n", "2", sys.executable, "-c", _TRIAL],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return False
    return tried.returncode == 0 and tried.stdout.strip() == "2"
