"""Other people, and other numbers for processes: what a shared machine has and a laptop need not.

Tests that want them are skipped with their reason where they cannot be had, and fail on CI.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from shlex import quote
from typing import NoReturn

import pytest

#: Users and a group by number: nothing on the machine is changed for them.
VICTIM, MALLORY, SHARED = 54321, 54322, 54320
_NAMESPACE = ("--pid", "--fork", "--kill-child", "--mount-proc")


def own_pids() -> tuple[str, ...]:
    """What begins a command in a PID namespace of its own, as `apptainer --pid` makes one."""
    for argv in (("unshare", *_NAMESPACE), ("unshare", "--user", "--map-root-user", *_NAMESPACE)):
        if shutil.which("unshare") and not subprocess.run([*argv, "true"]).returncode:
            return argv
    return cannot("PID namespaces: root, or user namespaces that anybody may make")


class People:
    """Runs commands as other users of this machine, who can read this package and its Python.

    Where these are in a folder that is root's alone (as a Python below root's home is), the command
    sees them there in a mount namespace of its own, and nothing else of that folder.
    """

    def __init__(self, stage: Path) -> None:
        """`stage`: an empty folder."""
        self._stage = stage
        if os.geteuid() != 0:
            cannot("root, to run commands as other users")
        try:
            self._mounts = self._needed()
            done = self.run(VICTIM, sys.executable, "-c", "import hpc_prefect.errors")
        except OSError as error:
            cannot(f"commands as another user: {error}")
        if done.returncode:
            cannot(f"a Python that other users may run: {done.stderr.strip()}")

    def argv(self, uid: int, *words: str) -> list[str]:
        """A command as it is run as another user, in the group `SHARED` alone."""
        ids = (f"--reuid={uid}", f"--regid={SHARED}", "--clear-groups", "--no-new-privs")
        command = ["setpriv", *ids, "--", *words]
        if not self._mounts:
            return command
        script = "\n".join(["was=$(umask); umask 022", *self._mounts, 'umask $was; exec "$@"'])
        own = ("unshare", "--mount", "--propagation", "private")
        return [*own, "/bin/sh", "-ec", script, "sh", *command]

    def run(self, uid: int, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.argv(uid, *words), capture_output=True, text=True, cwd="/")

    def _needed(self) -> list[str]:
        """Shell lines that show others what they need, in the place of folders that hide it."""
        wanted = {sys.base_prefix, sys.prefix, str(Path(__file__).parents[1]), *_of_package()}
        hidden: dict[Path, list[str]] = {}
        for path in sorted({os.path.realpath(each) for each in wanted}):
            above = [*reversed(Path(path).parents), Path(path)]
            private = next((one for one in above if not one.stat().st_mode & 0o001), None)
            if private is not None:
                hidden.setdefault(private, []).append(path)
        lines = []
        for private, paths in hidden.items():
            stage = quote(str(self._stage))
            lines.append(f"mount -t tmpfs -o mode=755 tmpfs {stage}")
            for path in paths:
                inside = quote(f"{self._stage}/{Path(path).relative_to(private)}")
                lines.append(f"mkdir -p {inside}; mount --bind {quote(path)} {inside}")
            lines.append(f"mount --rbind {stage} {quote(str(private))}")
        return lines


def _of_package() -> list[str]:
    """Where this package's installed dependencies are."""
    return [path for path in sys.path if path.endswith("site-packages")]


def cannot(what: str) -> NoReturn:
    """Skip the test, or on CI fail it, because this machine has something not."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"needs {what}", pytrace=False)
    pytest.skip(f"needs {what}")
