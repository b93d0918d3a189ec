"""The source is laid out as docs/architecture.md says it is; who imports what: `make check`."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
PRODUCT = ROOT / "src" / "hpc_prefect"
PAGE = (ROOT / "docs" / "architecture.md").read_text()
MOST_LOOSE = 6


def test_the_files_and_rooms_on_the_page_are_there() -> None:
    named = set(re.findall(r"`([a-z_]+/[a-z_/]*(?:\.py)?)`", PAGE))
    assert len(named) > 30
    above = {name: ROOT if name.startswith("tests/") else PRODUCT for name in named}
    assert [name for name in sorted(named) if not (above[name] / name).exists()] == []
    picture = PAGE.partition("## The picture")[2].partition("A room imports")[0]
    drawn = set(re.findall(r"[a-z_]+", picture))
    rooms = {each.name for each in PRODUCT.iterdir() if (each / "__init__.py").exists()}
    assert rooms <= drawn


def test_few_modules_lie_loose() -> None:
    assert len(list(PRODUCT.glob("*.py"))) <= MOST_LOOSE


def test_a_class_name_means_one_thing() -> None:
    homes = defaultdict(set)
    for file in PRODUCT.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].add(str(file.relative_to(PRODUCT)))
    assert {name: files for name, files in homes.items() if len(files) > 1} == {}


def test_each_thread_says_whether_the_process_waits_for_it() -> None:
    """If it does not say so, a thread is a daemon if the thread that makes it is one.

    Calls are made in daemons: what a thread writes at the process's end was lost by that.
    """
    unsaid, found = [], 0
    for file in PRODUCT.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "threading.Thread":
                found += 1
                if all(each.arg != "daemon" for each in node.keywords):
                    unsaid.append(f"{file.relative_to(PRODUCT)}:{node.lineno}")
    assert found > 5
    assert unsaid == []
