"""The command `hpc-prefect`: one module for each verb."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from hpc_prefect.cli import (
    blocks,
    doctor,
    jobs,
    rehearse,
    render,
    resume,
    server,
    sites,
    version,
)
from hpc_prefect.errors import HpcPrefectError

#: In the order in which `hpc-prefect --help` lists them.
_VERBS = (blocks, sites, render, jobs, resume, doctor, rehearse, server, version)


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
    for verb in _VERBS:
        verb.add(verbs)
    return parser
