"""Reads a run's record from its folder, and tells whether the run still goes on."""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Iterator, Mapping
from heapq import merge
from typing import Any

from hpc_prefect.errors import LedgerError
from hpc_prefect.job.folder import read_entries
from hpc_prefect.local_batch import process
from hpc_prefect.records.fold import EVENTS, FORMAT, PARAMETERS, RUN, Record, fold
from hpc_prefect.transports.local import LocalTransport, reader

RUNNING, DIED = "running", "died"
#: The values of `standing`.
STATES = (RUNNING, "completed", "failed", "cancelled", "crashed", DIED)

_EVENTS = re.compile(r"events(?:-(\d+))?\.jsonl")
#: Bytes that are read of a file at a time: a record of many jobs is large.
_PIECE = 1 << 20
#: The most bytes of a line, and of a whole run.json; a longer one is damage, such as a hole.
_LONGEST, _LARGEST = 16 << 20, 64 << 20
#: Seconds since 1970 that are too late to be a time.
_LATEST = 1e11
#: Seconds by which a clock may have been set meanwhile.
_CLOCK = 60.0


def is_record(folder: str) -> bool:
    """Whether a folder holds a run's record."""
    return os.path.isfile(f"{folder}/{EVENTS}")


def read_run(folder: str | os.PathLike[str], *, with_jobs: bool = True) -> Record:
    """The record in a folder. Torn and foreign lines of its events are left out.

    If the run or a job of it has no end, the folders of its jobs are read too: see `complete`.

    Args:
        with_jobs: False if the totals are enough; then only one event at a time is in memory.

    Raises:
        LedgerError: there is no record, or a later version has written it.
        NotOurs: another user may have written it.
    """
    path = os.path.abspath(os.path.expanduser(os.fspath(folder)))
    transport = reader(path)
    files = event_files(transport, path)
    if not files:
        raise LedgerError(
            f"{path} has no record of a run: there is no {EVENTS} in it. `hpc-prefect runs` lists"
            " those that are known, and `hpc-prefect runs scan DIR` finds those below a folder"
        )
    _check_format(path, _as_object(transport.read(f"{path}/{RUN}", 0, _LARGEST + 1)))
    record = fold(read_events(path), folder=path, with_jobs=with_jobs)
    if not record.id:
        raise LedgerError(
            f"the events in {path} do not say which run they belong to: the first line of"
            f" {EVENTS} is damaged, or not written yet. Nothing was changed"
        )
    if record.state == RUNNING or record.open:
        # Imported late: it takes as long to load as all else here, and most runs do not need it.
        from hpc_prefect.records.complete import complete

        complete(record)
    return record


def given_parameters(record: Record) -> dict[str, Any]:
    """A run's parameters, whole, so that its flow can be given them again; without `inexact` ones.

    One of `apart` is missing if parameters.json is gone, damaged, or too large to be read.
    """
    path = f"{record.folder}/{PARAMETERS}"
    whole = _as_object(reader(record.folder).read(path, 0, _LARGEST + 1))
    shown = {
        name: value
        for name, value in record.parameters.items()
        if name not in record.inexact and name not in record.apart
    }
    return shown | (whole if record.apart and whole else {})


def read_events(folder: str) -> Iterator[dict[str, Any]]:
    """The events of a record, in the order of their times.

    Args:
        folder: an absolute path.
    """
    transport = reader(folder)
    files = event_files(transport, folder)
    return merge(*(_events(transport, folder, name) for name in files), key=_time)


def event_files(transport: LocalTransport, folder: str) -> list[str]:
    """The files of the processes that wrote events, in the order in which they began."""
    found = [match for name in transport.list(folder) if (match := _EVENTS.fullmatch(name))]
    return [match[0] for match in sorted(found, key=lambda match: int(match[1] or 1))]


def _events(transport: LocalTransport, folder: str, name: str) -> Iterator[dict[str, Any]]:
    for event in _entries(transport, f"{folder}/{name}"):
        if event.get("event") == "began":
            _check_format(folder, event)
        if is_time(event.get("time")):
            yield event


def is_time(found: object) -> bool:
    """Whether a value can be seconds since 1970."""
    return isinstance(found, int | float) and 0 <= found < _LATEST


def _time(event: Mapping[str, Any]) -> float:
    return event["time"]  # type: ignore[no-any-return]


def _entries(transport: LocalTransport, path: str) -> Iterator[dict[str, Any]]:
    """The JSON objects in a file's terminated lines, read piece by piece.

    A line that is too long is skipped, without keeping it in memory.
    """
    offset, size = 0, 0
    begun: list[bytes] = []  # the pieces of a line whose end was not read yet; `size` is theirs
    while piece := transport.read(path, offset, _PIECE):
        offset += len(piece)
        lines, end, rest = piece.rpartition(b"\n")
        if end:
            if size > _LONGEST:
                lines = lines.partition(b"\n")[2]
            yield from read_entries(b"".join([*begun, lines, end]))
            begun, size = [], 0
        size += len(rest)
        begun = [*begun, rest] if size <= _LONGEST else []


def _as_object(data: bytes | None) -> dict[str, Any]:
    if data and len(data) > _LARGEST:
        return {}
    try:
        found = json.loads(data or b"{}")
    except (ValueError, RecursionError):  # torn: the events have all of it
        return {}
    return found if isinstance(found, dict) else {}


def _check_format(folder: str, found: Mapping[str, Any]) -> None:
    version = found.get("format", FORMAT)
    if version != FORMAT:
        raise LedgerError(
            f"the record in {folder} is of format {version!r}, and this version of hpc-prefect"
            f" reads format {FORMAT}: use the version that wrote it, or a later one"
        )


def standing(run: Record | Mapping[str, Any]) -> str:
    """The state of a run now. Its record alone is not enough: a process that was killed could
    not write that it had ended.

    A run of another host without an end counts as running: its process cannot be seen from here.
    `updated` tells when it last wrote.

    Args:
        run: a record, or its summary.
    """
    summary = run.summary() if isinstance(run, Record) else run
    state = str(summary.get("state", ""))
    return DIED if state == RUNNING and _has_died(summary) else state


def _has_died(summary: Mapping[str, Any]) -> bool:
    if summary.get("host") != socket.gethostname():
        return False
    try:
        updated = float(summary.get("updated") or 0)
        who = str(summary.get("process") or "")
        if not who:
            return _is_another(int(summary.get("pid") or 0), updated)
        if process.is_of_this_boot(who):
            return process.dead(who)
        # Written before this host's last boot, unless another machine has the same name.
        return updated < time.time() - process.seconds_since_boot()
    except Exception:  # noqa: BLE001 - no /proc that tells, or no process that was written
        return False


def _is_another(pid: int, updated: float) -> bool:
    """Whether no process has this pid, or one that began after the record was last written."""
    if not pid or not process.sees_itself():
        return False
    found = process.stat(pid)
    if found is None or not found.living:
        return True
    age = process.seconds_since_boot() - found.start / os.sysconf("SC_CLK_TCK")
    return time.time() - age > updated + _CLOCK
