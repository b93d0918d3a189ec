"""Jobs whose blocks are nowhere stored: `run_job`, and blocks in place of their names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prefect import flow

from hpc_prefect import (
    CommandBlock,
    ExecutionProfileBlock,
    HPCProfileBlock,
    InvalidJob,
    Member,
    campaign,
    run_job,
    run_job_sync,
    run_jobs_from_blocks,
)
from hpc_prefect.batch.preview import preview
from hpc_prefect.blocks import Call, GivenBlocks
from hpc_prefect.records.fold import Record

from .. import warm
from ..flows.jobs import HERE, runs
from ..flows.recorded import record_of, records
from ..flows.seen import PROGRAMS, command, process, run_of, until

pytestmark = pytest.mark.usefixtures("blocks")

FILE = PROGRAMS / "unstored.py"
SH = ["/bin/sh", "-c", 'echo "$1" >> runs', "sh"]


@pytest.fixture
def here(spool: Path) -> HPCProfileBlock:
    local = {"slots": 4, "spool": str(spool), "kill_grace": 1.0}
    return HPCProfileBlock(scheduler="local", executables={"say": "/bin/echo"}, local=local)


def test_three_lines_run_a_job_where_nothing_is_stored(tmp_path: Path) -> None:
    program = (
        "from hpc_prefect import run_job_sync\n"
        "result = run_job_sync(['/bin/echo', 'hello world'], on='hpc-local')\n"
        "print(open(result.stdout_path).read())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path, env=os.environ | {"HOME": str(tmp_path)},
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.stdout == "hello world\n\n", done.stderr


async def test_a_program_is_seen_from_the_current_folder_and_runs_in_the_work_dir(
    tmp_path: Path, here: HPCProfileBlock, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "program").write_text("#!/bin/sh\npwd\n")
    (tmp_path / "program").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    result = await run_job(["./program"], on=here, work_dir="work")
    assert Path(result.stdout_path).read_text() == f"{tmp_path}/work\n"
    assert result.name == "program"


async def test_a_bare_name_is_an_executable_of_the_profile_first(
    tmp_path: Path, here: HPCProfileBlock
) -> None:
    said = await run_job(["say", "a  b", 3, 0.5], on=here, work_dir=tmp_path)
    found = await run_job(["sh", "-c", "echo c"], on=here, work_dir=tmp_path, name="of-path")
    assert Path(said.stdout_path).read_text() == "a  b 3 0.5\n"
    assert (found.name, Path(found.stdout_path).read_text()) == ("of-path", "c\n")


async def test_a_stored_profile_is_named(tmp_path: Path) -> None:
    result = await run_job([*SH, "named"], on=HERE, work_dir=tmp_path)
    assert (result.succeeded, runs(tmp_path)) == (True, ["named"])


async def test_with_more_ranks_the_launcher_starts_the_program(
    tmp_path: Path, here: HPCProfileBlock
) -> None:
    launcher = "echo {nodes} {ranks_per_node} {ranks}; {command}"
    with pytest.raises(InvalidJob):
        await run_job([*SH, "a"], on=here, work_dir=tmp_path, nodes=2)  # it has no launcher
    here = here.model_copy(update={"launcher": launcher.replace("; {command}", " {command}")})
    result = await run_job([*SH, "a"], on=here, work_dir=tmp_path, nodes=2, ranks_per_node=2)
    assert Path(result.stdout_path).read_text().startswith("2 2 4 /bin/sh")


@pytest.mark.parametrize(
    ("words", "more", "problem"),
    [
        ("./a b", {}, 'give a list of the program and its arguments: ["./program", "argument"]'),
        ([], {}, "command is []"),
        ([3], {}, "command[0] is 3, which is no program"),
        (["/bin/true"], {"nodes": 0}, "nodes: Input should be greater than or equal to 1"),
        (["/bin/true"], {"on": 3}, "a block of type HPC Profile, or its name, is needed"),
        (["/no/such"], {}, "executable /no/such does not exist"),
        (["/bin/true"], {"on": "hpc-nowhere-else"}, "there is no HPC Profile block"),
    ],
)
async def test_what_is_wrong_with_a_command_is_told_in_a_sentence(
    tmp_path: Path, here: HPCProfileBlock, words: Any, more: dict[str, Any], problem: str
) -> None:
    with pytest.raises(InvalidJob) as caught:
        await run_job(words, **{"on": here, "work_dir": tmp_path} | more)
    assert problem in str(caught.value)


async def test_equal_blocks_are_one_job_and_another_program_is_another(
    tmp_path: Path, here: HPCProfileBlock
) -> None:
    @flow
    async def experiment(work_dir: str) -> list[bool]:
        with campaign("unstored"):
            first = await run_job([*SH, "a"], on=here.model_copy(), work_dir=work_dir)
            again = await run_job([*SH, "b"], on=here.model_copy(), work_dir=work_dir)
        return [first.collected, again.collected]

    assert await experiment(str(tmp_path)) == [False, False]
    assert await experiment(str(tmp_path)) == [True, True]
    assert runs(tmp_path) == ["a", "b"]


async def test_many_jobs_take_blocks_as_well(tmp_path: Path, here: HPCProfileBlock) -> None:
    results = await run_jobs_from_blocks(
        command_block_name=CommandBlock(command_name="say", executable_key="say"),
        execution_profile_block_name=ExecutionProfileBlock(profile_name="s", command_name="say"),
        hpc_profile_block_name=here,
        work_dir=tmp_path,
        script_filename="scan",
        members=[Member(user_args=[n]) for n in range(3)],
    )
    assert [Path(each.stdout_path).read_text() for each in results] == ["0\n", "1\n", "2\n"]


async def test_blocks_that_are_not_stored_have_a_preview(
    tmp_path: Path, here: HPCProfileBlock
) -> None:
    command = CommandBlock(command_name="say", executable_key="say")
    execution = ExecutionProfileBlock(profile_name="s", command_name="say")
    call = Call(script_filename="say", work_dir=str(tmp_path), user_args=["hello"])
    found = await preview(call, GivenBlocks(command, execution, here))
    assert "/bin/echo" in found.script
    assert "hello" in found.script


def test_a_sync_flow_has_a_form_of_its_own(tmp_path: Path, here: HPCProfileBlock) -> None:
    @flow
    def experiment() -> str:
        return run_job_sync(["/bin/true"], on=here, work_dir=tmp_path).state

    assert experiment() == "succeeded"


def shapes(record: Record) -> set[int]:
    """The nodes that its execution profiles ask for."""
    known = [each for each in record.blocks.values() if each["kind"] == "execution-profile"]
    return {int(each["values"]["num_nodes"]) for each in known}


def test_a_killed_run_goes_on_and_is_reproduced_though_nothing_is_stored(
    tmp_path: Path, spool: Path
) -> None:
    work = tmp_path / "work"
    with process(str(work), str(spool), file=FILE):
        until(lambda: runs(work) == ["one"])
        run = run_of(work)
    (work / "go").touch()
    resumed = command("resume", run)
    assert resumed.returncode == 0, resumed.stdout
    assert runs(work) == ["one", "two", "three"]

    record = record_of(work)
    blocks = {(each["kind"], each["name"]) for each in record.blocks.values()}
    assert ("execution-profile", "sh (in code)") in blocks
    assert ("hpc-profile", "local (in code)") in blocks
    assert shapes(record) == {1, 2}
    assert "secret-value-4712" not in repr(record.as_dict())

    again = command("runs", "reproduce", record.id)
    assert again.returncode == 0, again.stdout
    assert "is not stored any more" not in again.stdout
    assert "what 3 jobs left" in again.stdout
    assert runs(work) == ["one", "two", "three"] * 2
    assert [shapes(each) for each in records(work)] == [{1, 2}] * 2


def test_nothing_is_asked_of_the_server_for_blocks_that_are_given(tmp_path: Path) -> None:
    """A block that was loaded is used as it is, and the record knows it by its name."""
    program = f"""
import asyncio
from hpc_prefect import HPCProfileBlock, run_job
async def main():
    block = await HPCProfileBlock.aload({HERE!r})
    block.environment = {{"COLOUR": "green"}}
    result = await run_job(["/bin/sh", "-c", "echo $COLOUR"], on=block, work_dir="w")
    print(open(result.stdout_path).read())
asyncio.run(main())
"""
    done = warm.run(["-c", program], cwd=tmp_path, stdout=-1, stderr=-1, timeout=200)
    assert done.stdout == "green\n\n", done.stderr
    (record,) = records(tmp_path / "w")
    names = [each["name"] for each in record.blocks.values() if each["kind"] == "hpc-profile"]
    assert names == [HERE]
