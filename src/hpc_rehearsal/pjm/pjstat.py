"""pjstat: lists the queue, or with -H the history."""

from __future__ import annotations

import time

from hpc_rehearsal.common.text import split
from hpc_rehearsal.pjm import statistics
from hpc_rehearsal.pjm.formats import (
    absent,
    hms,
    info,
    invalid_argument,
    job_numbers,
    moment,
    parts_named,
    planned,
    refusal,
    unknown_argument,
    unknown_option,
)
from hpc_rehearsal.pjm.state import Server

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Record = dict[str, Any]
    Filters = list[tuple[str, list[str]]]

#: Items by their names for --choose: the column's title and width.
_COLUMNS = {
    "jid": ("JOB_ID", 10),
    "jnam": ("JOB_NAME", 10),
    "md": ("MD", 2),
    "st": ("ST", 3),
    "usr": ("USER", 8),
    "grp": ("GROUP", 8),
    "sdt": ("START_DATE", 15),
    "elp": ("ELAPSE_TIM", 10),
    "elpl": ("ELAPSE_LIM", 21),
    "nnumr": ("NODE_REQUIRE", 15),
    "vnode": ("VNODE", 6),
    "core": ("CORE", 4),
    "vmem": ("V_MEM", 12),
    "vpol": ("V_POL", 5),
    "epol": ("E_POL", 5),
    "rank": ("RANK", 9),
    "lst": ("LST", 3),
    "ec": ("EC", 3),
    "pc": ("PC", 3),
    "sn": ("SN", 2),
    "pri": ("PRI", 3),
    "adt": ("ACCEPT", 14),
    "rscg": ("RSC_GRP", 8),
    "ermsg": ("REASON", 16),
}
_SAME = {"jmdl": "md"}
_DEFAULT = ("jid", "jnam", "md", "st", "usr", "sdt", "elpl", "nnumr", "vnode", "core", "vmem")
_CHOSEN_REASON = 31  # with --choose the last column is wider
_FILTERS = ("jid", "jnam", "st", "usr", "grp", "rscg", "rscu")
_HISTORY_DAYS = 3.0
#: The line of sums: the words in it, and the states that each counts.
_SUMS = {
    "ACCEPT": ("ACC",),
    "QUEUED": ("QUE",),
    "RUNING": ("RNA", "RNP", "RUN", "RNE"),
    "RUNOUT": ("RNO",),
    "HOLD": ("HLD",),
    "ERROR": ("ERR",),
    "SUSPND": (),
    "REJECT": ("RJT",),
    "EXIT": ("EXT",),
    "CANCEL": ("CCL",),
}
_VALUED = ("--choose", "--filter")
_FLAGS = ("-v", "-s", "-S", "-E", "-A", "--with-summary")


def pjstat(server: Server, words: list[str]) -> int:
    options, ids = _parsed(words)
    chosen = _chosen(options)
    filters = _filters(options.get("--filter", []))
    numbers = [_numbers(values) for name, values in filters if name == "jid"]
    operands = _operands(ids)
    server.asked(absent("pjstat"))
    if server.fault("loading"):
        print(info("pjstat", 281 - 200, "Data loading..."), end="")
    with server.lock:
        days = options.get("-H")
        jobs = server.queue() if days is None else server.history(float(days[-1]))
        rows = [
            row
            for job in jobs
            if all(job["n"] in n for n in numbers) and (not ids or job["n"] in operands)
            for row in _rows(server, job, operands.get(job["n"], set()), expanded="-E" in options)
        ]
    jobs = [job for job in rows if _fits(job, filters)]
    now = time.time()
    if "-s" in options or "-S" in options:
        print("\n".join(statistics.block(job) for job in jobs), end="")
        return 0
    if "--with-summary" in options:
        print(_sums(jobs), end="")
    widths = dict.fromkeys(("ermsg",), _CHOSEN_REASON) if "--choose" in options else {}
    print(_table(jobs, chosen, widths, now), end="")
    return 0


def _parsed(words: list[str]) -> tuple[dict[str, list[str]], list[str]]:
    found: dict[str, list[str]] = {}
    ids: list[str] = []
    ahead = list(words)
    while ahead:
        word = ahead.pop(0)
        name, equals, value = word.partition("=")
        if not word.startswith("-"):
            ids.append(word)
        elif word == "-H":
            given = ahead.pop(0) if ahead and ahead[0].startswith(("day=", "hour=")) else ""
            found["-H"] = [str(_days(given))]
        elif word in _FLAGS:
            found[word] = [""]
        elif name in _VALUED and (equals or ahead):
            found.setdefault(name, []).append(value if equals else ahead.pop(0))
        else:
            raise unknown_option("pjstat", name)
    return found, ids


def _days(text: str) -> float:
    name, _, value = text.partition("=")
    if not text:
        return _HISTORY_DAYS
    most = 365 if name == "day" else 365 * 24
    if not value.isdecimal() or not 1 <= int(value) <= most:
        raise invalid_argument("pjstat", "-H", text)
    return int(value) / (1 if name == "day" else 24)


