"""The commands by their names, and those that change a job that is there."""

from __future__ import annotations

import sys
import time

from hpc_rehearsal.common import indices
from hpc_rehearsal.common.commands import run
from hpc_rehearsal.common.state import user
from hpc_rehearsal.common.text import Refusal
from hpc_rehearsal.pbs import arrays
from hpc_rehearsal.pbs.formats import (
    BAD_ID,
    BAD_STATE,
    FINISHED,
    NOT_CONNECTED,
    NOT_RERUNNABLE,
    SERVER,
    UNAUTHORIZED,
    UNKNOWN_ID,
    UNKNOWN_QUEUE,
    VERSION,
    getopt,
    moment,
)
from hpc_rehearsal.pbs.state import DONE, Server

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Record = dict[str, Any]

_DELETED = 91


def main(name: str, state: str, words: list[str]) -> int:
    """Run one command; its exit status."""
    return run(lambda: _command(name)(Server(state), words))


def _command(name: str) -> Callable[[Server, list[str]], int]:
    # Each command imports only what it needs, because commands are run often.
    if name == "qsub":
        from hpc_rehearsal.pbs.submit import qsub

        return qsub
    if name == "qstat":
        from hpc_rehearsal.pbs.qstat import qstat

        return qstat
    if name == "qstat-table":
        from hpc_rehearsal.pbs.site_qstat import qstat as table

        return table
    return {"qdel": qdel, "qselect": qselect, "qhold": qhold, "qrls": qrls, "qrerun": qrerun}[name]


def _no_connection(name: str) -> Refusal:
    text = f"{name}: cannot connect to server {SERVER} (errno=15010)"
    if name == "qdel":
        text = f"Couldn't connect to cluster: {SERVER}"
    return Refusal(f"Connection refused\n{text}\n", NOT_CONNECTED)


def _each(
    name: str, server: Server, words: list[str], act: Callable[[Record], Refusal | None]
) -> int:
    """Apply `act` to every job, even if others fail; the exit status is that of the last error."""
    status = 0
    server.connect(_no_connection(name))
    with server.lock:
        for word in words:
            job, known = None, True
            try:
                job = server.named(word)
            except ValueError:
                known = False
            if not known:
                said = Refusal(f"{name}: illegally formed job identifier: {word}\n", BAD_ID)
            elif job is None:
                said = Refusal(f"{name}: Unknown Job Id {_full(word)}\n", UNKNOWN_ID)
            elif not (refused := act(job)):
                continue
            else:
                said = refused
            print(said.text, end="", file=sys.stderr)
            status = said.code
        server.wake()
    return status


def _full(word: str) -> str:
    return word if "." in word else f"{word}.{SERVER}"


def _bad_state(name: str, job: Record) -> Refusal:
    return Refusal(f"{name}: Request invalid for state of job {job['id']}\n", BAD_STATE)


def _finished(name: str, job: Record) -> Refusal:
    return Refusal(f"{name}: Job has finished {job['id']}\n", FINISHED)


def _usage(name: str, options: str) -> Refusal:
    """Assumed: only qsub's was recorded."""
    text = f"usage: {name} {options} job_identifier...\n       {name} --version\n"
    return Refusal(text, 2)


# qdel


def qdel(server: Server, words: list[str]) -> int:
    if words == ["--version"]:
        print(f"pbs_version = {VERSION}")
        return 0
    found, ids, unknown = getopt(words, "W:x")
    if unknown or not ids:
        raise _usage("qdel", "[-Wforce|suppress_email=X] [-x]")
    force = any(value.strip() == "force" for letter, value in found if letter == "W")
    purge = ("x", "") in found
    return _each("qdel", server, ids, lambda job: _delete(server, job, force=force, purge=purge))


def _delete(server: Server, job: Record, *, force: bool, purge: bool) -> Refusal | None:
    if job["state"] == DONE:
        if not purge:
            return _finished("qdel", job)
        server.forget(job["n"])
        return None
    if job["state"] == "X":
        return _bad_state("qdel", job)  # assumed
    if "copied" in job:
        _delete_waiting(server, job)
        return None
    now = time.time()
    job["mtime"] = now
    if job["state"] == "B":
        for index in arrays.indices_of(job):
            if indices.holds(job["array"]["waiting"], index, job["array"]["step"]):
                arrays.expire(job, index)
        server.save(job)
        for part in server.parts(job["n"]):
            _delete(server, part, force=force, purge=False)
        return None
    if job["state"] in "RE":
        if not job["deleted"]:  # else it is being deleted already
            job["comment"] += f" and terminated by {user()}@{SERVER}"
            job["deleted"] = {"at": now, "sent": False}
        job["deleted"] |= {"force": force, "purge": purge}
    else:
        # It never ran: it gets no Exit_status and no start time.
        if job.get("array"):
            job["array"]["waiting"] = []
        if "parent" in job and (whole := server.job(job["parent"])):
            arrays.take(whole, job["index"])
            server.save(whole)
        suffix = " and terminated" if job["comment"] else ""
        job.update(state=DONE, substate=_DELETED, comment=job["comment"] + suffix, history=now)
    server.save(job)
    if purge and job["state"] == DONE:
        server.forget(job["n"])
    return None


