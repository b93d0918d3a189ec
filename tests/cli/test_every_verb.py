"""What holds for every verb: a mistake is told in a sentence, a closed pipe is no error."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpc_prefect.cli import _parser
from hpc_prefect.server import Server

MAIN = "import sys; from hpc_prefect.cli import main; sys.exit(main())"

#: A user's mistake for each verb, and the exit status.
MISTAKES: dict[str, tuple[list[str], int]] = {
    "init": (["init", "file/below"], 1),
    "blocks apply": (["blocks", "apply", "nowhere.toml"], 1),
    "blocks diff": (["blocks", "diff", "broken.toml"], 1),
    "blocks list": (["blocks", "list", "too", "much"], 2),
    "blocks import-qcsc": (["blocks", "import-qcsc", "nowhere.json"], 1),
    "sites show": (["sites", "show", "atlantis"], 1),
    "render": (["render", "--command", "no", "--execution", "no", "--hpc", "no"], 1),
    "jobs list": (["jobs", "list", "nowhere"], 1),
    "jobs show": (["jobs", "show", "nothing"], 1),
    "jobs logs": (["jobs", "logs", "nothing"], 1),
    "jobs cancel": (["jobs", "cancel", "nothing"], 1),
    "jobs attach": (["jobs", "attach", "nothing"], 1),
    "runs list": (["runs", "list", "--where", "shots>>"], 1),
    "runs show": (["runs", "show", "nothing"], 1),
    "runs scan": (["runs", "scan"], 2),
    "runs compare": (["runs", "compare", "nothing", "latest"], 1),
    "runs reproduce": (["runs", "reproduce", "nothing"], 1),
    "runs export": (["runs", "export", "nothing", "--crate", "x"], 1),
    "resume": (["resume", "nothing"], 1),
    "doctor": (["doctor", "nothing"], 1),
    "rehearse": (["rehearse", "atlantis", "--", "true"], 1),
    "server start": (["server", "start", "--home", "file/below"], 1),
    "server status": (["server", "status", "--home", "file/below"], 1),
    "server stop": (["server", "stop", "--nothing"], 2),
    "version": (["version", "4"], 2),
    "completion bash": (["completion", "bash", "4"], 2),
    "completion zsh": (["completion", "zsh", "4"], 2),
    "completion fish": (["completion", "fish", "4"], 2),
    "completion words": (["completion", "tcsh"], 2),
}

#: Those that print more than a line, in an empty folder.
LISTINGS = [
    ["blocks", "list"],
    ["sites"],
    ["jobs"],
    ["runs"],
    ["server", "status", "--home", "none"],
]
#: Every verb that lists something, with words for a place where there is something to list.
AS_JSON = {
    "blocks apply": ["blocks", "apply", "blocks.toml"],
    "blocks diff": ["blocks", "diff", "other.toml"],
    "blocks import-qcsc": ["blocks", "import-qcsc", "theirs.toml", "--apply", "--force"],
    "blocks list": ["blocks", "list"],
    "doctor": ["doctor", "every-verb"],
    "jobs list": ["jobs", "list"],
    "jobs show": ["jobs", "show", "sh", "--work-dir", "work"],
    "runs compare": ["runs", "compare", "latest", "latest"],
    "runs list": ["runs", "list"],
    "runs reproduce": ["runs", "reproduce", "latest"],
    "runs show": ["runs", "show", "latest"],
    "server status": ["server", "status"],
    "sites": ["sites"],
    "version": ["version"],
}
#: What the others print is no list.
NO_LIST = {
    "init": "says which files it wrote", "sites show": "a TOML file", "render": "a script",
    "jobs logs": "what a program wrote", "jobs cancel": "a sentence a job",
    "jobs attach": "what happens", "runs scan": "a sentence", "runs export": "a sentence",
    "resume": "what happens", "rehearse": "what COMMAND prints", "server start": "sentences",
    "server stop": "a sentence", "completion bash": "a script", "completion zsh": "a script",
    "completion fish": "a script", "completion words": "words, for a shell",
}  # fmt: skip
OURS = """
[hpc-profile.every-verb]
scheduler = "local"
"""
THEIRS = """
[hpc_command.every-verb]
command_name = "every-verb"
executable_key = "every-verb"
"""


def verbs(parser: argparse.ArgumentParser, above: str = "") -> Iterator[str]:
    """The words of everything that can be done."""
    below = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    if not below:
        yield above
    for name, each in (below[0]._name_parser_map if below else {}).items():
        yield from verbs(each, f"{above} {name}".strip())


def command(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    (folder / "file").write_text("")
    (folder / "broken.toml").write_text("[command\n")
    data = {"XDG_DATA_HOME": str(folder / "data"), "XDG_STATE_HOME": str(folder / "state")}
    return subprocess.run(
        [sys.executable, "-c", MAIN, *words],
        cwd=folder, env=os.environ | data, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip


def test_each_verb_has_its_mistake_here() -> None:
    assert sorted(verbs(_parser())) == sorted(MISTAKES)


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize("verb", MISTAKES)
def test_a_mistake_is_told_in_a_sentence(verb: str, tmp_path: Path) -> None:
    words, status = MISTAKES[verb]
    done = command(tmp_path, *words)
    said = done.stdout + done.stderr
    assert done.returncode == status, said
    assert "Traceback" not in said
    assert said.strip()
    if status == 2:
        assert "usage: hpc-prefect" in done.stderr


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize("words", LISTINGS, ids=" ".join)
def test_each_listing_is_to_be_had_as_json(words: list[str], tmp_path: Path) -> None:
    done = command(tmp_path, *words, "--json")
    assert "Traceback" not in done.stderr
    json.loads(done.stdout)


def test_each_verb_lists_or_does_not() -> None:
    below_sites = {"sites"}  # lists without an action
    assert sorted({*verbs(_parser())} | below_sites) == sorted([*AS_JSON, *NO_LIST])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, prefect_server: Server) -> Path:
    """A folder with a run, its job, files of blocks, and their blocks on the server."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "blocks.toml").write_text(OURS)
    (folder / "other.toml").write_text(OURS + "poll_interval = 7\n")
    (folder / "theirs.toml").write_text(THEIRS)
    (folder / "flow.py").write_text(
        "from prefect import flow\nfrom hpc_prefect import run_job_sync\n"
        "@flow\ndef works(work_dir: str) -> None:\n"
        "    run_job_sync(['/bin/sh', '-c', ':'], on='hpc-local', work_dir=work_dir)\n"
        "if __name__ == '__main__': works('work')\n"
    )
    data = {"XDG_DATA_HOME": str(folder / "data"), "XDG_STATE_HOME": str(folder / "state")}
    subprocess.run(
        [sys.executable, "flow.py"], cwd=folder, env=os.environ | data, check=True, timeout=200
    )
    assert command(folder, "blocks", "apply", "blocks.toml").returncode == 0
    return folder


