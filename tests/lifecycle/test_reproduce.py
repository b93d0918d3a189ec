"""A recorded run is run again as it was: `hpc-prefect runs reproduce`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from prefect import flow
from prefect.variables import Variable
from pydantic import SecretStr

from hpc_prefect.blocks import CommandBlock, HPCProfileBlock
from hpc_prefect.errors import CannotReproduce
from hpc_prefect.lifecycle.reproduce import plan
from hpc_prefect.quantum import QuantumBackendBlock
from hpc_prefect.records.fold import Record

from .. import warm
from ..flows.jobs import HERE, job
from ..flows.recorded import record_of, records
from ..flows.seen import PROGRAMS
from ..flows.seen import command as plain_command
from ..records.schema import faults

pytestmark = pytest.mark.usefixtures("blocks")

command = partial(plain_command, imports="qiskit")

FLOW = PROGRAMS / "reproducible.py"
STOP = {"value": "energy", "max_iterations": 3, "tolerance": 1e-12}


@pytest.fixture
def stored(spool: Path) -> None:
    """What the flow uses, as it is when it runs first."""
    CommandBlock(command_name="sh", executable_key="sh", default_args=["-c"]).save(
        "cmd-again", overwrite=True, _sync=True
    )
    HPCProfileBlock(
        scheduler="local",
        executables={"sh": "/bin/sh"},
        environment={"HP_GREETING": "hello"},
        secret_environment={"HP_TOKEN": "secret-value-4711"},
        local={"slots": 12, "spool": str(spool), "kill_grace": 1.0},
    ).save(f"{HERE}-again", overwrite=True, _sync=True)
    QuantumBackendBlock().save("sim-again", overwrite=True, _sync=True)
    Variable.set("sampler-again", {"shots": 500, "seed": 7}, overwrite=True, _sync=True)
    loop = {"stop": STOP, "factor": 0.25}
    Variable.set("loop-again", loop, overwrite=True, _sync=True)


def change_what_is_stored(spool: Path) -> None:
    HPCProfileBlock(
        scheduler="local",
        executables={"sh": "/bin/sh"},
        environment={"HP_GREETING": "goodbye"},
        secret_environment={"HP_TOKEN": "secret-value-4711"},
        local={"slots": 12, "spool": str(spool), "kill_grace": 1.0},
    ).save(f"{HERE}-again", overwrite=True, _sync=True)
    Variable.set("sampler-again", {"shots": 100, "seed": 8}, overwrite=True, _sync=True)
    loop = {"stop": STOP | {"max_iterations": 5}, "factor": 0.5}
    Variable.set("loop-again", loop, overwrite=True, _sync=True)


@dataclass
class First:
    """A run of the flow, in a process that has ended.

    Attributes:
        file: the flow's, a copy of its own.
    """

    file: Path
    work_dir: Path
    record: Record


def prepared(tmp_path: Path) -> tuple[Path, Path]:
    """The flow's file and its work_dir."""
    file = tmp_path / "source" / "experiment.py"
    file.parent.mkdir()
    shutil.copy(FLOW, file)
    return file, tmp_path / "work"


@pytest.fixture
def first(stored: None, tmp_path: Path) -> First:
    file, work_dir = prepared(tmp_path)
    words = [str(file), str(work_dir), "0.5"]
    done = warm.run(words, stdout=-1, stderr=warm.STDOUT, timeout=200, imports="qiskit")
    assert done.returncode == 0, done.stdout
    return First(file, work_dir, record_of(work_dir))


