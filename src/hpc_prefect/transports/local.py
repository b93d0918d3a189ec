"""This machine: a login node, or a laptop."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import signal
import stat
import subprocess
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from hpc_prefect.errors import ForeignFile, TransportError
from hpc_prefect.job.dialogue import Command, Reply
from hpc_prefect.transports.base import FileStatus, Stamp

#: So many files below a folder are looked at.
_MOST_BELOW = 5000

#: Left by an enclosing batch job or MPI program; a nested submission or launcher trips over them.
#: With them a user's defaults for Slurm's commands, which would hide jobs from our questions or
#: keep them from being cancelled (SQUEUE_PARTITION, SCANCEL_PARTITION, …).
_INHERITED = (
    "SLURM_",
    "SBATCH_",
    "SRUN_",
    "SQUEUE_",
    "SACCT_",
    "SCANCEL_",
    "PBS_",
    "PJM_",
    "OMPI_",
    "PMI_",
    "PMIX_",
    "PRTE_",
    "HYDI_",
    "HYDRA_",
    "MPIR_",
    "MPIEXEC_",
    "HPC_LOCAL_",
)
_KEPT = (
    *("OMPI_MCA_", "OMPI_ALLOW_", "PRTE_MCA_", "PRTE_ALLOW_"),
    *("SLURM_CONF", "PBS_CONF_FILE", "PBS_EXEC", "PBS_SERVER", "PBS_DEFAULT"),
)


#: Of this process, among all hosts that share a folder.
_PROCESS = secrets.token_hex(6)
_numbers = count()


def unique() -> str:
    """A part of a file's name that no other process, thread or call gives."""
    return f"{_PROCESS}-{os.getpid()}-{next(_numbers)}"


def clean_environment(environment: dict[str, str]) -> dict[str, str]:
    """An environment without what an enclosing batch job or MPI launcher left in it.

    What tells the scheduler's commands where their server is stays, and so do settings that a user
    makes for MPI (OMPI_MCA_…, and the allowance to run as root).
    """
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith(_INHERITED) or name.startswith(_KEPT)
    }


def write_atomic(
    path: str | os.PathLike[str], data: bytes, *, mode: int = 0o600, durable: bool = False
) -> None:
    """Replace a file as a whole by a new file in the same folder and a rename."""
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{unique()}")
    try:
        _write(temporary, data, os.O_EXCL, mode=mode, durable=durable)
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _write(
    path: str | Path, data: bytes, how: int, *, mode: int = 0o600, durable: bool = False
) -> None:
    descriptor = _open_own(path, os.O_WRONLY | os.O_CREAT | how, mode)
    try:
        _write_all(descriptor, data)
        if durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _open_own(path: str | Path, how: int, mode: int = 0o600) -> int:
    """Open a regular file of this user's (or root's), without waiting for anybody.

    A program can have put a FIFO in the place of its record, which would hold up whoever opens it.
    """
    try:
        descriptor = os.open(path, how | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            raise ForeignFile(f"{path} is no plain file: {_kind(path)}") from error
        raise
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode) and found.st_uid in (os.geteuid(), 0):
        return descriptor
    os.close(descriptor)
    whose = "" if found.st_uid == os.geteuid() else f" of user {found.st_uid}"
    raise ForeignFile(f"{path} is no plain file of yours: {_kind(path)}{whose}")


def _kind(path: str | Path) -> str:
    """In words, what is there."""
    with contextlib.suppress(OSError):
        kind = stat.filemode(os.lstat(path).st_mode)[0]
        words = {"p": "a FIFO", "l": "a symbolic link", "d": "a folder", "s": "a socket"}
        return words.get(kind, "a device" if kind in "bc" else "a file")
    return "something else"


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


