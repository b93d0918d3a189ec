"""This machine: a login node, or a laptop."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import signal
import subprocess
import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from hpc_prefect.errors import NotOurs, TransportError
from hpc_prefect.job import folder as names
from hpc_prefect.job.dialogue import Command, Reply
from hpc_prefect.job.outputs import Left, Stamp
from hpc_prefect.transports import looking, own
from hpc_prefect.transports.base import FileStatus

#: Variables of an enclosing batch job or MPI program, which disturb a nested submission or
#: launcher.
#: With them a user's defaults for Slurm's commands, which would hide jobs from our questions or
#: keep them from being cancelled (SQUEUE_PARTITION, SCANCEL_PARTITION, …).
_INHERITED = (
    "SLURM_",
    "SBATCH_",
    "SRUN_",
    "SQUEUE_",
    "SACCT_",
    "SCANCEL_",
    "SALLOC_",
    "SINFO_",
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
#: Settings for MPI; and what tells a scheduler's commands where their server is, or proves to it
#: who asks (SLURM_CONF and SLURM_CONF_SERVER; SLURM_JWT, SLURM_SACK_SOCKET …).
_KEPT = (
    *("OMPI_MCA_", "OMPI_ALLOW_", "PRTE_MCA_", "PRTE_ALLOW_"),
    *("SLURM_CONF", "SLURM_JWT", "SLURM_SACK_"),
    *("PBS_CONF_FILE", "PBS_EXEC", "PBS_SERVER", "PBS_DEFAULT"),
)


#: Of this process, among all hosts that share a folder.
_PROCESS = secrets.token_hex(6)
_numbers = count()


def unique() -> str:
    """A part of a file's name that no other process, thread or call gives."""
    return f"{_PROCESS}-{os.getpid()}-{next(_numbers)}"


def clean_environment(environment: dict[str, str]) -> dict[str, str]:
    """An environment without what an enclosing batch job or MPI launcher left in it.

    What tells the scheduler's commands where their server is, and proves to it who asks, stays, and
    so do settings that a user makes for MPI (OMPI_MCA_…, and the allowance to run as root).
    """
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith(_INHERITED) or name.startswith(_KEPT)
    }


