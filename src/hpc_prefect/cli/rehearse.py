"""`hpc-prefect rehearse`: run a command as if this machine were the login node of a site."""

from __future__ import annotations

import argparse
from importlib import import_module

from hpc_prefect.cli.verbs import Verbs

#: A package of its own in the same distribution, which nothing else of the product knows.
_REHEARSAL = "hpc_rehearsal.cli"


def add(verbs: Verbs) -> None:
    # All words are passed on: its options are the rehearsal's, so none is parsed here.
    rehearse = verbs.add_parser(
        "rehearse",
        help="run a command with stand-ins for a site's scheduler commands on PATH",
        prefix_chars="\0",
        add_help=False,
    )
    rehearse.add_argument("words", nargs=argparse.REMAINDER)
    rehearse.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command, which writes to the terminal itself."""
    status: int = import_module(_REHEARSAL).main(arguments.words)
    return status
