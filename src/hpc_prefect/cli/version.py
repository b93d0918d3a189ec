"""`hpc-prefect version`, and `--version`: versions."""

from __future__ import annotations

import argparse
import platform
from typing import NoReturn

from hpc_prefect.cli.verbs import Verbs


def add(verbs: Verbs) -> None:
    verbs.add_parser("version", help="print versions").set_defaults(run=_run)


def _run(_: argparse.Namespace) -> int:
    from importlib.metadata import version

    for name in ("hpc-prefect", "prefect"):
        print(f"{name} {version(name)}")
    print(f"python {platform.python_version()}")
    return 0


class PrintVersions(argparse.Action):
    """The option `--version`; argparse's own would gather the versions at every command."""

    def __init__(self, option_strings: list[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, dest, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        parser.exit(_run(argparse.Namespace()))
