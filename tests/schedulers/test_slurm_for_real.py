"""What only a real Slurm can say about the dialect: paths, and how it reads a directive line."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from hpc_prefect.job.dialogue import Reply
from hpc_prefect.schedulers.base import Accepted, Ticket
from hpc_prefect.schedulers.slurm.scheduler import SlurmScheduler

from ..engines import SlurmCluster
from .slurm_rig import converse, spec

SLURM = SlurmScheduler()
NAMES = [
    *(
        "plain",
        "%",
        "%j",
        "%%",
        "a%5jb",
        "%A_%a",
        "a b",
        " lead",
        "trail ",
        "\t",
        "new\nline",
        "\r",
    ),
    *(
        "it's",
        '"double"',
        "$HOME",
        "`id`",
        "$(id)",
        "~",
        "#no",
        "*",
        "?",
        "[x]",
        "{a}",
        "(p)",
        "<>",
    ),
    *("|&;", "!", "=", ":", ",", "@", "é☃", "-d", "x\x01y", "x\x7fy", "x\x1by", "none", "..."),
    os.fsdecode(b"raw\xff"),
]
WITH_BACKSLASH = ["a\\b", "\\\\", "b\\", "\\%j"]


def submitted(cluster: SlurmCluster, work_dir: Path) -> str:
    """The id of a job that prints its working directory, by our own submission."""
    work_dir.mkdir(parents=True)
    script = work_dir / "s.sh"
    script.write_text("#!/bin/bash\n#SBATCH --time=1\npwd\necho err >&2\n")
    job = spec(work_dir=str(work_dir))
    ticket = Ticket(
        tag="htag",
        folder=str(work_dir),
        script=str(script),
        scheduler_out=str(work_dir / "out"),
        scheduler_err=str(work_dir / "err"),
    )
    done = cluster.run(*next(SLURM.submit(job, ticket)).argv)
    reply = Reply(done.returncode, done.stdout, done.stderr)
    outcome, _ = converse(SLURM.submit(job, ticket), reply)
    assert isinstance(outcome, Accepted), outcome
    return outcome.id


def wait_for_end(cluster: SlurmCluster, ids: set[str]) -> None:
    def are_there() -> bool:
        answer = cluster.run("squeue", "--noheader", "--format=%A")
        return answer.returncode != 0 or bool(ids & set(answer.stdout.split()))

    while are_there():
        time.sleep(0.2)  # pytest's own timeout ends what never ends


def test_output_arrives_in_a_folder_of_any_name_that_is_not_refused(
    slurm_without_accounting: SlurmCluster, tmp_path: Path
) -> None:
    folders = [tmp_path / name for name in NAMES]
    assert [SLURM.problems(spec(work_dir=str(each))) for each in folders] == [[]] * len(NAMES)
    wait_for_end(
        slurm_without_accounting, {submitted(slurm_without_accounting, each) for each in folders}
    )
    for each in folders:
        assert (each / "out").read_bytes() == os.fsencode(f"{each}\n")
        assert (each / "err").read_bytes() == b"err\n"


def test_output_goes_astray_where_a_folder_is_refused(
    slurm_without_accounting: SlurmCluster, tmp_path: Path
) -> None:
    """When this fails, Slurm has learned it, and the refusal can go."""
    folders = [tmp_path / str(n) / name for n, name in enumerate(WITH_BACKSLASH)]
    for each in folders:
        assert SLURM.problems(spec(work_dir=str(each)))
    wait_for_end(
        slurm_without_accounting, {submitted(slurm_without_accounting, each) for each in folders}
    )
    assert [each for each in folders if (each / "out").exists()] == []


@pytest.mark.parametrize(
    "line",
    ["--arr=1-2", "-Ha1-2", "--comment=x --array=1-2", "--comment=x --ar'r'ay=1-2", "-\\a 1-2"],
)
def test_slurm_reads_a_directive_line_as_our_check_does(
    slurm_without_accounting: SlurmCluster, tmp_path: Path, line: str
) -> None:
    script = tmp_path / "s.sh"
    script.write_text(f"#!/bin/bash\n#SBATCH --hold --output=/dev/null\n#SBATCH {line}\n")
    done = slurm_without_accounting.run("sbatch", "--parsable", str(script))
    job_id = done.stdout.strip()
    shown = slurm_without_accounting.run("scontrol", "show", "job", job_id).stdout
    slurm_without_accounting.run("scancel", job_id)
    assert "ArrayTaskId=1-2" in shown, done.stderr
    assert SLURM.problems(spec({"directives": [line]}))
