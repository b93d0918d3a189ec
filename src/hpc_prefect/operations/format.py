"""Shows jobs: a table of many, and everything about one."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from io import StringIO
from typing import Any

from hpc_prefect.job import folder as names
from hpc_prefect.job.spec import write_memory
from hpc_prefect.operations.members import MemberState, read_members
from hpc_prefect.operations.snapshot import Holder, JobSnapshot
from hpc_prefect.terminal import moment, printable

#: Columns that are left out first when a line does not fit.
_LESS = ("HOLDER", "STARTED", "AS OF", "WHERE", "ENDED", "FLOW RUN", "CAMPAIGN")
#: The least width of the column into which a reason is folded.
_REASON, _NARROWEST = "REASON", 16
#: How many letters of a key are shown at least.
_SHORT = 7
#: How many failed members `details` shows.
_FAILED = 20
#: How many bytes of stderr `details` shows.
_TAIL = 2048


def table(jobs: Sequence[JobSnapshot], width: int = 0) -> str:
    """A line for each job; columns that would be empty are left out.

    Args:
        width: of the terminal, on which less important columns make room; 0: there is none.
    """
    from rich.console import Console  # late: a tenth of a second
    from rich.table import Table
    from rich.text import Text

    columns = _fitting(_columns(jobs), width)
    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for head in columns:
        shown.add_column(head, no_wrap=head != _REASON, overflow="fold")
    for cells in zip(*columns.values(), strict=True):
        shown.add_row(*map(Text, cells))
    paper = StringIO()
    Console(file=paper, width=width or 100_000, color_system=None).print(shown)
    return "\n".join(line.rstrip() for line in paper.getvalue().splitlines())


def _columns(jobs: Sequence[JobSnapshot]) -> dict[str, list[str]]:
    length = _distinct([job.key for job in jobs])
    campaigns = _readable({job.campaign for job in jobs})
    above = os.path.commonpath([job.work_dir or "/" for job in jobs])
    columns = {
        "JOB": [job.name or "-" for job in jobs],
        "KIND": kinds if len(set(kinds := [job.kind for job in jobs])) > 1 else [""] * len(jobs),
        "KEY": [f"{job.key[:length]}-{job.attempt}" if job.attempt else job.key for job in jobs],
        "ID": [job.job_id or "-" for job in jobs],
        "STATE": [job.status.state for job in jobs],
        "FOLDER": [os.path.relpath(job.work_dir or "/", above) for job in jobs],
        "CAMPAIGN": [campaigns[job.campaign] or "-" for job in jobs],
        "SCOPE": [_short_scope(job) for job in jobs],
        "FLOW RUN": [job.flow_run_name or job.flow_run[:8] or "-" for job in jobs],
        "AS OF": [moment(job.status.known_at) for job in jobs],
        "STARTED": [moment(job.started_at) for job in jobs],
        "ENDED": [moment(job.ended_at) for job in jobs],
        "WHERE": [job.where or "-" for job in jobs],
        "MEMBERS": [job.members.words if job.members else "-" for job in jobs],
        "QPU S": ["-" if (cost := job.qpu_seconds) is None else f"{cost:g}" for job in jobs],
        # Not for jobs that are over: it does not matter then that the process is gone.
        "HOLDER": ["-" if job.is_over else _short_holder(job.holder) for job in jobs],
        _REASON: [job.status.reason for job in jobs],
    }
    return {
        head: [printable(cell) for cell in cells]
        for head, cells in columns.items()
        if head in ("JOB", "KEY", "ID", "STATE") or set(cells) - {"-", ".", ""}
    }


def _fitting(columns: dict[str, list[str]], width: int) -> dict[str, list[str]]:
    """The columns for which the terminal has room."""
    from rich.cells import cell_len

    def needs() -> int:
        widest = {head: max(map(cell_len, [head, *cells])) for head, cells in columns.items()}
        if _REASON in widest:
            widest[_REASON] = min(widest[_REASON], _NARROWEST)
        return sum(widest.values()) + 2 * (len(widest) - 1)

    for head in _LESS:
        if width and needs() > width:
            columns.pop(head, None)
    return columns


def _readable(campaigns: set[str]) -> dict[str, str]:
    """The names without the digests at their ends, if they are unique without them."""
    short = {name: _DIGEST.sub("", name) for name in campaigns}
    same = Counter(short.values())
    return {name: each if same[each] == 1 else name for name, each in short.items()}


#: The digest at the end of the name of a campaign, a loop or a task.
_DIGEST = re.compile(r"-[0-9a-f]{8}(?=$|-\d+$)")


def _short_scope(job: JobSnapshot) -> str:
    """`converge/iter-3/walker-2`, with a number if it is not the first identical call there."""
    number = job.provenance.get("n")
    again = f"#{number}" if isinstance(number, int) and number else ""
    return "/".join(_DIGEST.sub("", each) for each in job.scope) + again or "-"


def _distinct(keys: Sequence[str]) -> int:
    """How many letters make all keys unique."""
    different = set(keys)
    length = _SHORT
    while len({key[:length] for key in different}) < len(different):
        length += 1
    return length


def _short_holder(holder: Holder | None) -> str:
    if holder is None:
        return "-"
    pid = holder.claimant.pid
    return f"{pid}@{holder.claimant.host} {'alive' if holder.alive else 'dead'}"


def details(job: JobSnapshot) -> str:
    """Everything about one job."""
    parts = [_facts(job)]
    if job.spec is not None:
        parts.append(_section("the job", _flat(job.spec.as_dict())))
    if job.members is not None and job.members.failed:
        failed = [each for each in read_members(job.folder) if each.state == "failed"]
        lines = member_table(failed[:_FAILED]).splitlines()
        more = [f"… and {len(failed) - _FAILED} more"] if len(failed) > _FAILED else []
        parts.append(_section("members that failed", [*lines, *more]))
    parts.append(_section("events", (_event(entry) for entry in job.events)))
    claims = (f"{name}  {printable(one.describe())}" for name, one in job.claims.items())
    parts.append(_section("claims", claims))
    for name in (names.STDERR, names.SCHEDULER_ERR, names.SCHEDULER_OUT):
        tail = job.folder.tail(name, _TAIL) if not job.problem else ""
        parts.append(_section(f"the end of {name}", (printable(x) for x in tail.splitlines())))
    return "\n\n".join(part for part in parts if part)


def _facts(job: JobSnapshot) -> str:
    verdict = job.result.verdict if job.result else None
    status = job.status
    reason = f": {status.reason}" if status.reason else ""
    facts = {
        "state": f"{status.state}{reason}",
        "as of": moment(status.known_at),
        "verdict": verdict.summary if verdict else "none yet",
        "said": verdict.said if verdict else "",
        "exit code": str(verdict.exit_code) if verdict and verdict.exit_code is not None else "",
        "signal": verdict.signal if verdict else "",
        "what to do": verdict.remedy if verdict else "",
        "id": ", ".join(job.ids),
        "tag": job.tag,
        "where": job.where,
        "profile": _profile(job),
        "submitted": moment(job.submitted_at),
        "started": moment(job.started_at),
        "ended": moment(job.ended_at),
        "resources": job.spec.words if job.spec else "",
        "used": _used(job),
        "campaign": f"{job.campaign_name} ({job.campaign})" if job.campaign_name else job.campaign,
        "scope": "/".join(job.scope),
        "flow run": " ".join(filter(None, [job.flow_run_name, job.flow_run])),
        "holder": job.holder.describe() if job.holder else "nobody",
        "script": job.folder.file(names.SCRIPT) if job.spec and job.spec.writes_output else "",
        "folder": job.folder.path,
        **_kinds_facts(job),
    }
    head = f"{job.name or 'a job'}  {job.key}-{job.attempt}"
    width = max(11, *(len(name) for name, value in facts.items() if value))
    lines = [f"  {name:<{width}} {printable(value)}" for name, value in facts.items() if value]
    return "\n".join([printable(head), *lines])


def _kinds_facts(job: JobSnapshot) -> dict[str, str]:
    """Facts that only this kind of job has."""
    if job.members is not None:
        return {"members": job.members.words}
    return {name.replace("_", " "): str(value) for name, value in job.facts().items() if value}


def member_table(members: Sequence[MemberState]) -> str:
    """A line for each member of an array."""
    names_ = max((len(each.name) for each in members), default=0)
    ids = max((len(each.job_id) for each in members), default=0)
    return "\n".join(
        printable(
            f"{each.name:<{names_}}  {each.job_id:<{ids}}  {each.state:<9}  {each.reason}".rstrip()
        )
        for each in members
    )


def _profile(job: JobSnapshot) -> str:
    """The name of the HPC profile, if the job's caller gave one."""
    blocks = job.provenance.get("blocks")
    hpc = blocks.get("hpc") if isinstance(blocks, dict) else None
    return str(hpc.get("name", "")) if isinstance(hpc, dict) else ""


