"""A reproduction keeps its promises where a flow or its user does something unusual."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.flow_engine import run_flow
from prefect.variables import Variable

from hpc_prefect.blocks import HPCProfileBlock
from hpc_prefect.errors import CannotReproduce
from hpc_prefect.flow_runs.reproduction import of_record
from hpc_prefect.lifecycle import start
from hpc_prefect.lifecycle.reproduce import plan, reproduce
from hpc_prefect.records.compare.results import same_results
from hpc_prefect.records.fold import PARAMETERS, Record
from hpc_prefect.records.write import leaving

from ..flows.jobs import runs
from ..flows.recorded import record_of, records
from ..flows.seen import command

pytestmark = pytest.mark.usefixtures("blocks")

HEAD = """\
import os, sys
from pathlib import Path
from typing import Any
from prefect import flow, task
from hpc_prefect import campaign, record_measures, run_job_from_blocks
from tests.flows.jobs import job, job_sync
"""


def flow_file(folder: Path, body: str) -> Path:
    file = folder / "source" / "experiment.py"
    file.parent.mkdir(exist_ok=True)
    file.write_text(HEAD + body)
    return file


def first_run(file: Path, work_dir: Path, **parameters: Any) -> Record:
    """The flow `experiment` of a file, run in this process; its record."""
    flow = start.load_flow(f"{file}:experiment")
    assert not isinstance(flow, str), flow
    flow(work_dir=str(work_dir), **parameters)
    leaving.leave_all()
    return record_of(work_dir)


def flow_runs() -> int:
    with get_client(sync_client=True) as client:
        return len(client.read_flow_runs(limit=200))


NAMED = """
@flow
def experiment(work_dir: str) -> None:
    with campaign("named-more"):
        job_sync(work_dir, "a")
        if Path(work_dir, "stop").exists():
            raise RuntimeError("told to stop")
        job_sync(work_dir, "b")
"""
UNNAMED = NAMED.replace('with campaign("named-more"):', "if True:")


def test_each_reproduction_of_a_run_in_a_named_campaign_runs_all_jobs(tmp_path: Path) -> None:
    work_dir = tmp_path / "work"
    first = first_run(flow_file(tmp_path, NAMED), work_dir)
    for times in (2, 3):
        done = reproduce(first.id)
        assert done.error is None
        assert done.second is not None
        assert done.second.totals.reused == 0
        assert sorted(runs(work_dir)) == sorted(["a", "b"] * times)


def test_a_reproduction_after_one_that_failed_is_handed_nothing_of_it(tmp_path: Path) -> None:
    work_dir = tmp_path / "work"
    first = first_run(flow_file(tmp_path, UNNAMED), work_dir)
    (work_dir / "stop").touch()
    assert isinstance(reproduce(first.id).error, RuntimeError)
    (work_dir / "stop").unlink()
    assert reproduce(first.id).error is None
    assert sorted(runs(work_dir)) == ["a", "a", "a", "b", "b"]


def test_a_parameter_that_does_not_fit_is_refused_before_a_flow_run_is_made(tmp_path: Path) -> None:
    body = (
        "\n@flow\ndef experiment(work_dir: str, n: int = 3) -> None:\n    job_sync(work_dir, 'a')\n"
    )
    file = flow_file(tmp_path, body)
    first = first_run(file, tmp_path / "work")
    before = flow_runs()
    with pytest.raises(CannotReproduce, match="n"):
        reproduce(first.id, parameters={"n": "three"})
    file.write_text(HEAD + body.replace("n: int = 3", "m: int = 3"))
    with pytest.raises(CannotReproduce, match="n"):
        reproduce(first.id)
    assert flow_runs() == before
    done = command("runs", "reproduce", first.id)
    assert done.returncode == 1
    assert "Traceback" not in done.stdout


def test_a_parameter_that_the_flow_did_not_have_then_can_be_given(tmp_path: Path) -> None:
    body = "\n@flow\ndef experiment(work_dir: str) -> None:\n    job_sync(work_dir, 'a')\n"
    file = flow_file(tmp_path, body)
    first = first_run(file, tmp_path / "work")
    with pytest.raises(CannotReproduce, match=r"'m'.*the first run had work_dir"):
        reproduce(first.id, parameters={"m": 1})
    file.write_text(
        HEAD + body.replace("work_dir: str", "work_dir: str, m: int") + "    return m\n"
    )
    before = flow_runs()
    with pytest.raises(CannotReproduce, match=r"'m'.*--param"):
        reproduce(first.id)
    assert flow_runs() == before
    assert "  new parameter 'm', which the recorded run did not have" in [
        *plan(first.id, parameters={"m": 7}).lines()
    ]
    done = reproduce(first.id, parameters={"m": 7})
    assert (done.error, done.value) == (None, 7)


def test_a_block_that_was_edited_and_restored_counts_as_it_was_last(tmp_path: Path) -> None:
    body = """
from hpc_prefect import CommandBlock, run_job_from_blocks_sync
from tests.flows.jobs import NAMES