class LocalTransport:
    """`Transport` for this machine."""

    def run(self, command: Command) -> Reply:
        environment = clean_environment(dict(os.environ)) | command.environment
        try:
            process = subprocess.Popen(
                command.argv,
                stdin=subprocess.PIPE if command.stdin else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                cwd=command.cwd or None,
                start_new_session=True,  # its children end with it, and our Ctrl-C is not theirs
            )
        except OSError as error:
            raise TransportError(f"cannot run {command.argv[0]!r}: {error}") from error
        with process:
            try:
                out, err = process.communicate(command.stdin.encode() or None, command.timeout)
                code: int | None = process.returncode
            except subprocess.TimeoutExpired:
                out, err = _kill(process)
                code = None
        return Reply(code, out.decode(errors="replace"), err.decode(errors="replace"))

    def make_folder(self, path: str) -> None:
        with _trouble("create the folder", path):
            os.makedirs(path, mode=0o700, exist_ok=True)

    def write_atomic(self, path: str, data: bytes, *, mode: int = 0o600) -> None:
        with _trouble("write", path):
            write_atomic(path, data, mode=mode)

    def append(self, path: str, data: bytes, *, durable: bool = False) -> None:
        with _trouble("write", path):
            _write(path, data, os.O_APPEND, durable=durable)

    def create(self, path: str, data: bytes) -> bool:
        # A file of its own, then a hard link: exclusive and complete at once, on NFS too, where
        # O_EXCL followed by a write would show an empty file in between.
        temporary = f"{path}.{unique()}"
        with _trouble("create", path):
            try:
                _write(temporary, data, os.O_EXCL)
                os.link(temporary, path)
            except FileExistsError:
                # When NFS repeats a request whose answer was lost, the link that is there is ours.
                return os.stat(temporary).st_nlink == 2
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary)
        return True

    def read(self, path: str, offset: int = 0, size: int = -1) -> bytes | None:
        with _trouble("read", path):
            try:
                descriptor = _open_own(path, os.O_RDONLY)
            except FileNotFoundError:
                return None
            try:
                length = max(0, os.fstat(descriptor).st_size - offset) if size < 0 else size
                return os.pread(descriptor, length, offset)
            finally:
                os.close(descriptor)

    def status(self, path: str) -> FileStatus | None:
        with _trouble("look at", path):
            try:
                found = os.stat(path)
            except (FileNotFoundError, NotADirectoryError):
                return None
            except OSError as error:
                if error.errno == errno.ELOOP:  # a link that leads nowhere
                    return None
                raise
        return FileStatus(found.st_size, found.st_mtime)

    def stamp(self, path: str) -> Stamp | None:
        try:
            link = os.lstat(path)
            found = _fresh(path)
        except OSError:  # also a link to nothing, or round in a circle
            return None
        newest, seen, more = found.st_mtime_ns, 0, False
        if stat.S_ISDIR(found.st_mode):
            newest, seen, more = _below(path, newest)
        each = (newest, seen, link.st_ino, link.st_ctime_ns)
        own = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        return [newest // 10**9, int(more), *each, *own]

    def read_link(self, path: str) -> str | None:
        with _trouble("look at", path):
            try:
                return os.readlink(path)
            except FileNotFoundError:
                return None

    def link(self, path: str, target: str) -> bool:
        with _trouble("create", path):
            try:
                os.symlink(target, path)
            except FileExistsError:
                return False
        return True

    def relink(self, path: str, target: str) -> None:
        temporary = f"{path}.{unique()}"
        with _trouble("change", path):
            os.symlink(target, temporary)
            os.replace(temporary, path)

    def list(self, path: str) -> list[str]:
        with _trouble("list", path):
            try:
                return sorted(os.listdir(path))
            except FileNotFoundError:
                return []

    def touch(self, path: str) -> None:
        with _trouble("touch", path):
            os.utime(path)

    def remove(self, path: str) -> None:
        with _trouble("remove", path), contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def _fresh(path: str) -> os.stat_result:
    """What is at a path now: on NFS only to open a file tells that, `stat` may be a minute old."""
    with contextlib.suppress(OSError):
        if stat.S_ISREG(os.stat(path).st_mode):
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                return os.fstat(descriptor)
            finally:
                os.close(descriptor)
    return os.stat(path)


def _below(path: str, newest: int) -> tuple[int, int, bool]:
    """The newest change below a folder (ns), how much there is, and whether there is more."""
    folders, seen = [path], 0
    while folders:
        with contextlib.suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if seen == _MOST_BELOW:
                    return newest, seen, True
                found = entry.stat(follow_symlinks=False)
                seen, newest = seen + 1, max(newest, found.st_mtime_ns, found.st_ctime_ns)
                if stat.S_ISDIR(found.st_mode):
                    folders.append(entry.path)
    return newest, seen, False


@contextlib.contextmanager
def _trouble(doing: str, path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TransportError(f"cannot {doing} {path}: {error.strerror or error}") from error


def _kill(process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    """End a command that passed its time limit, with its children, and take what it wrote."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    try:
        return process.communicate(timeout=5)
    except subprocess.TimeoutExpired:  # a grandchild left the session and holds the pipes
        return b"", b""
