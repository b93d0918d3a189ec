"""`hpc-prefect version`, and `--version`: versions."""

from __future__ import annotations

import argparse
import platform
from typing import NoReturn

from hpc_prefect.cli.verbs import Verbs


def add(verbs: Verbs) -> None:
    parser = verbs.add_parser("version", help="print versions")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    import json
    from importlib.metadata import version

    versions = {name: version(name) for name in ("hpc-prefect", "prefect")}
    versions["python"] = platform.python_version()
    if arguments.json:
        print(json.dumps(versions))
        return 0
    for name, number in versions.items():
        print(f"{name} {number}")
    return 0


class PrintVersions(argparse.Action):
    """The option `--version`; argparse's own would gather the versions at every command."""

    def __init__(self, option_strings: list[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, dest, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        parser.exit(_run(argparse.Namespace(json=False)))
