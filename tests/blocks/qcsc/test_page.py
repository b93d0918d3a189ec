"""docs/from-qcsc.md is true: its code runs, its commands are taken, it names their fields."""

from __future__ import annotations

import ast
import asyncio
import re
import shlex
import uuid
from pathlib import Path
from typing import Any

import pytest

from hpc_prefect import CommandBlock, ExecutionProfileBlock, HPCProfileBlock
from hpc_prefect.block_files.document import read_document
from hpc_prefect.cli import _parser

from .documents_of_theirs import FIELDS

PAGE = (Path(__file__).parents[3] / "docs" / "from-qcsc.md").read_text()


def code(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def test_their_call_and_ours_are_python() -> None:
    theirs, *ours = code("python")
    assert "qcsc_prefect_executor" in theirs
    for text in (theirs, *ours):
        compile(text, "page", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.usefixtures("prefect_server")
def test_our_calls_run(tmp_path: Path) -> None:
    ident = uuid.uuid4().hex[:8]
    blocks = {
        f"cmd-hist-{ident}": CommandBlock(command_name="hist", executable_key="hist"),
        f"exec-hist-{ident}": ExecutionProfileBlock(profile_name="hist", command_name="hist"),
        f"hpc-{ident}": HPCProfileBlock(
            scheduler="local",
            executables={"hist": "/bin/echo"},
            local={"spool": str(tmp_path / "spool")},
        ),
    }
    for name, block in blocks.items():
        block.save(name, _sync=True)
    shown: dict[str, Any] = {}
    for text in code("python")[1:]:  # other tests of this server's have blocks of their own
        exec(re.sub(r'"(cmd|exec)-hist"', rf'"\1-hist-{ident}"', text), shown)

    assert asyncio.run(shown["histogram"](str(tmp_path / "one"), f"hpc-{ident}")) == "--bits 10\n"
    results = asyncio.run(shown["scan"](str(tmp_path / "many"), f"hpc-{ident}"))
    told = [Path(each.stdout_path).read_text() for each in results]
    assert told == ["--bits 8\n", "--bits 9\n", "--bits 10\n"]


def test_the_tables_can_be_applied() -> None:
    kinds = [
        item.kind
        for text in code("toml")
        for item in read_document(text, here="/", venv="/", environ={}).items
    ]
    assert kinds == ["variable", "hpc-profile"]


def test_the_commands_are_taken() -> None:
    shown = re.findall(r"^    hpc-prefect ([^#\n]*)", PAGE, re.MULTILINE)
    assert len(shown) == 6
    for command in shown:
        assert _parser().parse_args(shlex.split(command)).run


def test_no_field_of_theirs_is_missing() -> None:
    named = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]*)`", PAGE))))
    all_the_same = {"description", "executable_key", "default_args", "command_name"}
    fields = {name for names in FIELDS.values() for name in names} - all_the_same
    assert fields - named == set()
