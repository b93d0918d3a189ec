"""hpc-prefect rehearse ibm-quantum [OPTION ...] -- COMMAND [ARGUMENT ...]"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

from hpc_rehearsal.ibm_quantum import settings
from hpc_rehearsal.ibm_quantum.faults import UnknownFault, switch_on
from hpc_rehearsal.ibm_quantum.process import NotStarted, start
from hpc_rehearsal.ibm_quantum.settings import Settings


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the service."""
    default = Settings(token="", crn="", signing_key="")
    parser.add_argument(
        "--device", action="append", metavar="NAME", help="a backend to offer; can be repeated"
    )
    number = parser.add_argument
    number("--port", type=int, default=0, help="where to listen; 0 (the default): any free port")
    number("--queue-seconds", type=float, default=2.0, help="how long a job waits (default: 2)")
    number("--run-seconds", type=float, default=1.0, help="how long a job runs (default: 1)")
    number("--seed", type=int, help="of every job that names none; the same samples each time")
    number(
        "--token-seconds",
        type=int,
        default=default.token_seconds,
        help=f"how long an access token holds (default: {default.token_seconds})",
    )
    number(
        "--usage-limit-seconds",
        type=int,
        default=default.usage_limit_seconds,
        help=f"QPU seconds of the instance (default: {default.usage_limit_seconds}; 0: no limit)",
    )
    parser.add_argument("--noise", action="store_true", help="simulate the devices' noise: slow")
    parser.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="NAME[=JSON]",
        help="""something that goes wrong from the start: 'poll-fails={"times": 2}'""",
    )


def rehearse(
    command: list[str],
    state: Path,
    options: argparse.Namespace,
    starting: AbstractContextManager[object] | None,
) -> int:
    """Run the command with a service of its own; returns the command's exit status.

    An existing state folder is used again, with its jobs, API key and instance.

    Args:
        starting: a context that is held while the service starts, which takes some seconds.
    """
    try:
        for fault in options.fault:
            name, _, values = fault.partition("=")
            switch_on(state, name, json.loads(values or "{}"))
        with starting or nullcontext():
            service = start(state, _chosen(state, options))
    except (UnknownFault, NotStarted, json.JSONDecodeError) as error:
        print(f"hpc-prefect: {error}", file=sys.stderr)
        return 2
    try:
        return subprocess.run(command, env=os.environ | service.environment).returncode
    except OSError as error:
        print(f"hpc-prefect: {command[0]}: {error.strerror}", file=sys.stderr)
        return 127
    finally:
        service.stop()


def _chosen(state: Path, options: argparse.Namespace) -> Settings:
    before = settings.read(state) or Settings()
    return replace(
        before,
        devices=tuple(options.device or before.devices),
        port=options.port,
        queue_seconds=options.queue_seconds,
        run_seconds=options.run_seconds,
        noise=options.noise,
        seed=options.seed,
        token_seconds=options.token_seconds,
        usage_limit_seconds=options.usage_limit_seconds,
    )


def main(arguments: list[str], starting: AbstractContextManager[object] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="hpc-prefect rehearse ibm-quantum",
        usage="hpc-prefect rehearse ibm-quantum [OPTION ...] -- COMMAND [ARGUMENT ...]",
        description="Run COMMAND with an IBM Quantum service of this machine in its environment.",
    )
    add_options(parser)
    parser.add_argument("--state", type=Path, help="where the jobs are kept (default: nowhere)")
    # The command is cut off first: argparse would look for our options in it.
    place = arguments.index("--") if "--" in arguments else len(arguments)
    chosen, command = parser.parse_args(arguments[:place]), arguments[place + 1 :]
    if not command:
        parser.error("there is no command: it follows --")
    if chosen.state is not None:
        return rehearse(command, chosen.state, chosen, starting)
    with tempfile.TemporaryDirectory(prefix="hpc-prefect-quantum-") as state:
        return rehearse(command, Path(state), chosen, starting)
