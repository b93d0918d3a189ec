"""`hpc-prefect sites`: the places whose profiles came with this package."""

from __future__ import annotations

import argparse
import sys

from hpc_prefect.cli.verbs import Verbs


def add(verbs: Verbs) -> None:
    sites = verbs.add_parser("sites", help="list the places whose profiles came with this package")
    sites.add_argument("--json", action="store_true", help="as JSON")
    sites.set_defaults(run=_list)
    actions = sites.add_subparsers(metavar="ACTION")
    show = actions.add_parser("show", help="print the TOML file of one, to be completed")
    show.add_argument("name", metavar="SITE")
    show.set_defaults(run=_show)


def _list(arguments: argparse.Namespace) -> int:
    import json

    from hpc_prefect.sites import all_sites

    if arguments.json:
        names = ("name", "scheduler", "description")
        found = [{name: getattr(site, name) for name in names} for site in all_sites()]
        print(json.dumps(found, indent=1, ensure_ascii=False))
        return 0
    for site in all_sites():
        print(f"{site.name:<8}  {site.scheduler:<6}  {site.description}")
    print("\nTo use one: hpc-prefect sites show NAME > FILE, complete FILE,", file=sys.stderr)
    print("then: hpc-prefect blocks apply FILE", file=sys.stderr)
    return 0


def _show(arguments: argparse.Namespace) -> int:
    from hpc_prefect.sites import find_site

    print(find_site(arguments.name).text, end="")
    return 0
