"""`hpc-prefect jobs`: jobs by their folders alone, also when Prefect's server is gone."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from hpc_prefect.cli.streams import reader_is_gone
from hpc_prefect.cli.verbs import Verbs

if TYPE_CHECKING:
    from hpc_prefect.jobs import KnownJob

    Actions: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]
else:
    Actions = argparse._SubParsersAction

_JOB = "folder, scheduler's id, beginning of the key, or name"


def add(verbs: Verbs) -> None:
    jobs = verbs.add_parser(
        "jobs",
        help="list, show, follow, cancel and attach to jobs by their folders alone",
        description="List the jobs below a work_dir, the newest last. Nothing but their folders is "
        "read, so no Prefect server is needed. AS OF: when the state was last known.",
    )
    jobs.add_argument("--work-dir", type=Path, default=Path(), metavar="DIR", help=_WORK_DIR)
    jobs.add_argument("--campaign", default="", metavar="NAME", help="only the jobs of this one")
    jobs.add_argument(
        "--state", action="append", default=[], metavar="STATE", type=_states,
        help="only jobs in this state (may be given several times, or with commas)",
    )  # fmt: skip
    jobs.add_argument("--ask", action="store_true", help="ask the schedulers too, once for all")
    jobs.add_argument("--json", action="store_true", help="as JSON; times in seconds since 1970")
    jobs.set_defaults(run=_list)
    actions = jobs.add_subparsers(metavar="ACTION")
    _add_show(actions)
    _add_logs(actions)
    _add_cancel(actions)
    _add_attach(actions)


_WORK_DIR = "the work_dir of the jobs (default: the current folder)"


def _action(actions: Actions, name: str, text: str, more: str = "") -> argparse.ArgumentParser:
    action = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.{more}")
    # Given before the action it counts too.
    action.add_argument(
        "--work-dir", type=Path, default=argparse.SUPPRESS, metavar="DIR", help=_WORK_DIR
    )
    return action


def _add_show(actions: Actions) -> None:
    show = _action(actions, "show", "everything about one job")
    show.add_argument("job", metavar="JOB", help=_JOB)
    show.add_argument("--ask", action="store_true", default=argparse.SUPPRESS, help="ask, too")
    show.add_argument("--json", action="store_true", default=argparse.SUPPRESS)
    show.set_defaults(run=_show)


def _add_logs(actions: Actions) -> None:
    logs = _action(actions, "logs", "print what a job wrote")
    logs.add_argument("job", metavar="JOB", help=_JOB)
    logs.add_argument("--follow", "-f", action="store_true", help="until the job has ended")
    logs.add_argument(
        "--stream", choices=("stdout", "stderr", "scheduler"),
        help="only this one (default: stdout and stderr, each where it belongs)",
    )  # fmt: skip
    logs.set_defaults(run=_logs)


def _add_cancel(actions: Actions) -> None:
    more = (
        " The wish is written into the job's folder, then the scheduler is asked. Exit status 0"
        " when the end of all of them is confirmed."
    )
    cancel = _action(actions, "cancel", "cancel jobs", more)
    cancel.add_argument("jobs", metavar="JOB", nargs="+", help=_JOB)
    cancel.add_argument(
        "--wait", type=float, default=20.0, metavar="SECONDS",
        help="wait for the ends for so long (default: %(default)g)",
    )  # fmt: skip
    cancel.set_defaults(run=_cancel)


def _add_attach(actions: Actions) -> None:
    more = (
        " Its verdict is written as its own process would have done, so that its flow, started"
        " again, finds it. Ctrl-C leaves the job running. Exit status 0 only when it succeeded."
    )
    attach = _action(actions, "attach", "follow the job of a dead process to its end", more)
    attach.add_argument("job", metavar="JOB", help=_JOB)
    attach.set_defaults(run=_attach)


def _states(text: str) -> list[str]:
    from hpc_prefect.jobs.standing import STATES

    given = [word.strip() for word in text.split(",")]
    unknown = [word for word in given if word not in STATES]
    if unknown:
        known = ", ".join(STATES)
        raise argparse.ArgumentTypeError(f"there is no state {unknown[0]!r}; there are {known}")
    return given


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _list(arguments: argparse.Namespace) -> int:
    from hpc_prefect.jobs import ask, list_jobs
    from hpc_prefect.jobs.describe import table

    jobs = list_jobs(arguments.work_dir, campaign=arguments.campaign)
    if arguments.ask:
        jobs = ask(jobs)
    if wanted := {state for states in arguments.state for state in states}:
        jobs = [job for job in jobs if job.standing.state in wanted]
    if arguments.json:
        print(json.dumps([job.as_dict() for job in jobs], indent=1))
    elif jobs:
        print(table(jobs))
    else:
        _say(f"no such jobs below {os.path.abspath(arguments.work_dir)}/.hpc-prefect")
    return 0


def _show(arguments: argparse.Namespace) -> int:
    from hpc_prefect.jobs import ask
    from hpc_prefect.jobs.describe import details, details_as_dict

    job = _find(arguments.job, arguments)
    if arguments.ask:
        (job,) = ask([job])
    print(json.dumps(details_as_dict(job), indent=1) if arguments.json else details(job))
    return 0


def _find(reference: str, arguments: argparse.Namespace) -> KnownJob:
    from hpc_prefect.jobs import find_job

    return find_job(reference, arguments.work_dir)


def _logs(arguments: argparse.Namespace) -> int:
    from hpc_prefect.jobs import follow, read_job
    from hpc_prefect.jobs.logs import has_ended

    job = _find(arguments.job, arguments)
    holder = job.holder
    if arguments.follow and not has_ended(job) and not (holder and holder.alive):
        _say(
            "hpc-prefect: no process looks after this job, so its end is seen here only by its own"
            f" exit record; `hpc-prefect jobs attach {job.key}` follows it to its verdict"
        )
    streams = (arguments.stream,) if arguments.stream else ("stdout", "stderr")
    for piece in follow(job, streams, wait=arguments.follow):
        apart = arguments.stream is None and piece.stream == "stderr"
        target = sys.stderr.buffer if apart else sys.stdout.buffer
        target.write(piece.data)
        target.flush()
        if reader_is_gone():
            return 0
    if arguments.follow:
        now = read_job(job.folder.path).standing
        _say(f"hpc-prefect: {now.state}{': ' + now.reason if now.reason else ''}")
    return 0


def _cancel(arguments: argparse.Namespace) -> int:
    from hpc_prefect.jobs import cancel_jobs, find_job, list_jobs
    from hpc_prefect.jobs.find import candidate

    known = list_jobs(arguments.work_dir)
    # All of them first: nothing is cancelled when one is not understood.
    meant = [find_job(each, arguments.work_dir, known) for each in arguments.jobs]
    jobs = list({job.folder.path: job for job in meant}.values())
    done = cancel_jobs(jobs, wait=arguments.wait)
    for one in done:
        print(f"{'ended' if one.confirmed else 'UNCONFIRMED'}  {candidate(one.job)}: {one.words}")
    left = [one for one in done if not one.confirmed]
    if left:
        _say(
            f"hpc-prefect: the end of {len(left)} of {len(done)} jobs is not confirmed; the wish is"
            " in their folders. Give the command again, or attach, to finish it"
        )
    return 1 if left else 0


def _attach(arguments: argparse.Namespace) -> int:
    from hpc_prefect.jobs import attach
    from hpc_prefect.jobs.find import candidate

    job = _find(arguments.job, arguments)
    try:
        result = attach(job, _Printer())
    except KeyboardInterrupt:
        _say(
            f"\nhpc-prefect: not watched any more; the job is left as it is ({candidate(job)})."
            f" `hpc-prefect jobs attach {job.key}` goes on"
        )
        return 130
    _say(f"{result.name} ({result.job_id or 'not submitted'}): {result.verdict.reason}")
    if not result.succeeded:
        _say(f"what to do: {result.verdict.remedy}")
    return 0 if result.succeeded else 1


class _Printer:
    """Prints what a listener is told: states to standard error, output where it belongs."""

    def state(self, text: str, *, warning: bool = False) -> None:
        from hpc_prefect.jobs.describe import moment, printable

        _say(f"{moment(time.time())}  {'warning: ' if warning else ''}{printable(text)}")

    def output(self, stream: str, text: str, path: str) -> None:
        print(text, file=sys.stderr if stream == "stderr" else sys.stdout, flush=True)
