"""Projects to begin with, for `hpc-prefect init`: a folder each, with its files as they are.

Adding one is a folder here, with a README whose first line says what it shows, and a line in
`NEEDS` if it takes more than this package itself.
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
#: Stands in a template for the project's name.
_PROJECT = "PROJECT"
_GITIGNORE = "__pycache__/\nwork/\n"
#: The lines of a template's block file that start its program with MPI, and those without.
_WITH_MPI = 'ranks_per_node = 2\nlaunch = "mpi"\n'
_WITHOUT_MPI = '# With mpi4py and mpiexec: ranks_per_node = 2, launch = "mpi"\nlaunch = "single"\n'
_TRIAL = "from mpi4py.MPI import COMM_WORLD as world; world.rank or print(world.size)"


def template_names() -> list[str]:
    """All of them; the first is the one to begin with."""
    return sorted(each.name for each in resources.files(__name__).iterdir() if _is_template(each))


def _is_template(folder: Traversable) -> bool:
    return folder.is_dir() and folder.joinpath("flow.py").is_file()


def project_name(folder: Path, template: str) -> str:
    """What a project's blocks are called: by its folder, as Prefect takes names."""
    plain = re.sub("[^a-z0-9]+", "-", folder.resolve().name.lower()).strip("-")
    return plain[:40].strip("-") or template


def template_files(name: str, *, project: str = "project", with_mpi: bool) -> dict[str, str]:
    """The files of a project, by their names.

    Args:
        project: stands in the names of its blocks, so that two projects have blocks of their own.
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
    """Whether its program is started with MPI, where there is one."""
    return _WITH_MPI in template_files(name, with_mpi=True)["blocks.toml"]


def missing_for(name: str) -> str:
    """What has to be installed for a template, in a sentence; empty when nothing has."""
    return missing(f"template {name}", *NEEDS.get(name, ()))


def write_project(folder: Path, files: dict[str, str]) -> None:
    """Write files into a folder, which is made if it is not there; none is ever replaced.

    Raises:
        ConfigurationError: some are there already, and all of them are named; nothing was written.
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
    """Whether a Python program is started as two ranks that know of each other, by trying it."""
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
