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