@pytest.fixture
def first_with_three_threads(stored: None, tmp_path: Path) -> First:
    """Started afresh, because libraries read their number when they are loaded."""
    file, work_dir = prepared(tmp_path)
    done = subprocess.run(
        [sys.executable, str(file), str(work_dir), "0.5"],
        env=os.environ | {"OMP_NUM_THREADS": "3"},
        text=True, stdout=-1, stderr=subprocess.STDOUT, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return First(file, work_dir, record_of(work_dir))


def test_a_run_is_reproduced_to_the_last_bit_though_all_that_is_stored_has_changed(
    first_with_three_threads: First, spool: Path
) -> None:
    first = first_with_three_threads
    change_what_is_stored(spool)
    done = command("runs", "reproduce", first.record.id)
    assert done.returncode == 0, done.stdout
    assert "the same to the last bit: the 3 iterations of loop converge; the measures" in (
        done.stdout
    )
    assert "what 4 jobs left" in done.stdout
    assert "HP_GREETING hello → goodbye; the recorded one is used" in done.stdout
    assert "options.shots 500 → 100" in done.stdout
    assert "factor 0.25 → 0.5" in done.stdout
    again = next(each for each in records(first.work_dir) if each.id != first.record.id)
    assert faults(again.as_dict()) == []
    assert again.run["reproduces"] == first.record.id
    assert again.name == f"{first.record.name}-again"
    assert again.totals.reused == 0
    # Libraries read it when they are loaded: the command has started itself once more.
    assert os.environ.get("OMP_NUM_THREADS") != "3"
    assert again.environment["variables"]["OMP_NUM_THREADS"] == "3"
    assert {each["state"] for each in again.jobs.values()} == {"succeeded"}
    # Each program ran once for each run, with the environment of then and the secret of now.
    ran = (first.work_dir / "ran").read_text().split()
    assert sorted(ran) == sorted(["step-1", "step-2", "step-3"] * 2)
    assert (first.work_dir / "result-step-1.txt").read_text() == "step-1 hello known\n"
    stored = HPCProfileBlock.load(f"{HERE}-again", _sync=True)
    assert stored.environment == {"HP_GREETING": "goodbye"}  # type: ignore[union-attr]
    assert Variable.get("sampler-again", _sync=True) == {"shots": 100, "seed": 8}


def test_other_results_are_told_and_exit_with_1(first: First) -> None:
    text = first.file.read_text()
    first.file.write_text(text.replace("state * factor", "state * factor + 1e-9"))
    done = command("runs", "reproduce", first.record.id)
    assert done.returncode == 1, done.stdout
    assert f"code: {first.file} has changed" in done.stdout
    assert "NOT the same: loop converge: energy: " in done.stdout
    assert "what 4 jobs left" in done.stdout


def test_a_plan_runs_nothing_and_a_parameter_can_be_another_one(first: First) -> None:
    done = command("runs", "reproduce", first.record.id, "--param", "scale=2", "--plan")
    assert done.returncode == 0, done.stdout
    assert "not as recorded: scale" in done.stdout
    assert "scale=2" in done.stdout
    assert f"write where those of the first run wrote: in {first.work_dir}" in done.stdout
    done = command("runs", "reproduce", first.record.id, "--param", "work_dir=x", "--plan")
    assert "write where those of the first run wrote" not in done.stdout
    assert len(records(first.work_dir)) == 1
    # Three hundred angles, of which the record shows two hundred.
    assert plan(first.record.id).parameters["angles"] == [i / 7 for i in range(300)]


def test_a_reproduction_that_was_killed_goes_on_with_the_recorded_configuration(
    first: First, spool: Path
) -> None:
    change_what_is_stored(spool)
    text = first.file.read_text()
    broken = "    async def step(state: float, iteration: Iteration) -> float:\n"
    assert broken in text
    kill = "        if iteration.number == 2: os._exit(9)\n"
    first.file.write_text(text.replace(broken, broken + kill))
    assert command("runs", "reproduce", first.record.id).returncode == 9
    first.file.write_text(text)
    done = command("resume", f"{first.record.name}-again")
    assert done.returncode == 0, done.stdout
    again = next(each for each in records(first.work_dir) if each.id != first.record.id)
    assert again.iterations.keys() == first.record.iterations.keys()
    for number, row in again.iterations["converge"].items():
        assert row["energy"] == first.record.iterations["converge"][number]["energy"]
    assert (first.work_dir / "ran").read_text().split().count("step-1") == 2


async def test_what_cannot_be_reproduced_is_refused_with_all_reasons(tmp_path: Path) -> None:
    class Odd:
        pass

    @flow(validate_parameters=False)
    async def hidden(work_dir: str, key: SecretStr, odd: object, token: str, n: int) -> None:
        from hpc_prefect import campaign

        with campaign("odd"):
            await job(work_dir, "a")

    await hidden(str(tmp_path / "work"), SecretStr("s-4711"), Odd(), "s-4712", 3)  # type: ignore[arg-type]
    record = record_of(tmp_path / "work")
    assert record.inexact == ["key", "odd", "token"]
    with pytest.raises(CannotReproduce) as refused:
        plan(record.id, cwd=str(tmp_path / "gone"))
    told = str(refused.value)
    for part in (
        "is defined inside a function",
        "gone does not exist",
        "the value of its parameter 'key', 'odd', 'token'",
    ):
        assert part in told
    everything = b"".join(file.read_bytes() for file in Path(record.folder).iterdir())
    assert b"s-4711" not in everything
    assert b"s-4712" not in everything


def test_a_script_is_told_to_be_run_again(tmp_path: Path) -> None:
    script, root = tmp_path / "plain.py", Path(__file__).parents[2]
    script.write_text(
        f"import asyncio, sys\nsys.path.insert(0, {str(root)!r})\n"
        f"from tests.flows.jobs import job\nasyncio.run(job({str(tmp_path)!r}, 'a'))\n"
    )
    done = warm.run([str(script)], stdout=warm.PIPE, stderr=warm.STDOUT, timeout=200)
    assert done.returncode == 0, done.stdout
    done = command("runs", "reproduce", record_of(tmp_path).id)
    assert done.returncode == 1
    assert "it was a script, not a flow" in done.stdout
    assert str(script) in done.stdout
