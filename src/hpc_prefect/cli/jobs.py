"""`hpc-prefect jobs`: jobs by their folders alone, also when Prefect's server is gone."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from hpc_prefect.cli.streams import reader_is_gone
from hpc_prefect.cli.verbs import Verbs
from hpc_prefect.terminal import line

if TYPE_CHECKING:
    from hpc_prefect.operations import JobSnapshot
    from hpc_prefect.operations.members import MemberState

    Actions: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]
else:
    Actions = argparse._SubParsersAction

_JOB = "folder, scheduler's id, beginning of the key, or name"


def add(verbs: Verbs) -> None:
    jobs = verbs.add_parser(
        "jobs",
        help="list, show, follow, cancel and attach to jobs; needs their folders only, no server",
        usage="hpc-prefect jobs [OPTION ...] [FOLDER ... | ACTION ...]",
        description="List the jobs of a folder and of the folders below it, the newest last. "
        "Nothing but their records is read, so no Prefect server is needed. AS OF: when the state "
        "was last known.",
    )
    _add_options(jobs)
    jobs.set_defaults(run=_list, folders=[])
    actions = jobs.add_subparsers(metavar="ACTION", prog="hpc-prefect jobs", action=_FolderOrAction)
    _add_list(actions)
    _add_show(actions)
    _add_logs(actions)
    _add_cancel(actions)
    _add_attach(actions)


class _FolderOrAction(Actions):
    """The name of an action, or else the first of the folders whose jobs are listed."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.choices = None  # type: ignore[assignment]  # any word

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *_: Any
    ) -> None:
        known = values[0] in self._name_parser_map
        super().__call__(parser, namespace, values if known else ["list", *values])


def _add_options(parser: argparse.ArgumentParser, **default: Any) -> None:
    """The options of a list; also accepted before the action."""

    def option(*names: str, otherwise: Any, text: str, **more: Any) -> None:
        wanted = default.get("default", otherwise)
        parser.add_argument(*names, default=wanted, help=text, **more)

    option("--work-dir", otherwise=Path(), text=_WORK_DIR, type=Path, metavar="DIR")
    option("--campaign", otherwise="", text="only the jobs of this campaign", metavar="NAME")
    option("--state", otherwise=[], metavar="STATE", type=_states, action="append",
           text="only jobs in this state (may be given several times, or with commas)")  # fmt: skip
    option("--ask", otherwise=False, text="also ask the schedulers, one question for all jobs",
           action="store_true")  # fmt: skip
    option("--json", otherwise=False, text="as JSON; times in seconds since 1970",
           action="store_true")  # fmt: skip


_WORK_DIR = "the work_dir of the jobs, or a folder above it (default: the current folder)"


def _add_list(actions: Actions) -> None:
    listing = actions.add_parser("list", help="list the jobs; this is the default")
    _add_options(listing, default=argparse.SUPPRESS)
    listing.add_argument("folders", nargs="*", metavar="FOLDER", help=_WORK_DIR)
    listing.set_defaults(run=_list)


def _action(actions: Actions, name: str, text: str, more: str = "") -> argparse.ArgumentParser:
    action = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.{more}")
    # Also accepted before the action.
    action.add_argument(
        "--work-dir", type=Path, default=argparse.SUPPRESS, metavar="DIR", help=_WORK_DIR
    )
    return action


def _add_show(actions: Actions) -> None:
    show = _action(actions, "show", "everything about one job")
    show.add_argument("job", metavar="JOB", help=_JOB)
    show.add_argument("--ask", action="store_true", default=argparse.SUPPRESS,
                      help="also ask the scheduler")  # fmt: skip
    show.add_argument("--json", action="store_true", default=argparse.SUPPRESS)
    show.add_argument("--members", action="store_true", help="all members of an array, a line each")
    show.set_defaults(run=_show)


def _add_logs(actions: Actions) -> None:
    logs = _action(actions, "logs", "print what a job wrote")
    logs.add_argument("job", metavar="JOB", help=_JOB)
    logs.add_argument(
        "--member", default="", metavar="N", help="the output of this member of an array"
    )
    logs.add_argument("--follow", "-f", action="store_true", help="go on until the job has ended")
    logs.add_argument(
        "--stream", choices=("stdout", "stderr", "scheduler"),
        help="only this one (default: stdout and stderr, each to its own stream)",
    )  # fmt: skip
    logs.set_defaults(run=_logs)


def _add_cancel(actions: Actions) -> None:
    more = (
        " The request is noted in the job's folder, then the scheduler is asked to cancel. Exit"
        " status 0 when it is confirmed that all have ended."
    )
    cancel = _action(actions, "cancel", "cancel jobs", more)
    cancel.add_argument("jobs", metavar="JOB", nargs="+", help=_JOB)
    cancel.add_argument(
        "--wait", type=float, default=20.0, metavar="SECONDS",
        help="how long to wait for them to end (default: %(default)g)",
    )  # fmt: skip
    cancel.add_argument(
        "--member", default="", metavar="N", help="cancel this member of an array alone"
    )
    cancel.set_defaults(run=_cancel)


