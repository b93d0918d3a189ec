"""Writing commands into a folder for PATH, and waiting for the end of all that they started."""

from __future__ import annotations

import json
import os
import pwd
import sys
import time
from pathlib import Path

from hpc_rehearsal.common.state import FOLDERS
from hpc_rehearsal.common.text import shell_quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hpc_rehearsal.common.state import State

_PROGRAM = Path(__file__).with_name("program.py")
_LOOK_SECONDS = 0.02


def write(
    kind: str, folder: Path, state: Path, config: Mapping[str, object], commands: Mapping[str, str]
) -> None:
    """Make the state folder, or keep it with its jobs, and the commands that use it.

    `commands`: by the name of each, the command that it runs.
    """
    for name in FOLDERS:
        (state / name).mkdir(mode=0o700, parents=True, exist_ok=True)
    full = {**config, "commands": str(folder.resolve())}
    (state / "config.json").write_text(json.dumps(full, indent=1))
    add_commands(kind, folder, state, commands)


def add_commands(kind: str, folder: Path, state: Path, commands: Mapping[str, str]) -> None:
    """Write programs into the folder; see `write`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, what in commands.items():
        program = [sys.executable, "-I", "-S", str(_PROGRAM), kind, what, str(state.resolve())]
        words = " ".join(shell_quoted(word) for word in program)
        command = folder / name
        command.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        command.chmod(0o755)


def chosen(known: Sequence[str], wanted: Sequence[str] | None) -> list[str]:
    """The commands of a scheduler that a site has; all of them if `wanted` is None."""
    if wanted is None:
        return list(known)
    if unknown := [name for name in wanted if name not in known]:
        raise TypeError(f"there is no command {unknown[0]!r}, only {', '.join(known)}")
    return list(wanted)


def only(options: Mapping[str, object], known: Mapping[str, object]) -> None:
    if unknown := options.keys() - known.keys():
        raise TypeError(f"install has no option {sorted(unknown)[0]!r}")


def account() -> tuple[str, str]:
    """The user's home and shell."""
    try:
        found = pwd.getpwuid(os.getuid())
    except KeyError:
        return "/", "/bin/bash"
    return found.pw_dir or "/", found.pw_shell or "/bin/bash"


def lift(state: Path) -> None:
    """End all faults."""
    for fault in (state / "faults").iterdir():
        fault.unlink()


def await_ends(server: State, patience: float) -> None:
    """Wait until nothing runs any more."""
    end = time.monotonic() + patience
    while True:
        with server.lock:
            alive = [job["id"] for job in server.alive()]
        if not alive:
            return
        if time.monotonic() > end:
            left = f"{', '.join(alive)} in {server.state} did not end"
            raise TimeoutError(f"{left}; see daemon.log there")
        time.sleep(_LOOK_SECONDS)
