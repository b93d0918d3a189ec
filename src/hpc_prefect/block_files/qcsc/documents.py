"""Block documents of qcsc-prefect, from texts and from a Prefect server."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
from prefect.client.orchestration import PrefectClient

from hpc_prefect.blocks.checks import suggestion

COMMAND, EXECUTION, HPC, RUNTIME = (
    "hpc_command",
    "execution_profile",
    "hpc_profile",
    "qiskit_runtime_config",
)
#: The block types that are read, by the slugs of their classes, and the names that Prefect shows.
#: Prefect itself keeps a slug with hyphens.
TYPES = {
    COMMAND: "HPC Command",
    EXECUTION: "Execution Profile",
    HPC: "HPC Profile",
    RUNTIME: "Qiskit Runtime Config",
}
_SLUGS = {name: slug for slug, name in TYPES.items()} | {"QiskitRuntimeConfig": RUNTIME}


def _slug(text: object) -> str:
    """The slug in their classes' form, from a slug in either form or a type's name."""
    return _SLUGS.get(str(text), str(text).replace("-", "_"))


#: Fields that Prefect adds to a document's data.
_PREFECTS = ("block_type_slug", "_block_document_id", "_block_document_name", "_is_anonymous")
_FORMS = (
    "a file holds tables such as [hpc_profile.NAME], or block documents as Prefect's API gives them"
)


@dataclass(frozen=True, slots=True)
class QcscDocument:
    """One of their blocks.

    Attributes:
        slug: its type, one of `TYPES`.
        name: the block's.
        fields: as they are stored.
    """

    slug: str
    name: str
    fields: Mapping[str, Any]

    @property
    def title(self) -> str:
        """As Prefect names it: `hpc_profile/hpc-miyabi`."""
        return f"{self.slug}/{self.name}"


@dataclass(slots=True)
class Found:
    """The documents, and the problems of what was read; these have places, never values."""

    documents: list[QcscDocument] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def add(self, document: QcscDocument, source: str) -> None:
        """Add a document, unless there is one of its name already."""
        if any(document.title == other.title for other in self.documents):
            self.problems.append(f"{source}: {document.title} is there twice; keep one of them")
        else:
            self.documents.append(document)


def read_text(text: str, source: str, found: Found) -> None:
    """Add the documents of a file's text to `found`: TOML if `source` ends so, JSON otherwise."""
    try:
        content = _parsed(text, source)
    except (ValueError, RecursionError) as error:
        # Not the whole message: a parser may quote the line, which may contain a secret.
        kind = "TOML" if source.endswith(".toml") else "JSON"
        found.problems.append(f"{source}: is not {kind}{_line(error)}")
        return
    before = len(found.documents), len(found.problems)
    for slug, name, fields in _documents(content, source, found.problems):
        if not isinstance(fields, Mapping):
            found.problems.append(f"{source}: {slug}/{name} must be a table of fields")
            continue
        kept = {str(key): value for key, value in fields.items() if key not in _PREFECTS}
        found.add(QcscDocument(slug, name, kept), source)
    if before == (len(found.documents), len(found.problems)):
        found.problems.append(f"{source}: holds no block of qcsc-prefect; {_FORMS}")


def _parsed(text: str, source: str) -> Any:
    text = text.removeprefix("\ufeff")
    if source.endswith(".toml"):
        return tomllib.loads(text)
    return json.loads(text)


def _line(error: Exception) -> str:
    line = re.search(r"\bline (\d+)", str(error))
    return f" (line {line[1]})" if line else ""


def _documents(content: Any, source: str, problems: list[str]) -> Iterator[tuple[str, str, object]]:
    """Slug, name and fields of each block in what a file holds, in any of the forms."""
    if isinstance(content, list):
        for each in content:
            yield from _documents(each, source, problems)
    elif not isinstance(content, Mapping):
        problems.append(f"{source}: {_FORMS}")
    elif "data" in content or "block_type_slug" in content:
        yield from _exported(content, source, problems)
    elif "hpc_target" in content:
        problems.append(
            f"{source}: these are the settings of a create_blocks.py, which has defaults of its "
            "own for all that is not in them; run that program, and import the blocks that it made "
            "with --from-server"
        )
    else:
        yield from _tables(content, source, problems)


def _exported(
    content: Mapping[Any, Any], source: str, problems: list[str]
) -> Iterator[tuple[str, str, object]]:
    """A document as Prefect's API gives it, or its fields with `block_type_slug` among them."""
    type_ = content.get("block_type")
    slug = type_.get("slug") if isinstance(type_, Mapping) else content.get("block_type_slug")
    slug = _slug(slug or content.get("block_type_name"))
    name = content.get("name") or content.get("_block_document_name")
    if slug not in TYPES:
        problems.append(f"{source}: {_not_read(slug)}")
    elif not isinstance(name, str):
        problems.append(f"{source}: a block of type {slug} has no name; add `name`")
    else:
        fields = content.get("data", {k: v for k, v in content.items() if k != "name"})
        yield slug, name, fields


def _tables(
    content: Mapping[Any, Any], source: str, problems: list[str]
) -> Iterator[tuple[str, str, object]]:
    for key, blocks in content.items():
        slug = _slug(key)
        if slug not in TYPES:
            problems.append(f"{source}: {_not_read(slug)}")
        elif not isinstance(blocks, Mapping):
            problems.append(f"{source}: {slug} must hold tables, such as [{slug}.some-name]")
        else:
            yield from ((slug, str(name), fields) for name, fields in blocks.items())


def _not_read(slug: object) -> str:
    return f"{slug!r} is no block type that is imported{suggestion(str(slug), TYPES)}"


async def read_server(client: PrefectClient, found: Found) -> None:
    """Add all blocks of their four types that the server has. Secrets stay on the server."""
    for slug in TYPES:
        for document in await _of_type(client, slug):
            fields = {key: each for key, each in document.data.items() if key not in _PREFECTS}
            if document.name:
                found.add(QcscDocument(slug, document.name, fields), "the server")


async def _of_type(client: PrefectClient, slug: str) -> list[Any]:
    documents: list[Any] = []
    while True:
        try:
            page = await client.read_block_documents_by_type(
                slug.replace("_", "-"), offset=len(documents), limit=200, include_secrets=False
            )
        except httpx.HTTPStatusError as error:
            if error.response.status_code == httpx.codes.NOT_FOUND:
                return documents  # no block of this type was ever saved there
            raise
        documents += page
        if len(page) < 200:
            return documents
