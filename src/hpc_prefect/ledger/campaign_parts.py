"""The folders of one campaign: one in each work_dir in which its calls are made.

Each contains the calls made in its work_dir, where compute nodes and users find them. One of them,
the *home*, has what holds for all: the claim on the campaign, and whether it is complete.

    <folder>/home            JSON: the folder's own path, and that of the home; absent in the home
    <home>/parts/<digest>    the path of a folder that names it as its home

The home does not depend on the order of calls or on the process: of two folders that are joined it
is the one whose path sorts first. So a chain of homes always leads to paths that sort before, and
has an end, even if several processes write at the same time.

A copied or moved folder has another path than the one in its `home`: it belongs to no campaign.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from hpc_prefect.errors import NotOurs, TransportError
from hpc_prefect.job.identity import digest
from hpc_prefect.ledger.campaign_folder import CAMPAIGN
from hpc_prefect.transports.base import Transport

_HOME = "home"
_PARTS = "parts"


class _Link(NamedTuple):
    """The content of a folder's `home`; empty texts if there is none."""

    own: str = ""
    home: str = ""


def home_of(transport: Transport, folder: str) -> str:
    """The home folder of this folder's campaign; the folder itself if it has no other.

    A long chain is shortened for the next reader.
    """
    way = [folder]
    while home := _next(transport, way[-1]):
        way.append(home)
    for part in way[:-2]:
        _link(transport, part, way[-1])
    return way[-1]


def has_lost_others(transport: Transport, folder: str) -> bool:
    """Whether the folder's campaign had other folders that cannot be found any more."""
    home = home_of(transport, folder)
    return _read_link(transport, home) != _Link() or any(
        _link_of_other(transport, part).home != home for part in _parts(transport, home)
    )


def join(transport: Transport, one: str, other: str) -> str:
    """Join two folders to one campaign; returns its home."""
    while True:
        homes = {home_of(transport, one), home_of(transport, other)}
        home, part = min(homes), max(homes)
        if home == part:
            return home
        if not all(_exists(transport, f"{each}/{CAMPAIGN}") for each in homes):
            return home_of(transport, one)  # the other one was removed meanwhile
        if not _exists(transport, f"{home}/{_PARTS}"):
            transport.make_folder(f"{home}/{_PARTS}")
        transport.write_atomic(_part(home, part), _bytes(part))
        if transport.create(f"{part}/{_HOME}", _written(part, home)):
            return home_of(transport, home)
        if not _next(transport, part):  # what it names is no home of its
            transport.write_atomic(f"{part}/{_HOME}", _written(part, home))
        # Otherwise another process has joined it to a third one meanwhile: join that one too.


def folders_of(transport: Transport, folder: str) -> list[str]:
    """All folders of the campaign of this one, its home first; also those that are gone."""
    top = home_of(transport, folder)
    found: dict[str, None] = {}
    waiting = [top]
    while waiting:
        here = waiting.pop()
        if here in found:
            continue
        found[here] = None
        if here != top and not _exists(transport, f"{here}/{CAMPAIGN}"):
            continue  # it was removed
        for part in _parts(transport, here):
            named = _link_of_other(transport, part).home
            if part > here and (not named or named in found):  # a copy of a home has no parts
                waiting.append(part)
    lost = _read_link(transport, top)
    if lost.own == top and not transport.list(lost.home):
        return [*found, lost.home]
    return list(found)


def _next(transport: Transport, folder: str) -> str:
    """The home that a folder names and that knows it; empty for none."""
    own, home = _read_link(transport, folder)
    known = own == folder and home < folder
    return home if known and _exists(transport, _part(home, folder)) else ""


def _link(transport: Transport, part: str, home: str) -> None:
    transport.write_atomic(_part(home, part), _bytes(part))
    transport.write_atomic(f"{part}/{_HOME}", _written(part, home))


def _parts(transport: Transport, home: str) -> list[str]:
    names = transport.list(f"{home}/{_PARTS}")
    return [_path(transport.read(f"{home}/{_PARTS}/{name}")) for name in names]


def _part(home: str, folder: str) -> str:
    return f"{home}/{_PARTS}/{digest(folder)[:32]}"


def _exists(transport: Transport, path: str) -> bool:
    try:
        return transport.status(path) is not None
    except (TransportError, NotOurs):  # a work_dir that is a file now, say
        return False


def _read_link(transport: Transport, folder: str) -> _Link:
    try:
        entry = json.loads(transport.read(f"{folder}/{_HOME}") or b"{}")
        return _Link(str(entry["own"]), str(entry["home"]))
    except (ValueError, KeyError, TypeError):
        return _Link()


def _link_of_other(transport: Transport, folder: str) -> _Link:
    """The same for a folder that may have been replaced by anything."""
    try:
        return _read_link(transport, folder)
    except (TransportError, NotOurs):
        return _Link()


def _written(own: str, home: str) -> bytes:
    return json.dumps({"own": own, "home": home}).encode()  # ASCII, whatever the paths hold


def _path(data: bytes | None) -> str:
    return (data or b"").decode(errors="surrogateescape")


def _bytes(path: str) -> bytes:
    return path.encode(errors="surrogateescape")
