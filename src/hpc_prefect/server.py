"""A Prefect server of the project's own, for the demo, for learning and for tests.

It listens on this machine only, keeps everything in one home folder (SQLite, log, record), sends
nothing out, and lives on after the process that started it. Prefect's own
`prefect server start --background` does not: it keeps its caller's session and its caller's
pipes, so it dies with a `timeout`, a closed terminal or a full pipe (Prefect 3.8.8,
`prefect/cli/_server_utils.py::_run_in_background`).

The API has no password: on a shared login node every local user can reach it. For more than
learning, run a server with `PREFECT_SERVER_API_AUTH_STRING` and name it in `PREFECT_API_URL`.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import importlib.metadata
import json
import logging
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from packaging.version import InvalidVersion, Version

from hpc_prefect.errors import IncompatibleVersions, ServerError
from hpc_prefect.local_batch import process
from hpc_prefect.transports.local import write_atomic

logger = logging.getLogger(__name__)

Progress = Callable[[str], None]

_RECORD, _LOG = "server.json", "server.log"
_QUIET = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}


@dataclass(frozen=True, slots=True)
class Server:
    """A Prefect server that answers.

    Attributes:
        url: the value for `PREFECT_API_URL`.
        ui_url: the address for a browser.
        pid: its process, or None for a server that the user runs.
        started: whether the call that returned this started it.
        home: the home folder that was asked for.
    """

    url: str
    ui_url: str
    pid: int | None
    started: bool
    home: Path


def find_server(home: str | os.PathLike[str]) -> Server | None:
    """The server of this home folder if it lives and answers, else None."""
    folder = _resolved(home)
    record = _read_record(folder)
    if record is None or not record.alive() or not _answers(record.port):
        return None
    return record.server(folder, started=False)


def last_url(home: str | os.PathLike[str]) -> str:
    """The URL of this home folder's server, or of the last one; empty if there was none."""
    folder = _resolved(home)
    record = _read_record(folder)
    return record.url if record else ""


def ensure_server(
    home: str | os.PathLike[str],
    *,
    port: int = 0,
    timeout_seconds: float = 240,
    progress: Progress | None = None,
) -> Server:
    """Return a Prefect server that answers, starting one only when there is none.

    The server in the user's own Prefect settings comes first, if it answers; then the one of
    `home`; else one is started there. Any number of processes may call at once and get the same
    server. The first start in a new home takes about 20 s (it creates the database), later ones
    about 8 s.

    Args:
        home: the server's folder, created with mode 0700.
        port: for a server that has to be started; 0 takes a free one.
        timeout_seconds: for the whole call.
        progress: called with a sentence about each step; the default is this module's logger.

    Raises:
        IncompatibleVersions: the installed Prefect and FastAPI cannot work together.
        ServerError: the server ended or did not answer; the message has the end of its log.
    """
    folder = _resolved(home)
    tell = progress or logger.info
    deadline = time.monotonic() + timeout_seconds
    users = _users_server(folder, tell)
    if users is not None:
        return users
    running = find_server(folder)
    if running is not None:
        return running
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(folder, deadline, tell):
        record = _read_record(folder)
        if record is not None:
            record.must_be_here(folder)
            if record.alive():  # another caller starts it, or it is too busy to answer at once
                _await_answer(record, folder, deadline, tell)
                return record.server(folder, started=False)
        check_combination(tell)
        # The same port as before, so that open browser tabs, shells and profiles still work.
        return _start(folder, port or free_port(record.port if record else 0), deadline, tell)


def stop_server(home: str | os.PathLike[str], *, timeout_seconds: float = 30) -> bool:
    """Stop the server of this home folder; False when none was running.

    Raises:
        ServerError: it runs on another machine, or is just being started by another process.
    """
    folder = _resolved(home)
    if not folder.is_dir():
        return False
    with _locked(folder, time.monotonic() + timeout_seconds, logger.info):
        record = _read_record(folder)
        if record is None or not record.who:
            return False
        record.must_be_here(folder)
        stopped = _terminate(record)
        # The port is kept for the next start: bookmarks, shells and profiles stay valid.
        _write_record(folder, replace(record, who=""))
        return stopped


def environment(server: Server) -> dict[str, str]:
    """The variables that make a child process (or this one, before it imports Prefect) use it.

    With a server that the user runs, the user's own Prefect home stays: it holds the API key.
    """
    common = {
        "PREFECT_API_URL": server.url,
        # An ephemeral server loses most task runs when its process ends: fail instead.
        "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
    }
    if server.pid is None:
        return common
    return {
        **common,
        "PREFECT_HOME": str(server.home),
        "PREFECT_PROFILES_PATH": str(server.home / "profiles.toml"),
        **_QUIET,
        **_without_proxy(os.environ),
    }


