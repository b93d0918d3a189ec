"""Jobs of IBM Quantum with the real client and a service on loopback: native, shown, paid once."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import uuid
from pathlib import Path

import numpy as np
import pytest
from circuits import bell
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.context import get_run_context
from prefect.variables import Variable
from qiskit.circuit import Gate, Parameter, QuantumCircuit
from qiskit.quantum_info import SparsePauliOp

from hpc_prefect import campaign, scope
from hpc_prefect.errors import (
    BudgetExceeded,
    InvalidJob,
    JobHeld,
    QuantumJobFailed,
    QuantumServiceError,
)
from hpc_prefect.local_batch.process import identity
from hpc_prefect.quantum import (
    IBMQuantumCredentials,
    QuantumBackendBlock,
    estimate,
    fetch,
    sample,
    submit_sampling,
)

from .journals import events
from .service import QuantumService, common_ibm_quantum

pytestmark = pytest.mark.usefixtures("prefect_server")

__all__ = ["common_ibm_quantum"]


@pytest.fixture
def service(common_ibm_quantum: QuantumService):
    yield common_ibm_quantum
    common_ibm_quantum.clear()


async def block(**fields) -> str:
    name = f"ibm-{uuid.uuid4().hex[:6]}"
    fields = {"kind": "ibm", "backend_name": "fake_manila"} | fields
    await QuantumBackendBlock(**fields).asave(name)
    return name


async def call(folder, pubs=None, *, what=sample, backend="", options=None, **fields):
    return await what(
        [bell()] if pubs is None else pubs,
        quantum_backend_block_name=backend or await block(**fields),
        work_dir=folder,
        options=options or {"shots": 100, "seed": 1},
    )


def turned() -> QuantumCircuit:
    circuit = QuantumCircuit(2)
    circuit.rx(Parameter("t"), 0)
    circuit.cx(0, 1)
    return circuit


def jobs(service: QuantumService, folder: Path) -> list[str]:
    """The states of the jobs that the calls in a folder have bought."""
    tags = {event["tag"] for event in events(folder) if event["event"] == "intent"}
    return [job["status"] for job in service.counters()["jobs"] if tags & set(job["tags"])]


@pytest.mark.parametrize("interface", ["executor", "v2"])
async def test_circuits_and_sweeps_are_one_job_whose_result_is_native(service, tmp_path, interface):
    sweep = turned().measure_all(inplace=False)
    pubs = [bell(), (sweep, [[0.0], [np.pi]])]

    result = await call(tmp_path, pubs, interface=interface)

    assert set(result[0].data.meas.get_counts()) <= {"00", "11"}
    assert [result[1].data.meas[i].get_counts() for i in (0, 1)] == [{"00": 100}, {"11": 100}]
    assert jobs(service, tmp_path) == ["Completed"]
    assert [event["event"] for event in events(tmp_path)] == ["intent", "submitted", "verdict"]
    assert events(tmp_path)[0]["job"]["made_for"]["interface"] == interface


@pytest.mark.parametrize("interface", ["executor", "v2"])
async def test_estimates_come_with_values_and_errors(service, tmp_path, interface):
    observables = SparsePauliOp(["ZZ", "XX"], [1.0, 0.0]), SparsePauliOp("ZI")
    pubs = [(turned(), [[observables[0]], [observables[1]]], [[0.0], [np.pi]])]
    options = {"precision": 0.05, "runtime": {"resilience_level": 0}}

    result = await call(tmp_path, pubs, what=estimate, options=options, interface=interface)

    assert result[0].data.evs.shape == (2, 2)
    assert np.allclose(result[0].data.evs, [[1, 1], [1, -1]], atol=0.3)
    assert result[0].data.stds.shape == (2, 2)
    assert jobs(service, tmp_path) == ["Completed"]


async def test_a_simulator_estimates_too(tmp_path):
    pubs = [(turned(), SparsePauliOp("ZZ"), [[0.0]], 0.0)]

    for fields in ({"kind": "simulator", "backend_name": "aer"}, GENERIC):
        result = await call(tmp_path, pubs, what=estimate, options={"seed": 1}, **fields)
        assert result[0].data.evs[0] == pytest.approx(1.0)


GENERIC = {"kind": "fake-device", "backend_name": "generic", "num_qubits": 3, "noise": False}


async def test_submit_and_fetch_apart_and_again_offline(service, tmp_path):
    name = await block()
    job = await call(tmp_path, what=submit_sampling, backend=name)
    first = await fetch(job)
    service.fault("unavailable")  # whoever asks the service now waits for ever
    again = await fetch(job)

    assert first[0].data.meas.get_counts() == again[0].data.meas.get_counts()
    service.clear()
    assert jobs(service, tmp_path) == ["Completed"]


async def test_a_failed_job_is_an_error_with_its_reason_and_the_next_call_buys_another(
    service, tmp_path
):
    name = await block()
    service.fault("job-fails", reason="The qubits went for a walk, 500", code=9999, times=1)

    async def experiment():
        with campaign("walk"):
            return await call(tmp_path, backend=name)

    with pytest.raises(QuantumJobFailed, match=r"ERROR: .*The qubits went for a walk") as failed:
        await flow(experiment)()
    assert failed.value.status == "ERROR"

    await flow(experiment)()
    assert sorted(jobs(service, tmp_path)) == ["Completed", "Failed"]


async def test_a_place_that_another_living_process_works_on_is_left_alone(service, tmp_path):
    job = await call(tmp_path, what=submit_sampling)
    claims = sorted(Path(f"{job.folder}-1").glob("claim-*"))
    other = {"flow_run": "", "host": socket.gethostname(), "process": identity(os.getppid())}
    claims[-1].write_text(json.dumps(other))

    with pytest.raises(JobHeld, match=f"pid {os.getppid()} on "):
        await fetch(job)


async def test_a_refused_job_is_not_posted_again(service, tmp_path):
    service.fault("post-fails", status=400)
    with pytest.raises(QuantumServiceError, match="the service refuses the job"):
        await call(tmp_path)

    assert jobs(service, tmp_path) == []
    assert [event["event"] for event in events(tmp_path)] == ["intent", "refused", "verdict"]


async def test_what_the_device_cannot_do_is_refused_before_anything_is_written_or_posted(
    service, tmp_path
):
    wide = QuantumCircuit(6)
    wide.measure_all()
    before = service.posted()

    with pytest.raises(InvalidJob) as refused:
        await call(tmp_path, [bell(), wide, (bell(), None, 10**7)], interface="v2")

    assert [each.partition(", and")[0] for each in refused.value.problems] == [
        "pub 1: it needs 6 qubits",
        "pub 2: it asks for 10000000 shots",
    ]
    assert (service.posted(), events(tmp_path)) == (before, [])


async def test_a_circuit_that_the_device_has_no_gates_for_is_refused_with_its_number(
    service, tmp_path
):
    unknown = QuantumCircuit(1, 1)
    unknown.append(Gate("magic", 1, []), [0])
    unknown.measure(0, 0)
    before = service.posted()

    with pytest.raises(InvalidJob, match=r"pub 1: it cannot be transpiled for fake_manila: "):
        await call(tmp_path, [bell(), unknown])

    assert (service.posted(), events(tmp_path)) == (before, [])


async def test_what_the_client_itself_refuses_is_the_callers_error_and_not_posted(
    service, tmp_path
):
    before = service.posted()

    with pytest.raises(InvalidJob, match="the client refuses it: "):
        await call(
            tmp_path,
            options={"shots": 10, "runtime": {"execution": {"meas_type": "kerneled"},
                     "twirling": {"enable_measure": True}}},
            interface="executor",
        )  # fmt: skip

    assert service.posted() == before
    assert events(tmp_path)[-1]["event"] == "refused"


async def test_a_duplicate_that_the_service_made_is_cancelled_in_the_queue(service, tmp_path):
    name = await block()
    service.fault("maintenance", backend="fake_manila")
    service.fault("duplicate", times=1)

    waiting = asyncio.ensure_future(call(tmp_path, backend=name))
    while "Cancelled" not in await asyncio.to_thread(jobs, service, tmp_path):
        assert not waiting.done(), waiting
        await asyncio.sleep(0.1)
    service.clear("maintenance")
    await waiting

    assert sorted(jobs(service, tmp_path)) == ["Cancelled", "Completed"]


async def test_the_budget_of_an_experiment_stops_before_the_money_is_spent(service, tmp_path):
    name = await block(max_qpu_seconds=5)

    async def experiment():
        await call(tmp_path, backend=name)
        await call(tmp_path, backend=name, options={"shots": 9000, "seed": 2})

    with pytest.raises(BudgetExceeded) as stopped:
        await flow(experiment)()

    assert "of the 5 that the block allows this experiment are left" in str(stopped.value)
    assert jobs(service, tmp_path) == ["Completed"]


async def test_what_the_service_says_is_left_stops_too(service, tmp_path):
    service.fault("usage", consumed=560)
    with pytest.raises(BudgetExceeded, match="the instance has"):
        await call(tmp_path, [bell(), bell()], options={"shots": 100_000})

    service.fault("usage", consumed=700)
    with pytest.raises(BudgetExceeded, match="used up its QPU time"):
        await call(tmp_path)
    assert jobs(service, tmp_path) == []


async def test_the_budget_is_that_of_the_experiment_in_all_of_its_work_dirs(service, tmp_path):
    """Each job is estimated at 2 s and costs 1."""
    name = await block(max_qpu_seconds=2.5)
    for below in "ba":
        (tmp_path / below).mkdir()

    @flow
    async def experiment():
        await call(tmp_path / "b", backend=name)
        with pytest.raises(BudgetExceeded, match=r"1\.5 of the 2\.5"):
            await call(tmp_path / "a", backend=name)

    await experiment()
    assert jobs(service, tmp_path / "b") == ["Completed"]
    assert jobs(service, tmp_path / "a") == []


async def test_the_services_own_estimate_stops_a_job_in_the_queue(service, tmp_path):
    """Measurement twirling makes more of a job than its shots: only the service knows."""
    name = await block(max_qpu_seconds=100)
    service.fault("queue", seconds=3600)

    @flow
    async def experiment():
        job = await call(tmp_path, what=submit_sampling, backend=name, options={"shots": 2000})
        path = Path(f"{job.folder}-1", "journal.jsonl")
        text = path.read_text()
        assert text.count('"allowed_seconds":100.0') == 1
        path.write_text(text.replace('"allowed_seconds":100.0', '"allowed_seconds":1.01'))
        with pytest.raises(BudgetExceeded, match="was cancelled in the queue"):
            await fetch(job)

    await experiment()
    assert jobs(service, tmp_path) == ["Cancelled"]


async def test_transpilation_is_cached_by_circuit_device_and_settings(service, tmp_path, caplog):
    name = await block(transpilation={"optimization_level": 2})
    circuit = turned().measure_all(inplace=False)
    circuit.rz(uuid.uuid4().int % 1000, 0)  # that no earlier run has cached

    @flow
    async def experiment(theta):
        return await call(tmp_path, [(circuit, [theta])], backend=name)

    await experiment(0.1)
    await experiment(0.2)

    ends = [
        r.getMessage() for r in caplog.records if getattr(r, "task_run_name", "")[:9] == "transpile"
    ]
    states = [text for text in ends if text.startswith("Finished in state")]
    assert [("Cached" in text) for text in states] == [False, True]
    assert events(tmp_path)[0]["job"]["transpiled"][0]["optimization_level"] == 2


async def test_least_busy_takes_a_device_that_fits(service, tmp_path):
    name = await block(backend_name="least-busy", only_devices=["fake_manila"], min_num_qubits=3)

    await call(tmp_path, backend=name)

    assert events(tmp_path)[0]["job"]["site"]["queue"] == "fake_manila"


@pytest.mark.parametrize("mode", ["batch", "session"])
async def test_a_run_has_one_batch_or_session_and_closes_it(service, tmp_path, mode):
    name = await block(mode=mode)

    @flow
    async def experiment():
        await call(tmp_path, backend=name)
        await call(tmp_path, backend=name, options={"shots": 10})

    await experiment()

    (path,) = tmp_path.glob(f".hpc-prefect/*/{mode}-fake-manila.json")
    session = json.loads(
        (service.state / "sessions" / f"{json.loads(path.read_text())['id']}.json").read_text()
    )
    assert jobs(service, tmp_path) == ["Completed", "Completed"]
    assert not session["accepting_jobs"]


async def test_options_of_the_variable_are_checked_and_reach_the_service(service, tmp_path):
    variable = f"quantum_{uuid.uuid4().hex[:6]}"
    runtime = {"twirling": {"enable_measure": True}, "dynamical_decoupling": {"enable": True}}
    await Variable.aset(variable, {"sampler": {"shots": 64, "runtime": runtime}, "reps": 1})
    name = await block()
    place = {"quantum_backend_block_name": name, "work_dir": tmp_path, "variable_name": variable}

    result = await sample([bell()], **place)
    assert sum(result[0].data.meas.get_counts().values()) == 64

    wrong = {
        "twirling": {"enable_gate": True},
        "default_shots": 3,
        "environment": {"private": True},
    }
    with pytest.raises(InvalidJob) as refused:
        await sample([bell()], options={"shots": 0, "depolarizing": 0.1}, **place)
    assert len(refused.value.problems) == 1
    with pytest.raises(InvalidJob) as refused:
        await sample([bell()], options={"runtime": wrong, "depolarizing": 0.5}, **place)
    assert refused.value.problems[0].startswith("depolarizing: the IBM device fake_manila cannot")


def test_every_problem_with_the_clients_options_is_told_offline():
    from hpc_prefect.quantum.services.ibm.options import runtime_problems

    wrong = {
        "twirling": {"enable_gate": True, "num_randomizations": 0},
        "default_shots": 3,
        "environment": {"private": True},
        "dynamical_decoupling": {"sequence_type": "YY"},
    }
    problems = runtime_problems("sampler", "executor", wrong)

    begin = [problem.partition(":")[0] for problem in problems]
    assert begin[:2] == [
        "runtime.default_shots cannot be set",
        "runtime.environment.private cannot be set",
    ]
    assert set(begin[2:]) >= {
        "runtime.dynamical_decoupling.sequence_type",
        "runtime.twirling.enable_gate",
    }
    assert runtime_problems("estimator", "executor", {"resilience_level": 2}) == []
    assert runtime_problems("estimator", "v2", {"resilience_level": 7})


async def of_the_run(flow_run_id, *, holding: str) -> tuple[list[str], str]:
    """The texts of a run's artifacts, once one of them holds this, and its log."""
    run = {"flow_run_id": {"any_": [str(flow_run_id)]}}
    async with get_client() as client, asyncio.timeout(120):
        texts: list[str] = []
        while not any(holding in each for each in texts):
            pages = await client.request("POST", "/artifacts/filter", json={"artifacts": run})
            texts = [each["data"] for each in pages.json() if each["type"] is not None]
        lines = await client.request("POST", "/logs/filter", json={"logs": run})
    return texts, lines.text


