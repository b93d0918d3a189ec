"""What became of each field, collected while the fields are read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from hpc_prefect.block_files.qcsc.documents import QcscDocument
from hpc_prefect.records.write.plain import is_secret_name

#: `kept`: the same, perhaps under another name. `changed`: another form or place. `decide`: a
#: person must look. `left out`: nothing is lost; the remark says why.
Outcome = Literal["kept", "changed", "decide", "left out"]

#: A name and its value; not if the value is another variable, or a command's output.
_ASSIGNED = re.compile(r"([A-Za-z_][\w.-]*)(?:=|\s+|:\s*)(?=[^\s-])(?![\"']?\$)")


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of one field. Never contains the value of an environment variable or a secret.

    Attributes:
        document: theirs (`hpc_profile/hpc-miyabi`), or a table of ours that cannot be used yet.
        became: the table and field of ours; empty when there is none.
        why: a remark; empty when there is nothing to say.
    """

    document: str
    field: str
    outcome: Outcome
    became: str = ""
    why: str = ""


@dataclass(slots=True)
class Fates:
    """All fates, in the order of the fields, each only once."""

    told: list[Fate] = field(default_factory=list)

    def add(
        self, document: str, name: str, outcome: Outcome, became: str = "", why: str = ""
    ) -> None:
        fate = Fate(document, name, outcome, became, why)
        if fate not in self.told:
            self.told.append(fate)


class QcscFields:
    """The fields of one document, read by their types; each given field gets a fate.

    A value of a wrong type is left out, with the fate `decide`.
    """

    def __init__(self, document: QcscDocument, fates: Fates) -> None:
        self.document = document
        self.name = document.name
        self._fates = fates
        self._read: set[str] = set()
        self._unusable: set[str] = set()

    def tell(self, name: str, outcome: Outcome, became: str = "", why: str = "") -> None:
        """Note what became of a field, if the document has it."""
        if name in self.document.fields and name not in self._unusable:
            self._fates.add(self.document.title, name, outcome, became, why)

    def tell_of_default(self, name: str, outcome: Outcome, became: str = "", why: str = "") -> None:
        """Note it even if the document has no such field: then their default was used."""
        self._fates.add(self.document.title, name, outcome, became, why)

    def text(self, name: str) -> str:
        """A text, without blanks around it; empty when there is none."""
        value = self._given(name)
        if isinstance(value, str):
            return value.strip()
        self._wrong(name, value, "a text")
        return ""

    def number(self, name: str) -> int | None:
        """A whole number above 0; None when there is none."""
        value = self._given(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
        self._wrong(name, value, "a whole number above 0")
        return None

    def texts(self, name: str) -> list[str]:
        """A list of texts."""
        value = self._given(name)
        if isinstance(value, list) and all(isinstance(each, str) for each in value):
            return list(value)
        self._wrong(name, value, "a list of texts")
        return []

    def table(self, name: str) -> dict[str, str]:
        """Texts by their names."""
        value = self._given(name)
        if isinstance(value, Mapping) and all(
            isinstance(each, str) for pair in value.items() for each in pair
        ):
            return dict(value)
        self._wrong(name, value, "a table of texts")
        return {}

    def tell_the_rest(self) -> None:
        """Note each field that was not read as unknown."""
        for name in self.document.fields:
            if name not in self._read:
                why = "qcsc-prefect 0.3.0 has no such field"
                self.tell(name, "decide", why=why)

    def _given(self, name: str) -> Any:
        self._read.add(name)
        return self.document.fields.get(name)

    def _wrong(self, name: str, value: Any, wanted: str) -> None:
        if value is not None:
            self.tell(name, "decide", why=f"must be {wanted}, and is left out")
            self._unusable.add(name)


def may_hold_a_secret(text: str) -> bool:
    """Whether a line or an argument seems to set a secret: `export MY_TOKEN=…`, `--password …`."""
    return any(is_secret_name(match[1].rpartition(".")[2]) for match in _ASSIGNED.finditer(text))