def check_combination(tell: Progress = logger.warning) -> None:
    """Report what will not work with the installed Prefect and FastAPI.

    Raises:
        IncompatibleVersions: not even the server starts.
    """
    versions = {}
    for name in ("prefect", "fastapi"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    problem = problem_with(versions)
    if problem is None:
        return
    if problem.is_fatal:
        raise IncompatibleVersions(problem.text)
    tell(problem.text)


@dataclass(frozen=True, slots=True)
class Incompatibility:
    """What does not work with two versions; fatal if the server does not start."""

    text: str
    is_fatal: bool


#: From this FastAPI on, the server of a Prefect before 3.9 refuses requests of its own client; from
#: the second one on, it does not start.
_REFUSES, _DOES_NOT_START = (0, 151), (0, 155)


def problem_with(versions: Mapping[str, str]) -> Incompatibility | None:
    """What does not work with these versions (by distribution name), or None.

    Seen: the servers of Prefect 3.6.22 and 3.8.8 import with FastAPI 0.154.0 and not with
    0.155.0 or 0.165.0, which dropped `Body(min_items=)`. With FastAPI 0.151, 0.152 and 0.154 that
    of 3.8.8 answers its own client's `"limit": null` with 422; with 0.150 it does not. Prefect 3.9
    asks for FastAPI below 0.151 itself.
    """
    try:
        prefect, fastapi = Version(versions["prefect"]), Version(versions["fastapi"])
    except (KeyError, InvalidVersion):
        return None
    if prefect.release >= (3, 9) or fastapi.release < _REFUSES:
        return None
    fatal = fastapi.release >= _DOES_NOT_START
    what = (
        'does not start with FastAPI 0.155 or newer ("Body() got an unexpected keyword argument'
        " 'min_items'\")"
        if fatal
        else "refuses `flow.deploy()` and `prefect work-pool ls`, `deployment ls`, `flow-run ls`,"
        ' `block ls` with FastAPI 0.151 or newer (422, "limit: Input should be a valid integer")'
    )
    return Incompatibility(
        f"Prefect {prefect} and FastAPI {fastapi} cannot work together: the server of a Prefect"
        f" before 3.9 {what}; run"
        " `pip install -c constraints.txt hpc-prefect`, or `pip install 'fastapi<0.151'`.",
        fatal,
    )


def free_port(preferred: int = 0) -> int:
    """A free port of 127.0.0.1: the preferred one if possible.

    It is below Linux's range for outgoing connections (32768 and up): the server binds it seconds
    later, and until then no outgoing connection can take it by chance.
    """
    for port in [preferred, *random.sample(range(20000, 32768), 100)]:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if port:
                probe.bind(("127.0.0.1", port))
                return port
    raise ServerError("No free port on 127.0.0.1: a hundred between 20000 and 32767 are all taken.")


# --- the record: which process, started when -------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Record:
    """The content of `server.json`.

    `who` is the process as `process.identity` writes it, because pids are reused; empty after a
    stop.
    """

    who: str
    host: str
    port: int

    @property
    def pid(self) -> int:
        return int(self.who.split()[1])

    def alive(self) -> bool:
        return bool(self.who) and process.alive(self.who)

    def must_be_here(self, home: Path) -> None:
        """Check that the server runs on this machine: two servers, on two machines of a shared file
        system, would destroy one SQLite file."""
        here = socket.gethostname()
        if not self.who:
            return
        elsewhere = not process.is_of_this_boot(self.who) and self.host != here
        if elsewhere or process.is_apart(self.who):
            raise ServerError(
                f"The Prefect server of {home} was started on {self.host}, or in a container with "
                f"PIDs of its own, and this is {here}: work there, or stop it there; if that is "
                f"gone, remove {home / _RECORD}."
            )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api"

    def server(self, home: Path, *, started: bool) -> Server:
        return Server(self.url, self.url.removesuffix("/api"), self.pid, started, home)


def _resolved(home: str | os.PathLike[str]) -> Path:
    return Path(home).expanduser().resolve()


def _read_record(home: Path) -> _Record | None:
    try:
        said = json.loads((home / _RECORD).read_bytes())
        host, port, who = str(said["host"]), int(said["port"]), str(said["who"])
        if who:
            boot_id, pid, *more = who.split()
            who = " ".join([boot_id, str(int(pid)), *more])
        return _Record(who, host, port)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        logger.warning("%s makes no sense (%r) and is ignored.", home / _RECORD, error)
        return None


def _write_record(home: Path, record: _Record) -> None:
    write_atomic(home / _RECORD, json.dumps(asdict(record)).encode())


@contextlib.contextmanager
def _locked(home: Path, deadline: float, tell: Progress) -> Iterator[None]:
    """Hold the home folder's lock; the kernel releases it when its holder dies.

    SQLite needs working file locks here, too, so no more is needed of the file system.
    """
    with (home / "server.lock").open("ab") as handle:
        told = False
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ServerError(
                        f"Another process has been busy with the Prefect server of {home} for too "
                        f"long: see {home / _LOG}, and try again."
                    ) from None
                if not told:
                    tell("Another process is starting or stopping the Prefect server: waiting.")
                    told = True
                time.sleep(0.1)
            else:
                yield
                return


# --- starting and stopping --------------------------------------------------------------------


def _server_environment(home: Path, port: int) -> dict[str, str]:
    """The server's environment, without the user's own Prefect settings."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    return {
        **inherited,
        **_QUIET,
        "PREFECT_HOME": str(home),
        "PREFECT_PROFILES_PATH": str(home / "profiles.toml"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        # Prefect's default, "*", lets any web page in the browser use the API.
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"http://127.0.0.1:{port}",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    }


def _start(home: Path, port: int, deadline: float, tell: Progress) -> Server:
    tell(f"Starting a Prefect server on 127.0.0.1:{port} (its files: {home}) ...")
    record = _launch(home, port)
    try:
        _write_record(home, record)
        _await_answer(record, home, deadline, tell)
    except BaseException:  # Ctrl-C too: leave no server that is half started
        _terminate(record)
        (home / _RECORD).unlink(missing_ok=True)
        raise
    return record.server(home, started=True)


def _launch(home: Path, port: int) -> _Record:
    """Start the process in a session of its own, as no child of ours, with files for its output."""
    log = home / _LOG
    if log.exists():
        log.replace(log.with_suffix(".log.old"))
    server = [sys.executable, "-m", "prefect", "server", "start"]
    address = ["--host", "127.0.0.1", "--port", str(port)]
    with log.open("wb") as output:
        # The shell ends at once, so that init adopts the server: this process need not reap it, and
        # does not end it with itself.
        shell = subprocess.run(
            ["/bin/sh", "-c", '"$@" >&2 & echo $!', "sh", *server, *address],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=output,
            start_new_session=True,
            cwd=home,  # away from a .env or prefect.toml in the caller's folder
            env=_server_environment(home, port),
            check=True,
        )
    pid = int(shell.stdout)
    who = process.identity(pid) or f"{process.boot_id()} {pid} dead {process.namespace()}"
    return _Record(who, socket.gethostname(), port)


def _await_answer(record: _Record, home: Path, deadline: float, tell: Progress) -> None:
    began = time.monotonic()
    next_word = began + 10
    while True:
        answers = _answers(record.port)
        now = time.monotonic()
        if not record.alive():  # checked last: another program may answer on this port
            raise ServerError(_failure("ended while it was starting", record, home))
        if answers:
            return
        if now > deadline:
            raise ServerError(_failure("did not answer in time", record, home))
        if now > next_word:
            tell(f"Waiting for the Prefect server: {now - began:.0f} s ...")
            next_word = now + (now - began)  # after 10, 20, 40 s …
        time.sleep(0.1)


def _failure(what: str, record: _Record, home: Path) -> str:
    log = home / _LOG
    lines = log.read_text(errors="replace").splitlines()[-15:] if log.exists() else []
    tail = "\n".join(f"    {line}" for line in lines) or "    (nothing)"
    return (
        f"The Prefect server on 127.0.0.1:{record.port} (pid {record.pid}, home {home}) {what}. "
        f"The last lines of {log}:\n{tail}\n"
        "If they name a port, choose another; if they name the database, start with a new home "
        "folder; or set PREFECT_API_URL to a Prefect server of your own."
    )


def _terminate(record: _Record, patience_seconds: float = 15) -> bool:
    """Send SIGTERM, so that it writes what it holds in memory; SIGKILL if it does not end."""
    if not record.alive():
        return False
    for number in (signal.SIGTERM, signal.SIGKILL):
        process.send(record.who, number)
        until = time.monotonic() + patience_seconds
        while time.monotonic() < until:
            if not record.alive():
                return True
            time.sleep(0.05)
    raise ServerError(f"The Prefect server (pid {record.pid}) survived even SIGKILL: see ps.")


# --- asking -----------------------------------------------------------------------------------


def _answers(port: int, timeout_seconds: float = 5) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    url = f"http://127.0.0.1:{port}/api/health"
    try:
        with opener.open(url, timeout=timeout_seconds) as reply:
            return bool(reply.read(100) == b"true")
    except (OSError, http.client.HTTPException):
        return False


def _users_server(home: Path, tell: Progress) -> Server | None:
    """The server in the user's own Prefect settings, if it answers."""
    from prefect.client.orchestration import get_client  # late: it takes seconds
    from prefect.settings import get_current_settings

    settings = get_current_settings()
    url = settings.api.url
    own = _read_record(home)
    if not url or (own is not None and url == own.url):
        return None
    with get_client(httpx_settings={"timeout": 10}, sync_client=True) as client:
        trouble = client.api_healthcheck()
    if trouble is not None:
        tell(f"PREFECT_API_URL names {url}, which does not answer ({trouble!r}): not used.")
        return None
    ui_url = settings.ui_url or url.removesuffix("/api")
    return Server(url, ui_url, pid=None, started=False, home=home)


def _without_proxy(environ: Mapping[str, str]) -> dict[str, str]:
    """If a proxy is set, as on many login nodes: variables that keep 127.0.0.1 out of it."""
    if not any(name.lower() in ("http_proxy", "all_proxy") for name in environ):
        return {}
    known = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    hosts = ",".join(filter(None, [known, "127.0.0.1", "localhost"]))
    return {"no_proxy": hosts, "NO_PROXY": hosts}
