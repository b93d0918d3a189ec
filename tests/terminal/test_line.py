"""A line in a terminal that says what goes on while there is nothing to read; nowhere else."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from hpc_prefect.blocks import HPCProfileBlock
from hpc_prefect.terminal.line import lasting
from hpc_prefect.terminal.watched import ERASE, WatchedFile, screen

MAIN = "import sys; from hpc_prefect.cli import main; sys.exit(main())"
WANTED = (
    "import sys; from hpc_prefect.terminal.line import is_wanted\n"
    "print(is_wanted(), file=open(sys.argv[1], 'w'))"
)
#: A terminal becomes that of a new session when it is opened.
OWN_TERMINAL = (
    "import os, sys; os.open(os.ttyname(2), os.O_RDWR); os.execv(sys.argv[1], sys.argv[1:])"
)
#: Prints, and goes on when it is told to: once the line was seen.
TALKS = """
import logging, sys
logging.basicConfig(format="%(message)s", level=logging.INFO)
from hpc_prefect.terminal import line
with line.shown(lambda: "it\\ngoes on"):
    print("one")
    sys.stdin.readline()
    logging.info("two")
    sys.stdin.readline()
    print("three", flush=True)
"""
#: A plain script of a user's, whose job ends when a file is there.
FLOW = """
import sys
from prefect import flow
from hpc_prefect import ensure_ready, run_job_sync

@flow
def plain(file: str) -> None:
    run_job_sync(["/bin/sh", "-c", f"until test -e {file}; do sleep 0.1; done"],
                 on="hpc-local", work_dir="work")
    print("the flow's own words")

