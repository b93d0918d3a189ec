"""Processes of this machine: their identities and trees, and signals that hit no other process.

A process is written as "BOOT_ID PID START_TIME NAMESPACE", which is unique for ever. The namespace
is the one in which it has this pid (a container may have its own, with the same boot id, host name
and files); only from there can be told whether the process lives. Older versions wrote no
namespace: then it can be told that the process lives, but not that it has ended.
"""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False  # `typing` and `signal` (with its enums) cost more than all the rest
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Iterable
else:
    import _signal as signal

SUPERVISOR = "hpc-local-super"  # a supervisor's process name; at most 15 bytes
_boot_id: list[str] = []
_PR_SET_NAME, _PR_SET_CHILD_SUBREAPER = 15, 36


class Stat:
    """One line of /proc/PID/stat."""

    __slots__ = ("living", "name", "parent", "pid", "session", "start")

    def __init__(self, pid: int, line: bytes) -> None:
        # The name is in brackets and may hold brackets and blanks itself: proc(5).
        opening, closing = line.index(b"("), line.rindex(b")")
        fields = line[closing + 2 :].split()
        self.pid = pid
        self.name = line[opening + 1 : closing].decode(errors="replace")
        # If its first thread has ended, a process looks like a zombie while other threads go on.
        self.living = fields[0] not in (b"Z", b"X", b"x") or int(fields[17]) > 1
        self.parent = int(fields[1])
        self.session = int(fields[3])
        self.start = int(fields[19])


def _read(path: str) -> bytes | None:
    """The content, or None when the process is gone or is not ours to read. Any other error is
    raised: it must not look as if the process had ended."""
    fd = None
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        parts = []
        while part := os.read(fd, 1 << 20):
            parts.append(part)
        return b"".join(parts)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    finally:
        if fd is not None:
            os.close(fd)


def stat(pid: int) -> Stat | None:
    line = _read(f"/proc/{pid}/stat")
    return Stat(pid, line) if line else None


def boot_id() -> str:
    if not _boot_id:
        with open("/proc/sys/kernel/random/boot_id") as file:
            _boot_id.append(file.read().strip())
    return _boot_id[0]


def namespace() -> str:
    """The PID namespace of this process, as a number."""
    return os.readlink("/proc/self/ns/pid")[5:-1]  # pid:[4026531836]


def sees_itself() -> bool:
    """Whether /proc shows this process under its own pid.

    If /proc is mounted for another PID namespace, what it tells of a pid is about another process.
    """
    return os.readlink("/proc/self") == str(os.getpid())


#: This process's own identity, which each claim is compared with.
_own: dict[int, str] = {}
os.register_at_fork(after_in_child=_own.clear)


def identity(pid: int) -> str | None:
    """The identity of the process with this pid; None if there is none, or a zombie."""
    if pid != os.getpid():
        return _identity(pid)
    if pid not in _own and (found := _identity(pid)):
        _own[pid] = found
    return _own.get(pid)


def _identity(pid: int) -> str | None:
    if not sees_itself():
        if pid != os.getpid():
            raise OSError("/proc shows another PID namespace than this process's own")
        pid_there = int(os.readlink("/proc/self"))
        found = stat(pid_there)
    else:
        found = stat(pid)
    return _written(pid, found.start) if found and found.living else None


def _written(pid: int, start: int) -> str:
    return f"{boot_id()} {pid} {start} {namespace()}"


def pid_of(who: str) -> int:
    return int(who.split()[1])


def is_of_this_boot(who: str | None) -> bool:
    return (who or "").partition(" ")[0] == boot_id()


def seconds_since_boot() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def is_apart(who: str | None) -> bool:
    """Whether a process of this boot is known to be in another PID namespace than this one."""
    there = (who or "").split()[3:]
    return is_of_this_boot(who) and bool(there) and there != [namespace()]


