"""What MkDocs needs beside docs/: the reference, made of the code; files that lie elsewhere; tabs.

`mkdocs.yml` names this file as its hook. docs/ itself stays plain Markdown, which reads well on a
code host too:

- tabs are written as `<!-- tabs -->`, then `**Name**` on a line before each part, then
  `<!-- /tabs -->`;
- a link may lead out of docs/, as `../examples/bitcount/README.md` does; the site has that file as
  a page below `repo/`.
"""

from __future__ import annotations

import posixpath
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import docs_reference

ROOT = Path(__file__).parents[1]

#: Pages whose tables need the room of the table of contents.
WIDE = {"about/compare.md", "ends.md"}

#: Files outside of docs/ that are pages although no page may link to them.
PAGES_OUTSIDE = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "examples/bitcount/README.md",
    "examples/sqd_n2/README.md",
)

LINK = re.compile(r"(\]\()([^)\s#:]+)((?:#[^)\s]*)?\))")
TABS = re.compile(r"^<!-- tabs -->\n(.*?)^<!-- /tabs -->$", re.DOTALL | re.MULTILINE)
LANGUAGES = {".py": "python", ".toml": "toml", ".json": "json", ".cpp": "cpp", "": "make"}


# --- what MkDocs calls


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the reference, and what lies outside of docs/."""
    pages = docs_reference.pages() | outside(ROOT)
    for uri, text in pages.items():
        files.append(File.generated(config, uri, content=text))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links out of docs/ to pages of the site, and make tabs."""
    if page.file.src_uri in WIDE:
        page.meta["hide"] = ["toc"]
    return with_tabs(with_links_inside(markdown, page.file.src_uri))


# --- tabs


def with_tabs(markdown: str) -> str:
    """The text with its marked parts as tabs."""
    return TABS.sub(lambda found: _tabs(found[1]), markdown)


def _tabs(text: str) -> str:
    _, *parts = re.split(r"^\*\*([^*\n]+)\*\*$", text, flags=re.MULTILINE)
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return "\n".join(
        f'=== "{name}"\n\n{textwrap.indent(part.strip(), "    ")}\n' for name, part in pairs
    )


# --- files outside of docs/


def outside(root: Path) -> dict[str, str]:
    """Pages by their place in the site: the files outside of docs/ to which pages lead."""
    todo = list(PAGES_OUTSIDE)
    for page in sorted(Path(root, "docs").rglob("*.md")):
        todo += _leading_out(root, page.relative_to(root).as_posix())
    found: dict[str, str] = {}
    while todo:
        name = todo.pop()
        if site_place(name) in found:
            continue
        found[site_place(name)] = _as_page(root, name)
        if name.endswith(".md"):
            todo += _leading_out(root, name)
    return found


def _leading_out(root: Path, name: str) -> Iterator[str]:
    text = Path(root, name).read_text()
    for _, target, _ in LINK.findall(text):
        place = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
        if not place.startswith(("docs/", "..")) and Path(root, place).is_file():
            yield place


def _as_page(root: Path, name: str) -> str:
    text = Path(root, name).read_text()
    if name.endswith(".md"):
        return text
    language = LANGUAGES.get(Path(name).suffix, "text")
    return f"# {name}\n\n````{language}\n{text.rstrip()}\n````\n"


def site_place(name: str) -> str:
    """Where the site has a file of the repository."""
    if name.startswith("docs/"):
        return name.removeprefix("docs/")
    return f"repo/{name}" if name.endswith(".md") else f"repo/{name}.md"


def with_links_inside(markdown: str, uri: str) -> str:
    """The text of the page at this place of the site, with links to where the site has things."""
    name = uri.removeprefix("repo/") if uri.startswith("repo/") else f"docs/{uri}"
    folder = posixpath.dirname(name)

    def leads(found: re.Match[str]) -> str:
        place = posixpath.normpath(posixpath.join(folder, found[2]))
        is_moved = uri.startswith("repo/") or not place.startswith("docs/")
        if not is_moved or not Path(ROOT, place).is_file():
            return found[0]
        return found[1] + posixpath.relpath(site_place(place), posixpath.dirname(uri)) + found[3]

    return LINK.sub(leads, markdown)
