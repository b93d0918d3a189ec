"""`hpc-prefect blocks`: blocks and Variables on the Prefect server."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path

from hpc_prefect.cli.verbs import Verbs


def add(verbs: Verbs) -> None:
    blocks = verbs.add_parser("blocks", help="blocks and Variables on the Prefect server")
    actions = blocks.add_subparsers(required=True, metavar="ACTION")
    apply = actions.add_parser("apply", help="save the blocks and Variables of a TOML file")
    apply.add_argument("file", type=Path, metavar="FILE")
    apply.set_defaults(run=_apply)
    actions.add_parser("list", help="list the blocks").set_defaults(run=_list)


def _apply(arguments: argparse.Namespace) -> int:
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


def _list(_: argparse.Namespace) -> int:
    from hpc_prefect import apply

    for slug, name in asyncio.run(apply.list_blocks()):
        print(f"{slug}/{name}")
    return 0
