"""qsub: makes a job's record from the options and the script."""

from __future__ import annotations

import grp
import os
import sys
import time

from hpc_rehearsal.common.state import user
from hpc_rehearsal.common.text import Refusal
from hpc_rehearsal.pbs import arrays, directives, resources
from hpc_rehearsal.pbs.formats import SERVER, VERSION, encoded, getopt
from hpc_rehearsal.pbs.state import DONE, Server, job_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    Record = dict[str, Any]

_LOOK_SECONDS = 0.05
# The answers of a queue: the exit statuses are the server's error numbers modulo 256.
_UNKNOWN_QUEUE = ("Unknown queue\n", 170)
_NOT_ENABLED = ("Queue is not enabled\n", 173)
_UNAUTHORIZED = ("Unauthorized Request \n", 159)
_OVER_RESOURCES = ("Job violates queue and/or server resource limits\n", 188)
_BAD_GROUP = ("Bad GID for job execution\n", 197)
_OVER_LIMIT = ("would exceed queue generic's per-user limit\n", 38)
_SUBSTATES = {"Q": 10, "H": 20, "W": 30}
DEPENDENT = 22


def qsub(server: Server, words: list[str]) -> int:
    if words == ["--version"]:
        print(f"pbs_version = {VERSION}")
        return 0
    _, operands, _ = getopt(words, directives.LETTERS)
    command = words[words.index("--") + 1 :] if "--" in words and operands else []
    script, name = ("", "STDIN") if command else _script(operands)
    asked = directives.read(words, script, os.environ)
    text = "Connection refused\nqsub: cannot connect to server opbs (errno=15010)\n"
    no_server = Refusal(text, 162)
    server.connect(no_server)
    with server.lock:
        try:
            job = _job(server, asked, command, name)
        except Refusal as refused:
            # qsub repeats the server's refusal under its own name.
            raise Refusal(f"qsub: {refused.text}", refused.code) from None
        job["arguments"] = " ".join(words)
        job["n"] = n = server.new()
        _name_files(job, n)
        server.add(job, script)
    server.lose_answer(no_server)
    print(job["id"], flush=True)
    return _await(server, n) if job["block"] else 0


def _script(operands: list[str]) -> tuple[str, str]:
    """The script's text, and the job's default name."""
    if not operands or operands[0] == "-":
        text, name = os.fsdecode(sys.stdin.buffer.read()), "STDIN"
    else:
        path = operands[0]
        if os.path.isdir(path):
            raise Refusal("qsub: script not a file\n", 1)
        try:
            with open(path, "rb") as file:
                text, name = os.fsdecode(file.read()), os.path.basename(path)
        except OSError as error:
            raise Refusal(f"qsub: script file:: {error.strerror}\n", 1) from None
    if "\r\n" in text:
        raise Refusal("qsub: script contains cr, lf\n", 1)
    return text, name


def _job(server: Server, asked: Record, command: list[str], name: str) -> Record:
    """The record of an accepted job.

    Raises:
        Refusal: the server does not accept it.
    """
    options, attributes, config = asked["options"], asked["attributes"], server.config
    named = options.get("q") or config["default_queue"]
    # Defaults of chunks; a routing queue has the same as the queues to which it routes.
    more = config["queues"].get(named, {}).get("default_chunk", {})
    wanted = resources.request(asked["resources"], config["resources"], more)
    queue = _queue(config, named, wanted["list"])
    _admit(server, queue, wanted["list"])
    group = attributes.get("group_list", "")
    if group and not _member(config, group.partition("@")[0]):
        raise Refusal(*_BAD_GROUP)
    now = time.time()
    at = _moment(options["a"]) if "a" in options else 0.0
    depend, wait = _depend(attributes.get("depend", ""))
    state = "H" if "h" in options or wait else "W" if at > now else "Q"
    array = (
        arrays.asked(options["J"], config.get("max_array_size", 10_000)) if "J" in options else None
    )
    return {
        "array": array,
        "name": options.get("N", name),
        "owner": f"{user()}@{SERVER}",
        "queue": queue,
        "state": state,
        "substate": DEPENDENT if wait and "h" not in options else _SUBSTATES[state],
        "hold": "u" if "h" in options else "s" if wait else "n",
        "options": {key: value for key, value in options.items() if key in "AjkmpPrS"},
        "resources": wanted,
        "variables": _list(asked, queue),
        "group": group,
        "depend": depend,
        "wait": wait,
        "at": at if at > now else 0.0,
        "block": attributes.get("block", "").lower() in ("true", "t", "y", "1"),
        "command": command or None,
        "home": config["home"],
        "work": os.getcwd(),
        "out": options.get("o", ""),
        "err": options.get("e", ""),
        "late": server.fault("late"),
        "deleted": None,
        "rerun": None,
        "runs": 0,
        **dict.fromkeys(("ctime", "mtime", "qtime"), now),
        "etime": now if state == "Q" else 0.0,
        **dict.fromkeys(("stime", "obittime", "history"), 0.0),
        **dict.fromkeys(("placed", "engine", "session", "used", "stageout", "exit")),
        "comment": "",
    }


