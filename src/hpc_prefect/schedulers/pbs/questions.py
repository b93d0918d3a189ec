"""The commands `qstat` and `qselect` of PBS, and which of their replies are no useful answer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from hpc_prefect.job.dialogue import Command, Reply
from hpc_prefect.schedulers.base import NoAnswer
from hpc_prefect.schedulers.pbs import qstat as reading

#: A hung server blocks every command without end.
LIMIT = 60.0
#: `qstat` writes local times without a zone; this makes them UTC.
_UTC = {"TZ": "UTC"}

#: Exit statuses of `qstat` after which its records are whole: 0, or the error about the last bad id
#: modulo 256 (not known, has finished).
WHOLE = (0, 153, 35)

#: `qstat` and `qselect` say this, with exit status 0. Read in the source of 23.06.
_NO_HISTORY = "not configured to maintain job history"


class NoHistory(NoAnswer):
    """The server keeps no record of ended jobs, and answers no question that includes them."""


def at_once(options: Mapping[str, object]) -> bool:
    """Whether `qstat` asks about many ids over one connection (-E)."""
    return bool(options.get("one_connection", True))


def words(options: Mapping[str, object]) -> list[str]:
    """The profile's own options of `qstat`."""
    given = options.get("status_options", ())
    return [str(word) for word in given] if isinstance(given, Iterable) else []


def history(options: Mapping[str, object]) -> tuple[str, ...]:
    """The option that includes ended jobs; none where there is no history."""
    flag = str(options.get("history_flag", "-x"))
    return () if flag == "none" else (flag,)


def listings(options: Mapping[str, object]) -> list[tuple[str, ...]]:
    """The options of the listings that together hold all jobs: one listing with -x does; -H lists
    ended jobs only, so a second one is needed."""
    flag = history(options)
    return [flag] if flag in ((), ("-x",)) else [(), flag]


def qstat(*words: str) -> Command:
    return Command(("qstat", *words), timeout=LIMIT, environment=_UTC)


def qselect(*words: str) -> Command:
    return Command(("qselect", *words), timeout=LIMIT)


def option_refused(reply: Reply) -> NoAnswer | None:
    """The answer if the command does not know an option, or has no history; else None."""
    if _NO_HISTORY in reply.stderr:
        return NoHistory(reply.said)
    if reply.code == 2 or "invalid option" in reply.stderr or "usage:" in reply.stderr.lower():
        said = Reply(reply.code, stderr=re.split(r"\s*usage:", reply.stderr, flags=re.I)[0]).said
        return NoAnswer(
            f"{said}; this site's command does not know an option that it was given: see"
            " pbs.one_connection (-E), pbs.history_flag (-x, -H), pbs.status_options and"
            " pbs.status_dialect (-F json) of the HPC profile"
        )
    return None


def number(job_id: str) -> str:
    """An id without its server: a site may print it without, or with another name of it."""
    return job_id.partition(".")[0]


def table_rows(reply: Reply) -> list[reading.Row] | NoAnswer:
    """The rows of a site's own table."""
    if refused := option_refused(reply):
        return refused
    if reply.code != 0:
        return NoAnswer(reply.said)
    try:
        return reading.read_table(reply.stdout)
    except ValueError as error:
        return NoAnswer(f"an answer of qstat cannot be used: {error}: {reply.stdout[:200]!r}")
