"""A line in a terminal while a command has nothing to say yet; nowhere else."""

from __future__ import annotations

import os
import pty
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MAIN = "import sys; from hpc_prefect.cli import main; sys.exit(main())"
WANTED = (
    "import sys; from hpc_prefect.cli.progress import is_wanted\n"
    "print(is_wanted(), file=open(sys.argv[1], 'w'))"
)
ERASE = b"\r\x1b[K"


@contextmanager
def silent_server() -> Iterator[str]:
    """The address of a Prefect server that takes connections and says nothing, until it is gone."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/api"


def read_until(terminal: int, words: bytes) -> bytes:
    """What is written to a terminal, up to these words."""
    said = b""
    while words not in said:
        said += os.read(terminal, 4096)
    return said


def test_a_terminal_shows_that_something_goes_on_and_nothing_of_it_is_left(
    tmp_path: Path,
) -> None:
    ours, theirs = pty.openpty()
    with silent_server() as url:
        done = subprocess.Popen(
            [sys.executable, "-c", MAIN, "blocks", "list"],
            stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs,
            env=os.environ | {"PREFECT_API_URL": url, "TERM": "xterm", "HOME": str(tmp_path)},
        )  # fmt: skip
        os.close(theirs)
        read_until(ours, b"hpc-prefect: at work, ")
    rest = read_until(ours, b"does not answer")
    done.wait(120)
    os.close(ours)
    before, _, after = rest.rpartition(ERASE)
    assert b"at work" not in after
    assert b"hpc-prefect: The Prefect server" in after
    assert b"The Prefect server" not in before


@pytest.mark.parametrize(
    ("out", "err", "term", "wanted"),
    [
        ("terminal", "terminal", "xterm", True),
        ("file", "terminal", "xterm", True),
        ("pipe", "terminal", "xterm", False),
        ("terminal", "pipe", "xterm", False),
        ("terminal", "file", "xterm", False),
        ("terminal", "terminal", "dumb", False),
    ],
)
def test_it_is_for_a_terminal_that_nobody_else_has(
    out: str, err: str, term: str, wanted: bool, tmp_path: Path
) -> None:
    ours, theirs = pty.openpty()
    told = tmp_path / "told"
    streams = {"terminal": theirs, "pipe": subprocess.PIPE}
    with (tmp_path / "file").open("wb") as file:
        done = subprocess.run(
            [sys.executable, "-c", WANTED, str(told)],
            stdout=streams.get(out, file), stderr=streams.get(err, file),
            env=os.environ | {"TERM": term}, timeout=120, check=False,
        )  # fmt: skip
    os.close(ours)
    os.close(theirs)
    assert done.returncode == 0
    assert told.read_text() == f"{wanted}\n"
