"""`hpc-prefect runs`: what ran, with which parameters, and what came of it."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from hpc_prefect.cli.runs_compare import add_compare
from hpc_prefect.cli.runs_export import add_export
from hpc_prefect.cli.runs_reproduce import add_reproduce
from hpc_prefect.cli.verbs import RUN, Verbs
from hpc_prefect.terminal import line

if TYPE_CHECKING:
    from hpc_prefect.records.runs import Selection


def add(verbs: Verbs) -> None:
    runs = verbs.add_parser(
        "runs",
        help="list, show, compare and reproduce runs of flows: parameters, measures, jobs, costs",
        usage="hpc-prefect runs [OPTION ...] [ACTION ...]",
        description="List your runs, in all folders, the newest last. Nothing but their records is "
        "read, so no Prefect server is needed. A + after a cost: for some jobs it is not known."
        " UPDATED: when the record of a run that is running on another host was last written.",
    )
    _add_options(runs)
    runs.set_defaults(run=_list)
    actions = runs.add_subparsers(metavar="ACTION", prog="hpc-prefect runs")
    _add_list(actions)
    _add_show(actions)
    _add_scan(actions)
    add_compare(actions)
    add_reproduce(actions)
    add_export(actions)


def _add_options(parser: argparse.ArgumentParser, **default: Any) -> None:
    """The options of a list; also accepted before the action."""

    def option(*names: str, otherwise: Any, text: str, **more: Any) -> None:
        wanted = default.get("default", otherwise)
        parser.add_argument(*names, default=wanted, help=text, **more)

    option("--flow", otherwise=None, text="only runs of this flow; * stands for any letters",
           metavar="NAME")  # fmt: skip
    option(
        "--campaign",
        otherwise=None,
        text="only runs of this campaign; * as for --flow",
        metavar="NAME",
    )
    option("--state", otherwise=[], metavar="STATE", type=_words, action="extend",
           text="only runs in this state: running, completed, failed, cancelled, crashed, died "
           "(may be given several times, or with commas)")  # fmt: skip
    option("--since", otherwise=None, text="only runs that began then or later: 2025-01-31, "
           "2025-01-31T12:00, or how long ago: 12h, 3d, 2w", metavar="TIME")  # fmt: skip
    option("--until", otherwise=None, text="only runs that began then or earlier", metavar="TIME")
    option("--where", otherwise=[], metavar="CONDITION", action="append",
           text="only runs with such a parameter, measure or cost: 'shots>1000', "
           "'basis==\"sto-3g\"', 'node_hours<=2', 'ended>3d' (given "
           "several times, all must hold)")  # fmt: skip
    option("--sort", otherwise=None, metavar="NAME",
           text="sort by a parameter, measure, cost or whatever --where takes")  # fmt: skip
    option("--reverse", "-r", otherwise=False, text="sort in reverse order", action="store_true")
    option("--columns", otherwise=None, metavar="A,B,…", type=_words,
           text="show these columns, named as for --where or as in the heading; +A,B,… adds them "
           "to the usual ones")  # fmt: skip
    option("--limit", otherwise=None, metavar="N", type=_count,
           text="at most so many runs: the first ones by --sort, or the newest")  # fmt: skip
    option("--json", otherwise=False, text="as JSON; times in seconds since 1970",
           action="store_true")  # fmt: skip
    option("--csv", otherwise=False, text="as CSV with all columns, or with those of --columns; "
           "times in UTC", action="store_true")  # fmt: skip


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of runs")
    return int(text)


def _add_list(actions: Verbs) -> None:
    listing = actions.add_parser("list", help="list runs; this is the default")
    _add_options(listing, default=argparse.SUPPRESS)
    listing.set_defaults(run=_list)


def _add_show(actions: Verbs) -> None:
    text = "everything about one run"
    show = actions.add_parser("show", help=text, description=f"{text[0].upper()}{text[1:]}.")
    show.add_argument("which", metavar="RUN", help=RUN)
    show.add_argument(
        "--blocks", action="store_true", help="with the content of the blocks that it used"
    )
    show.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS,
        help="everything, with all jobs, as JSON; times in seconds since 1970",
    )  # fmt: skip
    show.set_defaults(run=_show)


def _add_scan(actions: Verbs) -> None:
    scan = actions.add_parser(
        "scan",
        help="find the runs below folders and put them into the list",
        description="Find the records of runs below folders, and put them into the list: runs"
        " that were moved or made on another host, or all of them when the list was lost.",
    )
    scan.add_argument(
        "folders", nargs="*", metavar="DIR", help="a work_dir of jobs, or any folder above it"
    )
    scan.add_argument(
        "--prune", action="store_true",
        help="also remove runs from the list whose folders are gone",
    )  # fmt: skip
    scan.set_defaults(run=_scan, parser=scan)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _list(arguments: argparse.Namespace) -> int:
    from hpc_prefect.cli import runs_words as words

    columns, beside = _columns(arguments.columns)
    found = _selected(arguments, [name for name in columns if name not in words.HEADS])
    if arguments.json:
        print(_json([run.as_dict() for run in found.runs]))
    elif arguments.csv:
        words.write_csv(found.runs, columns if not beside else [], sys.stdout)
    elif found.runs:
        width = os.get_terminal_size().columns if sys.stdout.isatty() else 0
        print(words.table(found.runs, found.ids, columns, beside=beside, width=width))
    _say_what_is_missing(found)
    return 0


def _json(found: object) -> str:
    plain = json.loads(json.dumps(found), parse_constant=lambda _: None)  # JSON has no NaN
    try:
        return json.dumps(plain, indent=1)
    except RecursionError:  # deeply nested: without indent the limit is higher
        return json.dumps(plain)


def _columns(given: list[str] | None) -> tuple[list[str], bool]:
    """The names, and whether they are added to the usual ones."""
    names = given or []
    beside = not names or names[0].startswith("+")
    return [name.removeprefix("+") for name in names], beside


def _selected(arguments: argparse.Namespace, names: list[str]) -> Selection:
    from hpc_prefect.records import runs

    sort = arguments.sort
    if arguments.reverse:  # without --sort: the newest first
        sort = sort[1:] if sort and sort.startswith("-") else f"-{sort or 'started'}"
    return runs.select(
        flow=arguments.flow,
        campaign=arguments.campaign,
        state=arguments.state,
        since=arguments.since,
        until=arguments.until,
        where=arguments.where,
        sort=sort,
        limit=arguments.limit,
        names=names,
    )


def _say_what_is_missing(found: Selection) -> None:
    if found.gone:
        _say(
            f"hpc-prefect: {found.gone} more whose folders are gone; `hpc-prefect runs scan DIR`"
            " finds them where they were moved to, `hpc-prefect runs scan --prune` forgets them"
        )
    elif not found.ids:
        _say(
            "hpc-prefect: no runs are known yet; `hpc-prefect runs scan DIR` finds those below a"
            " folder"
        )
    elif not found.runs:
        _say(f"hpc-prefect: none of the {len(found.ids)} known runs matches")


def _show(arguments: argparse.Namespace) -> int:
    from hpc_prefect.cli import runs_words as words
    from hpc_prefect.records import runs
    from hpc_prefect.records.read import standing

    record = runs.get(arguments.which)
    state = standing(record)
    if arguments.json:
        print(_json(record.as_dict() | {"state": state}))
    else:
        print(words.details(record, state, blocks=arguments.blocks))
    return 0


def _scan(arguments: argparse.Namespace) -> int:
    from hpc_prefect.records import index

    if not arguments.folders and not arguments.prune:
        arguments.parser.error("name the folders to look in, or --prune")
    if arguments.folders:
        done = index.Scanned()
        with line.shown(lambda: f"looking for runs, {done.found} found"):
            index.scan(arguments.folders, done)
        skipped = f"; {done.skipped} could not be read" if done.skipped else ""
        print(f"{_runs(done.found)} found, {done.new} of them new{skipped}")
    if arguments.prune:
        print(f"{_runs(index.prune())} forgotten, whose folders are gone")
    return 0


def _runs(count: int) -> str:
    return f"{count} run" if count == 1 else f"{count} runs"
