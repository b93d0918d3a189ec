"""Other people, and other numbers for processes: what a shared machine has and a laptop need not.

Tests that want them are skipped with their reason where they cannot be had, and fail on CI.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import NoReturn

import pytest

_NAMESPACE = ("--pid", "--fork", "--kill-child", "--mount-proc")


def own_pids() -> tuple[str, ...]:
    """What begins a command in a PID namespace of its own, as `apptainer --pid` makes one."""
    for argv in (("unshare", *_NAMESPACE), ("unshare", "--user", "--map-root-user", *_NAMESPACE)):
        if shutil.which("unshare") and not subprocess.run([*argv, "true"]).returncode:
            return argv
    return cannot("PID namespaces: root, or user namespaces that anybody may make")


def cannot(what: str) -> NoReturn:
    """Skip the test, or on CI fail it, because this machine has something not."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"needs {what}", pytrace=False)
    pytest.skip(f"needs {what}")
