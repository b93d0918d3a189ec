"""Files and folders that belong to this user, on a machine that others use too.

A user who may write in a folder can put anything there: a symbolic link, a pipe without a writer, a
file of their own under our name. So no name is trusted: an opened file or folder is checked through
its descriptor before it is read or written.
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

#: Flags: follow no link as the last component, wait for no other end of a pipe or device.
_SAFELY = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
PRIVATE = 0o700


def state_folder() -> Path:
    """The folder for what belongs to the user and not to an experiment."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "hpc-prefect"


def server_home() -> Path:
    """The default folder of the user's own Prefect server."""
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
        owner: the uid that must own it, instead of this process's user.
        private: refuse it when others may write to it.

    Raises:
        NotOursError: it is a link, no regular file, another user's, or not private.
    """
    assert not flags & os.O_TRUNC
    try:
        descriptor = os.open(path, flags | _SAFELY, mode, dir_fd=folder)
    except OSError as error:
        # ELOOP: a link; ENXIO: a pipe without a reader, or a socket.
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            raise _not_ours(path, "it is not a regular file") from error
        _tell_owner(error, path, folder, owner)
        raise
    return _looked_at(descriptor, path, lambda found: _file_fault(found, owner, private=private))


def lock(descriptor: int, *, patience: float, every: float) -> None:
    """Take a file's lock (`flock`); release it with LOCK_UN.

    Args:
        patience: seconds to wait for another holder.
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
    """Open a folder of one's own; make it (0700, whatever the umask is) if there is none.

    An inherited set-group-id bit stays: it gives nobody a right.

    Raises:
        NotOursError: as `open_folder`.
    """
    try:
        os.mkdir(path, PRIVATE, dir_fd=folder)
    except FileExistsError:
        return open_folder(path, folder=folder)
    return _open_folder(path, folder, None, tighten=True)


def make_folders(path: str, begin: int) -> int:
    """Open a folder of one's own, and make it and its parents if needed; the descriptor.

    Args:
        path: absolute.
        begin: the index of the first component (the root is 0) that must be this user's own, as all
            after it. Those before it are made by the umask and not checked.

    Raises:
        NotOursError: a component from `begin` on is not this user's own.
    """
    parts = path.split("/")
    above = "/".join(parts[:begin]) or "/"
    os.makedirs(above, exist_ok=True)
    return _walk(above, parts[begin:], lambda name, at: make_folder(name, folder=at))


def open_folders(path: str, begin: int, *, owner: int | None = None) -> int:
    """The same for a folder that exists.

    Raises:
        FileNotFoundError: it does not.
        NotOursError: a component from `begin` on is not this user's own.
    """
    parts = path.split("/")
    above = "/".join(parts[:begin]) or "/"
    return _walk(above, parts[begin:], lambda name, at: open_folder(name, folder=at, owner=owner))


def check_link(path: str, owner: int | None = None) -> None:
    """Check that a symbolic link was made by this user.

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
    """If permission was denied because another user owns it, raise `NotOursError`."""
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
    """A user in words; with the number, as a name may be missing."""
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"