def _add_attach(actions: Actions) -> None:
    more = (
        " Its result is written where its own process would have written it, and the flow, when it"
        " is started again, finds it there. Ctrl-C leaves the job running. Exit status 0 only when"
        " the job succeeded."
    )
    attach = _action(
        actions, "attach", "take over a job whose process has died, and follow it to its end", more
    )
    attach.add_argument("job", metavar="JOB", help=_JOB)
    attach.add_argument(
        "--job-id",
        default="",
        metavar="ID",
        help="the id of a quantum job whose submission had no reply; look it up at the service",
    )
    attach.set_defaults(run=_attach)


def _states(text: str) -> list[str]:
    from hpc_prefect.operations.status import STATES

    given = [word.strip() for word in text.split(",")]
    unknown = [word for word in given if word not in STATES]
    if unknown:
        known = ", ".join(STATES)
        raise argparse.ArgumentTypeError(f"there is no state {unknown[0]!r}; there are {known}")
    return given


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _list(arguments: argparse.Namespace) -> int:
    from hpc_prefect.operations import ask
    from hpc_prefect.operations.format import table

    folders = arguments.folders or [arguments.work_dir]
    jobs = _known(folders, campaign=arguments.campaign)
    if arguments.ask:
        jobs = ask(jobs)
    if wanted := {state for states in arguments.state for state in states}:
        jobs = [job for job in jobs if job.status.state in wanted]
    if arguments.json:
        print(json.dumps([job.as_dict() for job in jobs], indent=1))
    elif jobs:
        print(table(jobs, os.get_terminal_size().columns if sys.stdout.isatty() else 0))
    else:
        _say(f"no such jobs in {' '.join(map(os.path.abspath, folders))}, nor in folders below")
    return 0


def _known(folders: Sequence[str | Path], campaign: str = "") -> list[JobSnapshot]:
    """The jobs of the folders and of those below them."""
    from hpc_prefect.errors import UnknownJob
    from hpc_prefect.operations import list_jobs
    from hpc_prefect.operations.find import MOST_ENTRIES, MOST_FOLDERS, work_dirs
    from hpc_prefect.quantum.jobs import make_known

    places: list[str] = []
    for folder in folders:
        if not os.path.isdir(os.path.expanduser(folder)):
            raise UnknownJob(f"there is no folder {folder}; the actions are {', '.join(_ACTIONS)}")
        found, whole = work_dirs(folder)
        if not whole:
            _say(
                f"warning: {folder} was not searched completely (at most {MOST_FOLDERS} folders,"
                f" and {MOST_ENTRIES} entries of each): name the work_dir itself"
            )
        places += found or [os.fspath(folder)]
    make_known()
    return list_jobs(*places, campaign=campaign)


_ACTIONS = ("list", "show", "logs", "cancel", "attach")


def _show(arguments: argparse.Namespace) -> int:
    from hpc_prefect.operations import ask
    from hpc_prefect.operations.format import details, details_as_dict

    job = _find(arguments.job, arguments)
    if arguments.ask:
        (job,) = ask([job])
    if arguments.members:
        return _show_members(job, as_json=arguments.json)
    print(json.dumps(details_as_dict(job), indent=1) if arguments.json else details(job))
    return 0


def _show_members(job: JobSnapshot, *, as_json: bool) -> int:
    from hpc_prefect.operations.format import member_table

    members = _members(job)
    shown = [each.as_dict() for each in members]
    print(json.dumps(shown, indent=1) if as_json else member_table(members))
    return 0


def _members(job: JobSnapshot) -> list[MemberState]:
    from hpc_prefect.errors import UnknownJob
    from hpc_prefect.operations.find import candidate
    from hpc_prefect.operations.members import read_members

    if job.members is None:
        raise UnknownJob(f"{candidate(job)} is no array, so it has no members")
    return read_members(job.folder)


def _find(reference: str, arguments: argparse.Namespace) -> JobSnapshot:
    from hpc_prefect.operations import find_job
    from hpc_prefect.operations.find import is_job_folder
    from hpc_prefect.quantum.jobs import make_known

    make_known()
    if is_job_folder(os.path.abspath(os.path.expanduser(reference))):
        return find_job(reference)
    return find_job(reference, arguments.work_dir, _known([arguments.work_dir]))


