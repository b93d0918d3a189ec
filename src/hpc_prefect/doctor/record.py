"""Transcripts of the commands that were run, without names of users and sites.

A file is a command and its reply, `{"argv", "rc", "stdout", "stderr"}`, as tests replay them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc_prefect.job.dialogue import Command, Reply
from hpc_prefect.transports.local import LocalTransport


@dataclass(frozen=True, slots=True)
class Exchange:
    command: Command
    reply: Reply


class Recording(LocalTransport):
    """This machine, with every command and its reply kept."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []

    def run(self, command: Command) -> Reply:
        reply = super().run(command)
        self.exchanges.append(Exchange(command, reply))
        return reply


#: Patterns of host names in replies: PBS names its server and the nodes.
_HOSTS = (
    re.compile(
        r'\b(?:pbs_server|server_host|server|[Ss]ubmit_[Hh]ost|PBS_O_HOST|exec_host2?)"?\s*[=:]\s*"?'
        r"([A-Za-z][\w.-]*)"
    ),
    re.compile(r'\bJob_Owner"?\s*[=:]\s*"?[^@"\s]+@([A-Za-z][\w.-]*)'),
    re.compile(r'\b(?:Error|Output)_Path"?\s*[=:]\s*"?([A-Za-z][\w.-]*):/'),
    re.compile(r"\(([A-Za-z][\w.-]*):(?:ncpus|ngpus|mem)="),
)
_HOST = "HOST"
#: What is left of a full name, when its first part was known.
_DOMAIN = re.compile(rf"(?<![A-Za-z0-9_]){_HOST}(?:\.[A-Za-z][\w-]*)+")
#: Who may use a queue: names of groups and people.
_ALLOWED = re.compile(r'(\bacl_(?!\w*enable)\w+"?\s*[=:]\s*"?)([^"\n]+)')
_MAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
#: The id that a trial submission would have had.
_WOULD_BE = re.compile(r"\bJob \d+ to start")
_NODES = re.compile(r"\bon nodes \S+")

#: Records of PBS, whose long values go on in lines of their own.
_WRAPPED = ("Job Id:", "Queue:", "Server:")
#: Columns of tables show at least so much of a name.
_NARROW = 8

Change = tuple[re.Pattern[str], str]


def redact(
    exchanges: Iterable[Exchange], names: Mapping[str, str], jobs: Iterable[str] = ()
) -> list[dict[str, Any]]:
    """The exchanges as JSON values.

    Args:
        names: what must not be shown, and its replacement; paths before their parts.
        jobs: ids of our jobs; each becomes one that is nobody's, and still reads as an id.
    """
    exchanges = list(exchanges)
    every = _learnt(exchanges) | {name: place for name, place in names.items() if name}
    every = _cut(every) | every
    changes = [change for n, job in enumerate(jobs) for change in _other_id(job, 1001 + n)]
    changes += [
        (_MAIL, "MAIL"),
        (_ALLOWED, r"\1ALLOWED"),
        (_WOULD_BE, "Job 1000 to start"),
        (_NODES, f"on nodes {_HOST}"),
        *((_word(name), every[name]) for name in sorted(every, key=len, reverse=True)),
        (_DOMAIN, _HOST),
    ]

    def clean(text: str) -> str:
        if text.startswith(_WRAPPED):
            text = text.replace("\n\t", "")  # a name may be on two lines
        for pattern, instead in changes:
            text = pattern.sub(instead, text)
        return text

    return [
        {
            "argv": [clean(word) for word in each.command.argv],
            "rc": each.reply.code,
            "stdout": clean(each.reply.stdout),
            "stderr": clean(each.reply.stderr),
        }
        for each in exchanges
    ]


def _learnt(exchanges: list[Exchange]) -> dict[str, str]:
    """Names to hide that occur only in the replies."""
    found: dict[str, str] = {}
    for each in exchanges:
        program, out = each.command.argv[0], each.reply.stdout
        if program == "id" and "-Gn" in each.command.argv:
            found |= dict.fromkeys(out.split(), "GROUP")
        elif program == "sacctmgr":
            accounts = {line.partition("|")[0].strip() for line in out.splitlines()}
            found |= dict.fromkeys(accounts - {""}, "PROJECT")
        else:
            found |= {name: _HOST for pattern in _HOSTS for name in pattern.findall(out)}
    return found


def _cut(names: Mapping[str, str]) -> dict[str, str]:
    """Names as a narrow column of a table shows them."""
    return {
        name[:width]: place
        for name, place in names.items()
        if "/" not in name
        for width in range(_NARROW, len(name))
    }


def _other_id(job: str, number: int) -> list[Change]:
    digits, dot, _ = job.partition(".")
    if not dot:
        return [(_word(job), str(number))]
    # The number alone may be as short as 1: it is the job's only where an id can stand.
    return [
        (_word(job), f"{number}.{_HOST}"),
        (re.compile(rf"^{re.escape(digits)}(?=\s)", re.MULTILINE), str(number)),
    ]


def _word(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![A-Za-z0-9_]){re.escape(name)}(?![A-Za-z0-9_])")


def save(folder: Path, redacted: Iterable[Mapping[str, Any]]) -> int:
    """Write one file an exchange, numbered in their order; how many there are."""
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for count, entry in enumerate(redacted, start=1):
        verb = re.sub(r"[^A-Za-z0-9]+", "-", entry["argv"][0].rpartition("/")[2]).strip("-")
        text = json.dumps(entry, indent=1, ensure_ascii=False)
        (folder / f"{count:03}_{verb or 'command'}.json").write_text(f"{text}\n", encoding="utf-8")
    return count
