"""Where an export goes: a folder or a zip file that appears whole, or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import time
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from hpc_prefect.errors import ConfigurationError
from hpc_prefect.transports.local import unique

_ZIP = ".zip"


class Copied(NamedTuple):
    """A file that was written: its size in bytes and its SHA-256."""

    size: int
    sha256: str


class Target(Protocol):
    """Takes the files of an export, one after the other."""

    def add(self, name: str, chunks: Iterable[bytes]) -> Copied:
        """Write a file; `name` is its path within the export."""

    def add_folder(self, name: str) -> None:
        """Make a folder, which may stay empty."""


@contextlib.contextmanager
def new_target(path: str | os.PathLike[str]) -> Iterator[Target]:
    """A new folder, or a zip file if the path ends with .zip.

    It gets its name when the block ends without an error. Until then it has another name in the
    same folder; if the block fails, it is removed.

    Raises:
        ConfigurationError: the path exists already, or its folder does not exist.
    """
    final = Path(os.path.abspath(os.path.expanduser(path)))
    is_zip = final.suffix.lower() == _ZIP
    _check_free(final, is_zip)
    draft = final.with_name(f".{final.name}.{unique()}")
    try:
        if is_zip:
            with zipfile.ZipFile(draft, "x") as archive:
                yield _Archive(archive)
            _check_free(final, is_zip)
        else:
            draft.mkdir()
            yield _Directory(draft)
        _take(draft, final)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        with contextlib.suppress(OSError):
            draft.unlink()


def _check_free(final: Path, is_zip: bool) -> None:
    if not final.parent.is_dir():
        raise ConfigurationError(f"there is no folder {final.parent} to write {final.name} to")
    if is_zip:
        taken = os.path.lexists(final) and (not final.is_file() or final.stat().st_size > 0)
    else:
        taken = os.path.lexists(final) and (not final.is_dir() or any(final.iterdir()))
    if taken:
        raise _taken(final)


def _taken(final: Path) -> ConfigurationError:
    return ConfigurationError(
        f"{final} exists and is not empty; nothing was written. Name another one, or remove it"
    )


def _take(draft: Path, final: Path) -> None:
    """Give it its name; something that has appeared there meanwhile is not replaced."""
    try:
        os.rename(draft, final)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise _taken(final) from error
        raise


class _Directory:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, name: str, chunks: Iterable[bytes]) -> Copied:
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "xb") as file:
            return _copied(chunks, file.write)

    def add_folder(self, name: str) -> None:
        (self._folder / name).mkdir(parents=True, exist_ok=True)


class _Archive:
    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive

    def add(self, name: str, chunks: Iterable[bytes]) -> Copied:
        entry = zipfile.ZipInfo(name, time.localtime()[:6])
        entry.compress_type = zipfile.ZIP_DEFLATED
        entry.external_attr = 0o644 << 16
        with self._archive.open(entry, "w", force_zip64=True) as file:
            return _copied(chunks, file.write)

    def add_folder(self, name: str) -> None:
        entry = zipfile.ZipInfo(f"{name}/", time.localtime()[:6])
        entry.external_attr = 0o40755 << 16 | 0x10
        self._archive.writestr(entry, b"")


class _Write(Protocol):
    def __call__(self, data: bytes, /) -> int: ...


def _copied(chunks: Iterable[bytes], write: _Write) -> Copied:
    size, digest = 0, hashlib.sha256()
    for chunk in chunks:
        write(chunk)
        digest.update(chunk)
        size += len(chunk)
    return Copied(size, digest.hexdigest())
