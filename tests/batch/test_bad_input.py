"""Bad input is told in one error, all of it, before anything is submitted."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from prefect import flow

from hpc_prefect import HPCProfileBlock, InvalidJob, run_job_from_blocks_sync
from hpc_prefect.blocks import CommandBlock, ExecutionProfileBlock

from ..flows.jobs import HERE, NAMES, job
from ..flows.seen import submitted

pytestmark = pytest.mark.usefixtures("blocks")

APPLY = "Add it with: hpc-prefect blocks apply FILE"


@pytest.fixture(scope="module")
def wrong(blocks: None, spool: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Blocks for programs that are not there, and for a small node; the folder of one of them."""
    folder = tmp_path_factory.mktemp("programs")
    (folder / "plain.txt").touch()
    for key in ("gone", "plain", "unfound", "unknown", "brought"):
        CommandBlock(command_name="sh", executable_key=key).save(
            f"cmd-{key}", overwrite=True, _sync=True
        )
    HPCProfileBlock(
        scheduler="local",
        executables={
            "sh": "/bin/sh",
            "gone": f"{folder}/gone",
            "plain": f"{folder}/plain.txt",
            "unfound": "no-such-program-anywhere",
            "brought": {"path": f"{folder}/brought", "setup": [f"touch {folder}/was-set-up"]},
        },
        cores_per_node=4,
        memory_per_node="2G",
        local={"slots": 2, "spool": str(spool)},
    ).save("hpc-small", overwrite=True, _sync=True)
    ExecutionProfileBlock(
        profile_name="big", command_name="sh", ranks_per_node=3, threads_per_rank=2,
        memory_per_node="4G", launch="mpi",
    ).save("exec-big", overwrite=True, _sync=True)  # fmt: skip
    return folder


async def refused(work_dir: Path | str, spool: Path, **given: Any) -> list[str]:
    """The problems of a call, of which nothing is left: no job, no folder, no record."""
    before = submitted(spool)
    folder = Path(work_dir)
    there = sorted(folder.rglob("*")) if folder.is_dir() else None
    with pytest.raises(InvalidJob) as caught:
        await job(str(work_dir), "bad", **given)
    assert submitted(spool) == before
    assert (sorted(folder.rglob("*")) if folder.is_dir() else None) == there
    error = caught.value
    count = "1 problem" if len(error.problems) == 1 else f"{len(error.problems)} problems"
    lines = "".join(f"\n  - {problem}" for problem in error.problems)
    assert str(error) == f"job 'bad': {count}, nothing was submitted:{lines}"
    return list(error.problems)


HEER = HERE + "x"

