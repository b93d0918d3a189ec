"""A reader that has seen enough changes nothing for a command, and gives no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-c", "import sys; from hpc_prefect.cli import main; sys.exit(main())"]


def unread(*words: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[bytes]:
    """The command, whose standard output nobody ever reads."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        return subprocess.run(
            [*COMMAND, *words],
            cwd=cwd,
            env=os.environ | {"XDG_STATE_HOME": str(cwd / "state")} | environ,
            stdout=writing,
            stderr=subprocess.PIPE,
            timeout=120,
        )
    finally:
        os.close(writing)


@pytest.mark.parametrize("buffered", ["", "1"], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--version"],
        ["version"],
        ["sites"],
        ["sites", "show", "pbs"],
        ["jobs"],
        ["jobs", "--json"],
        ["rehearse", "pbs", "--", "true"],
    ],
    ids=" ".join,
)
def test_what_nobody_reads_is_no_error(words: list[str], buffered: str, tmp_path: Path) -> None:
    done = unread(*words, cwd=tmp_path, PYTHONUNBUFFERED=buffered)
    assert (done.returncode, b"rror" in done.stderr) == (0, False), done.stderr


def test_a_failure_keeps_its_status(tmp_path: Path) -> None:
    done = unread("server", "status", "--home", str(tmp_path), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.usefixtures("prefect_server")
def test_a_file_is_applied_to_its_end(tmp_path: Path) -> None:
    ident = uuid.uuid4().hex[:8]
    names = [f"cmd-{ident}-{n}" for n in range(3)]
    table = "[command.{}]\ncommand_name = '{}'\nexecutable_key = 'a'\n"
    (tmp_path / "blocks.toml").write_text("".join(table.format(name, name) for name in names))

    done = unread("blocks", "apply", "blocks.toml", cwd=tmp_path)
    listed = subprocess.run([*COMMAND, "blocks", "list"], capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, b"")
    assert all(f"hpc-prefect-command/{name}\n" in listed.stdout for name in names)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_is_an_error_in_a_sentence(tmp_path: Path) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*COMMAND, "version"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=120
        )
    assert done.returncode == 1
    assert done.stderr == (
        "hpc-prefect: the output cannot be written: [Errno 28] No space left on device\n"
    )


def done_without(closed: str, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """The command, started by a shell that has closed a stream of it."""
    shell = ["/bin/sh", "-c", f'exec "$@" {closed}', "sh", *COMMAND, *words]
    return subprocess.run(
        shell, env=os.environ | environ, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_stream_that_is_not_there_is_no_error(closed: str, tmp_path: Path) -> None:
    done = done_without(closed, "jobs", str(tmp_path))
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr


@pytest.mark.usefixtures("prefect_server")  # `apply` asks for it before it prints
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_what_a_locale_cannot_print_is_no_error(encoding: str, tmp_path: Path) -> None:
    strange = os.fsdecode(os.fsencode(tmp_path) + b"/h\xc3\xa9\xff.toml")
    Path(strange).touch()

    done = subprocess.run(
        [*COMMAND, "blocks", "apply", strange],
        env=os.environ | {"PYTHONIOENCODING": f"{encoding}:strict"},
        capture_output=True,
        timeout=120,
    )

    assert b"Traceback" not in done.stderr
    assert (done.returncode, b"has no blocks" in done.stdout) == (0, True)
    assert (os.fsencode(strange) in done.stdout) is (encoding == "utf-8")


@pytest.mark.parametrize(
    "words",
    [
        ["render", "--command", "a", "--execution", "b", "--hpc", "c"],
        ["doctor", "a"],
        ["resume", "a"],
        ["blocks", "list"],
    ],
    ids=lambda words: words[0],
)
def test_a_server_that_does_not_answer_is_told_in_a_sentence(words: list[str]) -> None:
    done = done_without("", *words, PREFECT_API_URL="http://127.0.0.1:9/api")

    assert done.returncode == 1
    assert "erver http://127.0.0.1:9/api " in done.stderr
    assert "hpc-prefect server start" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["rehearse", "pbs", "--state", "/dev/null", "--", "true"],
        ["server", "start", "--home", "/dev/null"],
    ],
    ids=lambda words: words[0],
)
def test_a_path_that_cannot_be_used_is_told_in_a_sentence(words: list[str]) -> None:
    done = done_without("", *words)

    assert done.returncode == 1
    assert "/dev/null" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_rehearsal_writes_into_no_folder_that_has_other_files(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()

    done = done_without("", "rehearse", "pbs", "--state", str(tmp_path), "--", "true")

    assert done.returncode == 1
    assert "has other files in it" in done.stderr
    assert os.listdir(tmp_path) == ["mine"]
