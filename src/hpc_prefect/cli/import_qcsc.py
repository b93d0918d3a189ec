"""`hpc-prefect blocks import-qcsc`: the blocks of qcsc-prefect as a file of ours."""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hpc_prefect.cli.verbs import Verbs
from hpc_prefect.errors import ConfigurationError

if TYPE_CHECKING:
    from hpc_prefect.block_files.qcsc.conversion import Conversion
    from hpc_prefect.block_files.qcsc.documents import Found
    from hpc_prefect.block_files.qcsc.fates import Fate

_STDOUT = Path("-")


def add(actions: Verbs, apply: Callable[[argparse.Namespace], int]) -> None:
    """Add the verb; `apply` is what `blocks apply` does with its arguments."""
    parser = actions.add_parser(
        "import-qcsc",
        help="turn blocks of qcsc-prefect into a file that `apply` takes",
        description="Turn block documents of qcsc-prefect (hpc_command, execution_profile, "
        "hpc_profile, qiskit_runtime_config) into a TOML file that `blocks apply` takes, and say "
        "of each field what became of it. Their package is not needed. Secrets are not read from a "
        "server, and written nowhere.",
    )
    parser.add_argument(
        "files", nargs="*", type=Path, metavar="FILE",
        help="JSON or TOML: documents as Prefect's API gives them, or tables [TYPE.NAME]",
    )  # fmt: skip
    parser.add_argument(
        "--from-server", action="store_true", help="also read the blocks on the Prefect server"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("blocks.toml"), metavar="FILE",
        help="the file to write; - for standard output (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--force", action="store_true", help="replace the file if it exists")
    parser.add_argument("--apply", action="store_true", help="then do `blocks apply` with the file")
    parser.add_argument("--json", action="store_true", help="the report as JSON")
    parser.set_defaults(run=functools.partial(_run, parser, apply))


def _run(
    parser: argparse.ArgumentParser,
    apply: Callable[[argparse.Namespace], int],
    arguments: argparse.Namespace,
) -> int:
    from hpc_prefect.block_files.qcsc.conversion import convert
    from hpc_prefect.block_files.qcsc.toml_text import write_toml

    out: Path = arguments.out
    if not (arguments.files or arguments.from_server):
        parser.error("name a FILE, or --from-server")
    if out == _STDOUT and (arguments.apply or arguments.json):
        parser.error("--out - goes with neither --apply nor --json")
    found = _read(arguments)
    made = convert(found.documents)
    text = write_toml(made.tables, made.comments, _HEADER)
    state = _write(out, text, force=arguments.force)
    if arguments.json:
        _print_json(made, out)
    else:
        report = sys.stderr if out == _STDOUT else sys.stdout
        print(_report(made), file=report)
        print(f"{state}{_summary(found, made)}", file=report)
    if not arguments.apply:
        return 0
    with contextlib.redirect_stdout(sys.stderr if arguments.json else sys.stdout):
        return apply(argparse.Namespace(file=out, force=False, dry_run=False, json=False))


_HEADER = """\
Made by `hpc-prefect blocks import-qcsc` from blocks of qcsc-prefect.
What stands in < > is to be filled in. Then: hpc-prefect blocks apply FILE"""


def _read(arguments: argparse.Namespace) -> Found:
    """All documents of the files and the server."""
    import asyncio

    from hpc_prefect.block_files.apply import prefect_api
    from hpc_prefect.block_files.qcsc.documents import TYPES, Found, read_server, read_text

    found = Found()
    for file in arguments.files:
        try:
            read_text(file.read_text(encoding="utf-8"), str(file), found)
        except (OSError, UnicodeDecodeError) as error:
            found.problems.append(f"{file}: cannot be read: {error}")

    async def ask() -> None:
        async with prefect_api() as client:
            await read_server(client, found)

    if arguments.from_server:
        asyncio.run(ask())
    if not (found.documents or found.problems):
        found.problems.append(f"the server has no blocks of the types {', '.join(TYPES)}")
    if found.problems:
        count = f"{len(found.problems)} problem{'s' if len(found.problems) > 1 else ''}"
        lines = "".join(f"\n  - {problem}" for problem in found.problems)
        raise ConfigurationError(f"{count}, nothing was written:{lines}")
    return found


def _write(out: Path, text: str, *, force: bool) -> str:
    """Write the file, unless it would replace another one; returns what was done, in words."""
    if out == _STDOUT:
        print(text, end="")
        return "printed"
    if not force:
        try:
            with out.open("x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            if out.read_text(encoding="utf-8", errors="replace") != text:
                raise ConfigurationError(
                    f"{out} exists with other content, so nothing was written: name another file"
                    f" with --out, or replace it with --force"
                ) from None
            return f"{out} is unchanged"
        return f"wrote {out}"
    out.write_text(text, encoding="utf-8")
    return f"wrote {out}"


def _report(made: Conversion) -> str:
    """What became of each field, and which blocks go together."""
    lines, document = [], ""
    for fate, names in _grouped(made.fates):
        if fate.document != document:
            document = fate.document
            lines.append(document)
        lines.append(_line(fate, names))
    if made.calls:
        lines += ["", "these go together in a call (command, execution profile, HPC profile):"]
        lines += [f"  {'  '.join(call)}" for call in made.calls]
    return "\n".join(lines) + "\n"


def _grouped(fates: list[Fate]) -> list[tuple[Fate, str]]:
    """A line for each field; fields with the same outcome and reason share one."""
    groups: dict[Fate, list[str]] = {}
    for fate in fates:
        groups.setdefault(replace(fate, field=""), []).append(fate.field)
    return [(fate, ", ".join(names)) for fate, names in groups.items()]


def _line(fate: Fate, names: str) -> str:
    became = f" -> {fate.became}" if fate.became else ""
    why = f": {fate.why}" if fate.why else ""
    return f"  {fate.outcome:<9} {names}{became}{why}"


def _summary(found: Found, made: Conversion) -> str:
    blocks = sum(map(len, made.tables.values()))
    counts = ", ".join(
        f"{made.count(outcome)} {words}"
        for outcome, words in (
            ("kept", "kept"),
            ("changed", "changed"),
            ("left out", "left out"),
            ("decide", "to decide"),
        )
    )
    return f": {blocks} blocks from {len(found.documents)}; fields: {counts}"


def _print_json(made: Conversion, out: Path) -> None:
    said = {
        "file": str(out),
        "blocks": {kind: list(blocks) for kind, blocks in made.tables.items()},
        "fields": [asdict(fate) for fate in made.fates],
        "calls": [
            dict(zip(("command", "execution_profile", "hpc_profile"), call, strict=True))
            for call in made.calls
        ],
    }
    print(json.dumps(said, indent=1))
