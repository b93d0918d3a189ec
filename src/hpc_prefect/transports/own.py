"""Files and folders of this user's own, on a machine that others use too.

A user who may write in a folder can put anything there: a symbolic link, a pipe without a writer, a
file of their own under our name. So a name is never trusted: what was opened is checked through its
descriptor before it is read or written.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pwd
import stat
import time
from collections.abc import Callable, Sequence
from pathlib import Path

#: Ours: never through a link as the last step, never waiting for a pipe's or a device's other end.
_SAFELY = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
PRIVATE = 0o700


def state_folder() -> Path:
    """Where this package keeps what belongs to the user, and to no experiment."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "hpc-prefect"


def server_home() -> Path:
    """The folder of the user's own Prefect server, where no other one is asked for."""
    return state_folder() / "server"


class NotOursError(OSError):
    """Something is there that is not this user's own, or that others may change.

    `filename` is its path, `strerror` says what is wrong with it.
    """


def open_file(
    path: str | os.PathLike[str],
    flags: int = os.O_RDONLY,
    mode: int = 0o600,
    *,
    folder: int | None = None,
    owner: int | None = None,
    private: bool = False,
) -> int:
    """Open a regular file of one's own; the descriptor.

    Args:
        flags: as for `os.open`. Not O_TRUNC, which would empty the file before it is looked at.
        folder: the descriptor of the folder that a relative `path` is in.
        owner: whose it must be, instead of this process's user.
        private: refuse it when others may write to it.

    Raises:
        NotOursError: it is a link, no regular file, another user's, or not private.
    """
    assert not flags & os.O_TRUNC
    try:
        descriptor = os.open(path, flags | _SAFELY, mode, dir_fd=folder)
    except OSError as error:
        # A link is ELOOP; a pipe without reader and a socket are ENXIO.
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            raise _not_ours(path, "it is not a regular file") from error
        _tell_owner(error, path, folder, owner)
        raise
    return _looked_at(descriptor, path, lambda found: _file_fault(found, owner, private=private))


def lock(descriptor: int, *, patience: float, every: float) -> None:
    """Take a file's lock (`flock`), which its holder gives back by unlocking.

    Args:
        patience: seconds to wait for who has it.
        every: seconds between two tries.

    Raises:
        BlockingIOError: somebody had it all the time.
        OSError: among others, that the file system has no locks.
    """
    give_up = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > give_up:
                raise
            time.sleep(every)


def open_folder(
    path: str | os.PathLike[str], *, folder: int | None = None, owner: int | None = None
) -> int:
    """Open a folder of one's own in which nobody else may write; the descriptor.

    Raises:
        NotOursError: it is a link, no folder, another user's, or others may write in it.
    """
    return _open_folder(path, folder, owner)


def make_folder(path: str | os.PathLike[str], *, folder: int | None = None) -> int:
    """Open a folder of one's own, made now (0700, whatever the umask is) when there is none.

    A set-group-id bit that it inherits stays: it gives nobody any right in it.

    Raises:
        NotOursError: as `open_folder`.
    """
    try:
        os.mkdir(path, PRIVATE, dir_fd=folder)
    except FileExistsError:
        return open_folder(path, folder=folder)
    return _open_folder(path, folder, None, tighten=True)


def make_folders(path: str, begin: int) -> int:
    """Open a folder of one's own, made with what is above it; the descriptor.

    Args:
        path: absolute.
        begin: from the component of this number on (counted from 0, at the root) all must be ours;
            what is above is the user's affair and is made by the umask.

    Raises:
        NotOursError: one of ours is not ours.
    """
    parts = path.split("/")
    above = "/".join(parts[:begin]) or "/"
    os.makedirs(above, exist_ok=True)
    return _walk(above, parts[begin:], lambda name, at: make_folder(name, folder=at))


def open_folders(path: str, begin: int, *, owner: int | None = None) -> int:
    """The same for a folder that is there.

    Raises:
        FileNotFoundError: it is not.
        NotOursError: one of ours is not ours.
    """
    parts = path.split("/")
    above = "/".join(parts[:begin]) or "/"
    return _walk(above, parts[begin:], lambda name, at: open_folder(name, folder=at, owner=owner))


def check_link(path: str, owner: int | None = None) -> None:
    """See that a symbolic link was made by this user.

    Raises:
        FileNotFoundError: it is not there.
        NotOursError: it is another user's.
    """
    if fault := _owner_fault(os.lstat(path), owner):
        raise _not_ours(path, fault)


def _walk(above: str, parts: Sequence[str], step: Callable[[str, int], int]) -> int:
    at = os.open(above, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    path = above.rstrip("/")
    for name in filter(None, parts):
        path = f"{path}/{name}"
        try:
            below = step(name, at)
        except OSError as error:
            error.filename = path  # the name alone would not tell where
            raise
        finally:
            os.close(at)
        at = below
    return at


def _open_folder(
    path: str | os.PathLike[str],
    folder: int | None,
    owner: int | None,
    *,
    tighten: bool = False,
) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | _SAFELY
    try:
        descriptor = os.open(path, flags, dir_fd=folder)
    except NotADirectoryError as error:  # a link as well
        raise _not_ours(path, "it is not a folder, or a link to one") from error
    except PermissionError as error:
        _tell_owner(error, path, folder, owner)
        raise
    if tighten:
        found = os.fstat(descriptor)
        if found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) & 0o777 != PRIVATE:
            with contextlib.suppress(OSError):  # if it stays open to others, that is told below
                os.fchmod(descriptor, found.st_mode & stat.S_ISGID | PRIVATE)
    return _looked_at(descriptor, path, lambda found: _folder_fault(found, owner))


def _tell_owner(
    error: OSError, path: str | os.PathLike[str], folder: int | None, owner: int | None
) -> None:
    """If it may not even be opened, report the owner."""
    if isinstance(error, PermissionError):
        fault = _owner_fault(os.stat(path, dir_fd=folder, follow_symlinks=False), owner)
        if fault:
            raise _not_ours(path, fault) from error


def _looked_at(
    descriptor: int, path: str | os.PathLike[str], fault: Callable[[os.stat_result], str]
) -> int:
    try:
        if said := fault(os.fstat(descriptor)):
            raise _not_ours(path, said)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _file_fault(found: os.stat_result, owner: int | None, *, private: bool) -> str:
    if not stat.S_ISREG(found.st_mode):
        return "it is not a regular file"
    return _owner_fault(found, owner) or (_mode_fault(found) if private else "")


def _folder_fault(found: os.stat_result, owner: int | None) -> str:
    return _owner_fault(found, owner) or _mode_fault(found)


def _owner_fault(found: os.stat_result, owner: int | None) -> str:
    wanted = os.geteuid() if owner is None else owner
    if found.st_uid == wanted:
        return ""
    return f"it belongs to {user_name(found.st_uid)}, not to {user_name(wanted)}"


def _mode_fault(found: os.stat_result) -> str:
    if not found.st_mode & _WRITABLE_BY_OTHERS:
        return ""
    mode = stat.S_IMODE(found.st_mode)
    return f"others may write to it (mode {mode:04o}): see what is in it, then chmod go-w it"


def _not_ours(path: str | os.PathLike[str], said: str) -> NotOursError:
    return NotOursError(errno.EPERM, said, os.fspath(path))


def user_name(uid: int) -> str:
    """A user in words; the number is told too, as a name may be missing."""
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"
