"""What the benchmarks share: a Prefect of their own in a temporary home, and how figures are told.

Import it before Prefect, which reads its settings when it is imported.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from hpc_prefect.server import ensure_server, free_port, stop_server

assert "prefect" not in sys.modules, "Prefect was imported before its settings were made"

HOME = Path(tempfile.mkdtemp(prefix="hpc-prefect-bench-"))
PORT = free_port()
# Nothing of the user's own counts here.
for name in [name for name in os.environ if name.startswith("PREFECT_")]:
    del os.environ[name]
os.environ |= {
    "PREFECT_HOME": str(HOME),
    "PREFECT_PROFILES_PATH": str(HOME / "profiles.toml"),
    "PREFECT_API_URL": f"http://127.0.0.1:{PORT}/api",
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
    "PREFECT_LOGGING_LEVEL": "INFO",
    # Records go to the server, as in every real run; the terminal is for the results.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    # SQLite lets one write at a time: a busy server asks for patience.
    "PREFECT_CLIENT_MAX_RETRIES": "6",
    "DO_NOT_TRACK": "1",
    "XDG_DATA_HOME": str(HOME / "data"),  # the user's list of runs is not for these
}


@contextlib.contextmanager
def prefect_server() -> Iterator[None]:
    """A server inside; at the end it is stopped, and the home removed."""
    from prefect.logging.handlers import APILogWorker

    print("starting a Prefect server (half a minute) …", file=sys.stderr)
    ensure_server(HOME, port=PORT)
    try:
        yield
    finally:
        APILogWorker.drain_all()  # what is still to be sent would be told as an error later
        stop_server(HOME)
        shutil.rmtree(HOME, ignore_errors=True)


def copy_of(job_folder: str) -> str:
    """A job's rendered scripts once more, in a folder with a fresh guard; the script's path."""
    # A script looks at who owns the folders above its own, as many as a job's has.
    above = HOME / "copies" / "of" / "jobs"
    above.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=above))
    for name in ("script.sh", "program.sh"):
        text = Path(job_folder, name).read_text().replace(job_folder, str(folder))
        (folder / name).write_text(text)
    for name in ("start", "exit"):
        (folder / name).touch()
    script = folder / "script.sh"
    script.chmod(0o700)
    return str(script)


def told(value: float, most: float, unit: str) -> str:
    return f"target {most:g} {unit} {'met' if value <= most else 'missed'}".replace("  ", " ")


def load() -> str:
    """How busy the machine is: what a figure was measured beside."""
    minute, five, _ = os.getloadavg()
    return f"load {minute:.1f} (1 min), {five:.1f} (5 min)"
