"""The user's index of runs: where each record is, and what a list shows of it.

    <data>/hpc-prefect/runs/<run's id>.json     a run's `Record.summary()`, as last written

One file for each run, replaced as a whole: many processes and hosts may write at once, on NFS too,
without waiting for each other. The index can be made again from the records (`scan`), so nothing is
lost with it; a file that cannot be read is skipped.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc_prefect.errors import HpcPrefectError, UnknownRun
from hpc_prefect.job.folder import is_root
from hpc_prefect.records.fold import FORMAT, RUNS, Record
from hpc_prefect.records.index_files import END, entry_path, index_folder, put
from hpc_prefect.records.read import DIED, RUNNING, is_record, is_time, read_run, standing
from hpc_prefect.terminal import printable
from hpc_prefect.transports import own

logger = logging.getLogger("hpc_prefect.records")

LATEST = "latest"
#: The fewest letters of an id that name a run.
SHORTEST = 4

#: How many candidates an error lists.
_CANDIDATES = 10


def entries() -> list[dict[str, Any]]:
    """The entry of each run, in no order; one that cannot be read is left out, with a warning."""
    found, faults = [], []
    folder = index_folder()
    for name in _files(folder):
        try:
            if (entry := _read(f"{folder}/{name}")) is not None:
                found.append(entry)
        except Exception as error:  # noqa: BLE001 - it does not keep the others from being read
            faults.append(printable(f"{name}: {str(error) or type(error).__name__}"))
    if faults:
        logger.warning(
            "%d runs are missing from this list, because their entries in %s cannot be read (%s);"
            " `hpc-prefect runs scan DIR`, with the folder of their records, makes new entries",
            len(faults), folder, faults[0],
        )  # fmt: skip
    return found


def _files(folder: Path) -> list[str]:
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    # A name that begins with a dot is a file that is still being written.
    return [name for name in names if name.endswith(END) and not name.startswith(".")]


def entry(ident: str) -> dict[str, Any] | None:
    """The entry of one run, by its whole id; None if there is none."""
    try:
        return _read(str(entry_path(ident)))
    except Exception:  # noqa: BLE001 - as in `entries`, which says it
        return None


def _read(path: str) -> dict[str, Any] | None:
    """One entry; None when it was removed meanwhile.

    Raises:
        ValueError: it is no entry that this version can read.
    """
    data = _bytes(path)
    if data is None:
        return None
    found = json.loads(data)
    if not isinstance(found, dict):
        raise ValueError("not a JSON object")
    if found.get("format") != FORMAT:
        raise ValueError(f"its format is {found.get('format')!r}, not {FORMAT}")
    if faults := [name for name, kind in _KINDS.items() if not isinstance(found.get(name), kind)]:
        raise ValueError(f"its content is invalid: {faults[0]} is {found.get(faults[0])!r}")
    return found | {name: 0.0 for name in _TIMES if not is_time(found[name])}


_TIMES = ("started", "ended", "updated")
#: The values that every reader of an entry relies on, with their types.
_KINDS: dict[str, Any] = {
    **dict.fromkeys(("id", "name", "flow", "folder", "state"), str),
    **dict.fromkeys(_TIMES, int | float),
    **dict.fromkeys(("parameters", "measures", "totals"), dict),
}


def _bytes(path: str) -> bytes | None:
    for again in (True, False):
        try:
            with open(own.open_file(path), "rb", buffering=0) as file:
                return file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            # NFS: the file was replaced between the look at its name and the read.
            if error.errno != errno.ESTALE or not again:
                raise
    return None


def current(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry with the state that the run has now.

    If the run's process has died, the record itself is read once: the run may have ended, and its
    process been killed before it could write that here.
    """
    if entry["state"] != RUNNING or standing(entry) == RUNNING:
        return entry
    try:
        found = read_run(entry["folder"], with_jobs=False).summary()
    except Exception:  # noqa: BLE001 - whatever is in there, the other runs are listed
        return entry | {"state": DIED}
    found["state"] = standing(found)
    if found["id"] == entry["id"]:
        with contextlib.suppress(Exception):
            put(found)
    return found


def is_gone(entry: Mapping[str, Any]) -> bool:
    """Whether the folder of a run's record no longer exists, as seen from this host."""
    return not os.path.isdir(entry["folder"])


