"""Every backend of the family, and what each of them is for."""

from __future__ import annotations

import numpy as np
import pytest
from circuits import bell, lucj
from qiskit.circuit import Parameter, QuantumCircuit

from hpc_prefect.errors import ConfigurationError
from hpc_prefect.quantum.backends import BackendSpec, build
from hpc_prefect.quantum.options import SamplerOptions
from hpc_prefect.quantum.sampling import ask

FAMILY = [
    pytest.param(BackendSpec(backend_name="aer"), bell, id="aer"),
    pytest.param(BackendSpec(backend_name="ffsim"), lucj, id="ffsim"),
    pytest.param(BackendSpec(backend_name="uniform"), bell, id="uniform"),
    pytest.param(
        BackendSpec(kind="fake-device", backend_name="generic", num_qubits=3),
        bell,
        id="fake device",
    ),
]


def run(spec, pubs, **options):
    request = ask(pubs, SamplerOptions(**options), build(spec))
    return request.backend.run(request.pubs, request.options)


def bits(result, pub=0):
    return result[pub].data.meas.array


@pytest.mark.parametrize(("spec", "circuit"), FAMILY)
def test_the_same_seed_gives_the_same_bits_and_another_seed_gives_others(spec, circuit):
    first, again, other = (
        run(spec, [circuit()], shots=300, seed=seed).result for seed in (1, 1, 2)
    )

    assert np.array_equal(bits(first), bits(again))
    assert not np.array_equal(bits(first), bits(other))


@pytest.mark.parametrize(("spec", "circuit"), FAMILY)
def test_every_pub_gets_its_own_shots_and_the_fields_of_its_registers(spec, circuit):
    result = run(spec, [circuit(), (circuit(), None, 7)], shots=5, seed=3).result

    assert [pub.data.meas.num_shots for pub in result] == [5, 7]
    assert [pub.data.meas.num_bits for pub in result] == [circuit().num_qubits] * 2


def test_a_bell_state_on_aer_gives_equal_bits():
    counts = run(BackendSpec(), [bell()], shots=1000, seed=5).result[0].data.meas.get_counts()

    assert set(counts) == {"00", "11"}
    assert 400 < counts["00"] < 600


def test_aer_samples_a_gate_that_it_does_not_know_by_its_definition():
    counts = run(BackendSpec(), [lucj()], shots=200, seed=5).result[0].data.meas.get_counts()

    assert {text.count("1") for text in counts} == {3}


def test_ffsim_keeps_the_number_of_particles_of_each_spin():
    spec = BackendSpec(backend_name="ffsim")
    counts = run(spec, [lucj(nelec=(2, 1))], shots=500, seed=5).result[0].data.meas.get_counts()

    assert len(counts) > 3
    # The last qubit comes first in a bitstring: beta on the left.
    assert {(text[4:].count("1"), text[:4].count("1")) for text in counts} == {(2, 1)}


def test_ffsim_honours_depolarizing():
    spec = BackendSpec(backend_name="ffsim")
    result = run(spec, [lucj()], shots=500, seed=5, depolarizing=0.5).result

    assert {text.count("1") for text in result[0].data.meas.get_counts()} != {3}


def test_a_sweep_over_parameters_keeps_its_shape_on_a_fake_device():
    theta = Parameter("θ")
    circuit = QuantumCircuit(1, 1)
    circuit.rx(theta, 0)
    circuit.measure(0, 0)
    spec = BackendSpec(kind="fake-device", backend_name="generic", num_qubits=2, noise=False)
    sampled = run(spec, [(circuit, [[[0.0], [np.pi]]])], shots=50, seed=1, seed_transpiler=9)

    assert sampled.result[0].data.c.shape == (1, 2)
    assert sampled.result[0].data.c.get_counts((0, 0)) == {"0": 50}
    assert sampled.result[0].data.c.get_counts((0, 1)) == {"1": 50}
    assert sampled.facts["transpiled"][0]["seed_transpiler"] == 9


def test_a_fake_device_runs_only_its_own_gates_and_adds_errors():
    circuit = QuantumCircuit(5)
    circuit.h(0)
    for other in range(1, 5):
        circuit.cx(0, other)
    circuit.measure_all()
    spec = BackendSpec(kind="fake-device", backend_name="generic", num_qubits=5)
    sampled = run(spec, [circuit], shots=2000, seed=1)
    counts = sampled.result[0].data.meas.get_counts()

    operations = set(sampled.facts["transpiled"][0]["operations"])
    assert operations <= {"cx", "id", "rz", "sx", "x", "measure", "barrier"}
    assert len(counts) > 2
    assert counts["00000"] + counts["11111"] > 1200


def test_a_snapshot_of_a_device_samples_a_bell_state():
    spec = BackendSpec(kind="fake-device", backend_name="FakeManilaV2")
    counts = run(spec, [bell()], shots=500, seed=1).result[0].data.meas.get_counts()

    assert counts["00"] + counts["11"] > 400


REFUSED = [
    (
        BackendSpec(kind="ibm", backend_name="ibm_torino", min_num_qubits=5),
        "min_num_qubits, only_devices: they choose among devices, and 'ibm_torino' is one; set"
        " backend_name to 'least-busy', or remove them",
    ),
    (
        BackendSpec(backend_name="ffsin"),
        "backend_name: there is no simulator 'ffsin'; did you mean 'ffsim'?",
    ),
    (
        BackendSpec(backend_name="qasm"),
        "backend_name: there is no simulator 'qasm'; there are: aer, ffsim, uniform",
    ),
    (
        BackendSpec(backend_name="ffsim", simulator_method="stabilizer"),
        "simulator_method: only Aer has methods, the simulator 'ffsim' has none; remove it",
    ),
    (
        BackendSpec(num_qubits=4),
        "num_qubits: the simulator 'aer' takes circuits of any size; remove it",
    ),
    (
        BackendSpec(noise=False),
        "noise: the simulator 'aer' has none; set it only for a fake device",
    ),
    (
        BackendSpec(kind="fake-device", backend_name="generic"),
        "num_qubits: the fake device 'generic' needs a number of qubits",
    ),
    (
        BackendSpec(kind="fake-device", backend_name="FakeTorino", num_qubits=4),
        "num_qubits: the device 'FakeTorino' has its own; set it only for 'generic'",
    ),
]


@pytest.mark.parametrize(("spec", "message"), REFUSED)
def test_a_backend_that_cannot_be_had_is_refused_with_a_sentence(spec, message):
    with pytest.raises(ConfigurationError) as refused:
        build(spec)

    assert str(refused.value) == message