def _inherited(environment: dict[str, str], names: tuple[str, ...] | None) -> dict[str, str]:
    """What of an environment a command inherits that names it; all of it when it does not."""
    if names is None:
        return environment
    beginnings = tuple(name.removesuffix("*") for name in names if name.endswith("*"))
    return {
        name: value
        for name, value in environment.items()
        if name in names or (beginnings and name.startswith(beginnings))
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
        if durable:
            _sync_folder(target.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _write(
    path: str | Path, data: bytes, how: int, *, mode: int = 0o600, durable: bool = False
) -> None:
    descriptor = own.open_file(path, os.O_WRONLY | os.O_CREAT | how, mode)
    try:
        _write_all(descriptor, data)
        if durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    """Force the names in a folder to disk, where its file system can do that."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


#: Room for a read, in bytes. Python makes all of the room that it is told of before it reads, and
#: takes what is larger than 128 KiB from the kernel each time: 20 µs for a record of 300 bytes.
_ROOM = 16 * 1024


def _read_at_most(descriptor: int, offset: int, size: int) -> bytes:
    found = os.pread(descriptor, min(size, _ROOM), offset)
    if len(found) < _ROOM or len(found) == size:  # all that there is, or was asked for
        return found
    return found + os.pread(descriptor, size - len(found), offset + len(found))


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


#: Folders below a root that were looked at, step by step, and found to be this user's own: nobody
#: else can have changed since what is in them.
_sound: set[tuple[str, int | None]] = set()


class LocalTransport:
    """`Transport` for this machine.

    Below a root (`.hpc-prefect`) nothing is read or written unless each folder on the way is a
    folder of this user in which nobody else may write, and the file is this user's regular file.
    """

    _owner: int | None = None

    def __init__(self, owner: int | None = None) -> None:
        """`owner`: whose files are read, instead of this process's user's."""
        self._owner = owner

    @property
    def user(self) -> str:
        """Whose files are read, if they are another user's."""
        return "" if self._owner is None else own.user_name(self._owner)

    def run(self, command: Command) -> Reply:
        environment = _inherited(clean_environment(dict(os.environ)), command.inherits)
        environment |= command.environment
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

    def root(self, work_dir: str) -> str:
        common, mine = names.roots(work_dir, os.geteuid())
        while True:
            path = mine if os.path.lexists(mine) or _is_of_another(common) else common
            try:
                self.make_folder(path)
                return path
            except NotOurs:
                if path == mine or not _is_of_another(common):
                    raise  # else somebody was faster, with one of his own

    def make_folder(self, path: str) -> None:
        with _trouble("create the folder", path):
            begin = names.root_at(path)
            if begin is None:
                os.makedirs(path, mode=own.PRIVATE, exist_ok=True)
            else:
                os.close(own.make_folders(path, begin))
                if self._owner is None:
                    _sound.add((path, None))

    def check_folder(self, path: str) -> None:
        with _trouble("use", path):
            self._walk(path)

    def _walk(self, folder: str) -> None:
        begin = names.root_at(folder)
        if begin is not None:
            os.close(own.open_folders(folder, begin, owner=self._owner))
        _sound.add((folder, self._owner))

    @contextlib.contextmanager
    def _at(self, doing: str, path: str) -> Iterator[None]:
        """Do something to a file, in a folder that is ours; OSErrors become our own."""
        with _trouble(doing, path):
            folder = os.path.dirname(path)
            # Once a folder and process: a walk for each file would cost more than the file.
            if (folder, self._owner) not in _sound:
                self._walk(folder)
            yield

    def write_atomic(
        self, path: str, data: bytes, *, mode: int = 0o600, durable: bool = False
    ) -> None:
        with self._at("write", path):
            write_atomic(path, data, mode=mode, durable=durable)

    def append(self, path: str, data: bytes, *, durable: bool = False) -> None:
        with self._at("write", path):
            _write(path, data, os.O_APPEND, durable=durable)

    def create(self, path: str, data: bytes) -> bool:
        # A file of its own, then a hard link: exclusive and complete at once, on NFS too, where
        # O_EXCL followed by a write would show an empty file in between.
        temporary = f"{path}.{unique()}"
        with self._at("create", path):
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
        try:
            with self._at("read", path):
                descriptor = own.open_file(path, owner=self._owner)
                try:
                    if size >= 0:
                        return _read_at_most(descriptor, offset, size)
                    length = max(0, os.fstat(descriptor).st_size - offset)
                    return os.pread(descriptor, length, offset)
                finally:
                    os.close(descriptor)
        except _MissingError:
            return None

    def read_private(self, path: str) -> bytes | None:
        try:
            with self._at("read", path):
                descriptor = own.open_file(path, private=True)
                with open(descriptor, "rb") as file:
                    return file.read()
        except _MissingError:
            return None

    @contextlib.contextmanager
    def turn(self, path: str, *, patience: float) -> Iterator[bool]:
        with _threads:
            with self._at("lock", path):
                descriptor = own.open_file(path, os.O_RDWR | os.O_CREAT)
            try:
                yield _is_locked(descriptor, path, patience)
            finally:
                # Closing alone would not do: a forked child may have inherited the open file.
                with contextlib.suppress(OSError):
                    fcntl.flock(descriptor, fcntl.LOCK_UN)
                os.close(descriptor)

    def status(self, path: str) -> FileStatus | None:
        try:
            with self._at("look at", path):
                found = _stat(path)
        except _MissingError:
            return None
        return None if found is None else FileStatus(found.st_size, found.st_mtime)

    def stamp(self, path: str, most: int) -> Stamp | None:
        return looking.stamp(path, most)

    def left(self, path: str, since: int, most: int) -> dict[str, Left] | None:
        return looking.left(path, since, most)

    def left_now(self, path: str, name: str) -> Left | None:
        return looking.entry(path, name)

    def digest(self, path: str, name: str) -> str:
        return looking.digest(path, name)

    def read_link(self, path: str) -> str | None:
        try:
            with self._at("look at", path):
                own.check_link(path, self._owner)
                return os.readlink(path) if os.path.islink(path) else ""
        except _MissingError:
            return None

    def link(self, path: str, target: str) -> bool:
        with self._at("create", path):
            try:
                os.symlink(target, path)
            except FileExistsError:
                return False
        return True

    def relink(self, path: str, target: str) -> None:
        temporary = f"{path}.{unique()}"
        with self._at("change", path):
            os.symlink(target, temporary)
            os.replace(temporary, path)

    def list(self, path: str) -> list[str]:
        try:
            with _trouble("list", path):
                if (path, self._owner) not in _sound:
                    self._walk(path)
                return sorted(os.listdir(path))
        except _MissingError:
            return []

    def touch(self, path: str) -> None:
        with self._at("touch", path):
            os.utime(path, follow_symlinks=False)

    def remove(self, path: str) -> None:
        with contextlib.suppress(_MissingError), self._at("remove", path):
            os.unlink(path)


#: What a file system without locks says; then only the threads of a process take turns.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
#: They take turns among themselves: a lock of a file may be the process's, and not the thread's.
_threads = threading.Lock()


def _is_locked(descriptor: int, path: str, patience: float) -> bool:
    """Wait for a file's lock; False when somebody else had it all the time."""
    try:
        own.lock(descriptor, patience=patience, every=0.05)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise TransportError(f"cannot lock {path}: {error.strerror or error}") from error
    return True


def _stat(path: str) -> os.stat_result | None:
    """None below what is no folder, and for a link that leads nowhere."""
    try:
        return os.stat(path)
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            return None
        raise


def read_private(path: Path) -> bytes | None:
    """A file's content, if nobody but this user can have written it; None when there is none.

    Raises:
        NotOurs: it, or a folder on the way to it, is another user's, or others may change it.
    """
    return LocalTransport().read_private(str(path))


def reader(path: str) -> LocalTransport:
    """A transport to read files below a root, which must belong to the root's owner."""
    begin = names.root_at(path)
    with contextlib.suppress(FileNotFoundError):
        if begin is not None:
            owner = os.lstat("/".join(path.split("/")[: begin + 1])).st_uid
            return LocalTransport(None if owner == os.geteuid() else owner)
    return LocalTransport()


def _is_of_another(path: str) -> bool:
    try:
        return os.lstat(path).st_uid != os.geteuid()
    except OSError:
        return False  # it is not there; any other trouble shows when it is used


class _MissingError(TransportError):
    """A file, or a folder on the way to it, is not there."""


@contextlib.contextmanager
def _trouble(doing: str, path: str) -> Iterator[None]:
    try:
        yield
    except own.NotOursError as error:
        raise NotOurs(
            f"cannot {doing} {path}: {error.filename} is not safe to use, {error.strerror}. It"
            f" was neither used nor changed. Remove it if it is not yours, or use another work_dir"
        ) from error
    except OSError as error:
        kind = _MissingError if isinstance(error, FileNotFoundError) else TransportError
        raise kind(f"cannot {doing} {path}: {error.strerror or error}") from error


def _kill(process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    """End a command that passed its time limit, with its children, and take what it wrote."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    try:
        return process.communicate(timeout=5)
    except subprocess.TimeoutExpired:  # a grandchild left the session and holds the pipes
        return b"", b""
