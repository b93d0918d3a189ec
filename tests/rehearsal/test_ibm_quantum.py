"""IBM Quantum on loopback: the real client lists, samples, estimates, and is told the truth."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

import ffsim
import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.quantum_info import SparsePauliOp
from qiskit.transpiler import generate_preset_pass_manager
from qiskit_aer import AerSimulator
from qiskit_aer.primitives import EstimatorV2 as AerEstimator
from qiskit_aer.primitives import SamplerV2 as AerSampler
from qiskit_ibm_runtime import Batch, EstimatorV2, QiskitRuntimeService, SamplerV2, Session
from qiskit_ibm_runtime.exceptions import (
    IBMRuntimeError,
    RuntimeInvalidStateError,
    RuntimeJobFailureError,
    RuntimeJobMaxTimeoutError,
)
from qiskit_ibm_runtime.executor_estimator import Estimator as ClientSideEstimator
from qiskit_ibm_runtime.executor_sampler import Sampler as ClientSideSampler

from ..quantum.service import (
    QuantumService,
    common_ibm_quantum,
    ibm_quantum,
    quantum_service,
)

__all__ = ["common_ibm_quantum", "ibm_quantum"]

pytestmark = [
    pytest.mark.filterwarnings("ignore:The (Sampler|Estimator)V2 class is deprecated"),
    pytest.mark.filterwarnings("ignore:Specifying different 'shots' across pubs"),
]
SEEDED = {"simulator": {"seed_simulator": 7}}


@pytest.fixture(scope="module")
def client(common_ibm_quantum: QuantumService) -> QiskitRuntimeService:
    return QiskitRuntimeService()


@pytest.fixture
def quantum(common_ibm_quantum: QuantumService) -> Iterator[QuantumService]:
    yield common_ibm_quantum
    common_ibm_quantum.clear()


@pytest.fixture(scope="module")
def manila(client: QiskitRuntimeService):
    return client.backend("fake_manila")


def written(circuit: QuantumCircuit, backend) -> QuantumCircuit:
    """The circuit in the words of the backend, on its qubits."""
    return generate_preset_pass_manager(1, backend, seed_transpiler=1).run(circuit)


def bell(*, measured: bool = True) -> QuantumCircuit:
    circuit = QuantumCircuit(2)
    circuit.h(0)
    circuit.cx(0, 1)
    if measured:
        circuit.measure_all()
    return circuit


def rotation() -> QuantumCircuit:
    circuit = QuantumCircuit(1)
    circuit.rx(Parameter("x"), 0)
    circuit.measure_all()
    return circuit


def tagged(*tags: str, **options: object) -> dict[str, object]:
    return options | {"environment": {"job_tags": list(tags)}}


def counts(result, index: int = 0) -> dict[str, int]:
    return result[index].data.meas.get_counts()


# --- what there is


def test_the_backends_are_ibms_snapshots(client: QiskitRuntimeService, manila) -> None:
    assert [backend.name for backend in client.backends(simulator=False)] == [
        "fake_torino",
        "fake_manila",
    ]
    assert client.least_busy(simulator=False, min_num_qubits=6).name == "fake_torino"
    assert manila.num_qubits == manila.target.num_qubits == 5
    assert manila.properties().last_update_date.year == 2024
    status = manila.status()
    assert (status.operational, status.status_msg, status.pending_jobs) == (True, "active", 0)


def test_the_account_has_one_instance_with_a_limit(
    client: QiskitRuntimeService, quantum: QuantumService
) -> None:
    assert [instance["crn"] for instance in client.instances()] == [quantum.crn]
    usage = client.usage()
    assert usage["usage_limit_seconds"] == 600
    assert usage["usage_remaining_seconds"] == 600 - usage["usage_consumed_seconds"]


def test_constructor_arguments_do_instead_of_the_environment(quantum: QuantumService) -> None:
    service = QiskitRuntimeService(
        channel="ibm_quantum_platform",
        token=quantum.token,
        url=quantum.url,
        instance=quantum.crn,
    )
    assert "fake_manila" in [backend.name for backend in service.backends()]


# --- what is computed


def test_samples_are_aers_for_the_same_seed(manila) -> None:
    pubs = [(written(bell(), manila), None, 300), (written(rotation(), manila), [[0.3], [2.0]], 50)]
    got = SamplerV2(manila, options=SEEDED).run(pubs).result()
    simulator = AerSimulator(max_parallel_shots=1)
    wanted = AerSampler.from_backend(simulator, seed=7).run(pubs).result()
    for index in range(2):
        assert np.array_equal(got[index].data.meas.array, wanted[index].data.meas.array)
    assert got[1].data.meas.shape == (2,)


def test_the_successor_of_the_sampler_gets_its_own_format(manila) -> None:
    pubs = [(written(rotation(), manila), [[0.0], [np.pi]]), written(bell(), manila)]
    result = ClientSideSampler(manila).run(pubs, shots=200).result()
    assert result[0].data.meas[0].get_counts() == {"0": 200}
    assert result[0].data.meas[1].get_counts() == {"1": 200}
    both = counts(result, 1)
    assert set(both) == {"00", "11"}
    assert 50 < both["00"] < 150  # 7 standard deviations


def test_the_successor_can_twirl(manila) -> None:
    sampler = ClientSideSampler(manila, options={"twirling": {"enable_measure": True}})
    result = sampler.run([written(bell(), manila)], shots=256).result()
    assert set(counts(result)) == {"00", "11"}


def test_estimates_are_aers_for_the_same_seed(manila) -> None:
    circuit = written(bell(measured=False), manila)
    observable = SparsePauliOp(["ZZ", "XX"]).apply_layout(circuit.layout)
    pubs = [(circuit, observable, None, 0.02)]
    got = EstimatorV2(manila, options=SEEDED).run(pubs).result()[0].data
    aer = AerEstimator(options={"run_options": {"seed_simulator": 7}})
    assert float(got.evs) == float(aer.run(pubs).result()[0].data.evs)
    assert abs(got.evs - 2.0) < 0.14


def test_the_successor_of_the_estimator_is_served_too(manila) -> None:
    circuit = written(bell(measured=False), manila)
    observable = SparsePauliOp(["ZZ"]).apply_layout(circuit.layout)
    result = ClientSideEstimator(manila).run([(circuit, observable)], precision=0.05).result()
    assert abs(float(result[0].data.evs) - 1.0) < 0.2


def test_a_device_of_133_qubits_simulates_those_that_are_used(client: QiskitRuntimeService) -> None:
    torino = client.backend("fake_torino")
    circuit = QuantumCircuit(12)
    circuit.h(0)
    for qubit in range(11):
        circuit.cx(qubit, qubit + 1)
    circuit.measure_all()
    result = SamplerV2(torino).run([written(circuit, torino)], shots=100).result()
    assert set(counts(result)) <= {"0" * 12, "1" * 12}


def lucj(norb: int = 4, nelec: tuple[int, int] = (2, 2)) -> QuantumCircuit:
    operator = ffsim.random.random_ucj_op_spin_balanced(
        norb, n_reps=1, with_final_orbital_rotation=True, seed=3
    )
    circuit = QuantumCircuit(2 * norb)
    circuit.append(ffsim.qiskit.PrepareHartreeFockJW(norb, nelec), circuit.qubits)
    circuit.append(ffsim.qiskit.UCJOpSpinBalancedJW(operator), circuit.qubits)
    circuit.measure_all()
    return circuit


def test_an_lucj_circuit_as_written_is_sampled_by_ffsim(client: QiskitRuntimeService) -> None:
    backend = client.backend("ffsim_simulator")
    wanted = counts(ffsim.qiskit.FfsimSampler(seed=7).run([lucj()], shots=500).result())
    got = SamplerV2(backend, options=SEEDED).run([lucj()], shots=500).result()
    assert counts(got) == wanted
    result = ClientSideSampler(backend).run([lucj()], shots=500).result()
    assert {(bits[:4].count("1"), bits[4:].count("1")) for bits in counts(result)} == {(2, 2)}


def test_a_large_lucj_circuit_fits(client: QiskitRuntimeService) -> None:
    """28 qubits: a state vector of all bitstrings would be 4 GB, the sector is 130 kB."""
    backend = client.backend("ffsim_simulator")
    result = SamplerV2(backend).run([lucj(14, (2, 2))], shots=10).result()
    assert sum(counts(result).values()) == 10


def test_a_circuit_for_a_device_is_refused_by_ffsim_with_its_reason(
    client: QiskitRuntimeService, manila
) -> None:
    backend = client.backend("ffsim_simulator")
    job = SamplerV2(backend).run([written(bell(), manila)], shots=10)
    with pytest.raises(RuntimeJobFailureError, match="does not conserve the number of particles"):
        job.result()


@pytest.mark.slow
def test_noise_is_simulated_when_it_is_asked_for(tmp_path: Path) -> None:
    """The snapshot reads every fiftieth bit of these qubits wrong."""
    with quantum_service(tmp_path, noise=True, seed=5) as service, service.found():
        backend = QiskitRuntimeService().backend("fake_manila")
        result = SamplerV2(backend).run([written(bell(), backend)], shots=2000).result()
    wrong = sum(count for bits, count in counts(result).items() if bits in ("01", "10"))
    assert 20 < wrong < 400


# --- jobs: their tags, lists, ends and costs


def test_jobs_are_found_by_every_filter(
    client: QiskitRuntimeService, quantum: QuantumService, manila
) -> None:
    circuit = written(bell(), manila)
    before = datetime.now().astimezone()
    first = SamplerV2(manila, options=tagged("filters", "a")).run([circuit], shots=10)
    first.result()
    quantum.fault("queue", seconds=3600)
    second = ClientSideSampler(manila, options=tagged("filters", "b")).run([circuit], shots=10)

    def found(**filters: object) -> list[str]:
        return [job.job_id() for job in client.jobs(job_tags=["filters"], **filters)]

    one, two = first.job_id(), second.job_id()
    assert found() == [two, one]
    assert found(descending=False) == [one, two]
    assert found(limit=1) == [two]
    assert found(limit=1, skip=1) == [one]
    assert (found(pending=True), found(pending=False)) == ([two], [one])
    assert (found(program_id="executor"), found(program_id="sampler")) == ([two], [one])
    assert (found(backend_name="fake_manila"), found(backend_name="fake_torino")) == (
        [two, one],
        [],
    )
    assert found(created_after=before) == [two, one]
    assert found(created_after=before + timedelta(hours=1)) == []
    assert found(created_before=before) == []
    assert [job.job_id() for job in client.jobs(job_tags=["filters", "a"])] == [one]
    assert client.jobs(job_tags=["filters", "no such"]) == []
    second.cancel()


def test_a_job_is_attached_by_its_id_with_all_it_was_posted_with(
    client: QiskitRuntimeService, manila
) -> None:
    circuit = written(bell(), manila)
    posted = SamplerV2(manila, options=tagged("attached")).run([circuit], shots=10)
    job = client.job(posted.job_id())
    assert counts(job.result()) == counts(posted.result())
    assert job.tags == ["attached"]
    assert job.backend().name == "fake_manila"
    assert job.inputs["pubs"][0][0] == circuit
    assert job.update_tags(["other"]) == ["other"]


def test_a_job_tells_its_place_in_the_queue_and_when_it_will_start(
    quantum: QuantumService, manila
) -> None:
    quantum.fault("queue", seconds=3600)
    jobs = [SamplerV2(manila).run([written(bell(), manila)], shots=10) for _ in range(2)]
    metrics = [job.metrics() for job in jobs]
    assert [job.status() for job in jobs] == ["QUEUED", "QUEUED"]
    assert [told["position_in_queue"] for told in metrics] == [1, 2]
    starts = datetime.fromisoformat(metrics[0]["estimated_start_time"]).timestamp()
    assert 0 < starts - time.time() <= 3600
    assert manila.status().pending_jobs == 2
    for job in jobs:
        job.cancel()


def test_a_job_costs_by_its_shots_and_says_estimated_or_actual(
    client: QiskitRuntimeService, quantum: QuantumService, manila
) -> None:
    before = client.usage()["usage_consumed_seconds"]
    quantum.fault("queue", seconds=3600)
    waiting = SamplerV2(manila).run([written(bell(), manila)], shots=4000)
    assert waiting.usage_estimation == {"quantum_seconds": 2}
    assert waiting.usage() == 0
    waiting.cancel()
    quantum.clear()
    pub = (written(rotation(), manila), [[0.1], [0.2], [0.3], [0.4]], 1000)
    done = ClientSideSampler(manila).run([pub])
    done.result()
    assert done.usage() == 2.0  # 1 s and 4 × 1000 shots of 250 μs
    assert done.metrics()["usage"]["quantum_seconds"] == 2.0
    assert client.usage()["usage_consumed_seconds"] == pytest.approx(before + 2.0)


def test_a_deleted_job_is_gone_but_was_posted(
    client: QiskitRuntimeService, quantum: QuantumService, manila
) -> None:
    job = SamplerV2(manila, options=tagged("deleted")).run([written(bell(), manila)], shots=10)
    job.result()
    client.delete_job(job.job_id())
    assert client.jobs(job_tags=["deleted"]) == []
    assert quantum.posted("deleted") == 1


def test_a_waiting_job_is_cancelled_and_costs_nothing(quantum: QuantumService, manila) -> None:
    quantum.fault("queue", seconds=3600)
    job = SamplerV2(manila).run([written(bell(), manila)], shots=10)
    job.cancel()
    assert job.status() == "CANCELLED"
    with pytest.raises(RuntimeInvalidStateError, match="was cancelled"):
        job.result()
    assert job.usage() == 0
    with pytest.raises(RuntimeInvalidStateError, match="cannot be cancelled"):
        job.cancel()


def test_a_simulation_that_is_cancelled_makes_room_at_once(client: QiskitRuntimeService) -> None:
    torino = client.backend("fake_torino")
    long = QuantumCircuit(24)
    for _ in range(100):
        long.h(range(24))
        long.t(range(24))
        long.cx(range(0, 24, 2), range(1, 24, 2))
    long.measure_all()
    plain = generate_preset_pass_manager(0, torino, initial_layout=range(24)).run(long)
    job = SamplerV2(torino).run([plain], shots=10)
    while job.status() == "QUEUED":
        time.sleep(0.05)
    assert job.status() == "RUNNING"
    job.cancel()
    after = SamplerV2(torino).run([written(bell(), torino)], shots=10)
    after.result()
    assert client.job(job.job_id()).status() == "CANCELLED"


def test_a_job_that_needs_more_than_its_maximum_ends(manila) -> None:
    options = {"max_execution_time": 2}
    job = SamplerV2(manila, options=options).run([written(bell(), manila)], shots=40_000)
    with pytest.raises(RuntimeJobMaxTimeoutError, match="1305"):
        job.result()
    assert job.usage() == 2.0


# --- sessions and batches


@pytest.mark.parametrize("mode", [Session, Batch])
def test_a_session_and_a_batch_run_jobs_until_they_are_closed(
    mode: type[Session], client: QiskitRuntimeService, manila
) -> None:
    circuit = written(bell(), manila)
    with mode(backend=manila) as session:
        assert session.status() == "Pending"
        job = SamplerV2(mode=session).run([circuit], shots=10)
        job.result()
        assert session.status() == "In progress, accepting new jobs"
        assert client.job(job.job_id()).session_id == session.session_id
        assert [found.job_id() for found in client.jobs(session_id=session.session_id)] == [
            job.job_id()
        ]
        again = mode.from_id(session.session_id, client)
    assert session.status() == "Closed"
    assert session.usage() == job.usage()
    with pytest.raises(IBMRuntimeError, match="does not accept jobs"):
        SamplerV2(mode=again).run([circuit], shots=10)


def test_jobs_of_an_active_session_do_not_queue(quantum: QuantumService, manila) -> None:
    circuit = written(bell(), manila)
    with Session(backend=manila) as session:
        sampler = SamplerV2(mode=session)
        sampler.run([circuit], shots=10).result()
        quantum.fault("queue", seconds=3600)
        sampler.run([circuit], shots=10).result(timeout=120)


def test_a_session_that_is_cancelled_cancels_what_waits(quantum: QuantumService, manila) -> None:
    quantum.fault("maintenance")
    session = Session(backend=manila)
    job = SamplerV2(mode=session).run([written(bell(), manila)], shots=10)
    assert job.status() == "QUEUED"
    session.cancel()
    assert job.status() == "CANCELLED"
    assert session.status() == "Closed"


def test_a_session_that_is_over_its_time_cancels_what_waits(
    quantum: QuantumService, manila
) -> None:
    circuit = written(bell(), manila)
    session = Session(backend=manila, max_time=1)
    sampler = SamplerV2(mode=session)
    sampler.run([circuit], shots=10).result()
    quantum.fault("maintenance")
    with suppress(IBMRuntimeError):  # on a busy machine the second is gone already
        job = sampler.run([circuit], shots=10)
        job.wait_for_final_state(120)
        assert job.status() == "CANCELLED"
    assert session.status() == "Closed"
