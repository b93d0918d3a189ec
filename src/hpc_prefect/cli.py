"""The command `hpc-prefect`."""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

from hpc_prefect.errors import HpcPrefectError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 is success, 1 an error that was said in a sentence, 2 wrong usage."""
    arguments = _parser().parse_args(argv)
    try:
        status: int = arguments.run(arguments)
    except HpcPrefectError as error:
        print(f"hpc-prefect: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("hpc-prefect: interrupted", file=sys.stderr)
        return 130
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hpc-prefect", description="Tools of HPC-Prefect.")
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    blocks = verbs.add_parser("blocks", help="blocks and Variables on the Prefect server")
    actions = blocks.add_subparsers(required=True, metavar="ACTION")
    apply = actions.add_parser("apply", help="save the blocks and Variables of a TOML file")
    apply.add_argument("file", type=Path, metavar="FILE")
    apply.set_defaults(run=_blocks_apply)
    actions.add_parser("list", help="list the blocks").set_defaults(run=_blocks_list)

    sites = verbs.add_parser("sites", help="list the places whose profiles came with this package")
    sites.set_defaults(run=_sites_list)
    actions = sites.add_subparsers(metavar="ACTION")
    show = actions.add_parser("show", help="print the TOML file of one, to be completed")
    show.add_argument("name", metavar="NAME")
    show.set_defaults(run=_sites_show)

    _add_render(verbs)
    _add_doctor(verbs)

    server = verbs.add_parser("server", help="a Prefect server of your own on this machine")
    actions = server.add_subparsers(required=True, metavar="ACTION")
    for name, run, text in (
        ("start", _server_start, "start it, unless one answers already"),
        ("status", _server_status, "say where it is; exit status 1 when there is none"),
        ("stop", _server_stop, "stop it"),
    ):
        action = actions.add_parser(name, help=text)
        action.add_argument(
            "--home", type=Path, default=_default_home(), metavar="DIR",
            help="where it keeps its files (default: %(default)s)",
        )  # fmt: skip
        action.set_defaults(run=run)

    verbs.add_parser("version", help="print versions").set_defaults(run=_version)
    return parser


def _add_render(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    render = verbs.add_parser(
        "render",
        help="print a job's script and submit command without submitting it",
        description="Print the script (standard output) and the submit command (standard error) "
        "of a job. Arguments for the program follow after --.",
    )
    for option, text in (
        ("--command", "command block: WHAT"),
        ("--execution", "execution profile block: HOW"),
        ("--hpc", "HPC profile block: WHERE"),
    ):
        render.add_argument(option, required=True, metavar="BLOCK", help=text)
    render.add_argument("--work-dir", type=Path, default=Path(), metavar="DIR")
    render.add_argument("--name", default="job", help="the job's name (default: %(default)s)")
    render.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", type=_field,
        help="override a field of the execution profile, such as num_nodes=4",
    )  # fmt: skip
    render.add_argument("arguments", nargs="*", metavar="ARGUMENT")
    render.set_defaults(run=_render)


def _add_doctor(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    doctor = verbs.add_parser(
        "doctor",
        help="check an HPC profile against the place that it stands for",
        description="Check an HPC profile where its scheduler's commands are. Exit status 1 when "
        "something is wrong; what cannot be told is shown and is no failure.",
    )
    doctor.add_argument("profile", metavar="PROFILE", help="HPC profile block")
    doctor.add_argument("--work-dir", type=Path, default=Path(), metavar="DIR")
    doctor.add_argument(
        "--resource-class", choices=("cpu", "gpu"), default="cpu",
        help="which side of the profile (default: %(default)s)",
    )  # fmt: skip
    doctor.add_argument(
        "--submit", action="store_true", help="also run a small real job, which is charged"
    )
    doctor.add_argument(
        "--walltime", default="00:05:00", type=_walltime, help="of that job (default: %(default)s)"
    )
    doctor.add_argument(
        "--wait", type=float, default=900.0, metavar="SECONDS",
        help="cancel that job when it has not ended after so long (default: %(default)g)",
    )  # fmt: skip
    doctor.add_argument(
        "--record", type=Path, metavar="DIR",
        help="save the commands and their answers there, without names of people and places",
    )  # fmt: skip
    doctor.set_defaults(run=_doctor)


def _field(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"{text!r} is not FIELD=VALUE")
    return name, value


def _walltime(text: str) -> str:
    from hpc_prefect.job.spec import parse_walltime

    try:
        parse_walltime(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def _default_home() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "hpc-prefect" / "server"


# Prefect takes seconds to import: each verb imports what it needs.


def _blocks_apply(arguments: argparse.Namespace) -> int:
    from hpc_prefect import apply
    from hpc_prefect.document import Item

    document = apply.read_file(arguments.file, venv=sys.prefix, environ=os.environ)
    for warning in document.warnings:
        print(f"warning: {warning}", file=sys.stderr)

    def report(item: Item, change: apply.Change) -> None:
        print(f"{change:<9}  {item.kind}  {item.name}", flush=True)

    done = asyncio.run(apply.apply_document(document, report=report))
    if not done:
        print(f"{arguments.file} has no blocks and no Variables")
    return 0


def _blocks_list(_: argparse.Namespace) -> int:
    from hpc_prefect import apply

    for slug, name in asyncio.run(apply.list_blocks()):
        print(f"{slug}/{name}")
    return 0


def _sites_list(_: argparse.Namespace) -> int:
    from hpc_prefect.sites import all_sites

    for site in all_sites():
        print(f"{site.name:<8}  {site.scheduler:<6}  {site.description}")
    print("\nTo use one: hpc-prefect sites show NAME > FILE, complete FILE,", file=sys.stderr)
    print("then: hpc-prefect blocks apply FILE", file=sys.stderr)
    return 0


def _sites_show(arguments: argparse.Namespace) -> int:
    from hpc_prefect.sites import find_site

    print(find_site(arguments.name).text, end="")
    return 0


def _render(arguments: argparse.Namespace) -> int:
    from hpc_prefect.blocks import BlockNames, Call
    from hpc_prefect.preview import preview

    call = Call(
        script_filename=arguments.name,
        work_dir=os.path.abspath(arguments.work_dir),
        user_args=arguments.arguments,
        overrides=dict(arguments.set),
    )
    block_names = BlockNames(arguments.command, arguments.execution, arguments.hpc)
    found = asyncio.run(preview(call, block_names))
    print(found.script, end="", flush=True)
    print(f"\nsubmit command:\n  {found.command}", file=sys.stderr)
    print(
        f"In a run, {found.folder} and the job's name are those of its campaign.", file=sys.stderr
    )
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    from hpc_prefect.blocks import load_hpc_profile
    from hpc_prefect.doctor import Terms, examine, failed, print_findings
    from hpc_prefect.executor.request import Silence

    class Progress(Silence):
        def state(self, text: str, *, warning: bool = False) -> None:
            print(f"job: {text}", file=sys.stderr)

    terms = Terms(
        work_dir=os.path.abspath(arguments.work_dir),
        resource_class=arguments.resource_class,
        walltime=arguments.walltime,
        submit=arguments.submit,
        wait=arguments.wait,
        record=arguments.record,
    )

    async def run() -> bool:
        hpc = await load_hpc_profile(arguments.profile)
        findings = await examine(hpc, terms, Progress())
        print_findings(findings)
        return failed(findings)

    wrong = asyncio.run(run())
    if arguments.record is not None:
        print(f"transcripts in {arguments.record}: look through them before you share them")
    return 1 if wrong else 0


def _server_start(arguments: argparse.Namespace) -> int:
    from hpc_prefect.server import ensure_server

    server = ensure_server(arguments.home, progress=lambda text: print(text, file=sys.stderr))
    print(f"Prefect server {'started' if server.started else 'already running'}: {server.url}")
    print(f"  open in a browser:  {server.ui_url}")
    print(f"  use it in a shell:  export PREFECT_API_URL={server.url}")
    if server.pid is not None:
        print(f"  stop it:            hpc-prefect server stop{_home_option(arguments.home)}")
    return 0


def _server_status(arguments: argparse.Namespace) -> int:
    from hpc_prefect.server import find_server

    server = find_server(arguments.home)
    if server is None:
        print(f"no Prefect server runs in {arguments.home}")
        return 1
    print(f"Prefect server {server.url} (pid {server.pid}), files in {server.home}")
    return 0


def _server_stop(arguments: argparse.Namespace) -> int:
    from hpc_prefect.server import stop_server

    stopped = stop_server(arguments.home)
    print("stopped" if stopped else f"no Prefect server runs in {arguments.home}")
    return 0


def _home_option(home: Path) -> str:
    return "" if home == _default_home() else f" --home {home}"


def _version(_: argparse.Namespace) -> int:
    for name in ("hpc-prefect", "prefect"):
        print(f"{name} {importlib.metadata.version(name)}")
    print(f"python {platform.python_version()}")
    return 0
