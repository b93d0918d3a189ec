"""Looking at the files that jobs leave: see `hpc_prefect.job.outputs`."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator
from itertools import islice

from hpc_prefect.job import folder as names
from hpc_prefect.job.outputs import FILE, FOLDER, Left, Stamp

#: Files up to this size in bytes get a digest of their content.
_SMALL = 64 * 1024
#: In one output folder, so many files get such a digest.
_MOST_READ = 100

_KINDS = {
    stat.S_IFREG: FILE,
    stat.S_IFDIR: FOLDER,
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def stamp(path: str, most: int) -> Stamp | None:
    """What is at a path; below a folder, up to `most` files are looked at. None for nothing."""
    try:
        link = os.lstat(path)
        found = _fresh(path)
    except (OSError, ValueError):  # also a link to nothing, or to itself
        return None
    own = Stamp(
        kind=_KINDS.get(stat.S_IFMT(found.st_mode), "something else"),
        link=[link.st_ino, link.st_ctime_ns] if stat.S_ISLNK(link.st_mode) else [],
        inode=found.st_ino,
        size=found.st_size,
        modified=found.st_mtime_ns,
        changed=found.st_ctime_ns,
        links=found.st_nlink,
    )
    return _with_below(path, own, most) if own.kind == FOLDER else own


def _with_below(path: str, own: Stamp, most: int) -> Stamp:
    newest = written = files = 0
    digest, walk = hashlib.sha256(), _Walk(path, most)
    for name, found in walk:
        files += 1
        folder = stat.S_ISDIR(found.st_mode)
        facts = () if folder else (found.st_size, found.st_mtime_ns)
        digest.update(os.fsencode(f"{name}\0{stat.S_IFMT(found.st_mode)}{facts}\n"))
        if not folder:  # a folder's times change when something in it is removed, too
            newest = max(newest, found.st_ctime_ns)
            if found.st_nlink == 1:
                written = max(written, found.st_ctime_ns)
    return own._replace(
        newest=newest,
        written=written,
        files=files,
        digest=digest.hexdigest(),
        whole=walk.whole,
    )


class _Walk:
    """Names and `stat` of what is below a folder, in a fixed order, up to `most`.

    Our own folders are left out, because they change with every job, and FIFOs, sockets, devices.

    Attributes:
        whole: after the walk, whether nothing was left out for `most` or for an error.
    """

    def __init__(self, path: str, most: int) -> None:
        self._path = path
        self._most = most
        self.whole = True

    def __iter__(self) -> Iterator[tuple[str, os.stat_result]]:
        folders, seen = [""], 0
        while folders:
            folder = folders.pop()
            for entry in self._entries(folder, self._most - seen):
                if seen == self._most:
                    self.whole = False
                    return
                try:
                    found = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue  # removed meanwhile
                except OSError:
                    self.whole = False
                    continue
                kind = stat.S_IFMT(found.st_mode)
                if kind not in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
                    continue
                if kind == stat.S_IFDIR:
                    if names.is_root(entry.name):
                        continue
                    folders.append(f"{folder}{entry.name}/")
                seen += 1
                yield f"{folder}{entry.name}", found

    def _entries(self, folder: str, most: int) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(os.path.join(self._path, folder)) as entries:
                found = list(islice(entries, most + 1))
                if len(found) > most and any(entries):
                    self.whole = False
        except FileNotFoundError:
            return []
        except OSError:
            self.whole = False
            return []
        return sorted(found, key=lambda entry: entry.name)


def left(path: str, since: int, most: int) -> dict[str, Left] | None:
    """The files in an output whose ctime is later than `since` (ns), up to `most`.

    By their names below it; `""` if the output is itself a file. None when it is not there.
    """
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    if not stat.S_ISDIR(found.st_mode):
        return {"": _left(path, found, read=True)}
    files: dict[str, Left] = {}
    for name, each in _Walk(path, _AT_ALL):
        if stat.S_ISDIR(each.st_mode) or each.st_ctime_ns <= since:
            continue
        files[name] = _left(os.path.join(path, name), each, read=len(files) < _MOST_READ)
        if len(files) == most:
            break
    return files


_AT_ALL = 100_000


def entry(path: str, name: str) -> Left | None:
    """A file that `left` listed, as it is now, without its digest; None if it is gone."""
    try:
        target = os.path.join(path, name) if name else path
        found = os.lstat(target) if name else os.stat(target)
    except (OSError, ValueError):
        return None
    return _left(target, found, read=False)


def digest(path: str, name: str) -> str:
    """The digest of such a file's content; for a link, of its target's name."""
    return _digest(os.path.join(path, name) if name else path, link=bool(name))


def _left(path: str, found: os.stat_result, *, read: bool) -> Left:
    small = read and found.st_size <= _SMALL
    content = _digest(path, link=stat.S_ISLNK(found.st_mode)) if small else ""
    return Left(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, content)


def _digest(path: str, *, link: bool) -> str:
    with contextlib.suppress(OSError):
        if link and os.path.islink(path):
            return hashlib.sha256(os.fsencode(os.readlink(path))).hexdigest()
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                return hashlib.sha256(file.read(_SMALL + 1)).hexdigest()
    return ""


def _fresh(path: str) -> os.stat_result:
    """The `stat` of a path now. On NFS it may be a minute old unless the file is opened first."""
    with contextlib.suppress(OSError):
        if stat.S_ISREG(os.stat(path).st_mode):
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                return os.fstat(descriptor)
            finally:
                os.close(descriptor)
    return os.stat(path)
