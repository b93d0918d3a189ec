"""What the engine's commands do. Text in, text out."""

from __future__ import annotations

import os
import stat
import sys
import time

from . import process
from .elements import OVER
from .records import dumps, element_id
from .spool import WAKE, Spool, UnreadableError
from .supervisor import JobSupervisor, Supervisor, hold_signals, stop_orphans

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .records import Record

_NAME_BYTES = 100


class UsageError(Exception):
    """The command line is wrong."""


class RefusedError(Exception):
    """The command is correct but cannot be carried out."""


def main(argv: list[str], usage: str) -> int:
    # Names and paths need not be UTF-8.
    sys.stdout.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]
    try:
        verb, *rest = argv or ["--help"]
        if verb in ("-h", "--help"):
            print(usage, flush=True)
            return 0
        if verb not in _VERBS:
            raise UsageError(f"there is no command {verb!r}")
        run, required, optional = _VERBS[verb]
        options, operands = _parse(verb, rest, (*required, *optional))
        options.setdefault("--spool", _default_spool())
        if missing := [name for name in required if name not in options]:
            raise UsageError(f"{verb} needs {', '.join(missing)}")
        run(options, operands)
        sys.stdout.flush()
        return 0
    except UsageError as error:
        print(f"engine.py: {error} (see engine.py --help)", file=sys.stderr)
        return 2
    except (RefusedError, UnreadableError, OSError) as error:
        print(f"engine.py: {error}", file=sys.stderr)
        return 1


def _default_spool() -> str:
    """One for each user and machine: machines may share a home, but not their processes."""
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return os.path.join(state, "hpc-prefect", "local", os.uname().nodename)


def _parse(verb: str, words: list[str], known: tuple[str, ...]) -> tuple[dict[str, str], list[str]]:
    options: dict[str, str] = {}
    ahead = iter(words)
    for word in ahead:
        if word == "--":
            break
        if not word.startswith("--"):
            return options, [word, *ahead]
        if word not in known:
            raise UsageError(f"{verb} has no option {word}")
        value = next(ahead, None)
        if value is None:
            raise UsageError(f"{word} needs a value")
        options[word] = value
    return options, list(ahead)


def _number(options: dict[str, str], name: str, *, least: float = 1) -> float | None:
    text = options.get(name)
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not least <= value < 1e18:
        raise UsageError(f"{name} must be a number of at least {least:g}, not {text!r}")
    return value


def _whole(options: dict[str, str], name: str) -> int | None:
    value = _number(options, name)
    if value is None:
        return None
    if value != int(value):
        raise UsageError(f"{name} must be a whole number, not {options[name]!r}")
    return int(value)


# submit


def submit(options: dict[str, str], operands: list[str]) -> None:
    if len(operands) != 1:
        raise UsageError(f"submit takes one script, not {len(operands)}")
    record = _record(options)
    if record["cpus"] > record["slots"]:
        raise RefusedError(
            f"job {record['name']!r} asks for {record['cpus']} cpus and queue {record['queue']!r} "
            f"has {record['slots']} slots: it could never start"
        )
    if not process.sees_itself():
        raise RefusedError(
            "/proc does not show this process: it belongs to another PID namespace, so processes"
            " cannot be watched here. Give the container a /proc of its own (unshare: --mount-proc)"
        )
    script = _own_script(operands[0])
    spool = Spool(options["--spool"])
    spool.create()
    spool.prune()
    n = spool.new()
    record = {"id": f"{n}.{record['host']}", **record}
    fd = os.open(spool.folder(n, "script"), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o700)
    with open(fd, "wb") as file:
        file.write(script)
    fault = _hand_over(spool, n, record)
    if fault and not spool.has(n, "job"):
        spool.forget(n)
        raise RefusedError(f"job {record['name']!r} could not be queued: {fault}")
    print(record["id"])


def _own_script(path: str) -> bytes:
    """The content of the script. It must be this user's own, because it runs as this user."""
    script = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(script, "rb") as file:
        found = os.fstat(script)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            raise RefusedError(f"{path} is not a regular file that belongs to you")
        return file.read()


