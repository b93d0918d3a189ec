"""pjsub: makes a job's record from the options and the script."""

from __future__ import annotations

import errno
import grp
import os
import re
import sys
import time

from hpc_rehearsal.common.state import user
from hpc_rehearsal.common.text import unquoted
from hpc_rehearsal.pjm import bulk, options, resources
from hpc_rehearsal.pjm.formats import absent, info, invalid_argument, refusal
from hpc_rehearsal.pjm.state import Server

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Record = dict[str, Any]

_SENT = ("HOME", "LANG", "LOGNAME", "MAIL", "PATH", "SHELL", "TZ")
_NEVER_SENT = "LD_LIBRARY_PATH"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", re.ASCII)


def pjsub(server: Server, words: list[str]) -> int:
    outside, operands = options.parsed(words, inside=False)
    script, file = _script(operands)
    asked = options.merged(outside, options.directives(script, file))
    for kind in ("bulk", "step", "interact"):
        if kind in asked and not (kind == "bulk" and server.config.get("bulk", True)):
            # The answer of a machine that does not allow such jobs.
            raise refusal("pjsub", 70, f"No execute permission: pjsub-{kind}.")
    server.connect(absent("pjsub"))
    with server.lock:
        job = _job(server, asked, file)
        job["arguments"] = operands[1:]
        job["n"] = n = server.new()
        job["id"] = str(n)
        bulk.name_files(job)
        server.add(job, script)
    server.lose_answer(absent("pjsub"))
    bare = asked.get("print") == "jid"
    print(f"{n}\n" if bare else info("pjsub", 0, f"Job {n} submitted."), end="", flush=True)
    return 0


def _script(operands: list[str]) -> tuple[str, str]:
    """The script's text and its file's name."""
    if not operands or operands[0] == "-":
        return os.fsdecode(sys.stdin.buffer.read()), "STDIN"
    path = operands[0]
    try:
        with open(path, "rb") as file:
            return os.fsdecode(file.read()), os.path.basename(path)
    except OSError as error:
        # Assumed: the code in brackets is the errno.
        code = error.errno or errno.EIO
        raise refusal("pjsub", 20, f"File open failed: {path} ({code}).") from None


def _job(server: Server, asked: Record, file: str) -> Record:
    """The record of an accepted job.

    Raises:
        Refusal: it is not accepted.
    """
    name = asked.get("name", file)
    if not _NAME.fullmatch(name):
        raise invalid_argument("pjsub", "-N", name)
    wanted = resources.request(server.config, options.items(asked["resources"]))
    group = _group(server.config, asked.get("group", ""))
    _admit(server, wanted["rscgrp"])
    now, mpi = time.time(), options.items(asked["mpi"])
    return {
        "name": name,
        "bulk": _bulk(asked),
        "files": {key: asked[key] for key in ("out", "err", "spath") if key in asked},
        "user": user(),
        "group": group,
        **wanted,
        "state": "ACC",
        "last": "ACC",
        **dict.fromkeys(("ec", "pc", "sn"), 0),
        "reason": "",
        "accepted": now,
        "at": _moment(asked["at"]) if "at" in asked else 0.0,
        **dict.fromkeys(("begun", "ended", "over"), 0.0),
        "mpi": mpi.get("proc", str(wanted["nodes"])),
        "priority": asked.get("priority", "127"),
        "comment": asked.get("comment", ""),
        # At a large site jobs are not started again unless they ask for it.
        "restart": asked.get("again", server.config["again"]) == "restart",
        "retries": 0,
        "join": "join" in asked,
        "stats": "S" if "node-stats" in asked else "s" if "stats" in asked else "",
        "variables": _variables(asked),
        "work": os.getcwd(),
        "host": os.uname().nodename,
        "shell": server.config["shell"],
        "late": server.fault("late"),
        **dict.fromkeys(
            ("deleted", "held", "taken", "engine", "session", "limit", "memory_used", "cpu")
        ),
    }


def _group(config: Record, asked: str) -> str:
    known = config["groups"]
    if known == "any" and asked:
        return asked
    if known is None or known == "any":
        known = [grp.getgrgid(gid).gr_name for gid in {os.getgid(), *os.getgroups()} if _named(gid)]
    if asked and asked not in known:
        raise refusal("pjsub", 71, f"Group not authorized to submit a job: {asked} (group).")
    return asked or (known[0] if known else str(os.getgid()))


def _named(gid: int) -> bool:
    try:
        return bool(grp.getgrgid(gid))
    except KeyError:
        return False


def _admit(server: Server, rscgrp: str) -> None:
    """Apply the site's own check, and the limit of a user's jobs."""
    limits = server.config["rscgrps"][rscgrp]
    if said := limits.get("gate"):
        raise refusal("pjsub", 79, f"{said}.")
    most = limits.get("accept")
    full = most is not None and sum(job["rscgrp"] == rscgrp for job in server.alive()) >= most
    if server.fault("over-limit") or full:
        target = "rg-accept" if full else "ru-accept"
        raise refusal("pjsub", 72, f"Job exceeded the accept limit: {target}.")


def _bulk(asked: Record) -> Record | None:
    if "bulk" not in asked:
        return None
    found = bulk.asked(asked.get("sparam", ""))
    if found is None:
        # Assumed: the manual says only that both are needed, and which values are valid.
        raise invalid_argument("pjsub", "--sparam", asked.get("sparam", ""))
    return found


def _moment(text: str) -> float:
    """The time of [[[YYYY]MM]DD]hhmm, local; missing parts are those of now."""
    now = time.strftime("%Y%m%d")
    full = now[: max(0, 12 - len(text))] + text
    try:
        found = time.mktime(time.strptime(full, "%Y%m%d%H%M"))
    except ValueError:
        raise invalid_argument("pjsub", "--at", text) from None
    if found < time.time():
        said = f"The specified execution time is earlier than the current time: {text}."
        raise refusal("pjsub", 56, said)
    return found


def _variables(asked: Record) -> dict[str, str]:
    """What the job gets of the submitter's environment: only what is asked for."""
    environment = dict(os.environ)
    found = {f"PJM_O_{name}": environment[name] for name in _SENT if name in environment}
    if "whole" in asked:
        found |= {
            name: value for name, value in environment.items() if name not in (*_SENT, _NEVER_SENT)
        }
    for part in asked["variables"]:
        name, equals, value = part.partition("=")
        if equals:
            found[name] = unquoted(value)
        elif name in environment:
            found[name] = environment[name]
    return found
