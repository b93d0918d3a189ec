"""The folders of one campaign: one in each work_dir in which its calls are made.

Each holds what was called in its work_dir, so that compute nodes and a person find it there. One of
them, the *home*, answers for all: who works on the campaign, and whether it is complete.

    <folder>/home            the path of a folder nearer to the home; absent in the home itself
    <home>/parts/<digest>    the path of a folder that names it as its home

Which is the home does not depend on which call came first, nor on the process that made it: of two
folders that come together it is the one whose path sorts first. So a chain of them only ever leads
to paths that sort before, and has an end, whoever writes at the same time.
"""

from __future__ import annotations

from hpc_prefect.job.identity import digest
from hpc_prefect.transports.base import Transport

_HOME = "home"
_PARTS = "parts"


def home_of(transport: Transport, folder: str) -> str:
    """The folder that answers for the campaign of this one; itself, when it names no other.

    A home that does not know the folder is not its: the folder is a copy, or one of them was moved.
    """
    while True:
        home = _path(transport.read(f"{folder}/{_HOME}"))
        if not home or home >= folder or transport.read(_part(home, folder)) is None:
            return folder
        folder = home


def join(transport: Transport, one: str, other: str) -> str:
    """Have two folders be of one campaign; its home."""
    while True:
        homes = {home_of(transport, one), home_of(transport, other)}
        home, part = min(homes), max(homes)
        if home == part:
            return home
        transport.make_folder(f"{home}/{_PARTS}")
        transport.write_atomic(_part(home, part), _bytes(part))
        if transport.create(f"{part}/{_HOME}", _bytes(home)):
            continue
        if home_of(transport, part) == part:  # what it names is no home of its
            transport.write_atomic(f"{part}/{_HOME}", _bytes(home))
        # Otherwise another process has joined it to a third one meanwhile: that one comes too.


def folders_of(transport: Transport, folder: str) -> list[str]:
    """All folders of the campaign of this one, its home first; also those that are gone."""
    found: dict[str, None] = {}
    waiting = [home_of(transport, folder)]
    while waiting:
        here = waiting.pop()
        found[here] = None
        for name in transport.list(f"{here}/{_PARTS}"):
            part = _path(transport.read(f"{here}/{_PARTS}/{name}"))
            its_home = _path(transport.read(f"{part}/{_HOME}"))
            if part > here and its_home in (here, ""):  # a copy of a home is not theirs
                waiting.append(part)
    top = next(iter(found))
    lost = _path(transport.read(f"{top}/{_HOME}"))
    return [*found, lost] if lost and not transport.list(lost) else list(found)


def _part(home: str, folder: str) -> str:
    return f"{home}/{_PARTS}/{digest(folder)[:32]}"


def _path(data: bytes | None) -> str:
    return (data or b"").decode(errors="surrogateescape")


def _bytes(path: str) -> bytes:
    return path.encode(errors="surrogateescape")
