"""What a shell offers when TAB is pressed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hpc_prefect.cli import _parser, completion
from hpc_prefect.cli.completion import offered
from hpc_prefect.records import index
from hpc_prefect.records.read import read_run

from ..records import given


@pytest.mark.parametrize(
    ("before", "begun", "wanted"),
    [
        ([], "ru", ["runs"]),
        (["runs"], "s", ["show", "scan"]),
        (["jobs"], "ca", ["cancel"]),
        (["init", "--template"], "s", ["sqd", "sweep"]),
        (["init", "--template", "sqd"], "--te", ["--template"]),
        (["runs", "--limit=3"], "c", ["compare"]),
        (["runs", "--limit", "3"], "c", ["compare"]),
        (["sites", "show"], "m", ["miyabi"]),
        (["blocks", "apply"], "", []),
        (["runs", "--flow"], "", []),
        (["render", "--"], "-", []),
        (["completion"], "", ["bash", "zsh", "fish"]),
        (["nothing-that-is"], "server", ["server"]),
    ],
)
def test_the_words_that_may_come_next_are_offered(
    before: list[str], begun: str, wanted: list[str]
) -> None:
    assert offered(_parser(), before, begun) == wanted


def test_runs_are_offered_by_id_and_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    folder = given.run(tmp_path / "work", ident="4711aaaa-1111", name="brave-fox")
    index.put(read_run(folder, with_jobs=False).summary())
    assert offered(_parser(), ["runs", "show"], "") == ["latest", "4711aaaa-1111", "brave-fox"]
    assert offered(_parser(), ["runs", "compare", "latest"], "br") == ["brave-fox"]


#: Each asks its shell what it offers behind `hpc-prefect init --template s`.
ASKS = {
    "bash": 'eval "$(hpc-prefect completion bash)"; COMP_WORDS=(hpc-prefect init --template s)\n'
    'COMP_CWORD=3; _hpc_prefect; printf "%s\\n" "${COMPREPLY[@]}"',
    "fish": 'hpc-prefect completion fish | source; complete -C "hpc-prefect init --template s"',
}


@pytest.mark.parametrize("shell", ASKS)
def test_a_shell_takes_its_script_and_offers_the_words(shell: str, tmp_path: Path) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"there is no {shell} here")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [program, "-c", ASKS[shell]],
        env=os.environ | {"PATH": path, "HOME": str(tmp_path)},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["sqd", "sweep"], done.stderr


def test_every_shell_of_the_help_has_a_script() -> None:
    assert completion._SCRIPTS.keys() == completion._HOW.keys()