def _record(options: dict[str, str]) -> Record:
    for name in ("--name", "--queue"):
        if not 0 < len(os.fsencode(options[name])) <= _NAME_BYTES:
            raise UsageError(f"{name} must have 1 to {_NAME_BYTES} bytes")
    grace = _number(options, "--kill-grace", least=0)
    host = os.uname().nodename.split(".")[0]
    array, at_once = _whole(options, "--array"), _whole(options, "--at-once")
    if at_once is not None and array is None:
        raise UsageError(
            "--at-once needs --array: it limits how many elements of an array run at once"
        )
    return {
        "name": options["--name"],
        "queue": options["--queue"],
        "slots": _whole(options, "--slots"),
        "cpus": _whole(options, "--cpus"),
        "walltime": _number(options, "--walltime", least=0.001),
        "memory": _whole(options, "--memory"),
        "kill_grace": 5.0 if grace is None else grace,
        "out": os.path.abspath(options["--out"]),
        "err": os.path.abspath(options["--err"]),
        "cwd": os.path.abspath(options["--cwd"]),
        "submitted": time.time(),
        "host": "".join(c if c.isascii() and c.isalnum() else "-" for c in host) or "localhost",
        **({} if array is None else {"array": array, "at_once": at_once}),
    }


def _hand_over(spool: Spool, n: int, record: Record) -> str:
    """Start the job's supervisor and wait until the job is queued. Returns what went wrong."""
    answer, ready = os.pipe()
    if process.detach(keep=ready):
        _supervise(spool, n, record, ready)
    os.close(ready)
    with open(answer, errors="replace") as file:
        text = file.read()
    return "" if text == "queued" else text or "its supervisor was killed"


def _supervise(spool: Spool, n: int, record: Record, ready: int) -> None:
    """The life of the detached process."""
    supervisor: Supervisor = JobSupervisor(spool, n, record)
    if record.get("array"):
        from .array import ArraySupervisor  # late: other submissions are faster without it

        supervisor = ArraySupervisor(spool, n, record)
    try:
        try:
            supervisor.enter()
        except OSError as error:
            _tell(ready, str(error))
            return
        _tell(ready, "queued")
        os.close(ready)
        log = os.open(spool.folder(n, "supervisor.log"), os.O_WRONLY | os.O_CREAT, 0o600)
        os.dup2(log, 2)
        os.close(log)
        supervisor.run()
    finally:
        # A defect of ours goes to the log, and the job then counts as one without a supervisor.
        if sys.exc_info()[0] is not None:
            sys.excepthook(*sys.exc_info())
            sys.stderr.flush()
        os._exit(0)


def _tell(pipe: int, text: str) -> None:
    try:
        os.write(pipe, text.encode(errors="replace"))
    except BrokenPipeError:
        return  # the submitter was killed; its job runs all the same


# jobs, find, cancel


def jobs(options: dict[str, str], operands: list[str]) -> None:
    spool = Spool(options["--spool"])
    if not spool.exists():
        return
    if operands:
        asked = [found for word in operands if (found := _known(spool, word)) is not None]
    else:
        with spool.lock:
            asked = [(n, None) for n in spool.active()]
    arrays: dict[int, _Array] = {}  # each array is read once for all its elements
    for n, index in asked:
        if index is None:
            _show(spool, n)
        elif record := spool.read(n, "job"):
            if n not in arrays:
                arrays[n] = _Array(spool, n, record)
            arrays[n].show(index)


def find(options: dict[str, str], operands: list[str]) -> None:
    if not operands:
        raise UsageError("find takes one name or more")
    spool = Spool(options["--spool"])
    if not spool.exists():
        return
    texts = [dumps({"name": name}).encode()[1:-2] for name in operands]  # as the records have them
    for n in spool.numbers():
        record = spool.read(n, "job", having=texts)
        if record and record["name"] in operands:
            _show(spool, n)


def _known(spool: Spool, word: str) -> tuple[int, int | None] | None:
    """The number of the job with this id, if there is one, and the index of its element, if any."""
    number, _, rest = word.partition(".")
    if not _is_number(number):
        return None
    record = spool.read(int(number), "job")
    if record is None:
        return None
    if record["id"] == word:
        return int(number), None
    _, _, index = rest.rpartition("_")
    if not _is_number(index) or int(index) >= (record.get("array") or 0):
        return None
    return (int(number), int(index)) if word == element_id(record["id"], int(index)) else None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 19


def _settle(spool: Spool, n: int, record: Record) -> None:
    """Complete the records of a job that has lost its supervisor."""
    if not spool.has(n, "end") and not process.alive(spool.supervisor(n)):
        with spool.lock:
            if spool.settle(n, record["queue"]):
                spool.wake_next(record["queue"])


