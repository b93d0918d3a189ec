"""A job's output: PBS copies it to its place at the job's end, and not before."""

from __future__ import annotations

import os
import shutil

from hpc_rehearsal.pbs.formats import seconds
from hpc_rehearsal.pbs.state import Server

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Record = dict[str, Any]

_OVERRUN_SECONDS = 1


def written_to(server: Server, job: Record) -> tuple[str, str]:
    """Where the running job's standard output and standard error go."""
    keep = job["options"].get("k", "n")
    found = {}
    for key, letter, kind in (("out", "o", "OU"), ("err", "e", "ER")):
        direct = "d" in keep and letter in keep
        found[key] = _target(job, key) if direct else server.file(job["n"], kind)
    join = job["options"].get("j", "n")
    if join == "oe":
        found["err"] = found["out"]
    elif join == "eo":
        found["out"] = found["err"]
    return found["out"], found["err"]


def deliver(server: Server, job: Record) -> int:
    """Copy the output; 1 if every file is in its place, else 0: the rest goes to `undelivered/`.

    After the first failure no other file is tried: if the -o folder was missing, standard error was
    not delivered either.
    """
    written, fine = written_to(server, job), True
    _say_why(job, written)
    for kind, key, source in (("OU", "out", written[0]), ("ER", "err", written[1])):
        target = _target(job, key)
        if source != server.file(job["n"], kind) or not os.path.exists(source):
            continue  # already in its place, joined to the other file, or the job never began
        fine = fine and _copy(source, target)
        if not fine:
            shutil.copyfile(source, server.path("undelivered", f"{job['id']}.{kind}"))
        os.unlink(source)
    shutil.rmtree(server.path("tmp", f"pbs.{job['id']}"), ignore_errors=True)
    if os.path.exists(nodefile := server.path("aux", job["id"])):
        os.unlink(nodefile)
    return int(fine)


def _target(job: Record, key: str) -> str:
    letter = "o" if key == "out" else "e"
    keep = job["options"].get("k", "n")
    # -k o leaves standard output in the job's home; with d it is written directly to its path.
    if "d" not in keep and letter in keep:
        number = f"{job['parent']}.{job['index']}" if "parent" in job else job["n"]
        return os.path.join(job["home"], f"{job['name']}.{letter}{number}")
    return str(job[key].partition(":")[2])


def _copy(source: str, target: str) -> bool:
    try:
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(source, "rb") as given, open(fd, "wb") as taken:
            shutil.copyfileobj(given, taken)
    except OSError:
        return False
    return True


def _say_why(job: Record, written: tuple[str, str]) -> None:
    """Append PBS's line about a kill. Here it is the last line; in PBS, output that the job wrote
    after SIGTERM follows it."""
    line = ""
    wanted = job["resources"]["list"]
    if job["end"] == "TIMEOUT":
        limit = seconds(wanted["walltime"]) or 0
        used = max(int(job["used"]["walltime"]), limit + _OVERRUN_SECONDS)
        line = f"walltime {used} exceeded limit {limit}"
    elif job["end"] == "OUT_OF_MEMORY":
        limit = sum(chunk["count"] * chunk["mem"] for chunk in job["resources"]["chunks"])
        line = f"mem {job['used']['memory'] // 1024}kb exceeded limit {limit // 1024}kb"
    if line:
        with open(written[1], "a") as file:
            file.write(f"=>> PBS: job killed: {line}\n")
