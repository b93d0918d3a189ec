"""`hpc-prefect blocks`: blocks and Variables on the Prefect server."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hpc_prefect.cli import import_qcsc
from hpc_prefect.cli.verbs import Verbs, use_own_server
from hpc_prefect.transports.own import state_folder

if TYPE_CHECKING:
    from hpc_prefect.block_files.applied import Made
    from hpc_prefect.block_files.apply import BlockChange
    from hpc_prefect.block_files.document import Document


def add(verbs: Verbs) -> None:
    blocks = verbs.add_parser("blocks", help="blocks and Variables on the Prefect server")
    actions = blocks.add_subparsers(required=True, metavar="ACTION")
    apply = actions.add_parser(
        "apply",
        help="save the blocks and Variables of a TOML file",
        description="Save the blocks and Variables that are new or changed; if anything is wrong, "
        "none is saved. Without --force nothing is replaced that another file, the UI or code has"
        " made; executables that these added to the same profile stay.",
    )
    apply.add_argument("file", type=Path, metavar="FILE")
    apply.add_argument(
        "--force", action="store_true", help="also replace what others made or changed"
    )
    apply.add_argument("--dry-run", action="store_true", help="the same as `blocks diff`")
    apply.add_argument("--json", action="store_true", help="what was saved, as JSON")
    apply.set_defaults(run=_apply)
    diff = actions.add_parser(
        "diff",
        help="show what `apply` would change; exit status 1 when it would refuse",
        description="Show what `apply` would change, and save nothing. Secrets are not shown. "
        "Exit status 1 when `apply` would refuse the file.",
    )
    diff.add_argument("file", type=Path, metavar="FILE")
    diff.add_argument("--json", action="store_true", help="as JSON")
    diff.set_defaults(run=_diff)
    import_qcsc.add(actions, _apply)
    listing = actions.add_parser("list", help="list the blocks")
    listing.add_argument("--json", action="store_true", help="as JSON")
    listing.set_defaults(run=_list)


def _read(file: Path) -> tuple[Document, Made]:
    """The file's content, and the blocks that it made before."""
    from hpc_prefect.block_files import applied, apply

    use_own_server()
    document = apply.read_file(file, venv=sys.prefix, environ=os.environ)
    for warning in document.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return document, applied.read_made(state_folder() / "applied", file)


def _apply(arguments: argparse.Namespace) -> int:
    import asyncio

    from hpc_prefect.block_files import apply

    if arguments.dry_run:
        return _diff(arguments)
    document, made = _read(arguments.file)
    report = _keep if arguments.json else _print_change
    applying = apply.apply_document(document, report=report, made=made, force=arguments.force)
    changes = asyncio.run(applying)
    if arguments.json:
        _print_json(changes)
    elif not changes:
        print(f"{arguments.file} has no blocks and no Variables")
    elif all(change.kind == "unchanged" for change in changes):
        print("nothing has changed")
    return 0


def _diff(arguments: argparse.Namespace) -> int:
    import asyncio

    from hpc_prefect.block_files import apply

    document, made = _read(arguments.file)
    changes = asyncio.run(apply.compare_document(document, made=made))
    if arguments.json:
        _print_json(changes)
    else:
        for change in changes:
            _print_change(change)
    conflicts = sum(len(change.conflicts) for change in changes)
    if conflicts:
        print(
            f"{conflicts} of these (!) would replace what this file did not make: `apply` refuses "
            "the file without --force",
            file=sys.stderr,
        )
    return 1 if conflicts else 0


def _print_json(changes: Sequence[BlockChange]) -> None:
    import json

    print(json.dumps([change.as_dict() for change in changes], indent=1, ensure_ascii=False))


def _keep(_: BlockChange) -> None:
    """For the end: JSON is one text."""


def _print_change(change: BlockChange) -> None:
    print(f"{change.kind:<9}  {change.item.kind}  {change.item.name}", flush=True)
    for one in change.differences:
        print(f"    {'!' if one in change.conflicts else ' '} {one.describe()}", flush=True)
    for where in change.kept:
        print(f"      {'.'.join(where)}: kept: another file, the UI or code added it", flush=True)


def _list(arguments: argparse.Namespace) -> int:
    import asyncio
    import json

    from hpc_prefect.block_files import apply

    use_own_server()
    found = asyncio.run(apply.list_blocks())
    if arguments.json:
        print(json.dumps([{"type": slug, "name": name} for slug, name in found], indent=1))
        return 0
    for slug, name in found:
        print(f"{slug}/{name}")
    return 0
