"""What PBS says before a job is submitted: `qstat`, `qselect`, and the user's groups.

Seen on OpenPBS 23.06. It judges neither an account (`-A`) nor a project (`-P`) when a job is
submitted, and has no trial submission.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from hpc_prefect.job.dialogue import Command, Dialogue, Reply
from hpc_prefect.job.spec import JobSpec
from hpc_prefect.schedulers.base import NoAnswer, Scheduler
from hpc_prefect.schedulers.finding import Finding, Outcome, ok, unknown, wrong
from hpc_prefect.schedulers.pbs.questions import NoHistory, option_refused
from hpc_prefect.schedulers.probe import (
    HISTORY,
    PROJECT,
    QUEUE,
    SEARCH,
    STATUS,
    missing_commands,
    named,
    not_checked,
    recorded,
    searched,
)

_COMMANDS = ("qsub", "qstat", "qselect", "qdel")
_LIMIT = 60.0
_SUBMIT = "with --submit a small job shows it"
_QUEUE_LINE = re.compile(r"^Queue: (\S+)$")
_FIELD_LINE = re.compile(r"^ {4}([\w.]+) = (.*)$")
#: A plain name in a list of who may use a queue; `+`, `-` and `@` have special meanings there.
_PLAIN = re.compile(r"[\w.]+", re.ASCII)


def probe(scheduler: Scheduler, spec: JobSpec) -> Dialogue[list[Finding]]:
    found = yield from missing_commands(_commands(spec.site.options))
    if found[0].outcome is Outcome.WRONG:
        return found + not_checked((STATUS, SEARCH, QUEUE, PROJECT), "commands are missing")
    status = yield from _status(scheduler, spec.site.options)
    found += status
    if status[0].outcome is Outcome.WRONG:
        found += not_checked((SEARCH,), "first the status dialect must be right")
    else:
        found += yield from searched(scheduler, spec)
    groups = (yield Command(("id", "-Gn"))).stdout.split()
    found.append((yield from _queue(spec, groups)))
    return [*found, _project(spec, groups)]


def _commands(options: Mapping[str, object]) -> tuple[str, ...]:
    # A site's own table also finds jobs by name, so `qselect` is not needed.
    table = options.get("status_dialect") == "table"
    return tuple(name for name in _COMMANDS if not (table and name == "qselect"))


def _status(scheduler: Scheduler, options: Mapping[str, object]) -> Dialogue[list[Finding]]:
    dialect = options.get("status_dialect", "json")
    replies: list[Reply] = []
    said = yield from recorded(_unusable(scheduler, options), replies)
    if not said:
        found = [ok(STATUS, f"qstat answers as {dialect!r}; --submit shows a whole job in it")]
        if any(isinstance(option_refused(reply), NoHistory) for reply in replies):
            seen = (
                "this server keeps no history: how a job ended is known from its exit record alone"
            )
            found.append(ok(HISTORY, seen))
        return found
    remedy = (
        "set pbs.status_dialect, pbs.history_flag, pbs.one_connection and pbs.status_options of"
        " the HPC profile to what this site's qstat knows"
    )
    if any(reply.code == 0 or option_refused(reply) for reply in replies):
        for change in _CHANGES:
            if not (yield from _unusable(scheduler, {**options, **change})):
                shown = ", ".join(f"pbs.{name} = {value!r}" for name, value in change.items())
                remedy = f"set {shown} in the HPC profile: with that, qstat answered"
                break
    return [wrong(STATUS, f"as {dialect!r}: {said}", remedy)]


#: Options that are tried only to name one in the remedy; the profile itself is never changed.
_CHANGES: tuple[dict[str, object], ...] = (
    {"status_dialect": "json"},
    {"history_flag": "-x"},
    {"status_dialect": "text"},
    {"one_connection": False},
    {"status_dialect": "text", "one_connection": False},
    {"status_dialect": "table", "history_flag": "-H"},
    {"status_dialect": "json", "history_flag": "-x"},
    {"status_dialect": "text", "history_flag": "-x", "one_connection": False},
)


def _unusable(scheduler: Scheduler, options: Mapping[str, object]) -> Dialogue[str]:
    """Why qstat's answer about a job that is not there cannot be used; empty when it can."""
    answer = yield from scheduler.observe(["1"], options)
    if isinstance(answer, NoAnswer):
        return answer.said
    each = answer.get("1")
    # PBS may add the server's name to the id, and "1" is then not found: that is a good answer.
    if isinstance(each, NoAnswer) and "Unknown Job Id" not in each.said:
        return each.said
    return ""


