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
    streams,
    version,
)
from hpc_prefect.errors import HpcPrefectError

#: In the order in which `hpc-prefect --help` lists them.
_VERBS = (blocks, sites, render, jobs, resume, doctor, rehearse, server, version)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 is success, 1 an error that was said in a sentence, 2 wrong usage.

    What it prints may be cut off by its reader, such as `head`: it is carried out all the same, and
    its exit status is its own.
    """
    streams.outlive_their_readers()
    try:
        arguments = _parser().parse_args(argv)
        status: int = arguments.run(arguments)
        sys.stdout.flush()
    except HpcPrefectError as error:
        print(f"hpc-prefect: {error}", file=sys.stderr)
        return 1
    except streams.CannotWrite as error:
        print(f"hpc-prefect: what was to be printed cannot be written: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("hpc-prefect: interrupted", file=sys.stderr)
        return 130
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hpc-prefect", description="Tools of HPC-Prefect.")
    parser.add_argument("--version", action=version.PrintVersions, help="print versions")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    for verb in _VERBS:
        verb.add(verbs)
    return parser
