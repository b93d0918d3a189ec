"""Hides secrets in an export: values whose names say that they are secrets.

A run's record has none. A job's own folder has what blocks hold in plain fields: an environment
variable `MY_TOKEN`, an option `--password=x`, a set-up line `export API_KEY=x`. Such values are
first collected from all jobs, then hidden wherever they occur in the export: a program may have
printed them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

from hpc_prefect.job.program_script import quote
from hpc_prefect.records.write.plain import HIDDEN, is_secret_name, plain_arguments

#: The fewest letters of a value that is hidden everywhere. A shorter one, or a number, is hidden
#: only next to its name: elsewhere it may mean something else.
_LEAST = 6
_NUMBER = re.compile(r"[-+]?[0-9.,_]+(?:[eE][-+]?[0-9]+)?")
#: A text without any of these words names no secret (`plain.is_secret_name`).
_WORDS = ("token", "passw", "passphrase", "secret", "credential")
_KEYS = re.compile("(?:api|access|private)[^a-z0-9]?key")
#: Fields of every job's record that are no secrets. Ignoring them saves 90 % of the time.
_HARMLESS = re.compile(
    rb'"(?:secret_names|secret_environment|qrmi_api_keys)": ?(?:"\**"|\[[^\]]*\]|\{\})'
)
#: Cached: the records of jobs repeat the same names.
_is_secret_name = lru_cache(maxsize=10_000)(is_secret_name)
_VALUE = r"""'(?:[^']|'\\'')*'|"(?:[^"\\\n]|\\.)*"|[^\s;&|'"()]+"""
#: NAME=value in a shell's text, and --name value.
_ASSIGNED = re.compile(rf"(?P<name>[A-Za-z_][\w.\-]*)(?P<is>=)(?P<value>{_VALUE})")
_OPTION = re.compile(rf"(?P<name>(?<![\w-])--?[A-Za-z][\w.\-]*)(?P<is>'? )(?P<value>{_VALUE})")
#: name = "literal" in a program's text, also in a mapping.
_LITERAL = re.compile(
    r"""(?P<name>[A-Za-z_][\w.\-]*)(?P<is>["']?\s*(?::[^=\n]*=|[:=])\s*(?:\w+\()?[rbuRBU]?)"""
    r"""(?P<value>"[^"\n]+"|'[^'\n]+')"""
)
_CHUNK = 1 << 20


class Secrets:
    """Values that are to be hidden."""

    def __init__(self) -> None:
        self._values: set[str] = set()
        self._everywhere: re.Pattern[str] | None = None
        self._in_bytes: re.Pattern[bytes] | None = None
        self._longest = 0

    def learn(self, found: Any) -> None:
        """Collect the secrets in JSON values."""
        self._values.update(
            value
            for value in _named(found)
            if len(value) >= _LEAST and not _NUMBER.fullmatch(value) and value != HIDDEN
        )
        self._everywhere = None

    def learn_json(self, data: bytes) -> None:
        """The same from a file of JSON, or with a JSON object on each line."""
        if _may_name_any(data):
            for found in _parsed(data):
                self.learn(found)

    def _compile(self) -> re.Pattern[str] | None:
        if self._everywhere is None and self._values:
            forms = {form for value in self._values for form in _forms(value)}
            ordered = sorted(forms, key=len, reverse=True)
            self._longest = max(len(_encoded(form)) for form in ordered)
            self._everywhere = re.compile("|".join(map(re.escape, ordered)))
            self._in_bytes = re.compile(b"|".join(re.escape(_encoded(form)) for form in ordered))
        return self._everywhere

    def text(self, text: str) -> str:
        """A text (log, script, message) without the secrets."""
        text = self._without_values(text)
        if _hints(text):
            text = _OPTION.sub(_hidden, _ASSIGNED.sub(_hidden, text))
        return text

    def source(self, text: str) -> str:
        """A program's text without the secrets, and without literals with a secret's name."""
        return _LITERAL.sub(_hidden, self._without_values(text))

    def source_data(self, data: bytes) -> bytes:
        """The same for a file's bytes."""
        return _encoded(self.source(data.decode(errors="surrogateescape")))

    def _without_values(self, text: str) -> str:
        pattern = self._compile()
        return pattern.sub(HIDDEN, text) if pattern else text

    def log(self, data: bytes) -> bytes:
        """The same as `text` for a file's bytes, whatever they are."""
        return _encoded(self.text(data.decode(errors="surrogateescape")))

    def json(self, value: Any, *, named: bool = False) -> Any:
        """JSON values without the secrets; values without secrets stay as they are.

        Args:
            named: also hide values with a secret's name. Not for a run's record: it has no such
                secrets, but it may have packages with such names.
        """
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {
                self.text(name): HIDDEN
                if named and each and _is_secret_name(name)
                else self.json(each, named=named)
                for name, each in value.items()
            }
        if isinstance(value, list):
            hidden = _as_arguments(value)
            return [
                hidden[i] if i in hidden else self.json(each, named=named)
                for i, each in enumerate(value)
            ]
        return value

    def json_data(self, data: bytes, *, named: bool = False) -> bytes:
        """A JSON text without the secrets; unchanged if it has none."""
        if not self.is_in(data) and not _may_name_any(data):
            return data
        try:
            found = json.loads(data)
        except (ValueError, RecursionError):
            return self.log(data)
        kept = self.json(found, named=named)
        if kept == found:
            return data
        return json.dumps(kept, ensure_ascii=False, default=str).encode(errors="replace") + b"\n"

    def json_lines(self, lines: Iterable[bytes], *, named: bool = False) -> Iterator[bytes]:
        """The same for lines, each a JSON text."""
        return (self.json_data(line, named=named) for line in lines)

    def is_in(self, data: bytes) -> bool:
        """Whether a file's bytes hold one of the collected values."""
        return self._compile() is not None and self._searched(data)

    def are_in(self, chunks: Iterable[bytes]) -> bool:
        """The same for a file that is read piece by piece."""
        if self._compile() is None:
            return False
        before = b""
        for chunk in chunks:
            if self._searched(before + chunk):
                return True
            before = (before + chunk)[-self._longest :]
        return False

    def _searched(self, data: bytes) -> bool:
        return self._in_bytes is not None and self._in_bytes.search(data) is not None


def _may_name_any(data: bytes) -> bool:
    return _hints(data.decode("latin-1")) and _hints(_HARMLESS.sub(b"", data).decode("latin-1"))


def _hints(text: str) -> bool:
    """Whether a text may name a secret. A quick test: words are found faster than patterns."""
    small = text.lower()
    return any(word in small for word in _WORDS) or (
        "key" in small and _KEYS.search(small) is not None
    )


def _named(found: Any) -> Iterator[str]:
    """The values in JSON values whose names say that they are secret."""
    if isinstance(found, str):
        for pattern in (_ASSIGNED, _OPTION) if _hints(found) else ():
            for match in pattern.finditer(found):
                if _is_secret_name(match["name"]):
                    yield match["value"].strip("'\"")
    elif isinstance(found, dict):
        for name, value in found.items():
            if _is_secret_name(name) and isinstance(value, str):
                yield value
            yield from _named(value)
    elif isinstance(found, list):
        hidden = _as_arguments(found)
        for index, value in enumerate(found):
            if index in hidden:
                yield value.partition("=")[2] if hidden[index] != HIDDEN else value
            yield from _named(value)


def _as_arguments(items: list[Any]) -> dict[int, str]:
    """The items of a command line that are secrets, by index, with their replacements."""
    if not items or not all(isinstance(each, str) for each in items):
        return {}
    if not any(map(_hints, items)):
        return {}
    shown = plain_arguments(items)
    return {
        index: word
        for index, (word, own) in enumerate(zip(shown, items, strict=False))
        if word != own and (word == HIDDEN or word.endswith(f"={HIDDEN}"))
    }


def _hidden(match: re.Match[str]) -> str:
    if not _is_secret_name(match["name"]) or HIDDEN in match["value"]:
        return match[0]
    mark = match["value"][0] if match["value"][0] in "'\"" else ""
    return f"{match['name']}{match['is']}{mark}{HIDDEN}{mark}"


def _forms(value: str) -> set[str]:
    """A value as it is, as in shell quotes, and as in JSON."""
    return {
        value,
        quote(value)[1:-1],
        json.dumps(value)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1],
    }


def _encoded(text: str) -> bytes:
    try:
        return text.encode(errors="surrogateescape")
    except UnicodeEncodeError:  # half a character, as JSON can write it
        return text.encode(errors="replace")


def _parsed(data: bytes) -> Iterator[Any]:
    try:
        yield json.loads(data)
        return
    except (ValueError, RecursionError):
        pass
    for line in data.split(b"\n"):
        try:
            yield json.loads(line)
        except (ValueError, RecursionError):
            continue