CASES: dict[str, tuple[dict[str, Any], str]] = {
    "unknown command block": (
        {"command_block_name": "cmd-shh"},
        f"there is no Command block 'cmd-shh'; did you mean 'cmd-sh'? {APPLY}",
    ),
    "unknown HPC profile": (
        {"hpc_profile_block_name": HEER},
        f"there is no HPC Profile block '{HEER}'; did you mean '{HERE}'? {APPLY}",
    ),
    "profile of another command": (
        {"execution_profile_block_name": "exec-other"},
        "execution profile 'other' is for command 'other', but the command block is 'sh'",
    ),
    "executable key not in the map": (
        {"command_block_name": "cmd-unknown"},
        "executable 'unknown' is not in the HPC profile; its executables: 'sh'. "
        "Add its path to `executables` in the profile's file, and apply that again",
    ),
    "malformed walltime": (
        {"execution_profile_overrides": {"walltime": "1 hour"}},
        "execution_profile_overrides.walltime: walltime '1 hour': write HH:MM:SS "
        "(or D-HH:MM:SS), such as 01:30:00",
    ),
    "malformed memory": (
        {"execution_profile_overrides": {"memory_per_node": "4096"}},
        "execution_profile_overrides.memory_per_node: memory '4096': write a number with "
        "K, M, G or T, such as 4G",
    ),
    "misspelt override": (
        {"execution_profile_overrides": {"walltme": "00:01:00"}},
        "execution_profile_overrides.walltme: there is no such field; did you mean 'walltime'?",
    ),
    "more memory than a node has": (
        {
            "hpc_profile_block_name": "hpc-small",
            "execution_profile_overrides": {"memory_per_node": "4G"},
        },
        "memory_per_node is 4G, but a node has 2G",
    ),
    "more cores than this machine has": (
        {"execution_profile_overrides": {"threads_per_rank": 13}},
        "1 nodes × 13 cores = 13 cores, but this machine has 12 slots; ask for less, or set "
        "local.slots in the HPC profile",
    ),
    "executable on PATH that is not there": (
        {"hpc_profile_block_name": "hpc-small", "command_block_name": "cmd-unfound"},
        "executable 'no-such-program-anywhere' is not on PATH",
    ),
    "executable that is not there": (
        {"hpc_profile_block_name": "hpc-small", "command_block_name": "cmd-gone"},
        "executable {programs}/gone does not exist",
    ),
    "executable that may not be executed": (
        {"hpc_profile_block_name": "hpc-small", "command_block_name": "cmd-plain"},
        "executable {programs}/plain.txt may not be executed: chmod +x {programs}/plain.txt",
    ),
    "missing input": (
        {"inputs": ["in/data.npz"]},
        "input 'in/data.npz' is missing: there is no file {work_dir}/in/data.npz",
    ),
    "inputs as a text": ({"inputs": "data.npz"}, "inputs: must be a list, not str"),
    "arguments as a text": ({"user_args": "-c true"}, "user_args: must be a list, not str"),
    "argument of a strange kind": (
        {"user_args": ["true", None]},
        "user_args[1]: must be text, a number or a path, not NoneType",
    ),
    "expected outputs as a number": (
        {"expected_outputs": 1},
        "expected_outputs: must be a list, not int",
    ),
    "expected output among our own files": (
        {"expected_outputs": ["made", "x/../.hpc-prefect/made"]},
        "expected output 'x/../.hpc-prefect/made' is in .hpc-prefect, where HPC-Prefect keeps its"
        " own files; let the program write to another place",
    ),
    "timeout of nothing": (
        {"timeout_seconds": 0},
        "timeout_seconds is 0; it must be more than 0, or None",
    ),
    "negative timeout": (
        {"timeout_seconds": -1.5},
        "timeout_seconds is -1.5; it must be more than 0, or None",
    ),
    "timeout as a text": (
        {"timeout_seconds": "60"},
        "timeout_seconds is '60'; it must be more than 0, or None",
    ),
    "name that is a path": (
        {"script_filename": "../bad"},
        "script_filename '../bad': must be a plain name, no path",
    ),
}


@pytest.mark.parametrize("case", CASES)
async def test_each_problem_is_told_in_a_sentence(
    case: str, tmp_path: Path, spool: Path, wrong: Path
) -> None:
    given, expected = CASES[case]
    given = {"script_filename": "bad", **given}
    if given["script_filename"] != "bad":
        with pytest.raises(InvalidJob) as caught:
            await job(str(tmp_path / "w"), "bad", **given)
        problems = list(caught.value.problems)
    else:
        problems = await refused(tmp_path / "w", spool, **given)
    # Blocks of other tests, on the same server, may by chance look alike too.
    near = re.compile(r"(did you mean '[^']*')(?: or '[^']*')+")
    problems = [near.sub(r"\1", text) for text in problems]
    assert problems == [expected.format(programs=wrong, work_dir=tmp_path / "w")]


async def test_all_problems_are_told_at_once(tmp_path: Path, spool: Path, wrong: Path) -> None:
    (tmp_path / "w").mkdir()
    assert await refused(
        tmp_path / "w",
        spool,
        command_block_name="cmd-gone",
        execution_profile_block_name="exec-big",
        hpc_profile_block_name="hpc-small",
        inputs=["a.npz", "b.npz"],
        timeout_seconds=0,
    ) == [
        "launch is 'mpi', but the HPC profile has no launcher; set one, such as "
        "'mpiexec -n {ranks} {command}'",
        "3 ranks_per_node × 2 threads_per_rank = 6 cores, but a node has 4",
        "memory_per_node is 4G, but a node has 2G",
        "1 nodes × 6 cores = 6 cores, but this machine has 2 slots; ask for less, or set "
        "local.slots in the HPC profile",
        "timeout_seconds is 0; it must be more than 0, or None",
        f"input 'a.npz' is missing: there is no file {tmp_path}/w/a.npz",
        f"input 'b.npz' is missing: there is no file {tmp_path}/w/b.npz",
    ]


