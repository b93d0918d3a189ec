"""qstat: selects the jobs, and prints tables or records."""

from __future__ import annotations

import sys
import time

from hpc_rehearsal.common.text import Refusal
from hpc_rehearsal.pbs import arrays
from hpc_rehearsal.pbs import job_record as record
from hpc_rehearsal.pbs.formats import (
    BAD_ID,
    FINISHED,
    SERVER,
    UNKNOWN_ID,
    UNKNOWN_QUEUE,
    VERSION,
    getopt,
    hm,
    seconds,
)
from hpc_rehearsal.pbs.state import DONE, Server

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Record = dict[str, Any]

_LETTERS = "aBEfF:HinQrstu:wx"  # -t shows the subjobs of arrays too
_NO_HISTORY = "PBS is not configured to maintain job history"  # read in the source of 23.06
_UNREACHABLE = 255
_REFUSED = f"Connection refused\nqstat: cannot connect to server {SERVER} (errno=15010)\n"
_NARROW = (15, 8, 8, 10, 6, 3, 3, 6, 5)
_WIDE = (30, 15, 15, 15, 8, 4, 5, 6, 5)


def qstat(server: Server, words: list[str]) -> int:
    if words == ["--version"]:
        print(f"pbs_version = {VERSION}")
        return 0
    found, operands, unknown = getopt(words, _LETTERS)
    options = dict(found)
    if unknown or options.get("F", "json") != "json":
        said = "".join(f"qstat: invalid option -- '{letter}'\n" for letter in unknown)
        raise Refusal(f"{said}usage: qstat [-f] [-x] [-E] [-F json] [-w] [job_identifier...]\n", 2)
    asked = [word for word in operands if word] or [""]
    try:
        server.asked(Refusal(_REFUSED * len(asked), _UNREACHABLE))
        if options.keys() & set("BQ"):
            from hpc_rehearsal.pbs.queues import show  # late, because most questions are about jobs

            return show(server, options, [word for word in asked if word])
        jobs, status = _asked(server, options, asked)
    except Refusal as refused:
        print(refused.text, end="", file=sys.stderr)
        jobs, status = [], refused.code
    if "u" in options:
        users = [name.partition("@")[0] for name in options["u"].split(",")]
        jobs = [job for job in jobs if job["owner"].partition("@")[0] in users]
    _show(options, jobs, several=len(asked) > 1)
    return status


def _show(options: dict[str, str], jobs: list[Record], *, several: bool) -> None:
    now, wide = time.time(), "w" in options
    alternative = bool(options.keys() & set("HuainrS")) or ("s" in options)
    if alternative and not (wide and "f" in options):
        # `qstat -fH ID` prints a table too, whatever -f and -F say.
        print(alternative_table(jobs, now, wide=wide, comments="s" in options), end="")
    elif "F" in options and "f" in options:
        # With several ids the answer has only the first one that is found, unless -E is given.
        shown = jobs[:1] if several and "E" not in options else jobs
        print(record.as_json(shown, now), end="")
    elif "f" in options:
        for job in jobs:
            print(record.as_text(job, now, wide=wide, short=alternative), end="")
    else:
        print(plain_table(jobs), end="")


def _asked(server: Server, options: dict[str, str], asked: list[str]) -> tuple[list[Record], int]:
    """The jobs in the order in which they were asked for, and the last error's status."""
    history = bool(options.keys() & {"x", "H"})
    jobs: list[Record] = []
    status = 0
    if history and not server.history():
        for word in asked:
            print(f"qstat: {_NO_HISTORY} {word}".rstrip(), file=sys.stderr)
        return [], 0
    with server.lock:
        for word in asked:
            try:
                jobs += _matching(server, word, options, history=history)
            except Refusal as refused:
                if "E" in options and refused.code in (UNKNOWN_ID, FINISHED):
                    continue  # with -E an unknown job is not mentioned
                print(refused.text, end="", file=sys.stderr)
                status = refused.code
    return jobs, status


def _matching(server: Server, word: str, options: dict[str, str], *, history: bool) -> list[Record]:
    if not word[:1].isdecimal():
        return _in_queue(server, word, options, history=history)
    try:
        job = server.named(word)
    except ValueError:
        raise Refusal(f"qstat: illegally formed job identifier: {word}\n", BAD_ID) from None
    full = f"{word.partition('.')[0]}.{SERVER}"
    if job is None:
        raise Refusal(f"qstat: Unknown Job Id {full}\n", UNKNOWN_ID)
    if job["state"] == DONE and not history:
        hint = "use -x or -H to obtain historical job information"
        raise Refusal(f"qstat: {full} Job has finished, {hint}\n", FINISHED)
    return _expanded(server, job) if "t" in options else [job]


