"""`hpc-prefect server`: a Prefect server of your own."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from hpc_prefect.cli.verbs import Verbs
from hpc_prefect.terminal import line
from hpc_prefect.transports.own import server_home

#: The profile of Prefect's that `--use` makes.
PROFILE = "hpc-prefect"


def add(verbs: Verbs) -> None:
    server = verbs.add_parser("server", help="a Prefect server of your own on this machine")
    actions = server.add_subparsers(required=True, metavar="ACTION")
    for name, run, text in (
        ("start", _start, "start it, unless one answers already"),
        ("status", _status, "print its address; exit status 1 when there is none"),
        ("stop", _stop, "stop it"),
    ):
        action = actions.add_parser(name, help=text)
        action.add_argument(
            "--home", type=Path, default=server_home(), metavar="DIR",
            help="where it keeps its files (default: %(default)s)",
        )  # fmt: skip
        if run is _status:
            action.add_argument("--json", action="store_true", help="as JSON; null: there is none")
        if run is _start:
            action.add_argument(
                "--use", action="store_true",
                help=f"also make it the one that Prefect uses, as its profile {PROFILE!r}",
            )  # fmt: skip
        action.set_defaults(run=run)


def _start(arguments: argparse.Namespace) -> int:
    from hpc_prefect.server import ensure_server, last_url

    before = last_url(arguments.home)
    with line.shown(lambda: "waiting for the Prefect server"):
        server = ensure_server(arguments.home, progress=lambda text: print(text, file=sys.stderr))
    print(f"Prefect server {'started' if server.started else 'already running'}: {server.url}")
    print(f"  open in a browser:  {server.ui_url}")
    if server.pid is None:
        print("  in use:             your own Prefect settings name it")
        return 0
    _follow(before, server.url)
    if arguments.use:
        _use(server.url)
    _print_use(server.url)
    print(f"  stop it:            hpc-prefect server stop{_home_option(arguments.home)}")
    return 0


def _status(arguments: argparse.Namespace) -> int:
    from hpc_prefect.server import find_server

    server = find_server(arguments.home)
    if arguments.json:
        names = ("url", "ui_url", "pid")
        found = None if server is None else {name: getattr(server, name) for name in names}
        print(json.dumps(found))
        return 1 if server is None else 0
    if server is None:
        print(f"no Prefect server runs in {arguments.home}")
        return 1
    print(f"Prefect server {server.url} (pid {server.pid}), files in {server.home}")
    print(f"  open in a browser:  {server.ui_url}")
    _print_use(server.url)
    return 0


def _follow(before: str, url: str) -> None:
    """Write the server's address into the profile that named it, if it had to take another port."""
    from prefect.settings import PREFECT_API_URL, load_profiles

    known = load_profiles(include_defaults=False)
    named = known[PROFILE].settings.get(PREFECT_API_URL) if PROFILE in known.names else None
    if before and before != url and str(named) == before:
        _save(url, use=False)
        print(f"  its port was taken: Prefect's profile {PROFILE!r} now names the new address")


def _use(url: str) -> None:
    """Make it the active profile of the user's Prefect, and print how to go back."""
    from prefect.settings import load_profiles

    before = load_profiles().active_name
    _save(url, use=True)
    if before != PROFILE:
        print(
            f"  Prefect's active profile is now {PROFILE!r}; to go back: prefect profile use"
            f" {before}"
        )


def _save(url: str, *, use: bool) -> None:
    from prefect.settings import PREFECT_API_URL, load_profiles, save_profiles

    profiles = load_profiles(include_defaults=False)
    profiles.update_profile(PROFILE, {PREFECT_API_URL: url})
    if use:
        profiles.set_active(PROFILE)
    save_profiles(profiles)


def _print_use(url: str) -> None:
    """Print how a shell uses it: already by the profile, or with which command."""
    from prefect.settings import PREFECT_API_URL, load_profiles

    active = load_profiles().active_profile
    named = str(active.settings.get(PREFECT_API_URL)) if active else ""
    of_shell = os.environ.get("PREFECT_API_URL", "")
    if of_shell == url:
        print("  in use:             by PREFECT_API_URL of this shell")
    elif active and named == url and not of_shell:
        print(f"  in use:             by Prefect's profile {active.name!r}")
    else:
        print(f"  use it in a shell:  export PREFECT_API_URL={url}")
        if named != url:
            print("  use it always:      hpc-prefect server start --use")


def _stop(arguments: argparse.Namespace) -> int:
    from hpc_prefect.server import stop_server

    with line.shown(lambda: "waiting for the Prefect server's end"):
        stopped = stop_server(arguments.home)
    print("stopped" if stopped else f"no Prefect server runs in {arguments.home}")
    return 0


def _home_option(home: Path) -> str:
    return "" if home == server_home() else f" --home {home}"