async def test_the_artifact_tells_all_of_the_job_and_the_token_is_nowhere(service, tmp_path):
    credentials = f"ibm-{uuid.uuid4().hex[:6]}"
    stored = IBMQuantumCredentials(token=service.token, instance=service.crn, url=service.url)
    await stored.asave(credentials)
    name = await block(credentials_block_name=credentials)
    seen = []

    @flow
    async def experiment():
        seen.append(get_run_context().flow_run.id)
        service.fault("unauthorized", times=1)  # an error of the client, with what it says
        job = await call(tmp_path, what=submit_sampling, backend=name)
        seen.append(_command_lines())
        return await fetch(job)

    await experiment()
    artifacts, logs = await of_the_run(seen[0], holding=": completed")

    (page,) = [each for each in artifacts if each.startswith("## Quantum job")]
    for part in ("QPU seconds", "calibrated | 20", "depth ", "`00`", "█", "finished", "created"):
        assert part in page
    texts = {
        "artifacts": "".join(artifacts),
        "command lines": seen[1],
        "jobs, with tags": json.dumps(service.counters()),
        **{str(path): path.read_text(errors="replace") for path in _files(tmp_path)},
        **{str(path): path.read_text(errors="replace") for path in _files(service.state / "jobs")},
        **{
            str(p): p.read_text(errors="replace")
            for p in _files(Path(os.environ["PREFECT_HOME"], "storage"))
        },
        "logs": logs,
    }
    assert {where for where, text in texts.items() if service.token in text} == set()
    assert len(texts) > 8


