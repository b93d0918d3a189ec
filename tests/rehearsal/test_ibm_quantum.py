"""IBM Quantum on loopback, with the real client."""

from __future__ import annotations

import warnings

from qiskit import QuantumCircuit
from qiskit_ibm_runtime import QiskitRuntimeService, SamplerV2

from ..quantum.service import QuantumService, ibm_quantum

__all__ = ["ibm_quantum"]


def bell(backend) -> QuantumCircuit:
    from qiskit.transpiler import generate_preset_pass_manager

    circuit = QuantumCircuit(2)
    circuit.h(0)
    circuit.cx(0, 1)
    circuit.measure_all()
    return generate_preset_pass_manager(1, backend).run(circuit)


def test_a_plain_client_lists_samples_and_finds_its_job_by_tag(ibm_quantum: QuantumService) -> None:
    service = QiskitRuntimeService()
    assert [backend.name for backend in service.backends()] == ["fake_torino", "fake_manila"]
    backend = service.backend("fake_manila")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        sampler = SamplerV2(backend, options={"environment": {"job_tags": ["one"]}})
    job = sampler.run([bell(backend)], shots=200)
    counts = job.result()[0].data.meas.get_counts()
    assert sum(counts.values()) == 200
    assert set(counts) <= {"00", "11"}
    assert [found.job_id() for found in service.jobs(job_tags=["one"])] == [job.job_id()]
    assert ibm_quantum.posted("one") == 1
