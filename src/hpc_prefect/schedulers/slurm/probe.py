"""What Slurm says before a job is submitted: `sinfo`, `squeue`, `sacct`, `scontrol show config`,
`sbatch --test-only`.

Seen on Slurm 22.05, with accounting and without. With `sbatch --test-only` the controller checks a
submission without making it: account, QOS, partition, constraint, and by a site's own plug-in.
"""

from __future__ import annotations

import re
import shlex

from hpc_prefect.job.dialogue import Command, Dialogue, Reply
from hpc_prefect.job.spec import JobSpec
from hpc_prefect.schedulers.base import NoAnswer, Scheduler
from hpc_prefect.schedulers.finding import Finding, Outcome, ok, unknown, wrong
from hpc_prefect.schedulers.probe import (
    ARRAYS,
    HISTORY,
    PROJECT,
    QUEUE,
    SEARCH,
    STATUS,
    SUBMISSION,
    missing_commands,
    named,
    not_checked,
    recorded,
    searched,
)
from hpc_prefect.schedulers.slurm import submit as sbatch
from hpc_prefect.schedulers.slurm.status import at

_COMMANDS = ("sbatch", "squeue", "scancel", "sinfo")
_AFTER_STATUS = (HISTORY, SEARCH, ARRAYS, QUEUE, PROJECT, SUBMISSION)
_MAX_ARRAY_SIZE = re.compile(r"^MaxArraySize\s*=\s*([0-9]{1,9})\s*$", re.MULTILINE)
_ACCOUNT = re.compile(r"Invalid account", re.IGNORECASE)
_STATES = {
    "drain": "takes no jobs (drain)",
    "inactive": "takes no jobs (inactive)",
    "down": "takes jobs but starts none (down)",
}


def probe(scheduler: Scheduler, spec: JobSpec) -> Dialogue[list[Finding]]:
    accounting = bool(spec.site.options.get("accounting", True))
    found = yield from missing_commands((*_COMMANDS, *(("sacct",) if accounting else ())))
    if found[0].outcome is Outcome.WRONG:
        return found + not_checked((STATUS, *_AFTER_STATUS), "commands are missing")
    status = yield from _status(scheduler, spec)
    found.append(status)
    if status.outcome is Outcome.WRONG:
        return found + not_checked(_AFTER_STATUS, "first the status dialect must be right")
    history = (yield from _history(spec)) if accounting else _no_history()
    found.append(history)
    if history.outcome is Outcome.WRONG:
        found += not_checked((SEARCH,), "first the history must be right")
    else:
        found += yield from searched(scheduler, spec)
    found.append((yield from _arrays(scheduler, spec)))
    queue = yield from _partition(spec)
    found.append(queue)
    if queue.outcome is Outcome.WRONG:
        return found + not_checked((PROJECT, SUBMISSION), "first the queue must be right")
    found += yield from _submission(spec, accounting=accounting)
    return found


def _status(scheduler: Scheduler, spec: JobSpec) -> Dialogue[Finding]:
    replies: list[Reply] = []
    options = {**spec.site.options, "accounting": False}
    answer = yield from recorded(scheduler.observe(["1"], options), replies)
    if isinstance(answer, NoAnswer):
        remedy = (
            "try squeue here by hand; see that slurm.cluster of the HPC profile, or SLURM_CONF"
            " here, names the cluster"
        )
        return wrong(STATUS, answer.said, remedy)
    rows = replies[0].stdout.strip() if replies[0].code == 0 else ""
    if rows and not answer:
        remedy = "put Slurm's own squeue on PATH: the one here seems to be another program"
        return wrong(STATUS, f"squeue answers {rows[:200]!r}, in another form than asked", remedy)
    version = yield Command(("squeue", "--version"))
    name = version.stdout.strip() if version.code == 0 else "version unknown"
    return ok(STATUS, f"squeue accepts the options and answers ({name})")


def _no_history() -> Finding:
    return unknown(HISTORY, "not checked: slurm.accounting of the HPC profile is false")


def _history(spec: JobSpec) -> Dialogue[Finding]:
    form = ("--allocations", "--noheader", "--parsable2", "--format=JobID,State", "--jobs=1")
    reply = yield Command(("sacct", *at(spec.site.options), *form))
    if "accounting storage is disabled" in reply.stderr:
        remedy = "set slurm.accounting = false in the HPC profile: this Slurm has no accounting"
        return wrong(HISTORY, reply.said, remedy)
    if reply.code != 0:
        remedy = (
            "see whether slurmdbd is up (sacctmgr show cluster); where sacct is not for users, set"
            " slurm.accounting = false in the HPC profile"
        )
        return wrong(HISTORY, reply.said, remedy)
    return ok(HISTORY, "sacct answers")