def _chosen(options: dict[str, list[str]]) -> tuple[str, ...]:
    if "--choose" not in options:
        return tuple(_COLUMNS) if "-v" in options else _DEFAULT
    names = [part for value in options["--choose"] for part in value.split(",") if part]
    for name in names:
        if name not in _COLUMNS and name not in _SAME:
            raise unknown_argument("pjstat", "--choose", name)
    return tuple(_SAME.get(name, name) for name in names)


def _filters(values: list[str]) -> Filters:
    found: Filters = []
    for value in values:
        for part in split(value, ","):
            name, equals, wanted = part.partition("=")
            if name not in _FILTERS or not equals:
                raise invalid_argument("pjstat", "--filter", part)
            found.append((name, wanted.split("+")))
    return found


def _numbers(words: list[str]) -> set[int]:
    found: set[int] = set()
    for word in words:
        numbers = job_numbers(word)
        if numbers is None:
            raise refusal("pjstat", 11, f"Invalid jobid: {word}.")
        if parts_named(word):
            # Assumed: the manual's examples of this filter have numbers of jobs only.
            raise invalid_argument("pjstat", "--filter", f"jid={word}")
        found.update(numbers)
    return found


def _operands(words: list[str]) -> dict[int, set[int]]:
    """The numbers of the jobs asked for, each with the sub jobs asked for; empty for the whole."""
    found: dict[int, set[int]] = {}
    whole: set[int] = set()
    for word in words:
        numbers, parts = job_numbers(word), parts_named(word)
        if numbers is None:
            raise refusal("pjstat", 11, f"Invalid jobid: {word}.")
        for n in numbers:
            found.setdefault(n, set()).update(parts or ())
            whole |= set() if parts else {n}
    # Assumed: if a bulk job and a sub job of it are asked for, neither is listed twice.
    return {n: set() if n in whole else parts for n, parts in found.items()}


def _rows(server: Server, job: Record, parts: set[int], *, expanded: bool) -> list[Record]:
    if parts:
        return [row for row in server.shown(job, expanded=True)[1:] if row["number"] in parts]
    return server.shown(job, expanded=expanded)


def _fits(job: Record, filters: Filters) -> bool:
    """Whether a job matches. Filters compare whole values, even if a column shows only a part."""
    keys = {"jnam": "name", "st": "state", "usr": "user", "grp": "group"}
    keys |= {"rscg": "rscgrp", "rscu": "rscunit"}
    return all(name == "jid" or job[keys[name]] in wanted for name, wanted in filters)


def _table(jobs: list[Record], chosen: tuple[str, ...], widths: dict[str, int], now: float) -> str:
    """The table. Each cell is cut and padded to its column's width, also in the last column."""
    columns = [(name, _COLUMNS[name][0], widths.get(name, _COLUMNS[name][1])) for name in chosen]
    lines = [" ".join(title.ljust(width) for _, title, width in columns)]
    for job in jobs:
        cells = _cells(job, now)
        lines.append(" ".join(cells[name][:width].ljust(width) for name, _, width in columns))
    return "".join(f"{line}\n" for line in lines)


def _cells(job: Record, now: float) -> dict[str, str]:
    whole = bool(job.get("bulk"))
    used = (job["ended"] or now) - job["begun"] if job["begun"] else 0.0
    return {
        "jid": job["id"],
        "jnam": job["name"],
        "md": "BU" if whole or "number" in job else "NM",
        "st": job["state"],
        "usr": job["user"],
        "grp": job["group"],
        "sdt": "-" if whole else _start(job),
        # While nodes are being acquired nothing is used yet.
        "elp": "-" if whole else hms(0 if job["state"] == "RNA" else used),
        "elpl": hms(job["elapse"]),
        "nnumr": job["shape"],
        "vnode": job["vnode"],
        "core": job["core"],
        "vmem": job["vmem"],
        "vpol": "-",
        "epol": "-",
        "rank": "bychip",
        "lst": job["last"],
        "ec": str(job["ec"]),
        "pc": str(job["pc"]),
        "sn": str(job["sn"]),
        "pri": job["priority"],
        "adt": moment(job["accepted"]),
        "rscg": job["rscgrp"],
        "ermsg": job["reason"] or "-",
    }


def _start(job: Record) -> str:
    """The start time: in brackets if it is only planned; with `@` if the user asked for it."""
    if job["state"] == "RNA":
        return planned(job["begun"])
    if job["begun"]:
        return moment(job["begun"])
    return f"{planned(job['at'])}@" if job["at"] else "-"


def _sums(jobs: list[Record]) -> str:
    """The sums of jobs and of sub jobs, which are the same here."""
    counts = [sum(1 for job in jobs if job["state"] in states) for states in _SUMS.values()]
    numbers = [str(count) for count in [*counts, len(jobs)]]
    rows = ((" ", [*_SUMS, "TOTAL"]), (" ", numbers), ("s", numbers))
    return "".join(mark + "".join(cell.rjust(7) for cell in cells) + "\n" for mark, cells in rows)
