"""A job's statistics: blocks of `key : value`, in `pjstat -s` and in the file of `pjsub -s`.

The keys are the manual's; the order of keys that are not in its examples is assumed.
"""

from __future__ import annotations

import time

from hpc_rehearsal.pjm.formats import date, hms

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Record = dict[str, Any]

_FILE_WIDTH, _LISTED_WIDTH = 25, 31
_FIRST_LISTED = ("JOB ID", "JOB NAME", "JOB TYPE", "JOB MODEL", "RETRY NUM", "SUB JOB NUM")
_NOT_LISTED = ("START BULKNO", "END BULKNO", "HOST NAME")
_RULE = "-" * 65


def items(job: Record) -> dict[str, object]:
    used = max(0.0, (job["ended"] or time.time()) - job["begun"]) if job["begun"] else 0.0
    return {
        "JOB ID": job["id"],
        "SUB JOB NUM": "-",
        "START BULKNO": "-",
        "END BULKNO": "-",
        "HOST NAME": job["host"],
        "JOB NAME": job["name"],
        "JOB TYPE": "BATCH",
        "JOB MODEL": "NM",
        "RETRY NUM": job["retries"],
        "USER": job["user"],
        "GROUP": job["group"],
        "RESOURCE UNIT": job["rscunit"],
        "RESOURCE GROUP": job["rscgrp"],
        "APRIORITY": 127,
        "PRIORITY": job["priority"],
        "SHELL": job["shell"],
        "COMMENT": job["comment"],
        "STANDARD OUT FILE": job["out"],
        "STANDARD ERR FILE": job["out"] if job["join"] else job["err"],
        "INFORMATION FILE": job["spath"],
        "PJSUB DIRECTORY": job["work"],
        "MPI PROC (REQUIRE)": job["mpi"],
        "LAST STATE": job["last"],
        "STATE": job["state"],
        "ACCEPT DATE": date(job["accepted"]),
        "JOB START DATE": date(job["begun"]),
        "JOB END DATE": date(job["ended"]),
        "EXIT CODE": job["ec"],
        "SIGNAL NO": job["sn"],
        "PJM CODE": job["pc"],
        "REASON": job["reason"] or "-",
        "ELAPSE TIME (LIMIT)": f"{hms(job['elapse'])} ({job['elapse']})",
        "ELAPSE TIME (USE)": f"{hms(used)} ({int(used)})",
        "MAX MEMORY SIZE (USE)": f"{(job['memory_used'] or 0) / 2**20:.1f} MiB (1)",
        "CPU TIME (TOTAL)": f"{int((job['cpu'] or 0) * 1000)} ms",
        "NODE NUM (REQUIRE)": job["shape"],
        "NODE NUM (ALLOC)": job["nodes"] if job["begun"] else "-",
        "NODE NUM (USE)": job["nodes"] if job["begun"] else "-",
    }


def block(job: Record) -> str:
    """The statistics in `pjstat -s`: in another order, and without some keys."""
    found = items(job)
    first = {key: found[key] for key in _FIRST_LISTED}
    return _lines({k: v for k, v in (first | found).items() if k not in _NOT_LISTED}, _LISTED_WIDTH)


def write(job: Record) -> None:
    """Write the file of `pjsub -s`; with -S also with a block for each node."""
    text = "Job Statistical Information\n\n" + _lines(items(job), _FILE_WIDTH)
    if job["stats"] == "S":
        for rank in range(job["nodes"]):
            node = {
                "VNODE ID": "-",
                "NODE ID": f"0x{0x01010010 + rank:08X}",
                "RANK NO": rank,
                "NODE AVAILABLE": "available",
            }
            text += f"{_RULE}\nNode Statistical Information\n\n" + _lines(node, _FILE_WIDTH)
    try:
        with open(job["spath"], "w", errors="surrogateescape") as file:
            file.write(text)
    except OSError:
        pass  # assumed: the file is lost, and the job ends as without it


def _lines(given: dict[str, object], width: int) -> str:
    return "".join(f"{key:<{width}} : {value}".rstrip() + "\n" for key, value in given.items())
