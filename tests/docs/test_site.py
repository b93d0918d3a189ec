"""The site is built strict and offline, and its reference is that of the code."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import hpc_prefect
from hpc_prefect import collection
from hpc_prefect.cli import _VERBS

from .pages import DOCS, ROOT

sys.path.insert(0, str(ROOT / "tools"))
import docs_site

FROM_ELSEWHERE = re.compile(r'<(?:script|img|iframe)[^>]*\ssrc="https?:|<link[^>]*href="https?:')


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def words_of(page: Path) -> str:
    return html.unescape(re.sub("<[^>]+>", "", page.read_text()))


def test_every_page_is_in_the_site(site: Path) -> None:
    wanted = {each.relative_to(DOCS).with_suffix(".html") for each in DOCS.rglob("*.md")}
    built = {each.relative_to(site) for each in site.rglob("*.html")}
    assert wanted - built == set()


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert [each.name for each in pages if FROM_ELSEWHERE.search(each.read_text())] == []
    styles = "".join(each.read_text() for each in site.rglob("*.css"))
    assert "@import" not in styles
    assert not re.search(r"url\(.?https?:", styles)


def test_the_search_knows_the_reference(site: Path) -> None:
    index = (site / "search" / "search_index.js").read_text()
    assert "on_sigterm" in index
    assert "run_job_from_blocks" in index


def test_the_reference_has_every_public_name(site: Path) -> None:
    text = words_of(site / "reference" / "python.html")
    blocks = words_of(site / "reference" / "blocks.html")
    missing = [name for name in hpc_prefect.__all__ if name not in text + blocks]
    assert missing == []


def test_the_reference_has_every_field_of_every_block(site: Path) -> None:
    text = words_of(site / "reference" / "blocks.html")
    fields = [
        (name, field)
        for name in collection.__all__
        for field in getattr(collection, name).model_fields
    ]
    assert [each for each in fields if each[1] not in text] == []


def test_the_reference_has_every_verb(site: Path) -> None:
    text = words_of(site / "reference" / "commands.html")
    names = [verb.__name__.rpartition(".")[2] for verb in _VERBS]
    assert [name for name in names if f"usage: hpc-prefect {name}" not in text] == []


def test_tabs_are_plain_text_on_a_code_host_and_tabs_in_the_site() -> None:
    text = "before\n\n<!-- tabs -->\n**A**\n\none\n\n**B**\n\ntwo\n\n<!-- /tabs -->\n"
    assert docs_site.with_tabs(text) == ('before\n\n=== "A"\n\n    one\n\n=== "B"\n\n    two\n\n')


@pytest.mark.parametrize(
    ("page", "link", "leads_to"),
    [
        ("records.md", "../examples/ising/flow.py", "repo/examples/ising/flow.py.md"),
        (
            "tutorials/sqd.md",
            "../../examples/sqd_n2/README.md",
            "../repo/examples/sqd_n2/README.md",
        ),
        ("repo/examples/bitcount/README.md", "../../docs/jobs.md", "../../../jobs.md"),
        ("jobs.md", "slurm.md", "slurm.md"),
        ("jobs.md", "https://docs.prefect.io", "https://docs.prefect.io"),
    ],
)
def test_a_link_out_of_docs_leads_to_a_page_of_the_site(
    page: str, link: str, leads_to: str
) -> None:
    assert docs_site.with_links_inside(f"[x]({link}#y)", page) == f"[x]({leads_to}#y)"