@flow
def experiment(work_dir: str) -> None:
    for number, flag in enumerate(("-u", "-e", "-u")):
        edited = CommandBlock(command_name="sh", executable_key="sh", default_args=[flag])
        edited.save("cmd-edited", overwrite=True, _sync=True)
        run_job_from_blocks_sync(
            **NAMES | {"command_block_name": "cmd-edited"},
            work_dir=work_dir, script_filename=f"job-{number}", user_args=["-c", "exit 0"],
        )
"""
    first = first_run(flow_file(tmp_path, body), tmp_path / "work")
    counts = of_record(first).blocks["command", "cmd-edited"]
    assert counts["default_args"] == ["-u"]
    assert not [line for line in plan(first.id).lines() if "cmd-edited" in line]


def test_parameters_that_are_lost_are_not_replaced_by_what_the_record_shows(tmp_path: Path) -> None:
    body = (
        "\n@flow\ndef experiment(work_dir: str, angles: list[int]) -> None:"
        "\n    job_sync(work_dir, 'a')\n"
    )
    first = first_run(flow_file(tmp_path, body), tmp_path / "work", angles=list(range(300)))
    Path(first.folder, PARAMETERS).unlink()
    with pytest.raises(CannotReproduce, match="'angles'"):
        plan(first.id)
    assert plan(first.id, parameters={"angles": [1]}).parameters["work_dir"] == str(
        tmp_path / "work"
    )


def test_a_default_is_as_it_was_also_of_a_run_that_a_deployment_started(tmp_path: Path) -> None:
    body = (
        "\n@flow\ndef experiment(work_dir: str, n: int = 3) -> int:"
        "\n    job_sync(work_dir, 'a')\n    return n\n"
    )
    file, work_dir = flow_file(tmp_path, body), tmp_path / "work"
    flow = start.load_flow(f"{file}:experiment")
    assert not isinstance(flow, str)
    with get_client(sync_client=True) as client:
        flow_run = client.create_flow_run(flow, parameters={"work_dir": str(work_dir)})
    assert run_flow(flow, flow_run=flow_run, parameters={"work_dir": str(work_dir)}) == 3
    leaving.leave_all()
    first = record_of(work_dir)
    file.write_text(HEAD + body.replace("n: int = 3", "n: int = 4"))
    assert reproduce(first.id).value == 3


def test_a_plan_tells_of_a_variable_that_has_become_something_else(tmp_path: Path) -> None:
    from hpc_prefect.quantum import QuantumBackendBlock

    body = """
from hpc_prefect import sample_sync
@flow
def experiment(work_dir: str) -> None:
    from qiskit import QuantumCircuit
    circuit = QuantumCircuit(1)
    circuit.h(0)
    circuit.measure_all()
    sample_sync([circuit], quantum_backend_block_name="sim-more",
                variable_name="sampler-more", work_dir=work_dir)
"""
    QuantumBackendBlock().save("sim-more", overwrite=True, _sync=True)
    Variable.set("sampler-more", {"shots": 500, "seed": 7}, overwrite=True, _sync=True)
    first = first_run(flow_file(tmp_path, body), tmp_path / "work")
    for now in (["no", "options"], {"shots": "many"}, "text"):
        Variable.set("sampler-more", now, overwrite=True, _sync=True)
        told = "\n".join(plan(first.id).lines())
        assert "Variable 'sampler-more' is stored with" in told
    assert reproduce(first.id).results.different == ()  # type: ignore[union-attr]


def test_an_entrypoint_is_found_from_where_the_user_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = first_run(flow_file(tmp_path, UNNAMED), tmp_path / "work")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    done = reproduce(
        first.id,
        entrypoint="source/experiment.py:experiment",
        cwd="elsewhere",
    )
    assert done.error is None
    assert len(records(tmp_path / "work")) == 2


def test_a_flow_with_other_options_under_another_name_is_not_taken_for_it(tmp_path: Path) -> None:
    body = """
@flow
def inner(work_dir: str) -> None:
    job_sync(work_dir, "a")
experiment = inner.with_options(name="tuned", retries=1)
"""
    first = first_run(flow_file(tmp_path, body), tmp_path / "work")
    with pytest.raises(CannotReproduce, match="tuned"):
        reproduce(first.id)
    assert (
        reproduce(first.id, entrypoint=f"{tmp_path}/source/experiment.py:experiment").value is None
    )


def test_a_flow_with_other_options_under_its_own_name_runs_with_them_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    body = """
from prefect.runtime import flow_run
from prefect.task_runners import ThreadPoolTaskRunner, ProcessPoolTaskRunner

@flow(timeout_seconds=300, task_runner=ProcessPoolTaskRunner())
def inner(work_dir: str) -> int:
    job_sync(work_dir, "a")
    if flow_run.run_count < 2:
        raise RuntimeError("the first attempt fails")
    return flow_run.run_count
experiment = inner.with_options(retries=1, timeout_seconds=0, task_runner=ThreadPoolTaskRunner())
"""
    first = first_run(flow_file(tmp_path, body), tmp_path / "work")
    with caplog.at_level("WARNING", logger="hpc_prefect.lifecycle"):
        done = reproduce(first.id)
    assert (done.error, done.value) == (None, 2)
    assert "it ran with retries=1, and is defined with retries=0: it runs as it did" in caplog.text
    assert "timeout_seconds=None, and is defined with timeout_seconds=300" in caplog.text
    assert "task_runner=ProcessPoolTaskRunner, which is used" in caplog.text


def test_parameters_of_many_kinds_are_given_again_as_they_were(tmp_path: Path) -> None:
    body = """
