"""`hpc-prefect server`: a Prefect server of your own."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hpc_prefect.cli.verbs import Verbs, state_folder


def add(verbs: Verbs) -> None:
    server = verbs.add_parser("server", help="a Prefect server of your own on this machine")
    actions = server.add_subparsers(required=True, metavar="ACTION")
    for name, run, text in (
        ("start", _start, "start it, unless one answers already"),
        ("status", _status, "say where it is; exit status 1 when there is none"),
        ("stop", _stop, "stop it"),
    ):
        action = actions.add_parser(name, help=text)
        action.add_argument(
            "--home", type=Path, default=_default_home(), metavar="DIR",
            help="where it keeps its files (default: %(default)s)",
        )  # fmt: skip
        action.set_defaults(run=run)


def _start(arguments: argparse.Namespace) -> int:
    from hpc_prefect.server import ensure_server

    server = ensure_server(arguments.home, progress=lambda text: print(text, file=sys.stderr))
    print(f"Prefect server {'started' if server.started else 'already running'}: {server.url}")
    print(f"  open in a browser:  {server.ui_url}")
    print(f"  use it in a shell:  export PREFECT_API_URL={server.url}")
    if server.pid is not None:
        print(f"  stop it:            hpc-prefect server stop{_home_option(arguments.home)}")
    return 0


def _status(arguments: argparse.Namespace) -> int:
    from hpc_prefect.server import find_server

    server = find_server(arguments.home)
    if server is None:
        print(f"no Prefect server runs in {arguments.home}")
        return 1
    print(f"Prefect server {server.url} (pid {server.pid}), files in {server.home}")
    return 0


def _stop(arguments: argparse.Namespace) -> int:
    from hpc_prefect.server import stop_server

    stopped = stop_server(arguments.home)
    print("stopped" if stopped else f"no Prefect server runs in {arguments.home}")
    return 0


def _home_option(home: Path) -> str:
    return "" if home == _default_home() else f" --home {home}"


def _default_home() -> Path:
    return state_folder() / "server"