def prune() -> int:
    """Remove the entries of runs whose folders are gone; returns how many."""
    gone = [each for each in entries() if is_gone(each)]
    for each in gone:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(entry_path(each["id"]))
    return len(gone)


@dataclass
class Scanned:
    """What a scan has found.

    Attributes:
        found: number of records.
        new: how many of them the index did not have.
        skipped: how many could not be read; a warning was logged for each.
    """

    found: int = 0
    new: int = 0
    skipped: int = 0


def scan(folders: Iterable[str | os.PathLike[str]], done: Scanned | None = None) -> Scanned:
    """Put all records of this user's below some folders into the index.

    Symbolic links are not followed, but for the folders themselves; other hidden folders are not
    entered. What cannot be read is skipped, with a warning.

    Args:
        done: counts are added to it as the scan goes on.

    Raises:
        UnknownRun: one of the folders is not there.
    """
    done = done or Scanned()
    paths = [os.path.abspath(os.path.expanduser(os.fspath(folder))) for folder in folders]
    for path in paths:
        if not os.path.isdir(path):
            raise UnknownRun(f"there is no folder {path} to look for runs in")
    for path in paths:
        for folder in records_below(path):
            _take_in(folder, done)
    return done


def _take_in(folder: str, done: Scanned) -> None:
    summary = _summary(folder)
    if summary is None:
        done.skipped += 1
        return
    known = entry(summary["id"])
    try:
        if known is None or not _is_kept(known, summary):
            put(summary)
    except HpcPrefectError:  # no record could be put there
        raise
    except Exception as error:  # noqa: BLE001 - the others are taken in all the same
        _warn(folder, error)
        done.skipped += 1
        return
    done.found += 1
    done.new += known is None


def _summary(folder: str) -> dict[str, Any] | None:
    """A record's summary; None, with a warning, if it cannot be read."""
    try:
        summary = read_run(folder, with_jobs=False).summary()
        entry_path(summary["id"])
        return summary
    except Exception as error:  # noqa: BLE001 - one record does not keep the others from being read
        _warn(folder, error)
        return None


def _warn(folder: str, error: Exception) -> None:
    said = str(error)
    if not isinstance(error, HpcPrefectError):
        said = f"the record in {folder} cannot be read: {said or type(error).__name__}"
    logger.warning("%s", printable(said))


