"""Jobs of IBM Quantum with the real client and a service on loopback: bought once, fetched, shown."""

from __future__ import annotations

import json
import uuid

import numpy as np
import pytest
from circuits import bell
from prefect import flow
from prefect.client.orchestration import get_client
from qiskit.circuit import Parameter, QuantumCircuit
from qiskit.quantum_info import SparsePauliOp

from hpc_prefect import campaign
from hpc_prefect.errors import BudgetExceeded, InvalidJob, QuantumJobFailed
from hpc_prefect.quantum import (
    IBMQuantumCredentials,
    QuantumBackendBlock,
    estimate,
    fetch,
    sample,
    submit_sampling,
)

from .service import QuantumService, ibm_quantum

pytestmark = pytest.mark.usefixtures("prefect_server")

__all__ = ["ibm_quantum"]


async def block(**fields) -> str:
    name = f"ibm-{uuid.uuid4().hex[:6]}"
    fields = {"kind": "ibm", "backend_name": "fake_manila"} | fields
    await QuantumBackendBlock(**fields).asave(name)
    return name


def turned() -> QuantumCircuit:
    circuit = QuantumCircuit(2)
    circuit.rx(Parameter("t"), 0)
    circuit.cx(0, 1)
    return circuit


def journals(folder):
    return {
        path: [json.loads(line) for line in path.read_text().splitlines()]
        for path in sorted(folder.glob(".hpc-prefect/*/*/*/quantum.jsonl"))
    }


async def test_circuits_and_sweeps_are_one_job_whose_result_is_native(
    ibm_quantum: QuantumService, tmp_path
):
    name = await block()
    sweep = turned().measure_all(inplace=False)

    result = await sample(
        [bell(), (sweep, [[0.0], [np.pi]])],
        quantum_backend_block_name=name,
        work_dir=tmp_path,
        options={"shots": 100, "seed": 1},
    )

    assert set(result[0].data.meas.get_counts()) <= {"00", "11"}
    assert [result[1].data.meas[i].get_counts() for i in (0, 1)] == [{"00": 100}, {"11": 100}]
    assert ibm_quantum.posted() == 1
    (events,) = journals(tmp_path).values()
    assert [event["event"] for event in events] == ["intent", "posted", "ended"]
    assert ibm_quantum.posted(events[0]["tag"]) == 1
