"""hpc-prefect rehearse ibm-quantum [OPTION ...] -- COMMAND [ARGUMENT ...]"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from hpc_prefect.rehearsal.ibm_quantum import settings
from hpc_prefect.rehearsal.ibm_quantum.settings import Settings


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the service can be started with."""
    default = Settings(token="", crn="", signing_key="")
    parser.add_argument(
        "--device", action="append", metavar="NAME", help="a fake device to offer; can be repeated"
    )
    parser.add_argument("--port", type=int, default=0, help="where to listen; 0: any free port")
    parser.add_argument("--queue-seconds", type=float, default=default.queue_seconds)
    parser.add_argument("--run-seconds", type=float, default=default.run_seconds)
    parser.add_argument("--noise", action="store_true")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--token-seconds", type=int, default=default.token_seconds)
    parser.add_argument("--usage-limit-seconds", type=int, default=default.usage_limit_seconds)


def rehearse(command: list[str], state: Path, options: argparse.Namespace) -> int:
    """Run the command with a service of its own; the command's exit status.

    A state folder that is there already goes on: its jobs, its API key and its instance.
    """
    from hpc_prefect.rehearsal.ibm_quantum.process import start

    service = start(state, _chosen(state, options))
    try:
        done = subprocess.run(command, env=os.environ | service.environment, check=False)
    finally:
        service.stop()
    return done.returncode


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


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="hpc-prefect rehearse ibm-quantum", description=__doc__)
    add_options(parser)
    parser.add_argument("--state", type=Path, help="where the jobs are kept (default: nowhere)")
    parser.add_argument("command", nargs="+", help="after --, a command and its arguments")
    chosen = parser.parse_args(arguments)
    if chosen.state is not None:
        return rehearse(chosen.command, chosen.state, chosen)
    with tempfile.TemporaryDirectory(prefix="hpc-prefect-quantum-") as state:
        return rehearse(chosen.command, Path(state), chosen)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