def alive(who: str | None) -> bool:
    """Whether a process is known to live. If not, it may still live: see `dead`."""
    words = (who or "").split()
    if len(words) not in (3, 4) or not is_of_this_boot(who) or not sees_itself():
        return False
    now = (identity(pid_of(" ".join(words))) or "").split()
    return now[: len(words)] == words


def dead(who: str | None) -> bool:
    """Whether a process is known to have ended. In another namespace neither is known."""
    if not who or not is_of_this_boot(who):
        return True
    has_namespace = len(who.split()) > 3
    return has_namespace and not is_apart(who) and sees_itself() and not alive(who)


def send(who: str, number: int) -> bool:
    """Signal exactly this process; False when it is gone or is not ours to signal."""
    if not alive(who):
        return False
    pid = pid_of(who)
    handle = None
    try:
        # The handle stands for this process, even if another one gets its pid later.
        # Linux before 5.3 and some builds of Python do not have it.
        handle = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else None
    except ProcessLookupError:
        return False
    except OSError:
        pass
    try:
        if not alive(who):
            return False
        if handle is not None and hasattr(signal, "pidfd_send_signal"):
            signal.pidfd_send_signal(handle, number)
        else:
            os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    finally:
        if handle is not None:
            os.close(handle)
    return True


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def _living_below(table: dict[int, Stat], roots: Iterable[int]) -> list[Stat]:
    """The descendants of these processes, without other supervisors and their descendants."""
    children: dict[int, list[Stat]] = {}
    for one in table.values():
        children.setdefault(one.parent, []).append(one)
    found: dict[int, Stat] = {}
    ahead = list(roots)
    while ahead:
        for child in children.get(ahead.pop(), ()):
            # A job may submit jobs: their supervisors are below ours, but not part of this job.
            if child.name != SUPERVISOR and child.pid not in found:
                found[child.pid] = child
                ahead.append(child.pid)
    return [one for one in found.values() if one.living]


def _table() -> dict[int, Stat]:
    return {pid: found for pid in _pids() if (found := stat(pid))}


def tree(pid: int) -> list[str]:
    """All living descendants of this process."""
    return [_written(one.pid, one.start) for one in _living_below(_table(), [pid])]


def _has_all(environment: bytes, variables: dict[bytes, bytes]) -> bool:
    whole = b"\0" + environment
    return all(b"\0%s=%s\0" % item in whole for item in variables.items())


def marked(variables: dict[bytes, bytes], script: str) -> list[str]:
    """The living processes of a job without a supervisor: those with all these environment
    variables or in the session of its script, and their descendants.
    """
    table = _table()
    roots = {}
    for one in table.values():
        if not one.living or one.name == SUPERVISOR or one.pid == os.getpid():
            continue
        if _has_all(_read(f"/proc/{one.pid}/environ") or b"", variables):
            roots[one.pid] = one
    if alive(script):
        # Only while its first process lives, the session's number surely still is the job's.
        session = pid_of(script)
        roots.update((pid, one) for pid, one in table.items() if one.session == session)
    roots.update((one.pid, one) for one in _living_below(table, list(roots)))
    return [_written(one.pid, one.start) for one in roots.values() if one.living]


def has_adopted(scripts: Iterable[int]) -> bool:
    """Whether this process has children beside `scripts`, living or not yet waited for."""
    me = os.getpid()
    children = _read(f"/proc/{me}/task/{me}/children")
    if children is None:  # CONFIG_PROC_CHILDREN is off
        return True
    return not set(map(int, children.split())).issubset(scripts)


