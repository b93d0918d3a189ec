"""`hpc-prefect blocks import-qcsc`, as a user meets it."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from pathlib import Path
from typing import Any, ClassVar

import pytest
from prefect.blocks.core import Block
from pydantic import Field, SecretStr

from hpc_prefect import HPCProfileBlock
from hpc_prefect.cli import main

from ... import warm
from ..test_cli import MAIN

FILE = """
[hpc_command.cmd]
command_name = "diag"
executable_key = "diag"

[execution_profile.exec]
profile_name = "diag"
command_name = "diag"
mpiprocs = 4
ompthreads = 1
launcher = "mpirun"

[hpc_profile.hpc]
hpc_target = "local"
executable_map = { diag = "/opt/diag" }
"""


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    file = tmp_path / "theirs.toml"
    file.write_text(FILE)
    return file


def test_a_file_is_written_once_and_what_became_of_each_field_is_said(
    theirs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "ours.toml"
    command = ["blocks", "import-qcsc", str(theirs), "--out", str(out)]

    assert main(command) == 0
    said = capsys.readouterr().out
    assert "  kept      mpiprocs -> [execution-profile.exec] ranks_per_node\n" in said
    assert (
        "  changed   launcher -> [hpc-profile.hpc] launcher: mpirun -n {ranks} {command}\n" in said
    )
    assert "HPC profile):\n  cmd  exec  hpc\n" in said
    assert (
        f"wrote {out}: 3 blocks from 3; fields: 8 kept, 1 changed, 0 left out, 0 to decide" in said
    )
    assert '[hpc-profile.hpc.executables]\ndiag = "/opt/diag"\n' in out.read_text()

    assert main(command) == 0
    assert f"{out} is unchanged: 3 blocks" in capsys.readouterr().out


def test_another_file_is_not_replaced_unless_it_is_asked_for(
    theirs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "ours.toml"
    out.write_text("mine")
    command = ["blocks", "import-qcsc", str(theirs), "--out", str(out)]

    assert main(command) == 1
    assert capsys.readouterr().err == (
        f"hpc-prefect: {out} exists with other content, so nothing was written: name another "
        "file with --out, or replace it with --force\n"
    )
    assert out.read_text() == "mine"
    assert main([*command, "--force"]) == 0
    assert "[command.cmd]" in out.read_text()


def test_all_problems_are_told_at_once_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong, missing = tmp_path / "wrong.json", tmp_path / "missing.json"
    wrong.write_text('{"hpc_profil": {}}')
    out = tmp_path / "ours.toml"

    status = main(["blocks", "import-qcsc", str(wrong), str(missing), "--out", str(out)])

    assert (status, out.exists()) == (1, False)
    error = capsys.readouterr().err
    assert error.startswith("hpc-prefect: 2 problems, nothing was written:\n  - ")
    assert f"{missing}: cannot be read" in error


def test_the_report_as_json(
    theirs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "ours.toml"

    assert main(["blocks", "import-qcsc", str(theirs), "--out", str(out), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["file"] == str(out)
    assert said["calls"] == [{"command": "cmd", "execution_profile": "exec", "hpc_profile": "hpc"}]
    assert said["fields"][0] == {
        "document": "hpc_command/cmd",
        "field": "command_name",
        "outcome": "kept",
        "became": "[command.cmd]",
        "why": "",
    }


def test_the_file_on_standard_output_has_the_report_beside_it(
    theirs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["blocks", "import-qcsc", str(theirs), "--out", "-"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("# Made by `hpc-prefect blocks import-qcsc`")
    assert "printed: 3 blocks" in said.err


@pytest.mark.parametrize("words", [[], ["x.toml", "--out", "-", "--apply"]])
def test_wrong_usage_is_status_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["blocks", "import-qcsc", *words])

    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("usage: hpc-prefect blocks import-qcsc")


# --- from a server, where their types are known by their slugs alone


class TheirCommand(Block):
    _block_type_name: ClassVar[str | None] = "HPC Command"
    _block_type_slug: ClassVar[str | None] = "hpc_command"

    command_name: str
    executable_key: str
    description: str | None = None
    default_args: list[str] = Field(default_factory=list)


class TheirProfile(Block):
    _block_type_name: ClassVar[str | None] = "Execution Profile"
    _block_type_slug: ClassVar[str | None] = "execution_profile"

    profile_name: str
    command_name: str
    mpiprocs: int = 1
    ompthreads: int | None = None
    launcher: str = "single"
    environments: dict[str, str] = Field(default_factory=dict)


class TheirPlace(Block):
    _block_type_name: ClassVar[str | None] = "HPC Profile"
    _block_type_slug: ClassVar[str | None] = "hpc_profile"

    hpc_target: str = "miyabi"
    queue_cpu: str = "regular-c"
    executable_map: dict[str, str] = Field(default_factory=dict)
    gfscache: str | None = None


class TheirRuntime(Block):
    _block_type_name: ClassVar[str | None] = "Qiskit Runtime Config"
    _block_type_slug: ClassVar[str | None] = "qiskit_runtime_config"

    backend_name: str
    token: SecretStr | None = None


def blocks(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, which has never seen their classes."""
    given: list[Any] = ["-c", MAIN, "blocks", *words]
    return warm.run(given, env=os.environ | environ, capture_output=True, timeout=120)


@pytest.mark.usefixtures("prefect_server")
def test_blocks_of_a_server_are_imported_and_applied_without_their_package(
    tmp_path: Path,
) -> None:
    ident = uuid.uuid4().hex[:8]
    secret = f"hunter2-{ident}"
    theirs = {
        f"cmd-{ident}": TheirCommand(command_name=f"c-{ident}", executable_key="diag"),
        f"exec-{ident}": TheirProfile(
            profile_name="diag", command_name=f"c-{ident}", mpiprocs=4, ompthreads=2,
            launcher="mpirun",
        ),
        f"hpc-{ident}": TheirPlace(hpc_target="local", executable_map={"diag": "/opt/diag"}),
        f"ibm-{ident}": TheirRuntime(backend_name="ibm_torino", token=SecretStr(secret)),
    }  # fmt: skip
    for name, block in theirs.items():
        block.save(name, _sync=True)
    out = tmp_path / "ours.toml"
    home = {"XDG_STATE_HOME": str(tmp_path / "state"), "QISKIT_IBM_TOKEN": "another"}

    done = blocks("import-qcsc", "--from-server", "--out", str(out), "--apply", **home)

    assert done.returncode == 0, done.stderr
    assert f"created    hpc-profile  hpc-{ident}\n" in done.stdout
    assert f"  cmd-{ident}  exec-{ident}  hpc-{ident}\n" in done.stdout
    assert secret not in done.stdout + done.stderr + out.read_text()
    made = HPCProfileBlock.load(f"hpc-{ident}", _sync=True)
    assert (made.scheduler, made.launcher) == ("local", "mpirun -n {ranks} {command}")
    again = blocks("apply", str(out), **home)
    assert again.stdout.endswith("nothing has changed\n")