# --- the queue


def _queue(spec: JobSpec, groups: list[str]) -> Dialogue[Finding]:
    field = f"queue_{spec.resources.resource_class}"
    dialect = spec.site.options.get("status_dialect", "json")
    if dialect == "table":
        return unknown(
            QUEUE, "this site's own qstat lists no queues that hpc-prefect can read", _SUBMIT
        )
    form = ("-F", "json") if dialect == "json" else ()
    name = spec.site.queue
    if not name:
        reply = yield Command(("qstat", "-B", "-f", *form), timeout=_LIMIT)
        found = re.search(r'\bdefault_queue"?\s*[=:]\s*"?([\w.-]+)', reply.stdout)
        if reply.code != 0 or not found:
            seen = f"the profile sets no queue, and qstat -B shows no default: {reply.said[:200]}"
            return unknown(QUEUE, seen, f"set {field} of the HPC profile")
        name = found[1]
    reply = yield Command(("qstat", "-Q", "-f", *form), timeout=_LIMIT)
    known = read_queues(reply)
    if not known:
        return unknown(QUEUE, f"qstat -Q gave no list of queues: {reply.said[:200]}", _SUBMIT)
    return _judged(name, known, field, groups)


def read_queues(reply: Reply) -> dict[str, dict[str, str]]:
    """The queues in an answer of `qstat -Q -f`, JSON or text; none when it is neither."""
    if reply.code != 0:
        return {}
    try:
        parsed: Any = json.loads(reply.stdout)
        queues = parsed["Queue"].items()
        return {name: {k: str(v) for k, v in fields.items()} for name, fields in queues}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        pass
    found: dict[str, dict[str, str]] = {}
    fields: dict[str, str] = {}
    for line in reply.stdout.replace("\n\t", "").split("\n"):
        if head := _QUEUE_LINE.match(line):
            fields = found.setdefault(head[1], {})
        elif entry := _FIELD_LINE.match(line):
            fields[entry[1]] = entry[2]
    return found


def _judged(name: str, known: dict[str, dict[str, str]], field: str, groups: list[str]) -> Finding:
    open_ones = [each for each, has in known.items() if _is_open(has)]
    other = f"set {field} of the HPC profile to one that is open: {named(open_ones)}"
    if name not in known:
        return wrong(QUEUE, f"there is no queue {name!r}", other)
    has = known[name]
    if has.get("enabled") == "False":
        return wrong(QUEUE, f"queue {name!r} takes no jobs (enabled = False)", other)
    if has.get("started") == "False":
        seen = f"queue {name!r} takes jobs but starts none (started = False)"
        return wrong(QUEUE, seen, f"wait until it is started, or {other}")
    if not _is_open(has):
        return unknown(QUEUE, f"queue {name!r}: qstat does not show whether it is open", _SUBMIT)
    if has.get("acl_group_enable") == "True":
        allowed = has.get("acl_groups", "").split(",")
        if not all(_PLAIN.fullmatch(each) for each in allowed):
            return unknown(QUEUE, f"queue {name!r} is for: {','.join(allowed)}", _SUBMIT)
        if not set(allowed) & set(groups):
            seen = f"queue {name!r} is for the groups {named(allowed)}; yours: {named(groups)}"
            return wrong(QUEUE, seen, f"ask the site for access, or {other}")
    return ok(QUEUE, f"{name!r} is enabled and started")


def _is_open(has: Mapping[str, str]) -> bool:
    return has.get("enabled") == "True" and has.get("started") == "True"


# --- the project


def _project(spec: JobSpec, groups: list[str]) -> Finding:
    project, flag = spec.site.project, spec.site.options.get("account_flag", "-A")
    if not project:
        return unknown(PROJECT, "the profile sets none; the site may want one", _SUBMIT)
    if flag != "-W group_list":
        return unknown(PROJECT, f"{project!r}: PBS accepts any name after {flag}", _SUBMIT)
    if not groups:
        return unknown(PROJECT, f"{project!r}: `id -Gn` does not list your groups here", _SUBMIT)
    if project not in groups:
        field = f"project_{spec.resources.resource_class}"
        seen = f"you are not in the group {project!r}"
        remedy = f"set {field} of the HPC profile to one of: {named(groups)}"
        return wrong(PROJECT, seen, remedy)
    return ok(PROJECT, f"you are in the group {project!r}")