ensure_ready()
plain(sys.argv[1])
"""


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


def read_all(terminal: int) -> bytes:
    """What is written to a terminal until nobody has it any more."""
    said = b""
    try:
        while piece := os.read(terminal, 4096):
            said += piece
    except OSError:  # so a terminal ends
        pass
    return said


def left_on(said: bytes) -> list[str]:
    """The lines that a reader of the terminal has before them when all is written."""
    lines = [line.rpartition(ERASE)[2] for line in said.replace(b"\r\n", b"\n").split(b"\n")]
    return [re.sub(rb"\x1b\[[\d;]*m", b"", line).decode() for line in lines]


@contextmanager
def in_terminal(
    words: list[str], folder: Path, streams: Mapping[str, int] | None = None, **environ: str
) -> Iterator[int]:
    """Our end of a terminal that a Python program has to itself, as in front of a shell."""
    ours, theirs = pty.openpty()
    program = subprocess.Popen(
        [sys.executable, "-c", OWN_TERMINAL, sys.executable, *words],
        **({"stdin": theirs, "stdout": theirs, "stderr": theirs} | dict(streams or {})),
        cwd=folder, start_new_session=True,
        env=os.environ | {"TERM": "xterm", "HOME": str(folder)} | environ,
    )  # fmt: skip
    os.close(theirs)
    try:
        yield ours
        assert program.wait(120) in (0, 1)
    finally:
        program.kill()
        program.wait()
        os.close(ours)


def test_a_command_shows_that_something_goes_on_and_nothing_of_it_is_left(tmp_path: Path) -> None:
    words = ["-c", MAIN, "blocks", "list"]
    with ExitStack() as until_seen:
        url = until_seen.enter_context(silent_server())
        with in_terminal(words, tmp_path, PREFECT_API_URL=url) as terminal:
            said = read_until(terminal, b"blocks: at work, ")
            until_seen.close()
            said += read_all(terminal)
    assert [line for line in left_on(said) if "at work" in line] == []
    assert any("hpc-prefect: The Prefect server" in line for line in left_on(said))


@pytest.mark.parametrize("out", ["terminal", "file"])
def test_the_line_makes_way_for_what_is_printed_and_comes_back(out: str, tmp_path: Path) -> None:
    reading, writing = os.pipe()  # not the terminal, which would show what is typed
    with (tmp_path / "out").open("wb") as file:
        streams = {"stdin": reading} | ({"stdout": file.fileno()} if out == "file" else {})
        with in_terminal(["-c", TALKS], tmp_path, streams) as terminal:
            said = b""
            for _ in range(2):
                said += read_until(terminal, b"it?goes on, ")
                os.write(writing, b"\n")
            said += read_all(terminal)
    os.close(reading)
    os.close(writing)
    printed = (tmp_path / "out").read_bytes()
    told = [line for line in left_on(said) if line]
    if out == "file":
        assert printed == b"one\nthree\n"
        assert told == ["two"]
    else:
        assert told == ["one", "two", "three"]


@pytest.mark.usefixtures("prefect_server")
def test_a_plain_script_shows_what_its_job_does(tmp_path: Path) -> None:
    (tmp_path / "flow.py").write_text(FLOW)
    end = tmp_path / "end"
    with in_terminal(["flow.py", str(end)], tmp_path) as terminal:
        said = read_until(terminal, b"sh: running as ")  # Prefect's log
        said += read_until(terminal, ERASE + b"sh: running as ")
        end.touch()
        said += read_all(terminal)
    lines = left_on(said)
    assert [line for line in lines if line.startswith("sh: ")] == []
    assert "the flow's own words" in lines
    assert any(line.endswith("Finished in state Completed()") for line in lines)


def test_a_line_that_is_not_ended_is_left_alone() -> None:
    ours, theirs = pty.openpty()
    stream = io.TextIOWrapper(io.BufferedWriter(WatchedFile(theirs)), write_through=True)
    stream.write("how much? ")
    stream.flush()
    assert screen.in_a_line
    stream.write("much\n")
    stream.flush()
    assert not screen.in_a_line
    assert read_until(ours, b"\n") == b"how much? much\r\n"
    os.close(ours)
    os.close(theirs)


@pytest.mark.parametrize("in_front", [True, False])
def test_a_program_in_the_background_has_no_line(in_front: bool, tmp_path: Path) -> None:
    """As one that a shell has started with `&`."""
    asks = (
        "import os, sys; os.fork() and (os.wait(), os._exit(0))\n"
        f"{'' if in_front else 'os.setpgid(0, 0)'}\n"
        "from hpc_prefect.terminal.line import is_in_front\n"
        "open('told', 'w').write(str(is_in_front()))"
    )
    with in_terminal(["-c", asks], tmp_path) as terminal:
        read_all(terminal)
    assert (tmp_path / "told").read_text() == str(in_front)


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0 s"), (59, "59 s"), (60, "1 min 00 s"), (7260, "2 h 01 min")]
)
def test_how_long_it_has_lasted_in_few_words(seconds: float, words: str) -> None:
    assert lasting(seconds) == words


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


@pytest.mark.usefixtures("prefect_server")
def test_the_doctor_says_what_it_checks_and_its_json_has_nothing_of_that(tmp_path: Path) -> None:
    """A scheduler whose commands hang until the line was seen."""
    HPCProfileBlock(scheduler="slurm").save("slow-place", overwrite=True, _sync=True)
    commands, go = tmp_path / "bin", tmp_path / "go"
    commands.mkdir()
    for name in ("sbatch", "squeue", "scancel", "sinfo", "sacct", "scontrol"):
        (commands / name).write_text(f"#!/bin/sh\nuntil test -e {go}; do sleep 0.1; done\nexit 1\n")
        (commands / name).chmod(0o755)
    path = f"{commands}:{os.environ['PATH']}"
    with (tmp_path / "out").open("wb") as file:
        words = ["-c", MAIN, "doctor", "slow-place", "--json"]
        with in_terminal(words, tmp_path, {"stdout": file.fileno()}, PATH=path) as terminal:
            said = read_until(terminal, b"checking slow-place, ")
            go.touch()
            said += read_all(terminal)
    assert [line for line in left_on(said) if "checking" in line] == []
    found = json.loads((tmp_path / "out").read_bytes())
    assert {each["check"] for each in found} >= {"profile", "commands"}