def _arrays(scheduler: Scheduler, spec: JobSpec) -> Dialogue[Finding]:
    """Whether the site takes arrays as large as the profile says."""
    ours = scheduler.array_limit(spec.site.options)
    reply = yield Command(("scontrol", *at(spec.site.options), "show", "config"))
    found = _MAX_ARRAY_SIZE.search(reply.stdout) if reply.code == 0 else None
    if found is None:
        remedy = "ask your site for MaxArraySize, and set slurm.max_array_size to it"
        return unknown(ARRAYS, f"scontrol shows no MaxArraySize: {reply.said[:200]}", remedy)
    theirs = int(found[1])
    if ours > theirs:
        remedy = f"set slurm.max_array_size = {theirs} in the HPC profile"
        return wrong(ARRAYS, f"the profile allows {ours} elements, Slurm only {theirs}", remedy)
    if ours < 2:
        return ok(ARRAYS, "the profile switches them off: jobs are submitted one by one")
    return ok(ARRAYS, f"the profile allows {ours} elements, Slurm {theirs}")


def _partition(spec: JobSpec) -> Dialogue[Finding]:
    field = f"queue_{spec.resources.resource_class}"
    form = ("--all", "--noheader", "--format=%P|%a|%l|%D")
    reply = yield Command(("sinfo", *at(spec.site.options), *form))
    rows = [line.strip().split("|") for line in reply.stdout.splitlines()]
    known = {row[0].rstrip("*"): row for row in rows if len(row) == 4}
    if reply.code != 0 or not known:
        return unknown(QUEUE, f"sinfo lists no partitions: {reply.said}", "try sinfo by hand")
    wanted = spec.site.queue.split(",") if spec.site.queue else _default(known)
    if not wanted:
        return wrong(QUEUE, "there is no default partition", f"set {field} to: {named([*known])}")
    for name in wanted:
        if name not in known:
            remedy = f"set {field} of the HPC profile to a partition: {named([*known])}"
            return wrong(QUEUE, f"there is no partition {name!r}", remedy)
        if (state := known[name][1]) != "up":
            open_ones = [each for each, row in known.items() if row[1] == "up"]
            remedy = f"wait until it is up, or set {field} to: {named(open_ones)}"
            what = _STATES.get(state, f"is {state!r}")
            return wrong(QUEUE, f"partition {name!r} {what}", remedy)
    shown = "; ".join(
        f"{name!r} is up, {known[name][3]} nodes, limit {known[name][2]}" for name in wanted
    )
    return ok(QUEUE, shown if spec.site.queue else f"the default: {shown}")


def _default(known: dict[str, list[str]]) -> list[str]:
    return [name for name, row in known.items() if row[0].endswith("*")]


def _submission(spec: JobSpec, *, accounting: bool) -> Dialogue[list[Finding]]:
    words = [word for option in sbatch.directives(spec) for word in shlex.split(option)]
    reply = yield Command(
        ("sbatch", *at(spec.site.options), "--test-only", *words, "--wrap=true"),
        timeout=150.0,
        inherits=sbatch.INHERITS,
    )
    project = spec.site.project
    if reply.code == 0:
        taken = f"{project!r}" if project else "your default account"
        if accounting:
            judged = ok(PROJECT, f"{taken}: sbatch --test-only accepts it")
        else:
            judged = unknown(PROJECT, f"{taken}: without accounting Slurm accepts any name")
        return [
            judged,
            ok(SUBMISSION, reply.stderr.strip() or "sbatch --test-only accepts the job"),
        ]
    if _ACCOUNT.search(reply.stderr):
        wrong_one = yield from _accounts(spec, reply.said)
        return [wrong_one, *not_checked((SUBMISSION,), "first the project must be right")]
    remedy = (
        "correct what sbatch names: the options `slurm.…` of the HPC profile (qos, reservation,"
        " constraint, directives), or what it says that a node has"
    )
    rest = not_checked((PROJECT,), "first the submission must be right")
    return [*rest, wrong(SUBMISSION, f"sbatch --test-only: {reply.said}", remedy)]


def _accounts(spec: JobSpec, said: str) -> Dialogue[Finding]:
    """The finding about a refused project; its remedy names the user's projects if Slurm does."""
    field = f"project_{spec.resources.resource_class}"
    who = (yield Command(("id", "-un"))).stdout.strip()
    cluster = spec.site.options.get("cluster")
    where = ("where", f"user={who}", *((f"cluster={cluster}",) if cluster else ()))
    reply = yield Command(("sacctmgr", "-n", "-P", "show", "assoc", *where, "format=Account"))
    names = sorted({line.strip() for line in reply.stdout.splitlines() if line.strip()})
    if reply.code != 0 or not names:
        remedy = f"set {field} of the HPC profile to an account that you may use in this partition"
    else:
        remedy = f"set {field} of the HPC profile to an account of yours: {named(names)}"
    return wrong(PROJECT, f"{spec.site.project or 'no account'!r}: {said}", remedy)
