"""`hpc-prefect render`: a job's script without submitting it."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from hpc_prefect.cli.verbs import Verbs, use_own_server


def add(verbs: Verbs) -> None:
    render = verbs.add_parser(
        "render",
        help="print a job's script and submit command without submitting it",
        description="Print the script (standard output) and the submit command (standard error) "
        "of a job. Arguments for the program follow after --.",
    )
    for option, text in (
        ("--command", "command block: WHAT"),
        ("--execution", "execution profile block: HOW"),
        ("--hpc", "HPC profile block: WHERE"),
    ):
        render.add_argument(option, required=True, metavar="BLOCK", help=text)
    render.add_argument("--work-dir", type=Path, default=Path(), metavar="DIR")
    render.add_argument("--name", default="job", help="the job's name (default: %(default)s)")
    render.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", type=_field,
        help="override a field of the execution profile, such as num_nodes=4",
    )  # fmt: skip
    render.add_argument("arguments", nargs="*", metavar="ARGUMENT")
    render.set_defaults(run=_run)


def _field(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"{text!r} is not FIELD=VALUE")
    return name, value


def _run(arguments: argparse.Namespace) -> int:
    import asyncio

    from hpc_prefect.batch.preview import preview
    from hpc_prefect.blocks import Call, GivenBlocks

    use_own_server()
    call = Call(
        script_filename=arguments.name,
        work_dir=os.path.abspath(arguments.work_dir),
        user_args=arguments.arguments,
        overrides=dict(arguments.set),
    )
    given = GivenBlocks(arguments.command, arguments.execution, arguments.hpc)
    found = asyncio.run(preview(call, given))
    print(found.script, end="", flush=True)
    print(f"\nsubmit command:\n  {found.command}", file=sys.stderr)
    print(
        f"The folder {found.folder} and the job's name are examples: a run makes its own.",
        file=sys.stderr,
    )
    return 0
