"""This machine: a login node, or a laptop."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from hpc_prefect.errors import TransportError
from hpc_prefect.job.dialogue import Command, Reply
from hpc_prefect.transports.base import FileStatus

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
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _write(
    path: str | Path, data: bytes, how: int, *, mode: int = 0o600, durable: bool = False
) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | how, mode)
    try:
        _write_all(descriptor, data)
        if durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


class LocalTransport:
    """`Transport` for this machine."""

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
                descriptor = os.open(path, os.O_RDONLY)
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
        return FileStatus(found.st_size, found.st_mtime)

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
