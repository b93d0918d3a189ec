"""`hpc-prefect doctor`: check a profile against its place."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from hpc_prefect.cli.verbs import Verbs, use_own_server
from hpc_prefect.terminal import line


def add(verbs: Verbs) -> None:
    doctor = verbs.add_parser(
        "doctor",
        help="check an HPC profile against the place that it stands for",
        description="Check an HPC profile where its scheduler's commands are. Exit status 1 when "
        "something is wrong; what cannot be found out is shown and is no failure.",
    )
    doctor.add_argument("profile", metavar="PROFILE", help="HPC profile block")
    doctor.add_argument("--work-dir", type=Path, default=Path(), metavar="DIR")
    doctor.add_argument(
        "--resource-class", choices=("cpu", "gpu"), default="cpu",
        help="which resource class of the profile to check (default: %(default)s)",
    )  # fmt: skip
    doctor.add_argument(
        "--submit", action="store_true", help="also run a small real job, which is charged"
    )
    doctor.add_argument(
        "--walltime",
        default="00:05:00",
        type=_walltime,
        help="walltime of that job (default: %(default)s)",
    )
    doctor.add_argument(
        "--wait", type=float, default=900.0, metavar="SECONDS",
        help="cancel that job when it has not ended after so long (default: %(default)g)",
    )  # fmt: skip
    doctor.add_argument(
        "--record", type=Path, metavar="DIR",
        help="save the commands and their answers there, without names of people and places",
    )  # fmt: skip
    doctor.add_argument("--json", action="store_true", help="what was found, as JSON")
    doctor.set_defaults(run=_run)


def _walltime(text: str) -> str:
    from hpc_prefect.job.spec import parse_walltime

    try:
        parse_walltime(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def _run(arguments: argparse.Namespace) -> int:
    import asyncio
    import json
    from dataclasses import asdict

    from hpc_prefect.blocks import load_hpc_profile
    from hpc_prefect.doctor import Terms, examine, failed, print_findings
    from hpc_prefect.executor.request import Silence

    use_own_server()

    class Progress(Silence):
        now = f"checking {arguments.profile}"

        def state(self, text: str, *, warning: bool = False, **_: object) -> None:
            self.now = f"test job: {text}"
            print(f"job: {text}", file=sys.stderr)

    progress = Progress()

    terms = Terms(
        work_dir=os.path.abspath(arguments.work_dir),
        resource_class=arguments.resource_class,
        walltime=arguments.walltime,
        submit=arguments.submit,
        wait=arguments.wait,
        record=arguments.record,
    )

    async def run() -> bool:
        hpc = await load_hpc_profile(arguments.profile)
        findings = await examine(hpc, terms, progress)
        if arguments.json:
            print(json.dumps([asdict(each) for each in findings], indent=1, ensure_ascii=False))
        else:
            print_findings(findings)
        return failed(findings)

    with line.shown(lambda: progress.now):
        wrong = asyncio.run(run())
    if arguments.record is not None:
        told = f"transcripts in {arguments.record}: look through them before you share them"
        print(told, file=sys.stderr if arguments.json else sys.stdout)
    return 1 if wrong else 0
