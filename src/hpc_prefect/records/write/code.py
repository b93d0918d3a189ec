"""Facts on what ran and where: source, repository, interpreter, packages, process."""

from __future__ import annotations

import getpass
import hashlib
import os
import platform
import re
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import cache, partial
from typing import Any

from hpc_prefect.local_batch import process
from hpc_prefect.records.write.plain import plain_arguments, plain_mapping

#: The most bytes of uncommitted changes that are kept beside the record.
MOST_DIFF = 1 << 20
_NUMERIC = re.compile(
    r"(OMP|GOMP|KMP|MKL|OPENBLAS|GOTO|BLIS|NUMEXPR|VECLIB|XLA|JAX|CUBLAS|NPY)_\w+"
    r"|PYTHONHASHSEED"
)
#: Seconds that git may take in all.
_PATIENCE = 10.0


def code_facts(file: str) -> tuple[dict[str, Any], bytes]:
    """The file that ran and its repository; and the changes there that are not committed.

    Without git, or outside of a repository, only the file's digest is known. Blocks: starts git.
    """
    facts: dict[str, Any] = {"file": file}
    try:
        with open(file, "rb") as source:
            facts["sha256"] = hashlib.file_digest(source, "sha256").hexdigest()
    except OSError:
        return facts, b""
    git = partial(_git, os.path.dirname(os.path.abspath(file)), time.monotonic() + _PATIENCE)
    top, commit = git("rev-parse", "--show-toplevel"), git("rev-parse", "HEAD")
    if not top or not commit:
        return facts, b""
    facts["repository"], facts["commit"] = _text(top), _text(commit)
    facts["branch"] = _text(git("rev-parse", "--abbrev-ref", "HEAD") or b"")
    changes = git("diff", "--no-ext-diff", "--no-color", "HEAD") or b""
    untracked = git("status", "--porcelain", "--untracked-files=normal", "--", file) or b""
    facts["tracked"] = not untracked.startswith(b"??")
    facts["dirty"] = bool(changes) or not facts["tracked"]
    if changes:
        facts["diff_sha256"] = hashlib.sha256(changes).hexdigest()
        facts["diff_kept"] = len(changes) <= MOST_DIFF
    return facts, changes if len(changes) <= MOST_DIFF else b""


def _git(folder: str, deadline: float, *words: str) -> bytes | None:
    """What git prints; None if it fails or is not installed."""
    quiet = {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            ["git", "-C", folder, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=max(0.1, deadline - time.monotonic()),
            env=os.environ | quiet,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def _text(answer: bytes) -> str:
    return os.fsdecode(answer).strip()


def process_facts() -> dict[str, Any]:
    """This process: its host, user and command line."""
    return {
        "host": socket.gethostname(),
        "user": _user(),
        "pid": os.getpid(),
        "process": process.identity(os.getpid()) or "",
        "cwd": _cwd(),
        "argv": plain_arguments(sys.argv),
    }


def numeric_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment variables that may change the last bits of results, such as threads."""
    return {name: value for name, value in sorted(environ.items()) if _NUMERIC.fullmatch(name)}


def environment_facts() -> dict[str, Any]:
    """This process, with its interpreter and packages."""
    return process_facts() | {
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "variables": plain_mapping(numeric_variables(os.environ)),
        "packages": packages(),
    }


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # no such user in the container
        return str(os.getuid())


def _cwd() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return ""


@cache
def packages() -> dict[str, str]:
    """All distributions that this interpreter finds, with their versions.

    By the names of their folders: to read their files would take a second.
    """
    found: dict[str, str] = {}
    for folder in reversed(sys.path):  # the first one on the path wins
        try:
            names = os.listdir(folder or ".")
        except OSError:
            continue
        for name in names:
            if name.endswith((".dist-info", ".egg-info")):
                distribution, _, version = name.rpartition(".")[0].partition("-")
                found[distribution.replace("_", "-").lower()] = version.partition("-")[0]
    return dict(sorted(found.items()))
