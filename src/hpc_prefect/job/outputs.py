"""Expected outputs: whether a job wrote them, and whether they are still as it left them.

Nobody can set a file's inode and change time (ctime), so they show that something was done to it.
But a restored copy has others, and a further hard link changes the ctime alone. The size and the
modification time show a change of the content. But a copy can keep old ones (`cp -p`). All times
are in nanoseconds, by the file server's clock.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

FILE, FOLDER = "file", "folder"
_SECOND = 10**9
_MOST_NAMED = 5


class Stamp(NamedTuple):
    """What is at the path of an output at one moment; stored as a JSON list.

    Attributes:
        kind: `FILE`, `FOLDER`, or in words what else.
        link: inode and change time, if it is a symbolic link; else empty.
        inode, size, modified, changed, links: of the file, or of the folder itself.
        newest: the last change of anything below a folder, by ctime.
        written: as `newest`, but without files that have several hard links: making one changes the
            ctime, not the content.
        files: how many files and folders are below it.
        digest: of the names, kinds, sizes and modification times of all below it.
        whole: all files below it were looked at.
    """

    kind: str
    link: list[int]
    inode: int
    size: int
    modified: int
    changed: int
    links: int
    newest: int = 0
    written: int = 0
    files: int = 0
    digest: str = ""
    whole: bool = True


class Left(NamedTuple):
    """A file that a job left; stored as a JSON list. `digest` is empty for a large file."""

    size: int
    modified: int
    changed: int
    inode: int
    digest: str = ""


class Written(enum.Enum):
    """Whether a job wrote an output."""

    YES = enum.auto()
    NO = enum.auto()
    UNSEEN = enum.auto()  # it is a folder of which only a part was looked at


def read_stamp(value: object) -> Stamp | None:
    """A stamp as the journal has it; None if it has none, or no valid one."""
    kinds = [str, list, *[int] * 8, str, bool]
    if isinstance(value, list) and [type(each) for each in value] == kinds:
        return Stamp(*value)
    return None


def read_left(value: object) -> dict[str, Left]:
    """What a job left in one output, by names below it (`""`: the output itself, a file)."""
    if not isinstance(value, Mapping):
        return {}
    kinds = [*[int] * 4, str]
    return {
        str(name): Left(*left)
        for name, left in value.items()
        if isinstance(left, list) and [type(each) for each in left] == kinds
    }


def written(before: Stamp | None, now: Stamp | None) -> tuple[Written, str]:
    """Whether an output was written between two looks; if not, also what is seen, in words."""
    if now is None:
        return Written.NO, "it is not there"
    if now.kind not in (FILE, FOLDER):
        return Written.NO, f"it is {now.kind}, neither a file nor a folder"
    if before is None or (before.kind, before.link) != (now.kind, now.link):
        return Written.YES, ""
    return (_file if now.kind == FILE else _folder)(before, now)


def _file(before: Stamp, now: Stamp) -> tuple[Written, str]:
    if (before.size, before.modified) != (now.size, now.modified):
        return Written.YES, ""
    if before.changed == now.changed:
        return Written.NO, _as_it_was(now.modified)
    if before.inode == now.inode and before.links != now.links:
        return Written.NO, _as_it_was(now.modified) + ", but for its number of links"
    return Written.YES, ""  # as after `cp -p`, or a `touch` that sets the time that it had


def _folder(before: Stamp, now: Stamp) -> tuple[Written, str]:
    if before.inode != now.inode or now.written > before.newest:
        return Written.YES, ""
    if now.whole and before.whole:
        # Removing files changes the folder, but writes nothing.
        if now.files > before.files or (now.files == before.files and now.digest != before.digest):
            return Written.YES, ""
        if now.files < before.files:
            return Written.NO, "files in it were removed, and none was written"
        return Written.NO, _as_it_was(max(now.newest, now.modified))
    words = (
        f"it is a folder with more files than can be checked, or with unreadable ones; none of the"
        f" {now.files:,} that were checked is new. Name one file in it as the expected output"
    )
    return Written.UNSEEN, words


def _as_it_was(when: int) -> str:
    moment = datetime.fromtimestamp(when // _SECOND).astimezone()
    return f"it is as it was before the job, last changed {moment:%Y-%m-%d %H:%M:%S}"


def is_same(was: Left, now: Left, digest: Callable[[], str]) -> bool:
    """Whether a file is still what a job left; `digest` is asked only when the rest cannot tell.

    A restored copy is the same, with other inode and ctime; so is a small file that was touched.
    The modification time may have lost its fraction of a second (`tar`).
    """
    if was[:4] == now[:4]:
        return True
    if was.size != now.size:
        return False
    if was.digest:
        return was.digest == digest()
    return _same_time(was.modified, now.modified)


def some(files: Sequence[str]) -> str:
    """The first of many names."""
    more = len(files) - _MOST_NAMED
    return ", ".join(files[:_MOST_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def _same_time(one: int, other: int) -> bool:
    whole = one % _SECOND == 0 or other % _SECOND == 0
    return one == other or (whole and one // _SECOND == other // _SECOND)
