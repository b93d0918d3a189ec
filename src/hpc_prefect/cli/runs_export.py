"""`hpc-prefect runs export`: a run for others, as an RO-Crate or in MLflow."""

from __future__ import annotations

import argparse
import re
import sys

from hpc_prefect.cli.verbs import RUN, Verbs

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def add_export(actions: Verbs) -> None:
    """Add the action to those of `hpc-prefect runs`."""
    export = actions.add_parser(
        "export",
        help="write a run as an RO-Crate, or into MLflow",
        description="Write a run for others: with --crate as an RO-Crate (source, record, and of"
        " each job scripts, logs, records and outputs), with --format mlflow into MLflow"
        " (parameters, measures of each iteration, record). Values whose names say that they are"
        " secrets become asterisks.",
    )
    export.add_argument("which", metavar="RUN", help=RUN)
    how = export.add_mutually_exclusive_group(required=True)
    how.add_argument("--crate", metavar="DIR|FILE.zip", help="a new folder, or a new zip file")
    how.add_argument(
        "--format", choices=["mlflow"], help="the program whose store it is written into"
    )
    export.add_argument(
        "--whole-up-to", type=_size, default=None, metavar="SIZE",
        help="crate: copy outputs up to this size, and note size and digest of larger ones; in"
        " bytes, or with K, M, G (default: 16M)",
    )  # fmt: skip
    export.add_argument(
        "--license", default=None, metavar="LICENSE",
        help="crate: the licence for others: an address, an SPDX identifier such as CC-BY-4.0, or"
        " words",
    )  # fmt: skip
    export.add_argument(
        "--to", default=None, metavar="FOLDER|URL",
        help="mlflow: the tracking server or folder (default: MLflow's own, MLFLOW_TRACKING_URI)",
    )  # fmt: skip
    export.add_argument(
        "--experiment", default=None, metavar="NAME",
        help="mlflow: the experiment there (default: the flow's name)",
    )  # fmt: skip
    export.set_defaults(run=_export, parser=export)


def _size(text: str) -> int:
    found = re.fullmatch(r"(\d{1,15})([KMGT]?)(?:i?B)?", text.strip())
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no size such as 500K, 16M, 2G")
    return int(found[1]) * _UNITS[found[2]]


def _export(arguments: argparse.Namespace) -> int:
    from hpc_prefect.records import runs

    given = {name: getattr(arguments, name) for name in ("whole_up_to", "license")}
    tracking = {name: getattr(arguments, name) for name in ("to", "experiment")}
    foreign = [name for name, each in (tracking if arguments.crate else given).items() if each]
    if foreign:
        option = f"--{foreign[0].replace('_', '-')}"
        arguments.parser.error(f"{option} does not go with {_form(arguments)}")
    if arguments.crate:
        most = runs.WHOLE_UP_TO if given["whole_up_to"] is None else given["whole_up_to"]
        runs.export_crate(
            arguments.which, arguments.crate, whole_up_to=most, licence=given["license"] or ""
        )
        print(f"the crate is in {arguments.crate}", file=sys.stderr)
        return 0
    made = runs.export_mlflow(
        arguments.which, to=tracking["to"] or "", experiment=tracking["experiment"] or ""
    )
    print(made)
    return 0


def _form(arguments: argparse.Namespace) -> str:
    return "--crate" if arguments.crate else f"--format {arguments.format}"