import dataclasses, datetime, enum
from typing import Optional
from pydantic import BaseModel
class Colour(enum.Enum):
    RED = 1
class Inner(BaseModel):
    path: Path
    when: datetime.date
    colours: tuple[Colour, ...] = (Colour.RED,)
@dataclasses.dataclass
class Plain:
    x: float = 0.1
    y: Optional[int] = None
@flow
def experiment(work_dir: str, /, model: Inner, plain: Plain, *, colour: Colour = Colour.RED,
               text: str = "", none: Optional[int] = None, huge: list[float] = [],
               pairs: set[int] = frozenset(), span: datetime.timedelta = datetime.timedelta(1),
               deep: Any = None, **more: Any) -> str:
    job_sync(work_dir, "a")
    return repr((model, plain, colour, text, none, len(huge), sum(huge), type(pairs), pairs, span,
                 deep, more))
"""
    given: dict[str, Any] = {
        "model": {"path": "/a/b", "when": "2026-01-02"},
        "plain": {"x": 0.1 + 0.2, "y": None},
        "text": "ünï-\u2028-😀",
        "huge": [1 / (i + 1) for i in range(5000)],
        "pairs": {3, 1, 2},
        "deep": {"a": [{"b": [1, 1.0, True, None, -0.0]}] * 300},
        "further": 1e-300,
    }
    work_dir = tmp_path / "work"
    flow = start.load_flow(f"{flow_file(tmp_path, body)}:experiment")
    assert not isinstance(flow, str)
    then = flow(str(work_dir), **given)
    leaving.leave_all()
    first = record_of(work_dir)
    assert first.inexact == []
    done = reproduce(first.id)
    assert done.value == then
    assert done.second is not None
    assert reproduce(done.second.id).value == then


def test_what_is_stored_counts_not_in_processes_of_a_pool_either(tmp_path: Path) -> None:
    work_dir = tmp_path / "work"
    body = """
from prefect.task_runners import ProcessPoolTaskRunner
@task
def one(work_dir: str, label: str) -> None:
    job_sync(work_dir, label, 'echo "$HP_MORE" >> runs', hpc_profile_block_name="more-pool")
@flow
def inner(work_dir: str) -> None:
    one.submit(work_dir, "thread").result()
@flow(task_runner=ProcessPoolTaskRunner(max_workers=2), retries=1)
def experiment(work_dir: str) -> None:
    for each in [one.submit(work_dir, label) for label in "ab"]:
        each.result()
    inner(work_dir)
    if os.environ.pop("HP_TEST_FAILS_ONCE", ""):
        raise RuntimeError("once")
"""

    def store(greeting: str) -> None:
        HPCProfileBlock(
            scheduler="local",
            executables={"sh": "/bin/sh"},
            environment={"HP_MORE": greeting},
            local={"slots": 12, "spool": str(tmp_path / "spool"), "kill_grace": 1.0},
        ).save("more-pool", overwrite=True, _sync=True)

    store("then")
    first = first_run(flow_file(tmp_path, body), work_dir)
    store("now")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HP_TEST_FAILS_ONCE", "1")
        done = reproduce(first.id)
    assert done.error is None
    assert runs(work_dir) == ["then"] * 6


def test_a_plan_writes_nothing(tmp_path: Path) -> None:
    first = first_run(flow_file(tmp_path, UNNAMED), tmp_path / "work")

    def written() -> object:
        folders = (tmp_path / "source", Path(first.folder), Path(first.folder).parent)
        files = [file for folder in folders for file in sorted(folder.rglob("*"))]
        return flow_runs(), [(str(file), file.lstat().st_mtime_ns) for file in files]

    before = written()
    assert command("runs", "reproduce", first.id, "--plan").returncode == 0
    assert written() == before


def recorded(**measures: Any) -> Record:
    return Record(folder="", run={"id": "a"}, recorded=measures, state="completed")


def test_zeros_of_two_signs_are_not_the_same_bits() -> None:
    found = same_results(recorded(x=0.0), recorded(x=-0.0))
    assert found.different
    assert not found.same


def test_what_the_record_holds_in_part_is_not_told_to_be_the_same(tmp_path: Path) -> None:
    body = """
class Odd:
    pass
@flow
def experiment(work_dir: str) -> None:
    deep: Any = 1
    for _ in range(30):
        deep = [deep]
    record_measures(odd=Odd(), deep=deep, wide={str(i): list(range(150)) for i in range(100)}, x=1)
    job_sync(work_dir, "a")
"""
    first = first_run(flow_file(tmp_path, body), tmp_path / "work")
    found = reproduce(first.id).results
    assert found is not None
    assert "the measures x" in found.same
    assert any("odd" in each and "deep" in each and "wide" in each for each in found.unknown)
    assert math.isfinite(first.recorded["x"])