async def test_samplings_are_named_by_their_iteration_and_the_run_tells_their_cost_in_sum(
    service, tmp_path, caplog
):
    name = await block()
    seen = []

    @flow
    async def experiment():
        seen.append(get_run_context().flow_run.id)
        for number in (1, 2):
            with scope("n2-1a2b3c4d"), scope(f"iter-{number}"), scope("walker-7"):
                await call(tmp_path, backend=name, options={"shots": 100 * number, "seed": 1})

    await experiment()
    told = "2.1 QPU seconds in 2 jobs; 2.1 in the experiment, all of its runs together"
    artifacts, _ = await of_the_run(seen[0], holding=f"This run has used {told}.")
    async with get_client() as client:
        run = FlowRunFilter(id=FlowRunFilterId(any_=[seen[0]]))
        tasks = await client.read_task_runs(flow_run_filter=run)

    names = {each.name for each in tasks}
    assert {f"sample {name}, iter-1/walker-7", f"sample {name}, iter-2/walker-7"} <= names
    assert f"this run has used {told}" in caplog.text
    (sum_of_all,) = [each for each in artifacts if f"has used {told}" in each]
    assert sum_of_all.count(" | fake\\_manila | ") == 2
    assert len([each for each in artifacts if "| place | iter-" in each]) == 2
    assert "base64" not in "".join(artifacts)


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _command_lines() -> str:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_text(errors="replace"))
        except OSError:  # it has ended
            continue
    return "\n".join(found)
