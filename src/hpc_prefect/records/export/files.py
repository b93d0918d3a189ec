"""The files of a run that an export may hold; they are read safely and in bounded memory.

Only the files named here are taken from a job's folder: never `secrets`, a claim or a guard.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from hpc_prefect.errors import HpcPrefectError
from hpc_prefect.job import folder as names
from hpc_prefect.ledger.quantum_folder import RECORDS
from hpc_prefect.records.write.digests import file_facts
from hpc_prefect.transports.local import LocalTransport, reader

#: A batch job's files, each with what it is; the records first.
BATCH_FILES = {
    names.RECORD: "the job's own record",
    names.JOURNAL: "what happened to the job, one event on each line",
    names.SCRIPT: "the script that the scheduler was given",
    names.PROGRAM: "what that script runs: set-up, environment, program",
    names.STDOUT: "what the program printed",
    names.STDERR: "what the program printed as errors",
    names.SCHEDULER_OUT: "the scheduler's own output",
    names.SCHEDULER_ERR: "the scheduler's own errors",
    names.SCHEDULER_STATISTICS: "the scheduler's statistics of the job",
}
#: Bytes that are kept of the end of a log that is too large; the most bytes of a record.
TAIL = 1 << 20
_LARGEST_RECORD = 64 << 20
_CHUNK = 1 << 20


def quantum_files(kind: str) -> dict[str, str]:
    """The files of a sampling or an estimation, without its result."""
    return {
        RECORDS.get(kind, RECORDS["sampler"]): "the work's own record",
        names.JOURNAL: "what happened to the job, one event on each line",
    }


def own_path(attempt: Mapping[str, Any], folder: str, name: str) -> str:
    """The path of a job's file. A quantum job's journal is in a folder beside the sampling's."""
    if name == names.JOURNAL and attempt.get("kind") != "batch":
        return f"{folder}-{attempt.get('attempt') or 1}/{name}"
    return f"{folder}/{name}"


def _above_root(folder: str) -> str:
    begin = names.root_at(folder)
    return "/".join(folder.split("/")[:begin]) if begin else ""


@dataclass(frozen=True)
class JobFile:
    """A file in a job's folder.

    Attributes:
        data: its content, or the end of it.
        cut: bytes before `data` that are left out.
    """

    data: bytes
    cut: int = 0


class JobFiles:
    """Reads the folders of jobs. Files that others than the owner may write are not read."""

    def __init__(self, record_folder: str) -> None:
        self._now = _above_root(record_folder)
        self._transport = reader(record_folder)

    def folder(self, attempt: Mapping[str, Any]) -> str:
        """Where the attempt's folder is; empty if the record does not say.

        For a job without an end the record has only the beginning of the path; the newest is taken.
        """
        path = str(attempt.get("folder") or "")
        if not path:
            return ""
        found = self.find(path, path)
        if attempt.get("attempt") != 0 or os.path.isdir(found):
            return found
        parent, base = os.path.split(found)
        numbers = [
            int(name.rpartition("-")[2])
            for name in self._transport.list(parent)
            if name.startswith(f"{base}-") and name.rpartition("-")[2].isdecimal()
        ]
        return f"{found}-{max(numbers)}" if numbers else found

    def find(self, path: str, job_folder: str) -> str:
        """Where a path from a job's record is now: the whole work_dir may have been moved."""
        then = _above_root(job_folder)
        if not then or not self._now or then == self._now or not path.startswith(f"{then}/"):
            return path
        moved = f"{self._now}{path.removeprefix(then)}"
        return moved if os.path.lexists(moved) else path

    def read(self, path: str, most: int) -> JobFile | None:
        """A file, or its end if it is large; None if there is none that may be read."""
        try:
            data = self._transport.read(path, 0, min(most, TAIL) + 1)
            if data is None or len(data) <= min(most, TAIL):
                return None if data is None else JobFile(data)
            status = self._transport.status(path)
            size = len(data) if status is None else status.size
            if size <= most:
                return JobFile(self._transport.read(path, 0, size) or b"")
            return JobFile(self._transport.read(path, size - TAIL, TAIL) or b"", size - TAIL)
        except HpcPrefectError:
            return None

    def read_record(self, path: str) -> bytes:
        """A record or journal; empty if there is none, or it is too large."""
        with suppress(HpcPrefectError):
            data = self._transport.read(path, 0, _LARGEST_RECORD + 1)
            if data and len(data) <= _LARGEST_RECORD:
                return data
        return b""


def why_not(path: str, recorded: Mapping[str, Any], whole_up_to: int) -> str:
    """Why a file may not be copied: changed since, or too large; empty if it may.

    Args:
        recorded: its size, sha256 and sampled at the job's end.
    """
    if not os.path.isfile(path):
        return "a folder" if os.path.isdir(path) else "removed since"
    size = int(recorded.get("size", 0))
    if size > whole_up_to:
        return f"larger than {whole_up_to} bytes"
    if "sha256" not in recorded:
        return "the record has no digest of it"
    now = file_facts(path, whole_up_to=0 if recorded.get("sampled") else size)
    if now.get("size") != size or now.get("sha256") != recorded["sha256"]:
        return "changed since the job left it"
    return ""


def chunks(path: str) -> Iterator[bytes]:
    """A file's content, a piece at a time."""
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def lines(transport: LocalTransport, path: str) -> Iterator[bytes]:
    """The terminated lines of a file, each with its newline."""
    offset, rest = 0, b""
    while piece := transport.read(path, offset, _CHUNK):
        offset += len(piece)
        *whole, rest = (rest + piece).split(b"\n")
        yield from (line + b"\n" for line in whole)


def name_within(path: str) -> str:
    """A path as a name in an export, below any folder: without `..`, `~` and a beginning slash."""
    text = os.fsencode(path).decode(errors="replace")
    kept = [part for part in text.split("/") if part not in ("", ".", "..", "~")]
    return "/".join(kept) or "output"
