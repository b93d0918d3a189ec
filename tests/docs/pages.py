"""The pages for readers, and the code on them."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

#: All pages with code, by their names in the repository.
PAGES = sorted(
    each.relative_to(ROOT).as_posix()
    for each in (
        *DOCS.rglob("*.md"),
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *ROOT.glob("examples/*/README.md"),
    )
)

_FENCE = re.compile(
    r"^(?:<!-- not run: (?P<why>[^>]+) -->\n)?(?P<indent> *)```(?P<language>\w*)\n"
    r"(?P<text>.*?)^(?P=indent)```$",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Code:
    """A fenced block of a page.

    Attributes:
        page: the page's name in the repository.
        line: where the block begins.
        language: as the fence names it; empty when it names none.
        text: the code.
        why_not_run: what the comment before it says; empty for a block that is run.
    """

    page: str
    line: int
    language: str
    text: str
    why_not_run: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def text_of(page: str) -> str:
    return (ROOT / page).read_text()


def code_of(page: str, language: str = "") -> list[Code]:
    """The fenced blocks of a page, or those in one language."""
    text = text_of(page)
    found = [
        Code(
            page,
            text.count("\n", 0, match.start()) + 1,
            match["language"],
            textwrap.dedent(match["text"]),
            match["why"] or "",
        )
        for match in _FENCE.finditer(text)
    ]
    return [each for each in found if not language or each.language == language]


def all_code(language: str) -> list[Code]:
    return [each for page in PAGES for each in code_of(page, language)]


def commands_of(page: str) -> Iterator[tuple[int, list[str]]]:
    """Each command line of `hpc-prefect` on a page: the line's number, and its words after that.

    They stand on lines of their own, in a fence or indented.
    """
    for number, line in enumerate(text_of(page).splitlines(), 1):
        found = re.match(r" *(?:\$ |nohup )?hpc-prefect (.*)", line)
        is_code = line.startswith("    ") or (found and _in_fence(page, number))
        if found and is_code:
            words = shlex.split(found[1], comments=True)
            yield number, words[: next(_ends(words), len(words))]


def _ends(words: list[str]) -> Iterator[int]:
    return (i for i, word in enumerate(words) if word in (">", "|", "&", "&&", ";", "2>&1"))


def _in_fence(page: str, number: int) -> bool:
    before = text_of(page).splitlines()[: number - 1]
    return sum(line.lstrip().startswith("```") for line in before) % 2 == 1