@pytest.mark.parametrize("verb", AS_JSON)
def test_what_lists_is_to_be_had_as_json_and_nothing_else_is_on_stdout(
    verb: str, place: Path, prefect_server: Server
) -> None:
    words = AS_JSON[verb]
    home = ["--home", str(prefect_server.home)] if verb == "server status" else []
    done = command(place, *words, *home, "--json")
    assert done.returncode in (0, 1), done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads(done.stdout)


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize("words", [*LISTINGS, ["completion", "bash"], ["--help"]], ids=" ".join)
def test_a_closed_pipe_is_no_error(words: list[str], tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-c", MAIN, *words],
            cwd=tmp_path, env=os.environ | {"XDG_DATA_HOME": str(tmp_path)},
            stdout=writing, stderr=subprocess.PIPE, text=True, timeout=200, check=False,
        )  # fmt: skip
    finally:
        os.close(writing)
    assert "Error" not in done.stderr
    assert done.returncode == (1 if words[0] == "server" else 0), done.stderr


@pytest.mark.usefixtures("prefect_server")
def test_a_flow_that_fails_again_is_told_in_a_sentence(tmp_path: Path) -> None:
    """Prefect has logged where; a second traceback of ours says nothing more."""
    (tmp_path / "flow.py").write_text(
        "import asyncio, sys\nfrom prefect import flow\nfrom hpc_prefect import run_job\n"
        "@flow\nasync def fails(work_dir: str) -> None:\n"
        "    await run_job(['/bin/true'], on='hpc-local', work_dir=work_dir)\n"
        "    raise ValueError('on purpose')\n"
        "if __name__ == '__main__': asyncio.run(fails(sys.argv[1]))\n"
    )
    environment = os.environ | {"HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path / "data")}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *words], cwd=tmp_path, env=environment,
            capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip

    assert run("flow.py", str(tmp_path / "work")).returncode == 1
    again = run("-c", MAIN, "runs", "reproduce", "latest")
    assert again.returncode == 1
    told = "\nhpc-prefect: the flow failed: ValueError: on purpose\n"
    assert told in f"\n{again.stderr}"
    assert "Traceback" not in again.stderr.rpartition(told)[2]  # Prefect may log after it
