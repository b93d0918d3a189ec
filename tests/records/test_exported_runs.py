"""Runs that are exported as RO-Crates, whatever became of them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from prefect import flow
from qiskit import QuantumCircuit

from hpc_prefect import (
    ExecutionProfileBlock,
    HPCProfileBlock,
    QuantumBackendBlock,
    StopRule,
    converge,
    record_measures,
    runs,
    sample,
    scope,
)
from hpc_prefect.errors import ConfigurationError

from .. import warm
from ..engines import CrateValidator
from ..flows.jobs import HERE, job
from ..flows.jobs import runs as jobs_that_ran
from ..flows.recorded import record_of, records
from ..flows.seen import PROGRAMS, until
from ..records.crates import dangling, entities, files, listed, of_type

# The first one that asks for the validator waits for its installation.
pytestmark = [pytest.mark.usefixtures("blocks"), pytest.mark.timeout(900)]

#: Made here and not written down: this file is the source that is in the crates.
SECRETS = {name: f"hidden-{name}-{4700 + 11}" for name in
           ("environment", "setup", "option", "parameter", "block")}  # fmt: skip
COMPLETED, FAILED, ACTIVE = (
    f"http://schema.org/{each}ActionStatus" for each in ("Completed", "Failed", "Active")
)


def secrets_in(crate: Path) -> list[str]:
    found = files(crate)
    return [
        f"{value} in {name}"
        for value in SECRETS.values()
        for name, data in found.items()
        if value.encode() in data
    ]


async def secretive(spool: Path) -> dict[str, str]:
    """Names of blocks that hold secrets in plain fields, as people do."""
    here = HPCProfileBlock(
        scheduler="local",
        executables={"sh": "/bin/sh"},
        setup=[f"export SITE_PASSWORD={SECRETS['setup']}"],
        secret_environment={"HP_TOKEN": SECRETS["block"]},
        local={"slots": 12, "spool": str(spool), "kill_grace": 1.0},
    )
    await here.asave(hpc := f"{HERE}-secretive", overwrite=True)
    profile = ExecutionProfileBlock(
        profile_name="sh", command_name="sh", environment={"MY_TOKEN": SECRETS["environment"]}
    )
    await profile.asave("exec-secretive", overwrite=True)
    return {"hpc_profile_block_name": hpc, "execution_profile_block_name": "exec-secretive"}


async def test_a_crate_has_source_record_jobs_and_outputs_and_no_secret(
    blocks: None, spool: Path, tmp_path: Path
) -> None:
    names = await secretive(spool)
    tell = 'echo "$MY_TOKEN $SITE_PASSWORD"; echo told >&2; echo result > out.txt'

    @flow
    async def experiment(work_dir: str, shots: int, api_token: str) -> None:
        with scope("prepare"):
            made = await job(
                work_dir, "a", tell, expected_outputs=["out.txt"], **names,
                user_args=[tell, "sh", "--token", SECRETS["option"]],
            )  # fmt: skip
        assert SECRETS["environment"] in Path(made.folder, "stdout").read_text()
        await job(work_dir, "b", "cat out.txt", inputs=["out.txt"], **names)
        record_measures(energy=-1.5)

    await experiment(str(tmp_path), 100, SECRETS["parameter"])  # type: ignore[arg-type]
    record = record_of(tmp_path)
    folder, zipped = tmp_path / "crate", tmp_path / "crate.zip"
    runs.export_crate(record.id, folder)
    runs.export_crate(record.id, zipped)
    assert files(folder).keys() == files(zipped).keys()
    for crate in (folder, zipped):
        assert secrets_in(crate) == []
        assert dangling(crate) == set()
    found, data = entities(folder), files(folder)
    source = found[f"workflow/{Path(__file__).name}"]
    assert data[source["@id"]] == Path(__file__).read_bytes()
    assert source["sha256"] == record.code["sha256"]
    for id, each in found.items():
        if id in data and "sha256" in each:
            assert each["sha256"] == hashlib.sha256(data[id]).hexdigest()
            assert each["contentSize"] == str(len(data[id]))
    first, second = sorted(record.jobs.values(), key=lambda each: str(each["name"]))
    beginning = f"jobs/{Path(first['folder']).name}"
    assert {"script.sh", "program.sh", "journal.jsonl", "record.json", "stdout", "stderr"} <= {
        name.removeprefix(f"{beginning}/") for name in data if name.startswith(beginning)
    }
    assert not [name for name in data if "secrets" in name or "claim" in name]
    output = f"{beginning}/outputs/out.txt"
    assert data[output] == b"result\n"
    actions = {each["name"]: each for each in of_type(folder, "CreateAction")}
    assert {"@id": output} in actions["a, attempt 1"]["result"]
    assert actions["b, attempt 1"]["object"] == {"@id": output}  # what the one has made
    assert {each["actionStatus"] for each in actions.values()} == {COMPLETED}
    tool = found[actions["a, attempt 1"]["instrument"]["@id"]]
    assert tool["sha256"] == second["executable"]["sha256"]
    used = [found[each["@id"]] for each in actions["a, attempt 1"]["resourceUsage"]]
    hours = {each["name"]: each["value"] for each in used}
    assert hours["node_hours"] == pytest.approx(first["node_hours"], abs=1e-8)
    (whole,) = [each for each in actions.values() if each["name"].startswith("run ")]
    given = {found[each["@id"]]["name"]: found[each["@id"]] for each in whole["object"]}
    assert given["shots"]["value"] == 100
    assert found[given["shots"]["exampleOfWork"]["@id"]]["additionalType"] == "Integer"
    (engine,) = of_type(folder, "OrganizeAction")
    assert engine["result"] == {"@id": whole["@id"]}
    assert len(listed(engine["object"])) == 2


async def test_a_failed_run_is_told_as_failed_with_each_attempt(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    @flow(retries=1)
    async def experiment(work_dir: str) -> None:
        if not jobs_that_ran(tmp_path):
            (tmp_path / "fail-a").touch()
        await job(work_dir, "a")
        await job(work_dir, "b", "echo so >&2; exit 3")

    state = await experiment(str(tmp_path), return_state=True)  # type: ignore[call-overload]
    assert state.is_failed()
    crate = tmp_path / "crate"
    runs.export_crate(record_of(tmp_path).id, crate)
    told = {each["name"]: each for each in of_type(crate, "CreateAction")}
    assert told["a, attempt 1"]["actionStatus"] == FAILED
    assert told["a, attempt 2"]["actionStatus"] == COMPLETED
    assert told["b, attempt 1"]["actionStatus"] == FAILED
    assert "exit code 3" in told["b, attempt 1"]["error"]
    (run,) = [each for each in told.values() if each["name"].startswith("run ")]
    assert run["actionStatus"] == FAILED
    assert "job b" in run["error"]
    called = {len(listed(each["object"])) for each in of_type(crate, "ControlAction")}
    assert called == {1, 2}
    assert required(_validator(request), crate) == []


def _validator(request: pytest.FixtureRequest) -> CrateValidator:
    """Asked for when all else was found to be right: where it is not, the test is skipped there."""
    found = request.getfixturevalue("crate_validator")
    assert isinstance(found, CrateValidator)
    return found


def required(validator: CrateValidator, *crates: Path, **how: str) -> list[str]:
    """What does not hold that must."""
    found = validator.faults(*crates, **how)
    assert found.keys() == set(crates)
    return [f"{crate.name}: {fault}" for crate in crates for fault in found[crate]["REQUIRED"]]


#: Recommendations that nobody can follow for the user: an organisation as publisher, the author's
#: organisation; and addresses on the web for programs and devices, and for a source that is in the
#: crate.
NOT_OURS = {
    "process-run-crate-0.5_3.2",
    "ro-crate-1.1_22.3",
    "ro-crate-1.1_30.2",
    "ro-crate-1.1_30.3",
    "process-run-crate-0.5_5.1",
}


async def test_a_crate_of_batch_and_quantum_jobs_keeps_to_its_profiles(
    tmp_path: Path, crate_validator: CrateValidator
) -> None:
    await quantum_run(tmp_path)
    crate, zipped = tmp_path / "crate", tmp_path / "crate.zip"
    runs.export_crate(record_of(tmp_path).id, crate, licence="CC-BY-4.0")
    runs.export_crate(record_of(tmp_path).id, zipped)
    found = crate_validator.faults(crate, zipped)
    for each in (crate, zipped):
        assert found[each]["REQUIRED"] == []
        assert {fault.split()[0] for fault in found[each]["RECOMMENDED"]} <= NOT_OURS


async def quantum_run(work_dir: Path) -> None:
    await QuantumBackendBlock(backend_name="aer").asave("export-aer", overwrite=True)
    circuit = QuantumCircuit(1)
    circuit.h(0)
    circuit.measure_all()

    @flow
    async def experiment(work_dir: str, shots: int) -> None:
        async def step(state: float, _: object) -> float:
            await sample(
                [circuit],
                quantum_backend_block_name="export-aer",
                work_dir=work_dir,
                options={"shots": shots, "seed": 1},
            )
            await job(work_dir, "evaluate", "echo 1 > energy", expected_outputs=["energy"])
            return state / 2

        await converge(
            step, 8.0, measure=lambda state: {"energy": state}, work_dir=work_dir, seed=7,
            stop=StopRule(max_iterations=2, value="energy"),
        )  # fmt: skip

    await experiment(str(work_dir), 16)  # type: ignore[arg-type]


async def test_a_samplings_result_and_device_are_in_the_crate(tmp_path: Path) -> None:
    await quantum_run(tmp_path)
    record, crate = record_of(tmp_path), tmp_path / "crate"
    runs.export_crate(record.id, crate)
    data, found = files(crate), entities(crate)
    samplings = [each for each in record.jobs.values() if each["kind"] == "sampler"]
    assert len(samplings) == 2
    for each in samplings:
        name = f"jobs/{Path(each['folder']).name}/result.npz"
        assert hashlib.sha256(data[name]).hexdigest() == each["result_sha256"]
        made = [a for a in of_type(crate, "CreateAction") if {"@id": name} in listed(a["result"])]
        (action,) = [each for each in made if not each["name"].startswith("run ")]
        assert found[action["instrument"]["@id"]]["name"] == "aer"
    assert dangling(crate) == set()


async def test_a_run_without_jobs_is_a_workflow_run_crate(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    @flow
    async def experiment(work_dir: str) -> None:
        await converge(
            lambda state, _: state / 2, 8.0, measure=lambda state: {"energy": state},
            work_dir=work_dir, stop=StopRule(max_iterations=2, value="energy"),
        )  # fmt: skip

    await experiment(str(tmp_path))  # type: ignore[arg-type]
    crate = tmp_path / "crate"
    runs.export_crate(record_of(tmp_path).id, crate)
    kept = {each["@id"] for each in entities(crate)["./"]["conformsTo"]}
    assert "https://w3id.org/ro/wfrun/workflow/0.5" in kept
    assert "https://w3id.org/ro/wfrun/provenance/0.5" not in kept
    assert dangling(crate) == set()
    assert required(_validator(request), crate, profile="workflow-run-crate") == []


def test_a_run_that_goes_on_and_one_that_was_killed_are_told_as_such(
    tmp_path: Path, crate_validator: CrateValidator
) -> None:
    crates = running_and_killed(tmp_path)
    assert required(crate_validator, *crates) == []


def running_and_killed(tmp_path: Path) -> tuple[Path, Path]:
    work = tmp_path / "work"
    work.mkdir()
    script = "import asyncio, sys; from jobs import loop; asyncio.run(loop(sys.argv[1], 3))"
    process = warm.Process(["-c", script, str(work)], cwd=PROGRAMS, start_new_session=True)
    running, killed = tmp_path / "running", tmp_path / "killed"
    try:
        until(lambda: (work / "runs").exists() and "wait" in (work / "runs").read_text())
        until(lambda: len(records(work)) == 1 and records(work)[0].totals.jobs["succeeded"] == 3)
        (record,) = records(work)
        runs.export_crate(record.folder, running)
    finally:
        process.kill()
        process.wait()
    runs.export_crate(record.folder, killed)
    (work / "go").touch()
    return running, killed


def test_what_was_not_finished_is_never_told_as_completed(tmp_path: Path) -> None:
    running, killed = running_and_killed(tmp_path)
    for crate, status in ((running, ACTIVE), (killed, FAILED)):
        actions = {each["name"]: each for each in of_type(crate, "CreateAction")}
        (run,) = [each for name, each in actions.items() if name.startswith("run ")]
        assert run["actionStatus"] == status
        assert "endTime" not in run
        waiting = actions["wait, attempt 0"]
        assert waiting["actionStatus"] == ACTIVE
        assert waiting["description"].endswith("no end of this job is recorded")
        ended = [each["actionStatus"] for each in of_type(crate, "CreateAction")]
        assert sorted(ended) == sorted([*[COMPLETED] * 3, ACTIVE, status])
        data = files(crate)
        assert [name for name in data if name.endswith("/script.sh")]
        events = [name for name in data if name.startswith("record/events")]
        assert all(json.loads(line) for name in events for line in data[name].splitlines())
    (run,) = [each for each in of_type(killed, "CreateAction") if each["name"].startswith("run ")]
    assert "without recording an end" in run["error"]


async def test_a_crate_has_the_ends_that_a_killed_process_had_not_written(tmp_path: Path) -> None:
    @flow
    async def experiment(work_dir: str) -> None:
        await job(work_dir, "a")

    work = tmp_path / "work"
    await experiment(str(work))  # type: ignore[arg-type]
    folder = record_of(work).folder
    lines = Path(folder, "events.jsonl").read_bytes().splitlines(keepends=True)
    lost = [each for each in lines if b'"job-ended"' in each or b'"event":"ended"' in each]
    assert len(lost) == 2
    Path(folder, "events.jsonl").write_bytes(b"".join(each for each in lines if each not in lost))
    runs.export_crate(folder, crate := tmp_path / "crate")
    actions = {each["name"]: each for each in of_type(crate, "CreateAction")}
    assert actions["a, attempt 1"]["actionStatus"] == COMPLETED


async def test_a_file_that_changed_or_is_too_large_is_told_and_not_copied(tmp_path: Path) -> None:
    module = tmp_path / "experiment.py"
    module.write_text(
        "from prefect import flow\nfrom tests.flows.jobs import job\n\n@flow\n"
        "async def changing(work_dir: str) -> None:\n"
        "    for name in ('large', 'changed', 'gone'):\n"
        "        await job(work_dir, name, f'echo 12345678 > {name}', expected_outputs=[name])\n"
    )
    namespace = {"__file__": str(module), "__name__": "experiment"}
    exec(compile(module.read_text(), str(module), "exec"), namespace)
    work = tmp_path / "work"
    work.mkdir()
    await namespace["changing"](str(work))  # type: ignore[operator]
    record = record_of(work)
    (work / "changed").write_text("other\n")
    (work / "gone").unlink()
    module.write_text("another = 1\n")
    runs.export_crate(record.id, crate := tmp_path / "crate", whole_up_to=8)
    data = files(crate)
    assert not [name for name in data if "/outputs/" in name]
    told = {each["name"]: each for each in of_type(crate, "File") if "/outputs/" in each["@id"]}
    for each in record.jobs.values():
        (name,) = each["outputs"]
        assert told[name]["sha256"] == each["outputs"][name]["sha256"]
        assert told[name]["contentSize"] == "9"
    assert "larger than 8 bytes" in told["large"]["description"]
    runs.export_crate(record.id, whole := tmp_path / "whole")
    why = {
        each["name"]: each["description"]
        for each in of_type(whole, "File")
        if each["@id"].startswith("#") and "/outputs/" in each["@id"]
    }
    assert why.keys() == {"changed", "gone"}
    assert "changed since the job left it" in why["changed"]
    assert "removed since" in why["gone"]
    assert b"another = 1" not in b"".join(files(whole).values())
    main = entities(whole)["./"]["mainEntity"]["@id"]
    assert main == "workflow/source-not-included.txt"
    assert entities(whole)[main]["description"].startswith(
        "NOT the flow's source, which had already changed"
    )
    assert record.code["sha256"].encode() in files(whole)[main]


async def test_nothing_is_written_over(tmp_path: Path) -> None:
    @flow
    async def experiment(work_dir: str) -> None:
        await job(work_dir, "a")

    await experiment(str(tmp_path))  # type: ignore[arg-type]
    record = record_of(tmp_path)
    for name in ("crate", "crate.zip"):
        runs.export_crate(record.id, tmp_path / name)
        before = files(tmp_path / name)
        with pytest.raises(ConfigurationError, match="exists and is not empty"):
            runs.export_crate(record.id, tmp_path / name)
        assert files(tmp_path / name) == before
    (tmp_path / "empty").mkdir()
    runs.export_crate(record.id, tmp_path / "empty")
    assert dangling(tmp_path / "empty") == set()
    assert not [each for each in tmp_path.iterdir() if each.name.startswith(".crate")]
