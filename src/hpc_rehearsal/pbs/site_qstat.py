"""A site's own `qstat`: a table instead of the scheduler's, and a full record of one job.

The banner, the columns, the words for states and the sentences for an empty answer are known from
texts that users of such a site published. The rest is assumed.
"""

from __future__ import annotations

import sys
import time

from hpc_rehearsal.common.text import Refusal
from hpc_rehearsal.pbs import job_record as record
from hpc_rehearsal.pbs.formats import FINISHED, SERVER, UNKNOWN_ID, getopt, hms
from hpc_rehearsal.pbs.state import DONE, Server, job_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Record = dict[str, Any]

_HEAD = (
    "JOB_ID            JOB_NAME   STATUS    PROJECT    QUEUE           START_DATE       ELAPSE"
    "        TOKEN NODE MIG"
)
_NAME, _WIDE_NAME = 10, 30
_LATER = 20 * 86400  # the announced stop of the machine
_WORDS = {
    "Q": "QUEUED",
    "W": "QUEUED",
    "R": "RUNNING",
    "E": "RUNNING",
    "H": "HELD",
    DONE: "FINISH",
    "B": "RUNNING",  # assumed: how such a table shows arrays was not found
}


def qstat(server: Server, words: list[str]) -> int:
    # -ll is one option of two letters, --hday and --hnum have a value each.
    wide = "-ll" in words
    kept = [word for word in words if word != "-ll"]
    while "--hday" in kept or "--hnum" in kept:
        place = next(i for i, word in enumerate(kept) if word in ("--hday", "--hnum"))
        del kept[place : place + 2]
    found, ids, unknown = getopt(kept, "fH")
    if unknown:
        said = "".join(f"qstat: invalid option -- '{letter}'\n" for letter in unknown)
        raise Refusal(said, 2)
    options = dict(found)
    text = f"Connection refused\nqstat: cannot connect to server {SERVER} (errno=15010)\n"
    server.asked(Refusal(text, 255))
    if "f" in options and ids:
        return _full(server, ids, ended="H" in options)
    now = time.time()
    with server.lock:
        jobs = server.jobs()
    numbers = [job_number(word) for word in ids]
    jobs = [job for job in jobs if (job["state"] == DONE) == ("H" in options)]
    jobs = [job for job in jobs if not ids or job["n"] in numbers]
    print(_banner(now), end="")
    if not jobs:
        nothing = (
            "No matching job found. " if ids or "H" in options else "No unfinished job found. "
        )
        print(nothing)
        return 0
    width = _WIDE_NAME if wide else _NAME
    print(_HEAD.replace("JOB_NAME  ", f"{'JOB_NAME':{width}}"))
    for job in jobs:
        print(_row(job, now, width))
    return 0


def _full(server: Server, ids: list[str], *, ended: bool) -> int:
    status, now = 0, time.time()
    for word in ids:
        number = job_number(word)
        with server.lock:
            job = None if number is None else server.job(number)
        if job is None or not server.visible(job):
            print(f"qstat: Unknown Job Id {word}", file=sys.stderr)
            status = UNKNOWN_ID
        elif job["state"] == DONE and not ended:
            print(f"qstat: {job['id']} Job has finished", file=sys.stderr)
            status = FINISHED
        else:
            print(record.as_text(job, now), end="")
    return status


def _banner(now: float) -> str:
    stop = time.strftime("%Y/%m/%d(%a) %H:%M:%S", time.localtime(now + _LATER))
    return f"Rehearsal scheduled stop time: {stop} (Remain: {_LATER // 86400}days 00:00:00)\n\n"


def _row(job: Record, now: float, width: int) -> str:
    shown = record.attributes(job, now)
    begun = time.strftime("%m/%d %H:%M:%S", time.localtime(job["stime"])) if job["stime"] else "-"
    spent = 0.0
    if job["stime"]:
        spent = job["used"]["walltime"] if job["used"] else now - job["stime"]
    nodes = job["resources"]["list"]["nodect"]
    project = job["group"] or str(shown["project"])
    token = spent / 3600 * nodes
    return (
        f"{job['n']!s:18}{job['name'][:width]:{width}} {_WORDS[job['state']]:10}{project[:10]:11}"
        f"{job['queue'][:15]:16}{begun:17}{hms(spent):8}{token:11.1f}{nodes:5}   -"
    )