def _is_kept(known: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    """Whether an entry stays: its run wrote it meanwhile, or the record found is a copy."""
    if known["folder"] == found["folder"]:
        return bool(known["updated"] > found["updated"])
    return known["updated"] >= found["updated"] and not is_gone(known)


def records_below(folder: str) -> Iterator[str]:
    """The folders of this user's records in a folder and in those below it."""
    above, name = os.path.split(folder)
    if is_record(folder):
        yield folder
    elif name == RUNS and is_root(os.path.basename(os.path.dirname(above))):
        yield from _of_runs(folder)
    elif is_root(os.path.basename(above)):  # a campaign's
        yield from _of_runs(f"{folder}/{RUNS}")
    else:
        yield from _walk(folder)


def _walk(folder: str) -> Iterator[str]:
    """The records in a folder and below. Only the folders still to be visited are in memory."""
    waiting = [folder]
    while waiting:
        path = waiting.pop()
        if is_root(os.path.basename(path)):
            for campaign in _folders_in(path):
                yield from _of_runs(f"{path}/{campaign}/{RUNS}")
        else:
            below = [name for name in _folders_in(path) if name[0] != "." or is_root(name)]
            waiting += [f"{path.rstrip('/')}/{name}" for name in reversed(below)]


def _of_runs(folder: str) -> Iterator[str]:
    if os.path.isdir(folder):
        paths = [f"{folder}/{name}" for name in _folders_in(folder)]
        yield from filter(is_record, paths)


def _folders_in(path: str) -> list[str]:
    """The names of the folders in a folder; none in another user's root."""
    try:
        if is_root(os.path.basename(path)) and not _is_own(path):
            return []
        with os.scandir(path) as found:
            return sorted(each.name for each in found if each.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return []
    except OSError as error:
        logger.warning(
            "%s was skipped in the search for runs: %s", printable(path), error.strerror or error
        )
        return []


def _is_own(path: str) -> bool:
    found = os.lstat(path)
    return found.st_uid == os.geteuid() and stat.S_ISDIR(found.st_mode)


def find_one(name: str, known: Sequence[dict[str, Any]] | None = None) -> dict[str, Any]:
    """The summary of the run that a person means.

    Args:
        name: an id, or a beginning of it of 4 letters or more that is unique; the flow run's name;
            `latest`; the folder of a record; or another folder: the newest run below it is taken,
            and a log message says which.
        known: the entries, when they were read already.

    Raises:
        UnknownRun: it means none, or several, which the message lists.
    """
    if not _is_path(name):
        known = entries() if known is None else known
        if name == LATEST and known:
            return _newest(_present(known))
        if meant := _named(name, known):
            return _only(name, meant)
    path = os.path.abspath(os.path.expanduser(name))
    if name and os.path.isdir(path):
        return _in_folder(path, known)
    raise UnknownRun(_unknown(name))


def read_one(name: str, known: Sequence[dict[str, Any]] | None = None) -> Record:
    """Everything about the run that a person means, with its jobs.

    Args:
        name: as `find_one` takes it.
        known: the entries, when they were read already.

    Raises:
        UnknownRun: it means none, or several, which the message lists.
        LedgerError: its record is gone, or cannot be read.
    """
    path = os.path.expanduser(name)
    if _is_path(name) and is_record(path):  # `find_one` would read it once more
        return read_run(path)
    return read_run(find_one(name, known)["folder"])


def read_each(names: Sequence[str]) -> list[Record]:
    """The same for several names; the list of runs is read only once.

    Raises:
        UnknownRun, LedgerError: as `read_one`.
    """
    known = None if all(map(_is_path, names)) else entries()
    return [read_one(name, known) for name in names]


def _unknown(name: str) -> str:
    if name == LATEST:
        return (
            "no run is known, so there is no latest one; `hpc-prefect runs scan DIR` finds those"
            " below a folder"
        )
    if _is_path(name):
        return (
            f"there is no folder {printable(name)}; `hpc-prefect runs` lists the runs that are"
            " known"
        )
    return (
        f"no run {name!r} is known; `hpc-prefect runs` lists the known runs, and `hpc-prefect"
        f" runs scan DIR` finds those below a folder"
    )


def _is_path(name: str) -> bool:
    return "/" in name or name in (".", "..", "~")


def _named(name: str, known: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    begin = name.lower()
    meant = []
    for each in known:
        ident = each["id"].lower()
        if ident == begin:
            return [each]
        if each["name"] == name or (len(begin) >= SHORTEST and ident.startswith(begin)):
            meant.append(each)
    return meant


def _only(name: str, meant: Sequence[dict[str, Any]]) -> dict[str, Any]:
    meant = _present(meant)
    if len(meant) == 1:
        return meant[0]
    newest = sorted(meant, key=_started, reverse=True)
    said = [f"{each['id']}  {each['name']}  {each['folder']}" for each in newest]
    lines = [f"\n  {printable(each)}" for each in said]
    more = f"\n  and {len(lines) - _CANDIDATES} more" if len(lines) > _CANDIDATES else ""
    raise UnknownRun(
        f"{name!r} matches {len(meant)} runs, the newest first; choose one by its id:"
        f"{''.join(lines[:_CANDIDATES])}{more}"
    )


def _in_folder(path: str, known: Sequence[dict[str, Any]] | None) -> dict[str, Any]:
    if is_record(path):
        return read_run(path, with_jobs=False).summary()
    known = entries() if known is None else known
    inside = [each for each in known if f"{each['folder']}/".startswith(f"{path.rstrip('/')}/")]
    inside = [each for each in inside if not is_gone(each)]
    inside = inside or list(filter(None, map(_summary, records_below(path))))
    if not inside:
        raise UnknownRun(f"no record of a run is in {printable(path)}, nor in the folders below it")
    newest = _newest(inside)
    if len(inside) > 1:
        logger.warning(
            "%d runs are in %s; the newest is taken: %s",
            len(inside), printable(path), printable(newest["id"]),
        )  # fmt: skip
    return newest


def _present(known: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    """The entries whose folders exist; all of them, if no folder does."""
    return [each for each in known if not is_gone(each)] or known


def _newest(known: Iterable[dict[str, Any]]) -> dict[str, Any]:
    return max(known, key=_started)


def _started(entry: Mapping[str, Any]) -> tuple[float, str]:
    return (entry["started"], entry["id"])