async def test_all_three_blocks_that_are_not_there_are_told_at_once(
    tmp_path: Path, spool: Path
) -> None:
    problems = await refused(
        tmp_path / "w",
        spool,
        command_block_name="cmd-shh",
        execution_profile_block_name="exec-shh",
        hpc_profile_block_name=HEER,
        inputs=["a.npz"],
    )
    assert [problem.split(" block ")[0] for problem in problems[:3]] == [
        "there is no Command",
        "there is no Execution Profile",
        "there is no HPC Profile",
    ]
    assert problems[3:] == [f"input 'a.npz' is missing: there is no file {tmp_path}/w/a.npz"]


async def test_a_work_dir_below_a_file_is_refused(tmp_path: Path, spool: Path) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "w"
    assert await refused(folder, spool) == [f"work_dir {folder}: {tmp_path}/file is not a folder"]


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind root")
async def test_a_work_dir_that_may_not_be_written_is_refused(tmp_path: Path, spool: Path) -> None:
    tmp_path.chmod(0o500)
    folder = tmp_path / "w"
    try:
        assert await refused(folder, spool) == [
            f"work_dir {folder} is not writable: you may not write in {tmp_path}"
        ]
    finally:
        tmp_path.chmod(0o700)


async def test_a_work_dir_that_cannot_be_made_is_refused(tmp_path: Path, spool: Path) -> None:
    (tmp_path / "w").symlink_to("nowhere")
    assert await refused(tmp_path / "w", spool) == [
        f"work_dir {tmp_path}/w cannot be made: File exists"
    ]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", "work_dir is empty; give the folder in which the program runs"),
        ("/tmp/a\0b", "work_dir has a NUL byte, which no program can be given"),
        (7, "work_dir must be a path, not int"),
    ],
    ids=["empty", "NUL", "number"],
)
async def test_a_work_dir_that_is_no_path_is_refused(
    given: Any, expected: str, spool: Path
) -> None:
    before = submitted(spool)
    with pytest.raises(InvalidJob) as caught:
        await job(given, "bad", timeout_seconds=0)
    assert caught.value.problems == (
        "timeout_seconds is 0; it must be more than 0, or None",
        expected,
    )
    assert submitted(spool) == before


async def test_a_program_that_set_up_may_bring_is_not_looked_for_before(
    tmp_path: Path, wrong: Path
) -> None:
    with pytest.raises(Exception, match="executable missing") as caught:
        await job(
            str(tmp_path), "x", command_block_name="cmd-brought", hpc_profile_block_name="hpc-small"
        )
    assert f"{wrong}/brought" in str(caught.value)
    assert (wrong / "was-set-up").exists()


async def test_two_jobs_with_the_same_wrong_block_are_each_told_by_their_own_name(
    tmp_path: Path,
) -> None:
    said = []

    @flow
    async def outer() -> None:
        for label in ("one", "other"):
            with pytest.raises(InvalidJob) as caught:
                await job(str(tmp_path), label, command_block_name="cmd-shh")
            said.append(str(caught.value).partition(":")[0])

    await outer()
    assert said == ["job 'one'", "job 'other'"]


async def test_what_the_environment_asks_of_sbatch_is_refused_with_all_other_problems(
    tmp_path: Path, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = HPCProfileBlock(scheduler="slurm", executables={"sh": "/bin/sh"})
    block.save("hpc-bad-slurm", overwrite=True, _sync=True)
    monkeypatch.setenv("SBATCH_ACCOUNT", "other")
    monkeypatch.setenv("SLURM_CLUSTERS", "b")
    problems = await refused(
        tmp_path / "w", spool, hpc_profile_block_name="hpc-bad-slurm", inputs=["gone"]
    )
    assert [text.split()[0] for text in problems] == ["input", "SBATCH_ACCOUNT", "SLURM_CLUSTERS"]


def test_the_sync_form_refuses_the_same(tmp_path: Path, spool: Path) -> None:
    before = submitted(spool)
    with pytest.raises(InvalidJob, match="timeout_seconds is 0"):
        run_job_from_blocks_sync(
            **NAMES, work_dir=tmp_path / "w", script_filename="bad", timeout_seconds=0
        )
    assert submitted(spool) == before
    assert not (tmp_path / "w").exists()