def _name_files(job: Record, n: int) -> None:
    """Set the output's paths, as `qstat` shows them, once the job's number is known."""
    job["id"] = f"{n}[].{SERVER}" if job["array"] else f"{n}.{SERVER}"
    behind = f".{arrays.INDEX_TAG}" if job["array"] else ""
    for key, letter in (("out", "o"), ("err", "e")):
        job[key] = _destination(job[key], job["work"], f"{job['name']}.{letter}{n}{behind}")


def _destination(given: str, work: str, default: str) -> str:
    if not given:
        return f"{SERVER}:{os.path.join(work, default)}"
    host, colon, path = given.partition(":")
    if not colon or "/" in host:
        host, path = "localhost", given
    full = os.path.join(work, path)
    return f"{host}:{os.path.join(full, default) if os.path.isdir(full) else full}"


def _queue(config: Record, name: str, wanted: Record) -> str:
    """The queue that takes the job. A routing queue passes it at once to the first of its queues
    whose limits allow it. Assumed: if none does, it is refused as by the last one."""
    queues = config["queues"]
    if name not in queues:
        raise Refusal(*_UNKNOWN_QUEUE)
    if not queues[name].get("enabled", True):
        raise Refusal(*_NOT_ENABLED)
    following = queues[name].get("route_destinations")
    if not following:
        return name
    names = following.split(",")
    fits = (
        each
        for each in names
        if not resources.over(queues.get(each, {}).get("resources_max", {}), wanted)
    )
    return _queue(config, next(fits, names[-1]), wanted)


def _admit(server: Server, queue: str, wanted: Record) -> None:
    limits = server.config["queues"][queue]
    groups = limits.get("acl_groups")
    if groups is not None and not any(_member(server.config, group) for group in groups):
        raise Refusal(*_UNAUTHORIZED)
    if resources.over(limits.get("resources_max", {}), wanted):
        raise Refusal(*_OVER_RESOURCES)
    most = limits.get("max_queued")
    if server.fault("over-limit") or (most is not None and _in_queue(server, queue) >= most):
        raise Refusal(*_OVER_LIMIT)


def _in_queue(server: Server, queue: str) -> int:
    """How many jobs of a queue wait or run; subjobs of arrays count (assumed)."""
    return sum(arrays.alive(job) for job in server.alive() if job["queue"] == queue)


def _member(config: Record, group: str) -> bool:
    if config["groups"] is not None:
        return config["groups"] == "any" or group in config["groups"]
    try:
        return grp.getgrnam(group).gr_gid in (os.getgid(), *os.getgroups())
    except KeyError:
        return False


def _moment(text: str) -> float:
    """The time of [[CC]YY]MMDDhhmm[.SS], local; missing parts are those of now."""
    digits, _, second = text.partition(".")
    now = time.strftime("%Y%m%d")
    full = now[: max(0, 12 - len(digits))] + digits
    try:
        return time.mktime(time.strptime(full + (second or "00"), "%Y%m%d%H%M%S"))
    except ValueError:
        raise Refusal(f"illegal -a value\n{directives.USAGE}", 2) from None


def _depend(text: str) -> tuple[str, list[list[str | int | None]]]:
    """The dependencies as they are shown; and each kind with the number of the job waited for."""
    shown: list[str] = []
    wait: list[list[str | int | None]] = []
    for part in filter(None, text.split(",")):
        kind, *words = part.split(":")
        numbers = [job_number(word) for word in words]
        if kind not in ("afterok", "afternotok", "afterany") or not words or None in numbers:
            raise Refusal(f"illegal -W value\n{directives.USAGE}", 2)
        shown.append(":".join([kind, *(f"{number}.{SERVER}@{SERVER}" for number in numbers)]))
        wait += [[kind, number] for number in numbers]
    return ",".join(shown), wait


def _list(asked: Record, queue: str) -> list[str]:
    """The Variable_List: of the submitter's environment only what is asked for."""
    environment: Mapping[str, str] = os.environ
    found = {
        f"PBS_O_{name}": encoded(environment[name])
        for name in ("HOME", "LANG", "LOGNAME", "PATH", "MAIL", "SHELL", "TZ")
        if name in environment
    }
    found["PBS_O_INTERACTIVE_AUTH_METHOD"] = "resvport"
    found["PBS_O_INTERACTIVE_ENCRYPT_METHOD"] = ""
    found["PBS_O_WORKDIR"] = encoded(os.getcwd())
    found["PBS_O_SYSTEM"] = os.uname().sysname
    found |= {name: encoded(value, whole=True) for name, value in asked["whole"].items()}
    found |= {name: encoded(value) for name, value in asked["variables"].items()}
    found["PBS_O_QUEUE"] = asked["options"].get("q") or queue
    found["PBS_O_HOST"] = SERVER
    return [f"{name}={value}" for name, value in found.items()]


def _await(server: Server, n: int) -> int:
    """`-W block=true`: wait for the job's end, and return its exit status."""
    while True:
        with server.lock:
            job = server.job(n)
        if job is None or job["state"] == DONE:
            return int((job or {}).get("exit") or 0) % 256
        time.sleep(_LOOK_SECONDS)
