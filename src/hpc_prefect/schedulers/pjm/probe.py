"""What PJM says before a job is submitted: `pjstat`, `pjacl`, and the user's groups.

This was not tried on a PJM. The refusals of `pjacl` are from the manual, and one line of its answer
from users of a machine. Nobody here has seen what `pjstat --rsc` and `pjshowrsc` print, so the
probe cannot tell whether a resource group takes jobs.
"""

from __future__ import annotations

import re

from hpc_prefect.job.dialogue import Command, Dialogue
from hpc_prefect.job.spec import JobSpec
from hpc_prefect.schedulers.base import NoAnswer, Scheduler
from hpc_prefect.schedulers.finding import Finding, Outcome, ok, unknown, wrong
from hpc_prefect.schedulers.probe import (
    PROJECT,
    QUEUE,
    SEARCH,
    STATUS,
    missing_commands,
    named,
    not_checked,
    searched,
)

_COMMANDS = ("pjsub", "pjstat", "pjdel")
_LIMIT = 60.0
_SUBMIT = "with --submit a small job shows it"
_NO_GROUP = re.compile(r"\bPJM 3298 pjacl\b")
#: Who may not submit, such as `pjsub + deny g(GROUP)`. Other forms are not known, and not read.
_DENIED = re.compile(r"^.*\bpjsub\b.*\bdeny\b.*\bg\(([^()]*)\)", re.MULTILINE)


def probe(scheduler: Scheduler, spec: JobSpec) -> Dialogue[list[Finding]]:
    found = yield from missing_commands(_COMMANDS)
    if found[0].outcome is Outcome.WRONG:
        return found + not_checked((STATUS, SEARCH, QUEUE, PROJECT), "commands are missing")
    status = yield from _status(scheduler, spec)
    found.append(status)
    if status.outcome is Outcome.WRONG:
        found += not_checked((SEARCH,), "first the status dialect must be right")
    else:
        found += yield from searched(scheduler, spec)
    queue, allowed = yield from _queue(spec)
    groups = (yield Command(("id", "-Gn"))).stdout.split()
    return [*found, queue, _project(spec, groups, allowed)]


def _status(scheduler: Scheduler, spec: JobSpec) -> Dialogue[Finding]:
    answer = yield from scheduler.observe(["1"], spec.site.options)
    each = answer if isinstance(answer, NoAnswer) else answer.get("1")
    if isinstance(each, NoAnswer):
        remedy = (
            "run hpc-prefect where pjstat answers; the site's own version of it, if it has one,"
            " must know --choose and --filter"
        )
        return wrong(STATUS, each.said, remedy)
    return ok(STATUS, "pjstat answers; --submit shows a whole job in it")


def _queue(spec: JobSpec) -> Dialogue[tuple[Finding, str]]:
    """The finding about the resource group, and pjacl's answer about it."""
    field = f"queue_{spec.resources.resource_class}"
    name, unit = spec.site.queue, spec.site.options.get("rscunit")
    if not name:
        return unknown(QUEUE, "the profile sets none: PJM uses your default", _SUBMIT), ""
    reply = yield Command(("pjacl", "--rg", name), timeout=_LIMIT)
    if reply.code == 0 and reply.stdout.strip():
        seen = f"{name!r} is a resource group; PJM does not say whether it takes jobs"
        return unknown(QUEUE, seen, _SUBMIT), reply.stdout
    if not _NO_GROUP.search(reply.said):
        return unknown(QUEUE, f"pjacl gave no answer about it: {reply.said[:200]}", _SUBMIT), ""
    if unit:
        seen = f"your default resource unit has no {name!r}; {unit!r} may have it"
        return unknown(QUEUE, seen, _SUBMIT), ""
    remedy = f"set {field} of the HPC profile to a resource group that `pjstat --rsc` lists"
    return wrong(QUEUE, f"there is no resource group {name!r}", remedy), ""


def _project(spec: JobSpec, groups: list[str], allowed: str) -> Finding:
    project, field = spec.site.project, f"project_{spec.resources.resource_class}"
    if not project:
        return unknown(PROJECT, "the profile sets none; the site may want one", _SUBMIT)
    denied = {name for each in _DENIED.findall(allowed) for name in re.split(r"[\s,]+", each)}
    others = f"set {field} of the HPC profile to one of: {named(sorted({*groups} - denied))}"
    if project in denied:
        seen = f"this resource group takes no jobs of the group {project!r}"
        return wrong(PROJECT, seen, others)
    if not groups:
        return unknown(PROJECT, f"{project!r}: `id -Gn` does not list your groups here", _SUBMIT)
    if project not in groups:
        return wrong(PROJECT, f"you are not in the group {project!r}", others)
    return ok(PROJECT, f"you are in the group {project!r}")
