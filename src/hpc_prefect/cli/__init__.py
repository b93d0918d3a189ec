"""The command `hpc-prefect`: one module for each verb."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from contextlib import nullcontext

from hpc_prefect.cli import (
    blocks,
    completion,
    doctor,
    init,
    jobs,
    rehearse,
    render,
    resume,
    runs,
    server,
    sites,
    streams,
    version,
)
from hpc_prefect.errors import HpcPrefectError
from hpc_prefect.terminal import line

#: In the order in which `hpc-prefect --help` lists them.
_VERBS = (init, blocks, sites, render, jobs, runs, resume, doctor, rehearse, server, version)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 is success, 1 an error that was printed as a sentence, 2 wrong usage.

    The command is carried out in full, with its own exit status, also when the reader of its output
    stops reading, as `head` does.
    """
    streams.outlive_their_readers()
    try:
        arguments = _parser().parse_args(argv)
        # The rehearsed program writes to the terminal itself and would mix with the progress line.
        alone = arguments.run is rehearse.run
        with nullcontext() if alone else line.shown(lambda: f"{arguments.verb}: at work"):
            status: int = arguments.run(arguments)
            sys.stdout.flush()
    except HpcPrefectError as error:
        print(f"hpc-prefect: {error}", file=sys.stderr)
        return 1
    except streams.CannotWrite as error:
        print(f"hpc-prefect: the output cannot be written: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"hpc-prefect: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("hpc-prefect: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if not _is_of_the_server(error):
            raise
        print(f"hpc-prefect: {_server_trouble(error)}", file=sys.stderr)
        return 1
    return status


def _is_of_the_server(error: Exception) -> bool:
    """Whether the Prefect server could not be reached, or refused.

    Does not import Prefect's client, which takes long and which most verbs do not need.
    """
    client = sys.modules.get("httpx")
    return client is not None and isinstance(error, client.HTTPError)


def _server_trouble(error: Exception) -> str:
    from prefect.settings import get_current_settings

    url = re.sub(r"//[^/@]*@", "//", str(get_current_settings().api.url))  # without a password
    said = str(error).partition("\n")[0] or type(error).__name__
    if getattr(error, "response", None) is not None:
        return f"the Prefect server {url} refused: {said}"
    return (
        f"the Prefect server {url} gave no answer ({said}): start one with `hpc-prefect server"
        " start`, or set PREFECT_API_URL to yours"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hpc-prefect", description="Tools of HPC-Prefect.")
    parser.add_argument("--version", action=version.PrintVersions, help="print versions")
    verbs = parser.add_subparsers(required=True, metavar="VERB", dest="verb")
    for verb in _VERBS:
        verb.add(verbs)
    completion.add(verbs, parser)
    return parser
