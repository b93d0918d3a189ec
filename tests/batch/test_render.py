"""`hpc-prefect render`: what would be submitted."""

from __future__ import annotations

import asyncio
import re
import shlex
from pathlib import Path

import pytest

from hpc_prefect.blocks import HPCProfileBlock
from hpc_prefect.cli import main
from hpc_prefect.job.script import NO_WORD

from ..flows.jobs import HERE, NAMES, job

pytestmark = pytest.mark.usefixtures("blocks")

HOSTILE = ["a b", "$(touch hit)", "it's", "-x", "--"]


def render(work_dir: Path, *more: str, hpc: str = HERE) -> int:
    names = {
        "--command": NAMES["command_block_name"],
        "--execution": NAMES["execution_profile_block_name"],
        "--hpc": hpc,
        "--work-dir": str(work_dir),
    }
    return main(["render", *(word for pair in names.items() for word in pair), *more])


async def ran(work_dir: Path) -> tuple[str, str]:
    """Both scripts and the folder of a real run of the same job, with a preview's word."""
    result = await job(str(work_dir), "job", user_args=["true", *HOSTILE])
    outer = Path(result.script_path).read_text()
    inner = Path(result.folder, "program.sh").read_text()
    text = f"{outer}\n# ===== {result.folder}/program.sh\n{inner}"
    return text.replace(outer.split()[-1], NO_WORD), result.folder


def test_the_script_is_the_one_that_a_run_submits_but_for_its_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script, folder = asyncio.run(ran(tmp_path))
    assert render(tmp_path, "--", "true", *HOSTILE) == 0
    out, err = capsys.readouterr()
    shown = re.search("^_hp_dir='(.*)'$", out, re.MULTILINE)
    assert shown is not None
    assert out.replace(shown[1], folder) == script
    assert "submit command:" in err


def test_nothing_is_written_and_nothing_submitted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert render(tmp_path / "new", "--", "true") == 0
    assert list(tmp_path.iterdir()) == []


def test_for_a_cluster_directives_and_command_are_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = HPCProfileBlock(
        scheduler="slurm",
        executables={"sh": "/bin/sh"},
        queue_cpu="debug",
        project_cpu="proj",
        slurm={"qos": "high", "requeue": "no", "directives": ["--licenses=x"]},
    )
    there.save(f"{HERE}-slurm", overwrite=True, _sync=True)
    assert render(tmp_path, "--set", "memory_per_node=2G", hpc=f"{HERE}-slurm") == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[:11] == [
        "#!/bin/bash -p",
        "#SBATCH --nodes=1",
        "#SBATCH --ntasks-per-node=1",
        "#SBATCH --cpus-per-task=1",
        "#SBATCH --time=0-00:05:00",
        "#SBATCH --mem=2048M",
        "#SBATCH --partition=debug",
        "#SBATCH --account=proj",
        "#SBATCH --qos=high",
        "#SBATCH --no-requeue",
        "#SBATCH --licenses=x",
    ]
    command = shlex.split(err.split("submit command:\n")[1].splitlines()[0])
    assert command[:2] == ["sbatch", "--parsable"]
    assert command[-1].endswith("/script.sh")


def test_problems_are_told_all_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert render(tmp_path, "--set", "num_nodes=none", "--set", "walltime=x") == 1
    err = capsys.readouterr().err
    assert "num_nodes" in err
    assert "walltime 'x': write HH:MM:SS" in err
