"""The record that a run writes of itself: what is in it, whoever dies."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from prefect import flow
from pydantic import SecretStr

from hpc_prefect import HPCProfileBlock, StopRule, campaign, converge, record_measures, resume
from hpc_prefect.errors import JobFailed, LedgerError
from hpc_prefect.records import index
from hpc_prefect.records.fold import Record
from hpc_prefect.records.read import given_parameters, standing
from hpc_prefect.records.write.generators import generator_states

from .. import warm
from ..flows.jobs import HERE, LONG, job, runs
from ..flows.recorded import record_of, records
from ..flows.seen import PROGRAMS, until
from ..records.schema import faults

pytestmark = pytest.mark.usefixtures("blocks")

JOBS = PROGRAMS / "jobs.py"


async def test_a_run_is_recorded_with_its_parameters_code_blocks_jobs_and_costs(
    tmp_path: Path,
) -> None:
    @flow
    async def experiment(work_dir: str, shots: int, api_token: str, key: SecretStr) -> None:
        record_measures(early=1)
        Path(work_dir, "in.txt").write_text("input")
        await job(work_dir, "a", inputs=["in.txt"], expected_outputs=["runs"])
        await job(work_dir, "b")
        record_measures(energy=-1.5, label="x")

    await experiment(str(tmp_path), 100, "hidden-4711", SecretStr("hidden-4712"))  # type: ignore[arg-type]
    record = record_of(tmp_path)
    assert (record.flow, record.run["kind"], record.state) == ("experiment", "flow", "completed")
    assert record.parameters["shots"] == 100
    assert record.measures == {"early": 1, "energy": -1.5, "label": "x"}
    assert record.code["file"] == __file__
    assert len(record.code["sha256"]) == 64
    assert record.environment["packages"]["prefect"]
    names = {(block["kind"], block["name"]) for block in record.blocks.values()}
    assert names == {("command", "cmd-sh"), ("execution-profile", "exec-sh"), ("hpc-profile", HERE)}
    a, b = sorted(record.jobs.values(), key=lambda each: str(each["name"]))
    assert (a["name"], b["name"]) == ("a", "b")
    assert {a["state"], b["state"]} == {"succeeded"}
    assert a["executable"]["path"] == "/bin/sh"
    assert len(a["executable"]["sha256"]) == 64
    assert a["outputs"]["runs"]["size"] > 0
    assert a["inputs"]["in.txt"]["size"] == len("input")
    assert a["loaded_modules"] == []
    assert set(a["blocks"]) == record.blocks.keys()
    assert record.totals.jobs == {"succeeded": 2}
    assert record.totals.costs["node_hours"] > 0
    everything = b"".join(file.read_bytes() for file in Path(record.folder).iterdir())
    everything += json.dumps(index.entry(record.id)).encode()
    for secret in (b"hidden-4711", b"hidden-4712", b"secret-value-4711"):
        assert secret not in everything


async def test_the_list_of_runs_has_it_as_it_ended(tmp_path: Path) -> None:
    @flow
    async def experiment(work_dir: str) -> None:
        await job(work_dir, "a")

    await experiment(str(tmp_path))  # type: ignore[arg-type]
    record = record_of(tmp_path)
    until(lambda: (index.entry(record.id) or {}).get("state") == "completed")
    entry = index.entry(record.id)
    assert entry is not None
    assert entry["folder"] == record.folder
    assert json.loads((Path(record.folder) / "run.json").read_text())["totals"] == entry["totals"]


async def test_a_failed_job_and_the_end_of_its_run_are_told(tmp_path: Path) -> None:
    @flow
    async def experiment(work_dir: str) -> None:
        await job(work_dir, "a", "exit 3")

    with pytest.raises(JobFailed):
        await experiment(str(tmp_path))  # type: ignore[arg-type]
    record = record_of(tmp_path)
    assert record.state == "failed"
    (failed,) = record.jobs.values()
    assert (failed["state"], failed["exit_code"], failed["attempt"]) == ("failed", 3, 1)


async def test_what_an_earlier_run_did_is_told_as_saved(tmp_path: Path) -> None:
    @flow
    async def experiment(work_dir: str, labels: list[str]) -> None:
        with campaign("sweep"):
            for label in labels:
                await job(work_dir, label)

    await experiment(str(tmp_path), ["a"])  # type: ignore[arg-type]
    await experiment(str(tmp_path), ["a", "b"])  # type: ignore[arg-type]
    until(lambda: [each.state for each in records(tmp_path)] == ["completed"] * 2)
    first, second = records(tmp_path)
    assert (first.totals.reused, second.totals.reused) == (0, 1)
    assert second.totals.saved == pytest.approx(
        {name: first.totals.costs[name] for name in second.totals.saved}
    )
    made_by = {str(each["name"]): each["made_by"] for each in second.jobs.values()}
    assert made_by == {"a": first.id, "b": second.id}


async def test_a_loop_has_its_rows_and_seed(tmp_path: Path) -> None:
    @flow
    async def experiment(work_dir: str) -> None:
        await converge(
            lambda state, at: state / 2 + 0.0 * at.rng.random(),
            8.0,
            measure=lambda state: {"energy": state},
            stop=StopRule(max_iterations=3, value="energy"),
            work_dir=work_dir,
            seed=7,
        )

    await experiment(str(tmp_path))  # type: ignore[arg-type]
    record = record_of(tmp_path)
    rows = record.iterations["converge"]
    assert [rows[number]["energy"] for number in (1, 2, 3)] == [4.0, 2.0, 1.0]
    assert record.measures["energy"] == 1.0
    assert record.loops["converge"]["seed"] == 7
    states = record.generators["converge"]
    assert len({json.dumps(each) for each in states.values()}) == 4
    assert sorted(states) == [0, 1, 2, 3]
    assert states[0]["rng"] == generator_states({"rng": np.random.default_rng(7)})["rng"]


def test_a_killed_run_is_readable_up_to_its_last_step(tmp_path: Path) -> None:
    script = "import asyncio, sys; from jobs import loop; asyncio.run(loop(sys.argv[1], 3))"
    killed = warm.Process(["-c", script, str(tmp_path)], cwd=JOBS.parent, start_new_session=True)
    try:
        until(lambda: (tmp_path / "runs").exists() and "wait" in (tmp_path / "runs").read_text())
        until(lambda: _count(tmp_path, "succeeded") == 3)
    finally:
        killed.kill()
        killed.wait()
    (record,) = records(tmp_path)
    assert (record.state, standing(record)) == ("running", "died")
    # A record is completed from the folders when it is read, and nothing is written for that.
    (waiting,) = [each for each in record.jobs.values() if each["state"] == "wanted"]
    assert (waiting["name"], waiting["last_seen"]) == ("wait", "unknown")
    events = Path(record.folder, "events.jsonl")
    lines = events.read_text().splitlines(keepends=True)
    jobs = [line for line in lines if '"event":"job' in line]
    events.write_text("".join(line for line in lines if line not in jobs))
    (again,) = records(tmp_path)
    assert (again.totals.as_dict()["costs"], again.totals.jobs) == (
        record.totals.as_dict()["costs"],
        record.totals.jobs,
    )
    assert {each["state"] for each in again.jobs.values()} == {"succeeded", "wanted"}
    assert not [line for line in events.read_text().splitlines() if '"event":"job' in line]
    (tmp_path / "go").touch()


async def test_a_record_that_is_completed_has_digests_of_outputs_that_are_as_they_were_left(
    tmp_path: Path,
) -> None:
    @flow
    async def experiment(work_dir: str) -> None:
        for label in "abc":
            script = f"echo {label} > {label}.txt; mkdir {label}; echo > {label}/in-it"
            await job(work_dir, label, script, expected_outputs=[f"{label}.txt", label])

    await experiment(str(tmp_path))  # type: ignore[arg-type]
    record = record_of(tmp_path)
    told = {str(each["name"]): each["outputs"] for each in record.jobs.values()}
    events = Path(record.folder, "events.jsonl")
    lines = events.read_text().splitlines(keepends=True)
    events.write_text("".join(line for line in lines if '"event":"job-ended"' not in line))
    (tmp_path / "b.txt").write_text("something else")
    (tmp_path / "c.txt").unlink()
    os.mkfifo(tmp_path / "c.txt")
    (again,) = records(tmp_path)
    completed = {str(each["name"]): each["outputs"] for each in again.jobs.values()}
    assert all(each["from_folder"] for each in again.jobs.values())
    assert "sha256" in told["a"]["a.txt"]
    assert completed["a"] == told["a"]
    assert [completed[name][f"{name}.txt"] for name in "bc"] == [
        {"path": str(tmp_path / f"{name}.txt")} for name in "bc"
    ]
    assert faults(again.as_dict()) == []


def _count(work_dir: Path, state: str) -> int:
    found = records(work_dir) if list(work_dir.glob(".hpc-prefect/*/runs/*/events.jsonl")) else []
    return sum(each.totals.jobs[state] for each in found)


async def test_a_retried_run_is_one_record_that_ends_as_its_last_attempt(tmp_path: Path) -> None:
    @flow(retries=1)
    async def experiment(work_dir: str) -> None:
        if not runs(tmp_path):
            (tmp_path / "fail-b").touch()
        await job(work_dir, "a")
        await job(work_dir, "b")

    await experiment(str(tmp_path))  # type: ignore[arg-type]
    until(lambda: [each.state for each in records(tmp_path)] == ["completed"])
    (record,) = records(tmp_path)
    assert record.run["attempt"] == 2
    # What its first attempt did it finds again, and did not save.
    assert (record.totals.jobs, record.totals.reused) == ({"succeeded": 2, "failed": 1}, 0)
    newest = {str(each["name"]): (each["state"], each["attempt"]) for each in record.jobs.values()}
    assert newest == {"a": ("succeeded", 1), "b": ("succeeded", 2)}


def test_who_goes_on_with_a_run_of_another_process_goes_on_with_its_record(tmp_path: Path) -> None:
    script = "import asyncio, sys; from jobs import alone; asyncio.run(alone(sys.argv[1]))"
    killed = warm.Process(["-c", script, str(tmp_path)], cwd=JOBS.parent, start_new_session=True)
    until(lambda: runs(tmp_path) and list(tmp_path.glob(".hpc-prefect/*/runs/*/events.jsonl")))
    killed.kill()
    killed.wait()
    (before,) = records(tmp_path)
    (tmp_path / "go").touch()
    resume(before.id, entrypoint=f"{JOBS}:alone")
    record = record_of(tmp_path)
    assert (record.id, record.state) == (before.id, "completed")
    assert record.environment["pid"] == os.getpid()
    assert record.totals.jobs == {"succeeded": 1}
    assert sorted(file.name for file in Path(record.folder).glob("events*")) == [
        "events-2.jsonl",
        "events.jsonl",
    ]


async def test_a_result_of_a_program_that_was_built_anew_is_told_or_made_again(
    blocks: None, spool: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    program = tmp_path / "program"

    def build(version: int) -> None:
        program.write_text(f"#!/bin/sh\necho {version} >> runs\n")
        program.chmod(0o755)

    async def profile(rebuilt: str) -> str:
        here = HPCProfileBlock(
            scheduler="local",
            executables={"sh": str(program)},
            local={"slots": 12, "spool": str(spool)},
            rebuilt_program=rebuilt,
        )
        await here.asave(name := f"{HERE}-{rebuilt}", overwrite=True)
        return name

    @flow
    async def experiment(work_dir: str, name: str) -> None:
        with campaign(name):
            await job(work_dir, "a", hpc_profile_block_name=name)

    for rebuilt in ("warn", "rerun"):
        work, name = tmp_path / rebuilt, await profile(rebuilt)
        build(1)
        await experiment(str(work), name)  # type: ignore[arg-type]
        caplog.clear()
        await experiment(str(work), name)  # type: ignore[arg-type]
        assert "was rebuilt" not in caplog.text
        build(2)
        await experiment(str(work), name)  # type: ignore[arg-type]
        assert ("was rebuilt" in caplog.text) == (rebuilt == "warn")
        assert runs(work) == {"warn": ["1"], "rerun": ["1", "2"]}[rebuilt]


async def test_a_parameter_that_cannot_be_shown_stops_nothing(tmp_path: Path) -> None:
    class Odd:
        def __repr__(self) -> str:
            raise RuntimeError("odd")

    @flow(validate_parameters=False)
    async def experiment(work_dir: str, odd: object) -> None:
        record_measures(spectrum=np.arange(3.0), last=np.float64(1.5))
        with campaign("odd"):
            await job(work_dir, "a")

    state = await experiment(str(tmp_path), Odd(), return_state=True)  # type: ignore[call-overload]
    assert state.is_completed()


async def test_a_record_that_cannot_be_written_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    @flow
    async def experiment(work_dir: str) -> None:
        with campaign("blocked"):
            await job(work_dir, "a")

    await experiment(str(tmp_path))  # type: ignore[arg-type]
    record = record_of(tmp_path)
    shutil.rmtree(Path(record.folder).parent)
    Path(record.folder).parent.write_text("in the way")
    state = await experiment(str(tmp_path), return_state=True)  # type: ignore[call-overload]
    assert state.is_completed()
    assert "has no record" in caplog.text


def test_the_schema_refuses_what_is_no_record() -> None:
    record = Record(run={"id": "a"}).as_dict()
    assert any("'attempt' is a required property" in each for each in faults(record))
    assert any("'ended'" in each for each in faults(record | {"state": "ended"}))


async def test_a_job_that_is_cancelled_while_it_runs_has_its_end_and_cost(tmp_path: Path) -> None:
    @flow
    async def experiment(work_dir: str) -> None:
        waiting = asyncio.create_task(job(work_dir, "long", LONG))
        await asyncio.to_thread(until, lambda: runs(tmp_path))
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    await experiment(str(tmp_path))  # type: ignore[arg-type]
    record = record_of(tmp_path)
    (cancelled,) = record.jobs.values()
    assert (cancelled["state"], cancelled["reason"]) == ("cancelled", "cancelled")
    assert record.totals.jobs == {"cancelled": 1}
    assert record.totals.costs["node_hours"] > 0


async def test_a_call_that_fails_without_a_job_is_the_end_of_it(tmp_path: Path) -> None:
    @flow
    async def experiment(work_dir: str) -> None:
        with campaign("changed"):
            await job(work_dir, "a", expected_outputs=["runs"])

    await experiment(str(tmp_path))  # type: ignore[arg-type]
    with (tmp_path / "runs").open("a") as output:
        output.write("changed\n")
    with pytest.raises(LedgerError):
        await experiment(str(tmp_path))  # type: ignore[arg-type]
    until(lambda: [each.state for each in records(tmp_path)] == ["completed", "failed"])
    record = records(tmp_path)[-1]
    (failed,) = record.jobs.values()
    assert (failed["state"], failed["reason"]) == ("failed", "ledger_error")
    assert "has changed since" in failed["summary"]
    assert faults(record.as_dict()) == []


@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_a_run_whose_calls_are_all_made_in_a_pools_processes_has_a_record(
    how: str, tmp_path: Path
) -> None:
    (tmp_path / "go").touch()
    file = PROGRAMS / "pooled.py"
    process = warm.Process([str(file), how, str(tmp_path)])
    assert process.wait(timeout=200) == 0
    record = record_of(tmp_path)
    assert (record.state, record.flow) == ("completed", "spawned" if how == "spawn" else "forked")
    assert record.parameters["work_dir"] == str(tmp_path)
    assert (record.inexact, record.environment["pid"]) == ([], process.pid)
    assert record.code["file"] == str(file)
    assert record.totals.jobs == {"succeeded": 2}
    assert (index.entry(record.id) or {})["state"] == "completed"


def test_long_parameters_are_whole_in_a_record_that_a_pools_process_has_begun(
    tmp_path: Path,
) -> None:
    (tmp_path / "go").touch()
    file = PROGRAMS / "pooled.py"
    assert warm.run([str(file), "spawn", str(tmp_path), "300"]).returncode == 0
    record = record_of(tmp_path)
    assert record.apart == ["angles"]
    assert given_parameters(record)["angles"] == [i / 7 for i in range(300)]
