"""The crate's description: entities of JSON-LD, kept by the library `rocrate`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias
from urllib.parse import quote

from rocrate.model.entity import Entity
from rocrate.rocrate import ROCrate

from hpc_prefect.records.export.redaction import Secrets

#: A reference to an entity.
Ref: TypeAlias = dict[str, str]

RO_CRATE = "1.1"
WORKFLOW_RO_CRATE = "https://w3id.org/workflowhub/workflow-ro-crate/1.0"
#: The names of the run profiles. All are of version 0.5, which builds on RO-Crate 1.1.
PROFILES = {
    "process": "Process Run Crate",
    "workflow": "Workflow Run Crate",
    "provenance": "Provenance Run Crate",
}
PROFILE_VERSION = "0.5"
_TERMS = "https://w3id.org/ro/terms/workflow-run/context"
_STATUS = "http://schema.org/{}ActionStatus"
COMPLETED, FAILED, ACTIVE = (_STATUS.format(each) for each in ("Completed", "Failed", "Active"))


class Graph:
    """Entities by their ids. A second entity with the same id is ignored."""

    def __init__(self) -> None:
        self._crate = ROCrate(version=RO_CRATE)
        self._ids: set[str] = set()
        self._crate.metadata.extra_contexts.append(_TERMS)
        self._crate.metadata["conformsTo"] = [
            {"@id": f"https://w3id.org/ro/crate/{RO_CRATE}"},
            {"@id": WORKFLOW_RO_CRATE},
        ]

    def add(self, id: str, type: str | list[str], /, **properties: Any) -> Ref:
        """Add an entity, without its empty properties; returns a reference to it."""
        if id not in self._ids:
            self._ids.add(id)
            kept = {
                name: _single(each)
                for name, each in properties.items()
                if each not in ("", None, [])
            }
            self._crate.add(Entity(self._crate, id, {"@type": type, **kept}))
        return {"@id": id}

    def __contains__(self, id: str) -> bool:
        return id in self._ids

    def describe_root(self, **properties: Any) -> None:
        for name, each in properties.items():
            self._crate.root_dataset[name] = _single(each)

    def conform(self, profiles: Iterable[str]) -> list[Ref]:
        """Declare the profiles of the crate; `Workflow RO-Crate` is always one."""
        refs = [
            self.add(
                f"https://w3id.org/ro/wfrun/{each}/{PROFILE_VERSION}",
                "CreativeWork",
                name=PROFILES[each],
                version=PROFILE_VERSION,
            )
            for each in profiles
        ]
        name = "Workflow RO-Crate"
        return [*refs, self.add(WORKFLOW_RO_CRATE, "CreativeWork", name=name, version="1.0")]

    def chunks(self, secrets: Secrets) -> Iterator[bytes]:
        """The JSON-LD text, an entity a line, without any of the secrets."""
        whole = self._crate.metadata.generate()
        yield b'{"@context": ' + json.dumps(whole["@context"]).encode() + b',\n"@graph": [\n'
        between = b""
        for entity in whole["@graph"]:
            text = json.dumps(secrets.json(entity), ensure_ascii=False, allow_nan=False)
            yield between + text.encode(errors="replace")
            between = b",\n"
        yield b"\n]}\n"

    @property
    def file_name(self) -> str:
        return str(self._crate.metadata.id)


def _single(value: Any) -> Any:
    """The item of a list that has only one, as RO-Crate 1.1 recommends."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def as_id(path: str) -> str:
    """A path within the crate as an id of an entity."""
    return quote(os.fsencode(path), safe="/-_.~+@=,")


def local_id(*parts: object) -> str:
    """An id for an entity that has no address."""
    return "#" + "-".join(quote(os.fsencode(str(part)), safe="/-_.~+@=,") for part in parts)


def file_url(path: str) -> str:
    return f"file://{quote(os.fsencode(path))}"


def values_of(
    graph: Graph, values: dict[str, Any], *, beginning: str, parameters: bool
) -> tuple[list[Ref], list[Ref]]:
    """Named values as PropertyValues, and the FormalParameters that they are examples of.

    Args:
        beginning: of their ids.
        parameters: whether FormalParameters are added.
    """
    given, formal = [], []
    for name, value in values.items():
        kind, shown = _typed(value)
        slot: dict[str, Any] = {}
        id = local_id(beginning, name)
        if parameters:
            reference = graph.add(
                local_id(beginning, "parameter", name),
                "FormalParameter",
                name=name,
                additionalType=kind,
                workExample={"@id": id},
                conformsTo={"@id": "https://bioschemas.org/profiles/FormalParameter/1.0-RELEASE"},
            )
            formal.append(reference)
            slot = {"exampleOfWork": reference}
        given.append(graph.add(id, "PropertyValue", name=name, value=shown, **slot))
    return given, formal


def _typed(value: Any) -> tuple[str, Any]:
    """The schema.org type of a JSON value, and the value as a literal that JSON-LD keeps."""
    if isinstance(value, bool):
        return "Boolean", value
    if isinstance(value, int):
        return "Integer", value if abs(value) < 1 << 53 else str(value)
    if isinstance(value, float):
        finite = value - value == 0
        return "Float", value if finite else str(value)
    if isinstance(value, str):
        return "Text", value or '""'
    return "PropertyValue", json.dumps(value, ensure_ascii=False, default=str)
