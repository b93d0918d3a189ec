"""`hpc-prefect version`: versions."""

from __future__ import annotations

import argparse
import importlib.metadata
import platform

from hpc_prefect.cli.verbs import Verbs


def add(verbs: Verbs) -> None:
    verbs.add_parser("version", help="print versions").set_defaults(run=_run)


def _run(_: argparse.Namespace) -> int:
    for name in ("hpc-prefect", "prefect"):
        print(f"{name} {importlib.metadata.version(name)}")
    print(f"python {platform.python_version()}")
    return 0