def _logs(arguments: argparse.Namespace) -> int:
    from hpc_prefect.errors import UnknownJob
    from hpc_prefect.operations import follow, read_job
    from hpc_prefect.operations.find import candidate
    from hpc_prefect.operations.logs import has_ended

    job = _find(arguments.job, arguments)
    if job.spec is not None and not job.spec.writes_output:
        raise UnknownJob(
            f"{candidate(job)} is a {job.kind} job, which writes no output; what is known of it is"
            f" in {job.folder.path}"
        )
    if job.members is not None or arguments.member:
        return _member_logs(job, arguments)
    holder = job.holder
    if arguments.follow and not has_ended(job) and not (holder and holder.alive):
        _say(
            "hpc-prefect: no process watches this job, so its end is seen here only when it"
            f" writes its exit record; `hpc-prefect jobs attach {job.key}` follows it to its end"
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
        now = read_job(job.folder.path).status
        _say(f"hpc-prefect: {now.state}{': ' + now.reason if now.reason else ''}")
    return 0


def _member_logs(job: JobSnapshot, arguments: argparse.Namespace) -> int:
    """What a member of an array has written so far."""
    from hpc_prefect.errors import UnknownJob
    from hpc_prefect.operations.find import candidate
    from hpc_prefect.operations.members import member_named

    members = _members(job)
    if not arguments.member:
        raise UnknownJob(f"{candidate(job)} is an array: choose whose output with --member N")
    member = member_named(members, arguments.member)
    for stream, path in (("stdout", member.stdout), ("stderr", member.stderr)):
        if arguments.stream in (None, stream):
            apart = arguments.stream is None and stream == "stderr"
            target = sys.stderr.buffer if apart else sys.stdout.buffer
            target.write(job.folder.transport.read(path) or b"")
            target.flush()
    return 0


def _cancel(arguments: argparse.Namespace) -> int:
    from hpc_prefect.operations import cancel_jobs, find_job
    from hpc_prefect.operations.find import candidate

    known = _known([arguments.work_dir])
    # All are looked up first: nothing is cancelled when one name is wrong.
    meant = [find_job(each, arguments.work_dir, known) for each in arguments.jobs]
    jobs = list({job.folder.path: job for job in meant}.values())
    if arguments.member:
        return _cancel_member(jobs, arguments.member, arguments.wait)
    with line.shown(lambda: f"waiting for the end of {len(jobs)} job{'s' * (len(jobs) > 1)}"):
        done = cancel_jobs(jobs, wait=arguments.wait)
    ends = [(one.confirmed, candidate(one.job), one.words) for one in done]
    for confirmed, which, words in ends:
        print(f"{'ended' if confirmed else 'UNCONFIRMED'}  {which}: {words}")
    left = [which for confirmed, which, _ in ends if not confirmed]
    if left:
        _say(
            f"hpc-prefect: the end of {len(left)} of {len(ends)} jobs is not confirmed; the"
            f" request is in their folders. Run the command again, or attach, to finish it"
        )
    return 1 if left else 0


def _cancel_member(jobs: Sequence[JobSnapshot], number: str, wait: float) -> int:
    from hpc_prefect.operations.cancel_member import cancel_member
    from hpc_prefect.operations.members import member_named

    if len(jobs) != 1:
        _say("hpc-prefect: --member needs exactly one JOB, an array")
        return 2
    member = member_named(_members(jobs[0]), number)
    confirmed, words = cancel_member(jobs[0], member, wait=wait)
    print(f"{'ended' if confirmed else 'UNCONFIRMED'}  {member.name}: {words}")
    return 0 if confirmed else 1


def _attach(arguments: argparse.Namespace) -> int:
    from hpc_prefect.operations import attach
    from hpc_prefect.operations.find import candidate

    job = _find(arguments.job, arguments)
    printer = _Printer(job.name or job.key)
    try:
        with line.shown(lambda: printer.now):
            result = attach(job, printer, job_id=arguments.job_id)
    except KeyboardInterrupt:
        _say(
            f"\nhpc-prefect: no longer watching; the job was left as it is ({candidate(job)}). To"
            f" go on: `hpc-prefect jobs attach {job.key}`"
        )
        return 130
    _say(f"{result.name} ({result.job_id or 'not submitted'}): {result.verdict.reason}")
    if not result.succeeded:
        _say(f"what to do: {result.verdict.remedy}")
    return 0 if result.succeeded else 1


class _Printer:
    """A listener that prints: states to standard error, output to its own stream."""

    def __init__(self, which: str) -> None:
        self.now = self._which = which

    def state(self, text: str, *, warning: bool = False, **_: object) -> None:
        from hpc_prefect.terminal import moment, printable

        self.now = f"{self._which}: {text}"
        _say(f"{moment(time.time())}  {'warning: ' if warning else ''}{printable(text)}")

    def output(self, stream: str, text: str, path: str) -> None:
        print(text, file=sys.stderr if stream == "stderr" else sys.stdout, flush=True)