def families(
    scripts: dict[int, tuple[int, dict[bytes, bytes]]], over: Iterable[int]
) -> dict[int, list[str]]:
    """The living processes of each element.

    These are its script, unless it is `over`; the orphans that this process has adopted and that
    are in the script's session or have its marks; and the descendants of both.

    Args:
        scripts: by element, the pid of its script and its marks (environment variables).
        over: the elements whose scripts have ended.
    """
    table, me = _table(), os.getpid()
    roots = {key: [] if key in over else [pid] for key, (pid, _) in scripts.items()}
    of_session = {pid: key for key, (pid, _) in scripts.items()}
    for one in table.values():
        if one.parent != me or one.pid in of_session or one.name == SUPERVISOR or not one.living:
            continue
        if one.session in of_session:
            roots[of_session[one.session]].append(one.pid)
            continue
        environment = _read(f"/proc/{one.pid}/environ") or b""
        for key, (_, marks) in scripts.items():
            if _has_all(environment, marks):
                roots[key].append(one.pid)
    found = {}
    for key, own in roots.items():
        heads = [table[each] for each in own if each in table and table[each].living]
        every = {one.pid: one for one in (*heads, *_living_below(table, own))}
        found[key] = [_written(one.pid, one.start) for one in every.values()]
    return found


def memory(pid: int, limit: int, *, itself: bool = False) -> int:
    """Bytes used by the descendants. If the plain sum exceeds `limit`, shared pages count once."""
    members, page = _children(pid), os.sysconf("SC_PAGE_SIZE")
    members += [pid] if itself else []
    resident = {}
    for member in members:
        fields = (_read(f"/proc/{member}/statm") or b"0 0").split()
        resident[member] = int(fields[1]) * page
    if sum(resident.values()) <= limit:
        return sum(resident.values())
    return sum(_proportional(member, default=value) for member, value in resident.items())


def _proportional(pid: int, *, default: int) -> int:
    for line in (_read(f"/proc/{pid}/smaps_rollup") or b"").splitlines():
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) * 1024
    return default


def _children(pid: int) -> list[int]:
    """Descendants by the kernel's lists of children, without reading all other processes."""
    if not os.path.exists(f"/proc/{pid}/task/{pid}/children"):  # CONFIG_PROC_CHILDREN is off
        return [one.pid for one in _living_below(_table(), [pid])]
    found, ahead = [], [pid]
    while ahead:
        parent = ahead.pop()
        try:
            threads = os.listdir(f"/proc/{parent}/task")
        except OSError:
            continue
        for thread in threads:
            below = (_read(f"/proc/{parent}/task/{thread}/children") or b"").split()
            for child in map(int, below):
                known = stat(child)
                if known and known.living and known.name != SUPERVISOR:
                    found.append(child)
                    ahead.append(child)
    return found


def become_supervisor() -> Callable[[str], object]:
    """Make orphans below this process its children. Returns a function that renames a process."""
    prctl = _prctl()
    if prctl(_PR_SET_CHILD_SUBREAPER, 1) != 0:
        raise OSError("prctl(PR_SET_CHILD_SUBREAPER) failed: this needs Linux 3.4 or newer")

    def rename(name: str) -> object:
        return prctl(_PR_SET_NAME, name.encode())

    rename(SUPERVISOR)
    return rename


def _prctl() -> Callable[[int, int | bytes], int]:
    try:
        # Not the `ctypes` package: its import takes longer than the whole start of a job.
        from _ctypes import call_function, dlopen, dlsym

        address = dlsym(dlopen(None, 2), "prctl")  # type: ignore[arg-type]
        return lambda option, value: int(call_function(address, (option, value, 0, 0, 0)))
    except (ImportError, AttributeError):
        import ctypes

        function = ctypes.CDLL(None).prctl
        return lambda option, value: int(function(option, value, 0, 0, 0))


def detach(keep: int | None = None) -> bool:
    """Fork twice. False in the caller. True in the new process, which has a session of its own and
    none of the caller's open files except `keep`."""
    first = os.fork()
    if first:
        os.waitpid(first, 0)
        return False
    os.setsid()
    if os.fork():
        os._exit(0)
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd > 2 and fd != keep:
            os.closerange(fd, fd + 1)  # no error for the listing's own descriptor, closed already
    os.chdir("/")
    return True


def signal_name(number: int) -> str:
    # Sorted, so that the usual one of two names (SIGABRT and SIGIOT) comes first.
    for name in sorted(vars(signal)):
        if name.startswith("SIG") and name[3] != "_" and getattr(signal, name) == number:
            return name
    return f"SIG{number}"
