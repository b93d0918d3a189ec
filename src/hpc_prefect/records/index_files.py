"""The files of the user's index of runs: where they are, and how they are written."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpc_prefect.errors import LedgerError, NotOurs, TransportError
from hpc_prefect.transports import own
from hpc_prefect.transports.local import write_atomic

#: How the names of entries end.
END = ".json"

_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,127}")


def index_folder() -> Path:
    """Where the index is: `$XDG_DATA_HOME/hpc-prefect/runs`, below `~/.local/share` by default."""
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(os.path.abspath(data)) / "hpc-prefect" / "runs"


def put(summary: Mapping[str, Any]) -> None:
    """Write a run's entry, in place of the one that is there.

    Raises:
        LedgerError: the id cannot be the name of a file.
        NotOurs: the index's folder is another user's, or others may write in it.
        TransportError: it cannot be written.
    """
    path = entry_path(str(summary.get("id", "")))
    data = json.dumps(summary, default=str).encode() + b"\n"
    try:
        try:
            write_atomic(path, data)
        except FileNotFoundError:  # the first run of this user
            _make_folder(path.parent)
            write_atomic(path, data)
    except own.NotOursError as error:
        raise NotOurs(
            f"{error.filename} is not safe to use: {error.strerror}. The list of runs is kept there"
        ) from error
    except OSError as error:
        raise TransportError(
            f"cannot write {path}, for the list of runs: {error.strerror or error}"
        ) from error


def _make_folder(folder: Path) -> None:
    """Make the folder. Only our own folders are made private, not `~/.local/share` itself."""
    os.close(own.make_folders(str(folder), len(folder.parts) - 2))


def entry_path(ident: str) -> Path:
    """Where a run's entry is.

    Raises:
        LedgerError: the id cannot be the name of a file.
    """
    if not _ID.fullmatch(ident):
        raise LedgerError(
            f"{ident!r} is not a valid id of a run, so the list of runs cannot hold it"
        )
    return index_folder() / f"{ident}{END}"
