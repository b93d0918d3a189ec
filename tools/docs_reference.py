"""The reference pages of the site, made of the code: Python, blocks, command line."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from prefect.blocks.core import Block

import hpc_prefect
from hpc_prefect import collection
from hpc_prefect.cli import _parser

#: The public names in the order of the page, and with their module a few types that calls return.
#: A public name that is in no section is in the last.
SECTIONS: dict[str, tuple[str, ...]] = {
    "Jobs": (
        "ensure_ready",
        "run_job",
        "run_job_sync",
        "run_job_from_blocks",
        "run_job_from_blocks_sync",
        "JobResult",
        "RetryPolicy",
        "Reason",
        "hpc_prefect.job.failure.Verdict",
    ),
    "Many jobs in one call": (
        "run_jobs_from_blocks",
        "run_jobs_from_blocks_sync",
        "Member",
        "JobResults",
    ),
    "One queue wait": ("allocation",),
    "Quantum jobs": ("sample", "sample_sync", "estimate"),
    "Loops": ("converge", "Convergence", "Iteration", "StopRule", "Plot"),
    "Experiments, resuming, cancelling": ("campaign", "scope", "ONCE", "resume", "cancel_jobs"),
    "Records": ("record_measures", "runs"),
    "Further names": (),
}

#: Public names that stand below the errors.
ERRORS = ("InvalidJob", "JobFailed", "JobsFailed")

OPERATIONS = (
    "list_jobs",
    "find_job",
    "ask",
    "follow",
    "cancel_jobs",
    "cancel_jobs_of",
    "attach",
)


def pages() -> dict[str, str]:
    """The text of each page, by its place in the site."""
    return {
        "reference/python.md": python_page(),
        "reference/blocks.md": blocks_page(),
        "reference/commands.md": commands_page(),
    }


# --- Python


def python_page() -> str:
    """What `import hpc_prefect` offers, jobs by their folders, errors."""
    lines = [
        "# Python",
        "",
        "After this page you know what each call takes, returns and raises. Names without a module",
        "are imported from `hpc_prefect`. The blocks have [a page of their own](blocks.md); each",
        "`Reason` has its remedy in [how a job ends](../jobs.md#how-a-job-ends).",
    ]
    for title, names in sections().items():
        lines += ["", f"## {title}", "", *(_directive(_home(name)) for name in names)]
    lines += ["", "## Jobs by their folders", ""]
    lines += ["From `hpc_prefect.operations`; none of it needs Prefect.", ""]
    lines += [_directive(_home(name, "hpc_prefect.operations")) for name in OPERATIONS]
    lines += ["", "## Errors", "", "From `hpc_prefect.errors`.", ""]
    lines += ["::: hpc_prefect.errors", "    options:", "      show_root_heading: false"]
    lines += ["      show_root_toc_entry: false", ""]
    lines += [_directive(_home("JobsFailed"))]
    return "\n".join(lines) + "\n"


def sections() -> dict[str, tuple[str, ...]]:
    """The sections that have names, with every public name in one of them."""
    placed = {name for names in SECTIONS.values() for name in names} | set(ERRORS)
    rest = [name for name in hpc_prefect.__all__ if name not in placed and not _is_block(name)]
    found = SECTIONS | {"Further names": tuple(rest)}
    return {title: names for title, names in found.items() if names}


def _is_block(name: str) -> bool:
    value = getattr(hpc_prefect, name)
    return isinstance(value, type) and issubclass(value, Block)


def _home(name: str, package: str = "hpc_prefect") -> str:
    """The dotted path where a public name is defined, at which its docstring is read."""
    if "." in name:
        return name
    value = getattr(import_module(package), name)
    if hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, type(hpc_prefect)):  # a module
        return str(value.__name__)
    return f"hpc_prefect.{hpc_prefect._HOME[name]}.{name}"  # a value, such as ONCE


def _directive(path: str) -> str:
    return f"::: {path}\n"


# --- blocks


def blocks_page() -> str:
    """Each block with its fields, as Prefect's form explains them."""
    lines = [
        "# Blocks",
        "",
        "After this page you know each field of each block. The texts are those of Prefect's forms",
        "and of the code. In a TOML file for `hpc-prefect blocks apply` a block is a table named",
        "`[KIND.NAME]`.",
    ]
    for name in collection.__all__:
        lines += _block(getattr(collection, name))
    return "\n".join(lines) + "\n"


def _block(block: type[Block]) -> list[str]:
    schema = block.model_json_schema()
    purpose = (block.__doc__ or "").partition("\n\n")[0]
    lines = ["", f"## {block.__name__}", ""]
    lines += [f"In Prefect *{block._block_type_name}*. {purpose}", "", *_fields(schema)]
    for part in schema.get("definitions", {}).values():
        lines += ["", f"### {block.__name__}: {part.get('title', '')}", ""]
        lines += [part.get("description", ""), "", *_fields(part)]
    return lines


def _fields(schema: dict[str, Any]) -> list[str]:
    rows = ["| field | value | default | meaning |", "|---|---|---|---|"]
    for name, field in schema.get("properties", {}).items():
        default = "needed" if name in schema.get("required", ()) else _default(field)
        meaning = " ".join(field.get("description", "").split()).replace("|", "\\|")
        rows.append(f"| `{name}` | {_kind(field)} | {default} | {meaning} |")
    return rows


def _default(field: dict[str, Any]) -> str:
    value = field.get("default")
    is_told = value not in (None, "") and not isinstance(value, dict) and value != []
    return f"`{value}`" if is_told else ""


_WORDS = {
    "string": "text",
    "integer": "whole number",
    "boolean": "true or false",
    "array": "list",
    "object": "table",
}


def _kind(field: dict[str, Any]) -> str:
    if "enum" in field:
        return " or ".join(f"`{value}`" for value in field["enum"])
    if "anyOf" in field:
        return " or ".join(_kind(each) for each in field["anyOf"] if each.get("type") != "null")
    if "$ref" in field or "allOf" in field:
        return "table, see below"
    kind = str(field.get("type", "any"))
    return _WORDS.get(kind, kind)


# --- the command line


def commands_page() -> str:
    """Each verb of the command, as its `--help` has it."""
    lines = [
        "# Command line",
        "",
        "After this page you know each verb and option of `hpc-prefect`. It is what `--help`",
        "prints. The exit status is 0 for success, 1 for an error that was said in a sentence, 2",
        "for wrong usage, and 130 after Ctrl-C; a verb that has another one says so in its help.",
    ]
    os.environ["COLUMNS"] = "96"  # argparse asks for it
    for parser in _parsers(_parser()):
        lines += ["", f"## {parser.prog}", "", "```text", _help(parser), "```"]
    return "\n".join(lines) + "\n"


def _help(parser: argparse.ArgumentParser) -> str:
    return parser.format_help().rstrip().replace(str(Path.home()), "~")


def _parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in dict.fromkeys(action._name_parser_map.values()):
                yield from _parsers(each)