def _expanded(server: Server, job: Record) -> list[Record]:
    """An array with its subjobs."""
    indices = arrays.indices_of(job) if job.get("array") else ()
    return [job, *(server.subjob(job, index) for index in indices)]


def _in_queue(server: Server, word: str, options: dict[str, str], *, history: bool) -> list[Record]:
    """All jobs, or all of one queue. With -H only those that have ended."""
    queue = word.partition("@")[0]
    if any(not (c.isalnum() or c in "-_.") for c in queue):
        raise Refusal(f"qstat: illegally formed destination: {word}\n", BAD_ID)
    if queue and queue not in server.config["queues"]:
        raise Refusal(f"qstat: Unknown queue destination {word}\n", UNKNOWN_QUEUE)
    found = [job for job in server.jobs() if not queue or job["queue"] == queue]
    if "H" in options:
        found = [job for job in found if history and job["state"] == DONE]
    found = [job for job in found if history or job["state"] != DONE]
    return [each for job in found for each in (_expanded(server, job) if "t" in options else [job])]


# Tables


def plain_table(jobs: list[Record]) -> str:
    if not jobs:
        return ""
    lines = [
        "Job id            Name             User              Time Use S Queue",
        "----------------  ---------------- ----------------  -------- - -----",
    ]
    now = time.time()
    for job in jobs:
        shown = record.attributes(job, now)
        used = shown.get("resources_used")
        spent = str(used["cput"]) if isinstance(used, dict) else "0"
        user = job["owner"].partition("@")[0]
        cells = (
            f"{_cut(job['id'], 16):16} ",
            f"{_cut(job['name'], 16):16}",
            f"{_cut(user, 16):16}",
        )
        lines.append(f"{' '.join(cells)}  {spent:>8} {job['state']} {_cut(job['queue'], 16):16}")
    return "".join(f"{line}\n" for line in lines)


def alternative_table(jobs: list[Record], now: float, *, wide: bool, comments: bool) -> str:
    """The table of -H, -u, -s and others."""
    if not jobs:
        return ""
    widths = _WIDE if wide else _NARROW
    names = ("Job ID", "Username", "Queue", "Jobname", "SessID", "NDS", "TSK", "Memory", "Time")
    heads = [f"{name:{width}}" for name, width in zip(names, widths, strict=True)]
    above = " " * (sum(widths[:7]) + 7) + "Req'd  Req'd   Elap"
    lines = ["", f"{SERVER}: ", above, " ".join(heads) + " S Time"]
    lines.append(" ".join("-" * width for width in widths) + " - -----")
    for job in jobs:
        lines.append(_row(job, now, widths))
        if comments and job["comment"]:
            lines.append(f"   {job['comment']}")
    return "".join(f"{line}\n" for line in lines)


def _row(job: Record, now: float, widths: tuple[int, ...]) -> str:
    shown, asked = record.attributes(job, now), job["resources"]["list"]
    texts = [job["id"], job["owner"].partition("@")[0], job["queue"], job["name"]]
    cells = [f"{_cut(text, width):{width}}" for text, width in zip(texts, widths, strict=False)]
    used = shown.get("resources_used")
    ended_unused = job["state"] == DONE and job["used"] is not None
    limit = hm(seconds(asked["walltime"]) or 0) if "walltime" in asked else None
    spent = None
    if isinstance(used, dict) or ended_unused:
        spent = hm(seconds(str(record.used(job, now)["walltime"])) or 0)
    numbers = [shown.get("session_id"), asked["nodect"], asked["ncpus"], asked.get("mem"), limit]
    for value, width in zip(numbers, widths[4:], strict=True):
        cells.append(f"{'-- ' if value is None else value!s:>{width}}")
    return f"{' '.join(cells)} {job['state']} {'-- ' if spent is None else spent:>5}"


def _cut(text: str, width: int) -> str:
    """A cut text ends with a star. Assumed for the plain table."""
    return text if len(text) <= width else text[: width - 1] + "*"
