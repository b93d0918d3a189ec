"""pjwait, which tells how jobs ended, and pjacl, which tells of a resource group."""

from __future__ import annotations

import time

from hpc_rehearsal.pjm.formats import (
    absent,
    hms,
    job_numbers,
    refusal,
    unknown_argument,
    unknown_option,
)
from hpc_rehearsal.pjm.state import Server

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Record = dict[str, Any]

_LOOK_SECONDS = 0.05
_MISSING, _INVALID, _NO_UNIT, _NO_GROUP = 10, 11, 97, 98
#: The letter that replaces the PJM code of a job that has not ended. The letters are the manual's.
#: It is assumed that `-` follows them, and that ERR and HLD end the waiting too.
_LETTERS = {"ERR": "E", "HLD": "H"}
_RUNNING = "X"


def pjwait(server: Server, words: list[str]) -> int:
    """Print a line for each job: id, PC, EC, SN; none for an unknown or rejected job."""
    at_once, ids = _waits(words)
    if not ids:
        raise refusal("pjwait", _MISSING, "No jobid(s) specified.", usage=True)
    numbers: list[int] = []
    for word in ids:
        found = job_numbers(word)
        if found is None:
            raise refusal("pjwait", _INVALID, f"Invalid jobid: {word}.")
        numbers += found
    server.connect(absent("pjwait"))
    for n in numbers:
        while line := _line(server, n):
            if at_once or line.split()[1] != _RUNNING:
                print(line, flush=True)
                break
            time.sleep(_LOOK_SECONDS)
    return 0


def _waits(words: list[str]) -> tuple[bool, list[str]]:
    at_once, ids, ahead = False, [], list(words)
    while ahead:
        word = ahead.pop(0)
        if word == "-w" and ahead:
            how = ahead.pop(0)
            if how != "waitnone":
                raise unknown_argument("pjwait", "-w", how)
            at_once = True
        elif word.startswith("-"):
            raise unknown_option("pjwait", word)
        else:
            ids.append(word)
    return at_once, ids


def _line(server: Server, n: int) -> str:
    with server.lock:
        job = server.job(n)
        if job is None or not server.visible(job) or job["state"] == "RJT":
            return ""
    if job.get("bulk") and job["state"] in server.DONE:
        return f"{job['id']} - - -"
    if job["state"] in server.DONE:
        return f"{job['id']} {job['pc']} {job['ec']} {job['sn']}"
    return f"{job['id']} {_LETTERS.get(job['state'], _RUNNING)} - -"


def pjacl(server: Server, words: list[str]) -> int:
    """Print what a resource group allows. The refusals are the manual's. The output is assumed,
    except for the line on who may submit, which users of a real machine quote."""
    asked = {"--rg": server.config["default_rscgrp"], "--ru": server.config["default_rscunit"]}
    ahead = list(words)
    while ahead:
        word = ahead.pop(0)
        name, equals, value = word.partition("=")
        if name not in asked or not (equals or ahead):
            raise unknown_option("pjacl", name)
        asked[name] = value if equals else ahead.pop(0)
    server.connect(absent("pjacl"))
    group, unit = asked["--rg"], asked["--ru"]
    if unit not in server.config["rscunits"]:
        raise refusal("pjacl", _NO_UNIT, f"Resource unit does not exist: {unit}.")
    if group not in server.config["rscgrps"]:
        raise refusal("pjacl", _NO_GROUP, f"Resource group does not exist: {group}.")
    limits: Record = server.config["rscgrps"][group]
    print(f"RSCUNIT: {unit}\nRSCGRP: {group}")
    low, high = limits.get("node", (1, server.config["nodes"]))
    print(f"  node    lower {low}  upper {high}")
    if "elapse" in limits:
        low, high = (hms(each) for each in limits["elapse"])
        print(f"  elapse  lower {low}  upper {high}")
    print("  pjsub   + allow all" if limits.get("enabled", True) else "  pjsub   + deny all")
    return 0
