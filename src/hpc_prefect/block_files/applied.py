"""Notes what a file of blocks and Variables made when it was applied, to tell it from others'.

Of each value a fingerprint is kept, also of earlier values of the file: a value on the server with
one of these is this file's own, and may be replaced without asking.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpc_prefect.errors import ConfigurationError
from hpc_prefect.transports.local import write_atomic

#: How many fingerprints of one value are kept, the newest last.
_MOST = 20

#: The path of a value in its block, outermost name first. A Variable is one value, ().
Where = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Value:
    """One value of a block.

    Attributes:
        text: as JSON; not shown if it is secret.
        secret: whether it holds a secret.
    """

    text: str
    secret: bool = False

    def shown(self) -> str:
        """The value for people, shortened."""
        if self.secret:
            return "(secret, not shown)"
        return self.text if len(self.text) <= 100 else f"{self.text[:97]}…"

    def told(self) -> dict[str, Any]:
        """For programs: the whole value, unless it is secret."""
        return {"secret": True} if self.secret else {"value": json.loads(self.text)}


@dataclass(slots=True)
class Made:
    """What one file made.

    Attributes:
        file: its absolute path; empty for a document without a file.
        values: fingerprints by item (`hpc-profile.hpc-local`), and by place in it.
        elsewhere: the same for other files, as far as is known here.
    """

    file: str = ""
    values: dict[str, dict[Where, list[str]]] = field(default_factory=dict)
    elsewhere: list[Made] = field(default_factory=list)
    _folder: Path | None = None
    _salt: str = field(default_factory=lambda: secrets.token_hex(16))

    def has(self, item: str, where: Where, value: Value) -> bool:
        """Whether this file once made this value there."""
        known = self.values.get(item, {}).get(where, [])
        return bool(known) and self._fingerprint(value) in known

    def another(self, item: str, where: Where) -> str:
        """The path of another file that made the value there; empty if none is known."""
        return next((one.file for one in self.elsewhere if where in one.values.get(item, {})), "")

    def note(self, item: str, values: Mapping[Where, Value]) -> None:
        """Note what the file makes of the item now."""
        before = self.values.get(item, {})
        now: dict[Where, list[str]] = {}
        for where, value in values.items():
            mark = self._fingerprint(value)
            older = [each for each in before.get(where, []) if each != mark]
            now[where] = [*older, mark][-_MOST:]
        self.values[item] = now

    def save(self) -> None:
        """Store the notes for the next time.

        Raises:
            ConfigurationError: its folder cannot be written.
        """
        if self._folder is None:
            return
        said = {
            "file": self.file,
            "salt": self._salt,
            "values": {
                item: [[list(where), marks] for where, marks in values.items()]
                for item, values in self.values.items()
            },
        }
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomic(self._folder / _name(self.file), json.dumps(said, indent=1).encode())
        except OSError as error:
            raise ConfigurationError(
                f"{self._folder}, the folder for notes of what {self.file} has made, cannot be"
                f" written: {error}; nothing was saved"
            ) from error

    def _fingerprint(self, value: Value) -> str:
        data, salt = value.text.encode("utf-8", "surrogatepass"), self._salt.encode()
        if value.secret:  # slow by design: a short password must not be guessed from it
            return hashlib.scrypt(data, salt=salt, n=2**14, r=8, p=1, dklen=16).hex()
        return hashlib.sha256(data).hexdigest()[:16]


def read_made(folder: Path, file: str | os.PathLike[str]) -> Made:
    """What this file made, by the notes in the folder; unreadable notes are ignored."""
    path = os.path.abspath(file)
    made = Made(path, _folder=folder)
    for note in sorted(folder.glob("*.json")):
        known = _read(note)
        if known is None:
            continue
        if known.file == path:
            made.values, made._salt = known.values, known._salt
        elif os.path.exists(known.file):
            made.elsewhere.append(known)
    return made


def _name(file: str) -> str:
    return f"{hashlib.sha256(os.fsencode(file)).hexdigest()[:20]}.json"


def _read(note: Path) -> Made | None:
    try:
        said: Any = json.loads(note.read_bytes())
        values = {
            str(item): {tuple(where): [str(mark) for mark in marks] for where, marks in pairs}
            for item, pairs in said["values"].items()
        }
        return Made(str(said["file"]), values, _salt=str(said["salt"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
