"""A second vendor: any Qiskit backend whose jobs can be found again by their id."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import numpy as np
import pytest
from prefect import flow
from qiskit.circuit import ClassicalRegister, Parameter, QuantumCircuit, QuantumRegister

from hpc_prefect import campaign
from hpc_prefect.errors import (
    BudgetExceeded,
    InvalidJob,
    LedgerError,
    QuantumJobFailed,
    QuantumServiceError,
)
from hpc_prefect.operations import attach, cancel_jobs, list_jobs
from hpc_prefect.quantum import QuantumBackendBlock, estimate, fetch, sample, submit_sampling
from hpc_prefect.quantum.jobs import make_known

from .journals import words

pytestmark = [pytest.mark.usefixtures("prefect_server"), pytest.mark.timeout(300)]

PROGRAM = str(Path(sys.executable).with_name("hpc-prefect"))


@pytest.fixture
def vendor(tmp_path, monkeypatch):
    folder = tmp_path / "vendor"
    folder.mkdir()
    monkeypatch.setenv("VENDOR", str(folder))
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    yield folder
    sys.modules.pop("vendor", None)


async def block(**fields):
    name = f"vendor-{uuid.uuid4().hex[:8]}"
    fields = {"kind": "qiskit", "backend_name": "vendor:machine"} | fields
    await QuantumBackendBlock(**fields).asave(name)
    return name


async def call(folder, pubs=None, *, what=sample, backend="", options=None, **fields):
    return await what(
        [two_registers()] if pubs is None else pubs,
        quantum_backend_block_name=backend or await block(**fields),
        work_dir=folder,
        options=options or {"shots": 20},
    )


def two_registers() -> QuantumCircuit:
    """The register `low` reads 01, and `high` 1."""
    qubits = QuantumRegister(3)
    low, high = ClassicalRegister(2, "low"), ClassicalRegister(1, "high")
    circuit = QuantumCircuit(qubits, low, high)
    circuit.x([0, 2])
    circuit.measure(qubits[:2], low)
    circuit.measure(qubits[2], high)
    return circuit


def turned() -> QuantumCircuit:
    circuit = QuantumCircuit(1)
    circuit.rx(Parameter("t"), 0)
    return circuit.measure_all(inplace=False)


def bought(vendor: Path) -> list[str]:
    """The states of the jobs that the vendor has."""
    return sorted(json.loads(path.read_text())["state"] for path in vendor.glob("*.json"))


def folder_of(work_dir: Path) -> Path:
    (job,) = list_jobs(work_dir)
    return Path(job.folder.path)


@pytest.mark.parametrize("memory", [True, False], ids=["memory", "counts"])
async def test_circuits_registers_and_sweeps_are_one_job_whose_result_is_native(
    vendor, tmp_path, memory
):
    if not memory:
        (vendor / "no-memory").touch()
    sweep = np.array([[0.0, np.pi], [np.pi, 0.0], [np.pi, np.pi]])[..., None]

    result = await call(tmp_path, [two_registers(), (turned(), sweep)])

    assert bought(vendor) == ["DONE"]
    assert result[0].data.low.get_counts() == {"01": 20}
    assert result[0].data.high.get_counts() == {"1": 20}
    bits = result[1].data.meas
    assert bits.shape == (3, 2)
    ones = [[bits[i, j].get_counts() == {"1": 20} for j in (0, 1)] for i in (0, 1, 2)]
    assert ones == [[False, True], [True, False], [True, True]]


async def test_what_was_sampled_is_not_sampled_again(vendor, tmp_path):
    name = await block()

    @flow
    async def experiment():
        with campaign(f"once-{tmp_path}"):
            return await call(tmp_path, backend=name)

    first, second = await experiment(), await experiment()

    assert bought(vendor) == ["DONE"]
    assert second[0].data.low == first[0].data.low
    (job,) = list_jobs(tmp_path)
    assert (job.where, job.status.state) == ("qiskit:machine", "succeeded")


async def test_a_job_that_was_posted_is_found_by_its_id(vendor, tmp_path):
    name = await block()

    @flow
    async def experiment(what):
        with campaign(f"found-{tmp_path}"):
            return await call(tmp_path, what=what, backend=name)

    job = await experiment(submit_sampling)
    assert (await experiment(sample))[0].data.high.get_counts() == {"1": 20}
    assert (await fetch(job))[0].data.high.get_counts() == {"1": 20}
    assert bought(vendor) == ["DONE"]


async def test_after_a_lost_reply_nothing_is_bought_before_a_person_has_looked(
    vendor, tmp_path, caplog
):
    name = await block()
    (vendor / "lose-reply").touch()

    @flow
    async def experiment():
        with campaign(f"lost-{tmp_path}"):
            return await call(tmp_path, backend=name)

    for _ in range(2):
        with pytest.raises(QuantumServiceError, match="cannot be searched for it") as told:
            await experiment()
    assert bought(vendor) == ["DONE"]
    folder = folder_of(tmp_path)
    assert f"hpc-prefect jobs attach {folder} --job-id ID" in str(told.value)
    assert f"move {folder} away" in str(told.value)
    make_known()
    (cancelled,) = await asyncio.to_thread(cancel_jobs, list_jobs(tmp_path), wait=0.1)
    assert not cancelled.confirmed, cancelled.words

    (posted,) = vendor.glob("*.json")
    command = [PROGRAM, "jobs", "attach", str(folder), "--job-id", posted.stem]
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    attached = await asyncio.to_thread(
        subprocess.run,
        command,
        env=os.environ | {"PYTHONPATH": paths},
        cwd="/",
        capture_output=True,
        text=True,
    )
    assert attached.returncode == 0, attached.stderr
    assert "cannot be searched for jobs by tag" in caplog.text  # before it was bought
    assert (await experiment())[0].data.low.get_counts() == {"01": 20}
    assert bought(vendor) == ["DONE"]


async def test_an_intent_whose_post_was_never_begun_is_posted_by_the_next_call(vendor, tmp_path):
    """The process was killed between the two, say."""
    name = await block()

    @flow
    async def experiment():
        with campaign(f"begun-{tmp_path}"):
            return await call(tmp_path, backend=name)

    await experiment()
    journal = folder_of(tmp_path) / "journal.jsonl"
    intent = journal.read_text().split("\n")[1]
    for path in (*tmp_path.glob(".hpc-prefect/*/*/*/s*.json"), *vendor.glob("*.json")):
        path.unlink()
    journal.write_text(f"{intent}\n")
    await experiment()
    assert bought(vendor) == ["DONE"]
    assert words(tmp_path) == ["intent", "attached", "intent", "posting", "submitted", "verdict"]


async def test_a_job_id_that_is_not_the_attempts_is_refused(vendor, tmp_path):
    name = await block()
    await call(tmp_path, what=submit_sampling, backend=name)
    make_known()
    with pytest.raises(LedgerError, match="and not another"):
        await asyncio.to_thread(attach, list_jobs(tmp_path)[0], job_id="another")


@pytest.mark.parametrize("status", [400, 401, 429])
async def test_a_refused_job_was_not_bought_and_the_next_call_buys_one(vendor, tmp_path, status):
    name = await block()
    (vendor / "refuse").write_text(str(status))

    @flow
    async def experiment():
        with campaign(f"refused-{tmp_path}"):
            return await call(tmp_path, backend=name)

    with pytest.raises(QuantumServiceError, match="these gates are not sold; nothing was bought"):
        await experiment()
    await experiment()
    assert bought(vendor) == ["DONE"]


async def test_a_failed_job_is_an_error_with_its_reason_and_the_next_call_buys_another(
    vendor, tmp_path
):
    name = await block()
    (vendor / "fail").touch()

    @flow
    async def experiment():
        with campaign(f"failed-{tmp_path}"):
            return await call(tmp_path, backend=name)

    with pytest.raises(QuantumJobFailed, match="ended as ERROR: the trap was empty"):
        await experiment()
    await experiment()
    assert bought(vendor) == ["DONE", "ERROR"]


async def test_a_job_in_the_queue_is_cancelled_and_seen_to_end(vendor, tmp_path):
    name = await block()
    (vendor / "hold").touch()
    await call(tmp_path, what=submit_sampling, backend=name)

    make_known()
    (cancelled,) = await asyncio.to_thread(cancel_jobs, list_jobs(tmp_path))

    assert (cancelled.confirmed, cancelled.words) == (True, "qiskit says CANCELLED")
    assert bought(vendor) == ["CANCELLED"]


async def test_the_budget_counts_the_estimates(vendor, tmp_path):
    name = await block(max_qpu_seconds=3)

    @flow
    async def experiment():
        await call(tmp_path, backend=name)
        await call(tmp_path, backend=name, options={"shots": 20, "seed": 2})

    with pytest.raises(BudgetExceeded):
        await experiment()
    assert bought(vendor) == ["DONE"]


async def test_what_it_cannot_do_is_told_at_once(vendor, tmp_path):
    pubs = [(two_registers(), None, 10), (two_registers(), None, 20)]
    with pytest.raises(InvalidJob) as told:
        await call(tmp_path, pubs, options={"runtime": {"memory": True}})
    assert "they have different shots" in str(told.value)
    assert "runtime: memory cannot be set" in str(told.value)

    with pytest.raises(InvalidJob, match="it samples only"):
        await call(tmp_path, [(QuantumCircuit(1), "Z")], what=estimate, options={"precision": 0.1})
    assert bought(vendor) == []


@pytest.mark.parametrize(
    ("named", "told"),
    [
        ("vendor:nobody", "'vendor:nobody' cannot be imported"),
        ("no_such_package:machine", "cannot be imported: No module named 'no_such_package'"),
        ("machine", r"no installed package names a backend 'machine' \(entry points of the group"),
        ("vendor:Forgetful", "'vendor:Forgetful' has no retrieve_job, so that its jobs could not"),
    ],
)
async def test_a_backend_that_cannot_be_used_is_told_before_anything_is_posted(
    vendor, tmp_path, named, told
):
    with pytest.raises((InvalidJob, QuantumServiceError), match=told):
        await call(tmp_path, backend_name=named)
    assert bought(vendor) == []
