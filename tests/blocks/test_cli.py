"""The command `hpc-prefect`, as a user meets it."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from hpc_prefect.cli import main

from .. import warm

MAIN = "import sys; from hpc_prefect.cli import main; sys.exit(main())"


def run(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    given = ["-c", MAIN, *words]
    return warm.run(given, env=os.environ | environ, capture_output=True, timeout=120)


@pytest.mark.usefixtures("prefect_server")
def test_a_file_is_applied_and_its_blocks_are_listed(tmp_path: Path) -> None:
    ident = uuid.uuid4().hex[:8]
    file = tmp_path / "blocks.toml"
    file.write_text(
        f"[command.cmd-{ident}]\ncommand_name = 'a'\nexecutable_key = 'a'\n"
        f"[hpc-profile.hpc-{ident}]\nscheduler = 'local'\n"
    )

    applied = run("blocks", "apply", str(file), XDG_STATE_HOME=str(tmp_path / "state"))
    listed = run("blocks", "list")

    assert (applied.returncode, applied.stdout) == (
        0,
        f"created    command  cmd-{ident}\ncreated    hpc-profile  hpc-{ident}\n",
    )
    assert applied.stderr == (
        f"warning: [hpc-profile.hpc-{ident}] has no executable 'a', "
        f"so [command.cmd-{ident}] cannot run there\n"
    )
    assert f"hpc-prefect-command/cmd-{ident}\n" in listed.stdout


@pytest.mark.usefixtures("prefect_server")
def test_an_edited_file_is_applied_without_ceremony_and_what_another_made_is_not_replaced(
    tmp_path: Path,
) -> None:
    ident = uuid.uuid4().hex[:8]
    mine, theirs = tmp_path / "mine.toml", tmp_path / "theirs.toml"
    text = f"[variable.v_{ident}]\nvalue = 1\n"
    mine.write_text(text)
    theirs.write_text(text.replace("value = 1", "value = 3"))
    home = {"XDG_STATE_HOME": str(tmp_path / "state")}

    def blocks(*words: object) -> tuple[int, str]:
        done = run("blocks", *map(str, words), **home)
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout

    created, unchanged, updated = (
        f"{kind:<9}  variable  v_{ident}\n" for kind in ("created", "unchanged", "updated")
    )
    assert blocks("diff", mine) == blocks("apply", mine) == (0, created)
    assert blocks("apply", mine) == (0, f"{unchanged}nothing has changed\n")
    mine.write_text(text.replace("value = 1", "value = 2"))
    lines = '      its value: {"value": 1} → {"value": 2}\n'
    assert blocks("apply", "--dry-run", mine) == blocks("apply", mine) == (0, updated + lines)
    lines = '    ! its value: {"value": 2} → {"value": 3}\n'
    assert blocks("diff", theirs) == (1, updated + lines)
    assert blocks("apply", theirs) == (1, "")
    assert blocks("apply", "--force", theirs) == (0, updated + lines)


def test_a_wrong_file_is_a_sentence_on_stderr_and_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "blocks.toml"
    file.write_text("[comand.a]\n")

    status = main(["blocks", "apply", str(file)])

    assert status == 1
    assert capsys.readouterr() == (
        "",
        f"hpc-prefect: {file}: 1 problem, nothing was saved:\n"
        "  - line 1, [comand]: there is no such table; did you mean 'command'?\n",
    )


def test_a_server_that_is_not_there_is_a_sentence_without_a_traceback() -> None:
    nowhere = {"PREFECT_API_URL": "http://127.0.0.1:9/api"}  # read when Prefect is imported
    done = subprocess.run(
        [sys.executable, "-c", MAIN, "blocks", "list"],
        env=os.environ | nowhere, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip

    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith(
        "hpc-prefect: The Prefect server http://127.0.0.1:9/api does not answer ("
    )


@pytest.mark.parametrize("words", [[], ["blocks"], ["bloks"], ["blocks", "apply"]])
def test_wrong_usage_is_status_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)

    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("usage: hpc-prefect")


@pytest.mark.parametrize("word", ["version", "--version"])
def test_the_version_is_printed_without_importing_prefect(word: str) -> None:
    code = (
        "import sys, atexit, os\n"
        "atexit.register(lambda: 'prefect' in sys.modules and os._exit(9))\n"
        f"from hpc_prefect.cli import main; sys.exit(main(['{word}']))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    version = importlib.metadata.version("hpc-prefect")
    assert done.stdout.splitlines()[0] == f"hpc-prefect {version}"


def test_a_home_without_a_server_has_status_1_and_nothing_to_stop(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["server", "status", "--home", str(tmp_path)]) == 1
    assert main(["server", "stop", "--home", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"no Prefect server runs in {tmp_path}\n" * 2


def test_a_server_that_answers_is_told_with_its_addresses(
    prefect_server: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["server", "start", "--home", str(tmp_path)])

    lines = capsys.readouterr().out.splitlines()
    assert status == 0
    assert lines[0].startswith("Prefect server already running: http://127.0.0.1:")
    assert lines[2] == "  in use:             your own Prefect settings name it"
