"""What is in an exported crate."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def entities(crate: Path) -> dict[str, dict[str, Any]]:
    """The entities of its description, by id; each id is there once."""
    graph = json.loads(files(crate)["ro-crate-metadata.json"])["@graph"]
    found = {each["@id"]: each for each in graph}
    assert len(found) == len(graph)
    return found


def of_type(crate: Path, kind: str) -> list[dict[str, Any]]:
    return [each for each in entities(crate).values() if kind in listed(each["@type"])]


def files(crate: Path) -> dict[str, bytes]:
    """Its files, of a folder or a zip file."""
    if crate.is_dir():
        paths = [path for path in crate.rglob("*") if path.is_file()]
        return {str(path.relative_to(crate)): path.read_bytes() for path in paths}
    with zipfile.ZipFile(crate) as archive:
        return {name: archive.read(name) for name in archive.namelist() if name[-1] != "/"}


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def dangling(crate: Path) -> set[str]:
    """Local ids and files that are referred to, and are described nowhere."""
    found = entities(crate)
    return {
        ref
        for entity in found.values()
        for ref in _refs(entity)
        if ref not in found and not ref.startswith(("http://", "https://"))
    }


def _refs(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if set(value) == {"@id"}:
            yield value["@id"]
        for name, each in value.items():
            if name != "@id":
                yield from _refs(each)
    elif isinstance(value, list):
        for each in value:
            yield from _refs(each)
