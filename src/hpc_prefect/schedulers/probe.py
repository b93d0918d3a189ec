"""What probes of all dialects share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from hpc_prefect.job.dialogue import Command, Dialogue, Reply
from hpc_prefect.job.spec import JobSpec
from hpc_prefect.schedulers.base import NoAnswer, Scheduler
from hpc_prefect.schedulers.finding import Finding, ok, unknown, wrong

COMMANDS = "commands"
STATUS = "status dialect"
SEARCH = "search by name"
HISTORY = "history"
ARRAYS = "arrays"
QUEUE = "queue"
PROJECT = "project"
SUBMISSION = "submission"

#: The name of a job that nobody has; a job's real name is as long.
NO_JOB = "hnosuchjobdoct0"

T = TypeVar("T")


def untold(scheduler: Scheduler, spec: JobSpec) -> Dialogue[list[Finding]]:
    """The probe of a dialect that has none of its own: it only tries `Scheduler.find`."""
    found = yield from searched(scheduler, spec)
    why = f"hpc-prefect has no check of this for {scheduler.name} yet"
    later = "with --submit a small job shows it"
    return [*found, *(unknown(check, why, later) for check in (QUEUE, PROJECT))]


def missing_commands(names: Sequence[str]) -> Dialogue[list[Finding]]:
    """One finding when all are there, else one for each that is not."""
    folders: dict[str, None] = {}
    found = []
    for name in names:
        # The command itself is not started: a site's own version may do anything without arguments.
        reply = yield Command(("/bin/sh", "-c", 'command -v -- "$1"', "sh", name))
        path = reply.stdout.strip()
        if reply.code == 0 and path:
            folders[path.rpartition("/")[0]] = None
        else:
            remedy = (
                "run hpc-prefect where the scheduler's commands are, such as a login node, with"
                " them on PATH; or correct `scheduler` in the HPC profile"
            )
            found.append(wrong(COMMANDS, f"{name!r} is not on PATH", remedy))
    return found or [ok(COMMANDS, f"{', '.join(names)} in {', '.join(folders)}")]


def not_checked(checks: Sequence[str], why: str) -> list[Finding]:
    return [unknown(check, f"not checked: {why}") for check in checks]


def searched(scheduler: Scheduler, spec: JobSpec) -> Dialogue[list[Finding]]:
    """Whether a job can be looked for by its name, which keeps jobs from being run twice."""
    found = yield from scheduler.find([NO_JOB], spec.site.options)
    answer = found if isinstance(found, NoAnswer) else found[NO_JOB]
    if isinstance(answer, NoAnswer):
        return [
            wrong(SEARCH, answer.said, f"correct the options `{scheduler.name}.…` that this names")
        ]
    return [
        ok(SEARCH, "asked for a job name that does not exist, the scheduler says that it does not")
    ]


def recorded(dialogue: Dialogue[T], replies: list[Reply]) -> Dialogue[T]:
    """The same dialogue; its replies are also appended to `replies`."""
    try:
        command = next(dialogue)
        while True:
            reply = yield command
            replies.append(reply)
            command = dialogue.send(reply)
    except StopIteration as stop:
        result: T = stop.value
        return result


def named(names: Sequence[str]) -> str:
    """Names for a remedy, twelve at most."""
    shown = ", ".join(names[:12])
    return f"{shown}, …" if len(names) > 12 else shown
