"""The commands by their names, and those that change a job that is there."""

from __future__ import annotations

import sys
import time

from hpc_rehearsal.common.commands import run
from hpc_rehearsal.pjm import bulk
from hpc_rehearsal.pjm.formats import (
    absent,
    error,
    info,
    invalid_argument,
    job_numbers,
    parts_named,
    refusal,
    unknown_option,
)
from hpc_rehearsal.pjm.state import Server

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Record = dict[str, Any]

_MISSING, _INVALID, _ABSENT, _STATE, _AGAIN = 10, 11, 12, 13, 19
_LONGEST_REASON = 63


def main(name: str, state: str, words: list[str]) -> int:
    """Run one command; its exit status."""
    return run(lambda: _command(name)(Server(state), words))


def _command(name: str) -> Callable[[Server, list[str]], int]:
    # Each command imports only what it needs, because commands are run often.
    if name == "pjsub":
        from hpc_rehearsal.pjm.submit import pjsub

        return pjsub
    if name == "pjstat":
        from hpc_rehearsal.pjm.pjstat import pjstat

        return pjstat
    if name in ("pjwait", "pjacl"):
        from hpc_rehearsal.pjm import queries as questions

        return {"pjwait": questions.pjwait, "pjacl": questions.pjacl}[name]
    return {"pjdel": pjdel, "pjhold": pjhold, "pjrls": pjrls}[name]


def _each(
    name: str, server: Server, words: list[str], act: Callable[[Record], tuple[str, int, str]]
) -> int:
    """Apply `act` to every job, even if others fail.

    `act` returns info or error, with a number and a sentence.
    """
    status = 0
    if not words:
        raise refusal(name, _MISSING, "No jobid(s) specified.", usage=True)
    server.connect(absent(name))
    with server.lock:
        for word in words:
            numbers = job_numbers(word)
            if numbers is None:
                said = [("error", _INVALID, f"Invalid jobid: {word}.")]
            elif (parts := parts_named(word)) is not None:
                said = [_parts(server, numbers[0], word, parts, act)]
            else:
                said = [_one(server, n, act) for n in numbers]
            for level, number, sentence in said:
                status |= level == "error"
                _say(name, level, number, sentence)
        server.wake()
    return status


def _one(
    server: Server, n: int, act: Callable[[Record], tuple[str, int, str]]
) -> tuple[str, int, str]:
    job = server.job(n)
    if job is None or not server.visible(job) or server.gone(job, time.time()):
        return "error", _ABSENT, f"Job {n} does not exist."
    return act(job)


def _parts(
    server: Server,
    n: int,
    word: str,
    numbers: list[int],
    act: Callable[[Record], tuple[str, int, str]],
) -> tuple[str, int, str]:
    """Apply `act` to sub jobs of a bulk job; the first failure is reported (assumed)."""
    whole = server.job(n)
    said = ("error", _ABSENT, f"Job {word} does not exist.")
    if whole is None or not server.visible(whole):
        return said
    for number in numbers:
        job = server.sub_job(whole, number)
        if job is None:
            return "error", _ABSENT, f"Job {n}[{number}] does not exist."
        level, code, sentence = act(job)
        if level == "error":
            return level, code, sentence
        said = (level, code, sentence.replace(job["id"], word))
    return said


def _say(name: str, level: str, number: int, sentence: str) -> None:
    if level == "error":
        print(error(name, number, sentence), end="", file=sys.stderr)
    else:
        print(info(name, number, sentence), end="")


def _wrong_state(name: str, job: Record) -> tuple[str, int, str]:
    sentence = f"Job {job['id']} is not in the state that {name} can be accepted."
    return "error", _STATE, sentence


def _parsed(name: str, words: list[str], flags: tuple[str, ...]) -> tuple[str, set[str], list[str]]:
    """The reason that was given with -R, the flags and the ids."""
    reason, found, ids = "", set(), []
    ahead = list(words)
    while ahead:
        word = ahead.pop(0)
        if word == "-R" and ahead:
            reason = ahead.pop(0)
            if len(reason) > _LONGEST_REASON:
                raise invalid_argument(name, "-R", reason)
        elif word in flags:
            found.add(word)
        elif word.startswith("-"):
            raise unknown_option(name, word)
        else:
            ids.append(word)
    return reason, found, ids


def pjdel(server: Server, words: list[str]) -> int:
    """Only accept the request: the job ends a moment later."""
    reason, flags, ids = _parsed("pjdel", words, ("--enforce", "--no-history"))

    def act(job: Record) -> tuple[str, int, str]:
        if job["state"] in server.DONE or job["state"] == "RNO":
            return _wrong_state("pjdel", job)
        if job["deleted"]:
            return "info", _AGAIN, f"Already accepted job {job['id']}."
        delete(server, job, reason=reason, enforce="--enforce" in flags)
        return "info", 0, f"Accepted job {job['id']}."

    return _each("pjdel", server, ids, act)


def delete(server: Server, job: Record, *, reason: str = "", enforce: bool = False) -> None:
    """Note that the job is to be deleted; with `enforce` at once."""
    if "shared" in job:  # a sub job that waits
        if whole := server.job(job["n"]):
            bulk.drop(whole, job["number"])
            server.save(whole)
        return
    said = f"{job['user']}:{reason}" if reason else ""
    at = 0.0 if enforce else time.time()
    job["deleted"] = {"at": at, "sent": False, "reason": said}
    server.save(job)


def pjhold(server: Server, words: list[str]) -> int:
    reason, _, ids = _parsed("pjhold", words, ())

    def act(job: Record) -> tuple[str, int, str]:
        cannot = job["state"] not in ("ACC", "QUE", "RNA", "RUN") or job["deleted"]
        if cannot or job.get("bulk") or "number" in job:  # holds of bulk jobs are not rehearsed
            return _wrong_state("pjhold", job)
        if job["held"]:
            return "info", _AGAIN, f"Already accepted job {job['id']}."
        said = f"{job['user']}:{reason}" if reason else ""
        job["held"] = {"at": time.time(), "sent": False, "reason": said}
        server.save(job)
        return "info", 0, f"Accepted job {job['id']}."

    return _each("pjhold", server, ids, act)


def pjrls(server: Server, words: list[str]) -> int:
    _, _, ids = _parsed("pjrls", words, ())

    def act(job: Record) -> tuple[str, int, str]:
        if job["state"] != "HLD" or job["deleted"]:
            return "error", _STATE, f"Job {job['id']} status is not hold."
        job.update(last="HLD", state="QUE", reason="", ec=0, pc=0, sn=0, held=None)
        server.save(job)
        return "info", 0, f"Job {job['id']} released."

    return _each("pjrls", server, ids, act)
