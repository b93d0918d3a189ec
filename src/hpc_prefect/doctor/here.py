"""Checks on this machine: its files, and the scheduler's commands."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TypeVar

from hpc_prefect.doctor.profile import EXECUTABLE
from hpc_prefect.doctor.report import executable_finding
from hpc_prefect.errors import TransportError
from hpc_prefect.job.dialogue import Command, Dialogue, Reply
from hpc_prefect.job.spec import Executable, Site
from hpc_prefect.schedulers.finding import Finding, ok, unknown, wrong
from hpc_prefect.transports.base import Transport

WORK_DIR = "work_dir"
#: The shell's status for a command that is not there.
_NO_COMMAND = 127

T = TypeVar("T")


def converse(dialogue: Dialogue[T], transport: Transport) -> T:
    """A dialogue's result; a command that is not there is answered as a shell would."""
    try:
        command = next(dialogue)
        while True:
            try:
                reply = transport.run(command)
            except TransportError as error:
                reply = Reply(_NO_COMMAND, stderr=str(error))
            command = dialogue.send(reply)
    except StopIteration as stop:
        result: T = stop.value
        return result


def work_dir_finding(work_dir: str, name: str, transport: Transport) -> Finding:
    """Whether a file can be written there from here; leaves it empty for a job to fill."""
    try:
        transport.make_folder(work_dir)
        transport.append(f"{work_dir}/{name}", b"")
    except TransportError as error:
        remedy = "choose another --work-dir, on a file system that login and compute nodes share"
        return wrong(WORK_DIR, str(error), remedy)
    return ok(WORK_DIR, f"{work_dir} can be written from here")


def file_server_ahead(folder: str, transport: Transport) -> float:
    """By how many seconds the clock of the folder's file server is ahead of ours."""
    path = f"{folder}/clock"
    transport.append(path, b"")
    before = time.time()
    transport.touch(path)
    after = time.time()
    status = transport.status(path)
    transport.remove(path)
    if status is None:
        return 0.0
    # Uncertain by the duration of the call; and a file's time may be as old as the kernel's tick.
    return min(0.0, status.modified - before + 0.01) + max(0.0, status.modified - after)


def executables_here(
    executables: Mapping[str, Executable], site: Site, transport: Transport, *, runs_here: bool
) -> list[Finding]:
    """Without a job: whether the paths exist on this machine; nodes may have other files."""
    found = []
    for key, executable in executables.items():
        path, check = executable.path, f"{EXECUTABLE} {key}"
        bare = "/" not in path
        set_up = executable.setup or executable.modules or site.setup or site.modules
        if set_up or (bare and (executable.path_prefixes or not runs_here)):
            found.append(
                unknown(check, f"{path!r}: a job looks for it after set-up", "--submit checks it")
            )
            continue
        word = _on_path(path, transport) if bare else _look(path, transport)
        if word == "ok" and not runs_here:
            seen = f"{path} exists on this machine; --submit checks whether nodes see it"
            found.append(unknown(check, seen))
        elif word == "missing" and not runs_here:
            seen = f"{path} does not exist on this machine; nodes may have it"
            found.append(unknown(check, seen, "--submit checks it"))
        else:
            found.append(executable_finding(key, path, (word, ""), "on this machine"))
    return found


def _on_path(name: str, transport: Transport) -> str:
    reply = transport.run(Command(("/bin/bash", "-c", 'type -P -- "$1"', "bash", name)))
    return "ok" if reply.code == 0 else "missing"


def _look(path: str, transport: Transport) -> str:
    for test, word in (("-d", "folder"), ("-x", "ok"), ("-e", "closed")):
        if transport.run(Command(("/usr/bin/test", test, path))).code == 0:
            return word
    return "missing"
