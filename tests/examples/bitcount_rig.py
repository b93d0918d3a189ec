"""The example bitcount, built and run at any place: all that differs is a profile's name."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from hpc_prefect.block_files.apply import apply_document
from hpc_prefect.block_files.document import read_document

EXAMPLE = Path(__file__).parents[2] / "examples" / "bitcount"

#: The venv's mpicxx and mpiexec before those of the system, as with the venv active.
ENVIRONMENT = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def what_is_missing() -> str:
    """Why the program cannot be built on this machine; empty when it can."""
    for name in ("make", "mpicxx", "mpiexec"):
        if shutil.which(name, path=ENVIRONMENT["PATH"]) is None:
            return f"there is no {name} (apt-get install make; pip install 'hpc-prefect[sqd]')"
    asked = ["mpicxx", "--version"]
    if subprocess.run(asked, env=ENVIRONMENT, capture_output=True, check=False).returncode != 0:
        return "mpicxx finds no C++ compiler (apt-get install g++)"
    return ""


def copied(folder: Path) -> Path:
    """The example as a fresh clone has it, in a folder of the test's own."""
    leave = shutil.ignore_patterns("bitcount", "__pycache__")
    return Path(shutil.copytree(EXAMPLE, folder / "examples" / "bitcount", ignore=leave))


def make(example: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", *arguments], cwd=example, env=ENVIRONMENT, capture_output=True, text=True
    )


def mpi(ranks: int, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """A program as the local profile launches it."""
    return subprocess.run(
        ["mpiexec", "-n", str(ranks), *words],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=120,
    )


def save_blocks(example: Path, profile: str, spool: Path) -> None:
    """Save blocks.toml, with `profile` for `hpc-local` and a queue of the test's own.

    What it saves besides the profile serves every place: for another one save a profile that has
    the executable `bitcount` (`save_profile`), and give its name to `run_bitcount`.
    """
    text = (example / "blocks.toml").read_text(encoding="utf-8").replace("hpc-local", profile)
    document = read_document(text, here=str(example), venv=sys.prefix, environ={})
    for item in document.items:
        if item.kind == "hpc-profile":
            item.value.local.spool = str(spool)
    asyncio.run(apply_document(document, report=lambda change: None, force=True))


def save_profile(text: str, example: Path) -> None:
    """Save what the text of a profile's file in `example` holds."""
    document = read_document(text, here=str(example), venv=sys.prefix, environ={})
    asyncio.run(apply_document(document, report=lambda change: None, force=True))


@cache
def flow_module() -> Any:
    """examples/bitcount/flow.py; under a name of its own, as every example has a flow.py."""
    sys.path.append(str(EXAMPLE))  # for its `from plot import …`
    spec = importlib.util.spec_from_file_location("bitcount_flow", EXAMPLE / "flow.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def run_bitcount(profile: str, work_dir: Path, **parameters: Any) -> dict[str, int]:
    """Run the flow, unchanged, where `profile` leads; the counts that it returns."""
    counts: dict[str, int] = asyncio.run(
        flow_module().bitcount(str(work_dir), hpc_profile=profile, **parameters)
    )
    return counts