def _show(spool: Spool, n: int) -> None:
    record = spool.read(n, "job")
    if record is None:  # forgotten meanwhile
        return
    _settle(spool, n, record)
    # In this order: if the job has an end, its start was written before.
    end = spool.read(n, "end")
    if record.get("array"):
        elements = spool.elements(n, record)
        begun = elements.begun()
        start = None if begun is None else {"started": begun}
        reason = _reason(spool, n, record) if start is None and end is None else None
        left = [] if end else elements.left()
        print(dumps(_line(record, start, end, reason) | {"left": left}), end="")
        return
    start = spool.read(n, "start")
    reason = _reason(spool, n, record) if not start and not end else None
    print(dumps(_line(record, start, end, reason)), end="")


class _Array:
    """An array whose elements are shown."""

    def __init__(self, spool: Spool, n: int, record: Record) -> None:
        _settle(spool, n, record)
        # In this order: if the array had ended, all its elements have.
        self._end = spool.read(n, "end")
        self._elements = spool.elements(n, record)
        self._record = record

    def show(self, index: int) -> None:
        state = self._elements.states[index]
        start = self._elements.start(index)
        # After a power cut there may be only the array's end.
        end = (self._elements.end(index) if state == OVER else None) or self._end
        if end:
            start = {"started": end["started"]} if end.get("started") else None
        reason = "waits until its array starts it" if not start and not end else None
        own = {**self._record, "id": element_id(self._record["id"], index)}
        print(dumps(_line(own, start, end, reason)), end="")


def _line(record: Record, start: Record | None, end: Record | None, reason: str | None) -> Record:
    line = {key: record[key] for key in ("id", "name", "queue")}
    line["state"] = "ENDED" if end else "RUNNING" if start else "QUEUED"
    for key in ("end", "exit_code", "signal", "by", "message"):
        line[key] = end.get(key) if end else None
    line["submitted"] = record["submitted"]
    line["started"] = start["started"] if start else None
    for key in ("ended", "max_rss", "cpu_seconds"):
        line[key] = end.get(key) if end else None
    line["host"] = record["host"]
    line["reason"] = reason
    return line


def _reason(spool: Spool, n: int, record: Record) -> str:
    entries = spool.entries(record["queue"])
    used = sum(entry.cpus for entry in entries if entry.running)
    text = f"slots: {used} of {record['slots']} in use"
    ahead = sum(1 for entry in entries if not entry.running and entry.n < n)
    return f"{text}; {ahead} before it in the queue" if ahead else text


def cancel(options: dict[str, str], operands: list[str]) -> None:
    spool = Spool(options["--spool"])
    exists = spool.exists()
    for word in operands:
        found = _known(spool, word) if exists else None
        print(
            f"unknown {word}" if found is None else f"{_cancel(spool, *found)} {word}", flush=True
        )


def _cancel(spool: Spool, n: int, index: int | None) -> str:
    record = spool.read(n, "job")
    assert record is not None  # _known has just read it
    with spool.lock:
        if spool.settle(n, record["queue"]):
            spool.wake_next(record["queue"])
            return "already ended"
        request = {"by": _caller(), "at": time.time()}
        if index is None and not spool.has(n, "cancel"):
            spool.write(n, "cancel", request)
        if index is not None:
            elements = spool.elements(n, record)
            if elements.states[index] == OVER:
                return "already ended"
            elements.append("C", [(index, request)])
        supervisor = spool.supervisor(n) or ""
        woken = process.send(supervisor, WAKE)
    # A supervisor in another PID namespace notices the request by itself, within seconds.
    if not woken and process.dead(supervisor) and process.detach():
        try:
            hold_signals()
            stop_orphans(spool, n, record, index)
        finally:
            os._exit(0)
    return "cancelled"


def _caller() -> str:
    """Who asks: the user, the machine and the process that runs this command."""
    import pwd

    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = str(os.getuid())
    return f"{user}@{os.uname().nodename} {os.getppid()}"


_VERBS = {
    "submit": (
        submit,
        ("--spool", "--name", "--queue", "--slots", "--cpus", "--out", "--err", "--cwd"),
        ("--walltime", "--memory", "--kill-grace", "--array", "--at-once"),
    ),
    "jobs": (jobs, ("--spool",), ()),
    "find": (find, ("--spool",), ()),
    "cancel": (cancel, ("--spool",), ()),
}