def _used(job: JobSnapshot) -> str:
    if job.result is None:
        return ""
    used = job.result.resources_used
    parts = [
        write_memory(int(value)) + " max_rss" if name == "max_rss" else f"{value:g} {name}"
        for name, value in used.items()
    ]
    for name in ("queue_seconds", "run_seconds"):
        value = getattr(job.result, name)
        parts += [f"{value:.1f} {name}"] if value is not None else []
    return ", ".join(parts)


def _section(head: str, lines: Iterable[str]) -> str:
    found = [f"  {line}" for line in lines]
    return "\n".join([f"{head}:", *found]) if found else ""


def _flat(values: dict[str, Any], above: str = "") -> Iterator[str]:
    """`executable.path  "/bin/true"`: what is set, as JSON."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{name}.")
        elif value not in ("", 0, False, None, (), []):
            yield printable(f"{above}{name}  {json.dumps(value, ensure_ascii=False)}")


def _event(entry: dict[str, Any]) -> str:
    """A journal's entry in a line, without what is shown elsewhere."""
    told = ("time", "event", "job", "provenance", "result", "outputs", "poll_interval")
    facts = [f"{name}={value}" for name, value in entry.items() if name not in told]
    if isinstance(result := entry.get("result"), dict):
        facts.insert(0, str(result.get("state", "")))
    at = entry.get("time")
    when = moment(at if isinstance(at, int | float) else None)
    return printable(f"{when:<8}  {entry.get('event')}  {' '.join(facts)}".rstrip())


def details_as_dict(job: JobSnapshot) -> dict[str, Any]:
    """The same as JSON values."""
    return job.as_dict() | {
        "ids": list(job.ids),
        "verdict": job.ledger.result.get("verdict"),
        "remedy": job.result.verdict.remedy if job.result else "",
        "job": job.spec.as_dict() if job.spec else None,
        "provenance": job.provenance,
        "script": job.folder.file(names.SCRIPT),
        "events": [
            {name: value for name, value in entry.items() if name not in ("job", "provenance")}
            for entry in job.events
        ],
        "claims": {name: one.describe() for name, one in job.claims.items()},
        "resources_used": job.result.resources_used if job.result else {},
        "stderr": "" if job.problem else job.folder.tail(names.STDERR, _TAIL),
    }