def _delete_waiting(server: Server, shown: Record) -> None:
    """Delete a subjob that has no record. The daemon sees whether it was the last one."""
    whole = server.job(shown["copied"])
    if whole:
        arrays.expire(whole, shown["index"])
        whole["mtime"] = time.time()
        server.save(whole)


# qhold, qrls: what they do with arrays and subjobs is not known


def qhold(server: Server, words: list[str]) -> int:
    def hold(job: Record) -> Refusal | None:
        if job["state"] == DONE:
            return _finished("qhold", job)
        if job["state"] in "BX" or "index" in job:
            return _bad_state("qhold", job)
        now = time.time()
        job.update(hold="u", mtime=now, comment=f"Job held by {user()} on {moment(now)}")
        if job["state"] not in "RE":  # a running job runs on
            job.update(state="H", substate=20, etime=0.0)
        server.save(job)
        return None

    return _each("qhold", server, _ids("qhold", words), hold)


def qrls(server: Server, words: list[str]) -> int:
    def release(job: Record) -> Refusal | None:
        if job["state"] == DONE:
            return _finished("qrls", job)
        if job["state"] in "BX" or "index" in job:
            return _bad_state("qrls", job)
        now = time.time()
        job.update(hold="s" if job["wait"] else "n", mtime=now)
        if job["state"] == "H" and not job["wait"]:
            waits = job["at"] > now
            job.update(state="W" if waits else "Q", substate=30 if waits else 10, comment="")
            job["etime"] = 0.0 if waits else now
        server.save(job)
        return None

    return _each("qrls", server, _ids("qrls", words), release)


def _ids(name: str, words: list[str]) -> list[str]:
    found, ids, unknown = getopt(words, "h:")
    if unknown or not ids or any(value != "u" for _, value in found):
        raise _usage(name, "[-h hold_list]")
    return ids


# qrerun


def qrerun(server: Server, words: list[str]) -> int:
    """The words about jobs that cannot be run again are assumed."""

    def rerun(job: Record) -> Refusal | None:
        if not server.config["operator"]:
            return Refusal(f"qrerun: Unauthorized Request  {job['id']}\n", UNAUTHORIZED)
        if job["state"] != "R":
            return _bad_state("qrerun", job)
        if job["options"].get("r") == "n":
            return Refusal(f"qrerun: Job is not rerunnable {job['id']}\n", NOT_RERUNNABLE)
        job["rerun"] = {"at": time.time(), "sent": False}
        server.save(job)
        return None

    return _each("qrerun", server, _ids("qrerun", words), rerun)


# qselect


def qselect(server: Server, words: list[str]) -> int:
    """Print the ids of the jobs that match all conditions."""
    if words == ["--version"]:
        print(f"pbs_version = {VERSION}")
        return 0
    found, operands, unknown = getopt(words, "HN:q:s:u:x")
    if unknown or operands:
        raise Refusal("usage: qselect [-N name] [-q destination] [-s states] [-u users] [-x]\n", 2)
    options = dict(found)
    server.asked(_no_connection("qselect"))
    if options.keys() & {"x", "H"} and not server.history():
        print("qselect: PBS is not configured to maintain job history", file=sys.stderr)
        return 0
    queue = options.get("q", "").partition("@")[0]
    if queue and queue not in server.config["queues"]:
        raise Refusal("qselect: Unknown queue destination\n", UNKNOWN_QUEUE)
    with server.lock:
        jobs = server.jobs()
    users = [name.partition("@")[0] for name in options.get("u", "").split(",") if name]
    for job in jobs:
        ended = job["state"] == DONE
        if ("H" in options and not ended) or (ended and not options.keys() & {"x", "H"}):
            continue
        if "N" in options and job["name"] != options["N"]:
            continue
        if queue and job["queue"] != queue:
            continue
        if "s" in options and job["state"] not in options["s"]:
            continue
        if users and job["owner"].partition("@")[0] not in users:
            continue
        print(job["id"])
    return 0
