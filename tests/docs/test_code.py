"""What stands on the pages is true: code runs, commands exist, files are there."""

from __future__ import annotations

import ast
import asyncio
import importlib
import inspect
import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import prefect.settings
import pytest
from prefect.automations import Automation

from hpc_prefect import CommandBlock, ExecutionProfileBlock, HPCProfileBlock
from hpc_prefect.block_files.document import read_document
from hpc_prefect.cli import _parser
from hpc_prefect.server import Server

from ..background import settle
from .pages import DOCS, PAGES, ROOT, Code, all_code, code_of, commands_of, text_of

#: `text` is what a program prints.
LANGUAGES = {"python", "bash", "toml", "json", "text"}

#: The names on the pages, and those of this test's own: other tests of the same server have an
#: `hpc-local` too.
OWN_NAMES = {
    '"cmd-diag"': '"cmd-docs"',
    '"exec-diag-mpi"': '"exec-docs"',
    '"hpc-local"': '"hpc-docs"',
    '"qpu-simulator"': '"qpu-docs"',
}

#: The program of the pages: it writes the file that the page on arrays expects.
DIAG = '#!/bin/sh\nif [ "$1" = --bond ]; then echo "{}" > "e-$2.json"; fi\n'


def each(language: str) -> list[Any]:
    return [pytest.param(code, id=code.place) for code in all_code(language)]


def test_every_block_of_code_names_a_language_that_is_checked() -> None:
    odd = [code.place for page in PAGES for code in code_of(page) if code.language not in LANGUAGES]
    assert odd == []


@pytest.mark.parametrize("code", each("python"))
def test_python_on_the_pages_is_python_and_what_it_imports_is_there(code: Code) -> None:
    tree = compile(
        code.text, code.place, "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    )
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
            ("hpc_prefect", "prefect")
        ):
            module = importlib.import_module(node.module or "")
            assert [name.name for name in node.names if not hasattr(module, name.name)] == []


@pytest.fixture(scope="module")
def stored_blocks(prefect_server: Server, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The blocks that the pages speak of."""
    program = tmp_path_factory.mktemp("program") / "diag"
    program.write_text(DIAG)
    program.chmod(0o700)
    CommandBlock(command_name="diag", executable_key="diag").save(
        "cmd-docs", overwrite=True, _sync=True
    )
    ExecutionProfileBlock(profile_name="diag", command_name="diag").save(
        "exec-docs", overwrite=True, _sync=True
    )
    HPCProfileBlock(scheduler="local", executables={"diag": str(program)}).save(
        "hpc-docs", overwrite=True, _sync=True
    )


RUN = [page for page in PAGES if page != "README.md" and code_of(page, "python")]


@pytest.mark.usefixtures("stored_blocks")
@pytest.mark.parametrize("page", RUN)
def test_python_on_the_pages_runs(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its blocks one after another, as a reader types them. README has a test of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    names: dict[str, Any] = {"__name__": "page"}
    for code in code_of(page, "python"):
        if not code.why_not_run:
            _run(code, names)
    settle()


def _run(code: Code, names: dict[str, Any]) -> None:
    text = code.text
    for shown, own in OWN_NAMES.items():
        text = text.replace(shown, own)
    program = compile(text, code.place, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    waiting = eval(program, names)
    if inspect.iscoroutine(waiting):
        asyncio.run(_until_done(waiting))


async def _until_done(waiting: Any) -> None:
    await waiting


@pytest.mark.parametrize("code", each("bash"))
def test_shell_lines_are_such(code: Code) -> None:
    done = subprocess.run(["bash", "-n"], input=code.text, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_on_the_pages_are_taken(page: str) -> None:
    for number, words in commands_of(page):
        try:
            _parser().parse_args(words)
        except SystemExit:
            pytest.fail(f"{page}:{number}: hpc-prefect {' '.join(words)}", pytrace=False)


@pytest.mark.parametrize("code", each("toml"))
def test_the_blocks_on_the_pages_can_be_applied(code: Code) -> None:
    read = read_document(code.text, here="/x", venv="/v", environ={"MY_IBM_TOKEN": "key"})
    assert len(read.items) == sum(map(len, tomllib.loads(code.text).values()))


@pytest.mark.parametrize("code", each("json"))
def test_json_on_the_pages_is_json(code: Code) -> None:
    assert json.loads(code.text)


@pytest.mark.parametrize("page", PAGES)
def test_files_that_the_pages_name_are_there(page: str) -> None:
    named = re.findall(r"(?<![\w/.])((?:tests|bench|examples|tools)/[\w/.-]*\w)", text_of(page))
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", [page for page in PAGES if page.startswith("docs/")])
def test_a_page_begins_with_what_its_reader_can_do_then(page: str) -> None:
    title, _, first, *_ = text_of(page).splitlines()
    assert title.startswith("# ")
    assert first.startswith(("After this page", "After these pages"))


def test_the_first_lesson_shows_the_blocks_of_its_example() -> None:
    shown = tomllib.loads(code_of("docs/tutorials/bitcount.md", "toml")[0].text)
    example = tomllib.loads((ROOT / "examples/bitcount/blocks.toml").read_text())
    del example["command"]["cmd-bitcount"]["description"]
    assert shown == {kind: example[kind] for kind in shown}


def test_the_lesson_on_loops_shows_the_rule_of_its_example() -> None:
    shown = tomllib.loads(code_of("docs/tutorials/sqd.md", "toml")[0].text)
    example = tomllib.loads((ROOT / "examples/sqd_n2/blocks.toml").read_text())
    stop = shown["variable"]["sqd-algorithm"]["stop"]
    assert stop == example["variable"]["sqd-algorithm"]["stop"]


def test_every_picture_is_on_a_page() -> None:
    shown = {name for page in PAGES for name in re.findall(r"pictures/([\w.-]+)", text_of(page))}
    assert {each.name for each in (DOCS / "pictures").iterdir()} == shown


def test_settings_of_prefects_that_the_pages_name_are_there() -> None:
    named = {name for page in PAGES for name in re.findall(r"\bPREFECT_[A-Z_]+\b", text_of(page))}
    ours = {name for name in named if name.startswith("PREFECT_INTEGRATIONS_HPC_PREFECT_")}
    assert "PREFECT_SERVER_DATABASE_CONNECTION_URL" in named
    assert [name for name in sorted(named - ours) if not hasattr(prefect.settings, name)] == []


@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")  # of Prefect's
def test_the_notification_of_the_page_can_be_made(prefect_server: Server) -> None:
    names: dict[str, Any] = {}
    (code,) = code_of("docs/howto/notifications.md", "python")
    exec(code.text, names)
    made = names["tell_me"]("a-flow-that-nobody-has", "https://127.0.0.1:9/nowhere")
    try:
        assert Automation.read(id=made.id, _sync=True).name == "tell me of a-flow-that-nobody-has"
    finally:
        made.delete(_sync=True)
