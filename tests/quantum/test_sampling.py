"""A finished sampling is never repeated, and its record is worth having."""

from __future__ import annotations

import json
import logging
import stat

import numpy as np
import pytest
from circuits import bell, lucj
from qiskit.circuit import ClassicalRegister, Parameter, QuantumCircuit, QuantumRegister

from hpc_prefect.errors import LedgerError
from hpc_prefect.quantum.options import SamplerOptions
from hpc_prefect.quantum.result_file import read_finished, unpack
from hpc_prefect.quantum.sampling import ask, sample_once
from hpc_prefect.quantum.simulators.ffsim import FfsimBackend
from hpc_prefect.quantum.simulators.uniform import UniformBackend


def two_registers() -> QuantumCircuit:
    qubits = QuantumRegister(11)
    circuit = QuantumCircuit(qubits, ClassicalRegister(9, "α"), ClassicalRegister(2, "b"))
    circuit.rx(Parameter("θ"), 0)
    circuit.measure(range(11), range(11))
    return circuit


def request(backend=None, **options):
    pubs = [bell(), (two_registers(), [[0.1], [0.2], [0.3]], 20)]
    chosen = SamplerOptions(**({"shots": 50, "seed": 1} | options))
    return ask(pubs, chosen, backend or UniformBackend())


def arrays(result):
    return {
        (i, name): (field.array.tobytes(), field.array.shape, field.num_bits)
        for i, pub in enumerate(result)
        for name, field in pub.data.items()
    }


def test_a_resumed_run_reads_the_record_and_does_not_sample_again(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    before, after = UniformBackend(), UniformBackend()
    first = sample_once(request(before), tmp_path / "place")
    again = sample_once(request(after), tmp_path / "place")

    assert (before.runs, after.runs) == (1, 0)
    assert arrays(again) == arrays(first)
    assert [pub.metadata for pub in again] == [pub.metadata for pub in first]
    assert [list(pub.data) for pub in again] == [["meas"], ["α", "b"]]
    assert again[1].data.shape == (3,)
    assert caplog.messages[-1] == (f"Sampled by an earlier run, not repeated: {tmp_path / 'place'}")


def test_one_line_of_log_says_what_was_sampled(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    sample_once(request(), tmp_path)

    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(
        "Sampled 2 circuits, 110 shots on the simulator uniform in "
    )
    assert caplog.messages[0].endswith(f" s; record: {tmp_path}")


def test_other_work_in_the_same_place_is_sampled_with_a_warning(tmp_path, caplog):
    backend = UniformBackend()
    sample_once(request(backend), tmp_path)
    sample_once(request(backend, seed=2), tmp_path)

    assert backend.runs == 2
    assert "belongs to another sampling" in caplog.text


def cut(path):
    path.write_bytes(path.read_bytes()[:-40])


@pytest.mark.parametrize(
    ("name", "harm"),
    [
        ("result.npz", cut),
        ("result.npz", lambda path: path.unlink()),
        ("result.npz", lambda path: path.write_bytes(b"")),
        ("sampling.json", cut),
        ("sampling.json", lambda path: path.write_bytes(b"[]")),
        ("sampling.json", lambda path: path.write_bytes(b"\xff\x00")),
    ],
)
def test_a_torn_record_is_sampled_again_with_a_warning(tmp_path, caplog, name, harm):
    backend = UniformBackend()
    first = sample_once(request(backend), tmp_path)
    harm(tmp_path / name)
    again = sample_once(request(backend), tmp_path)

    assert backend.runs == 2
    assert arrays(again) == arrays(first)
    assert [each.levelname for each in caplog.records] == ["WARNING"]
    assert "cannot be used, so it is sampled again" in caplog.text
    assert read_finished(tmp_path, request().digest) is not None


class Dies(UniformBackend):
    """A backend whose process is gone before it answers."""

    def run(self, pubs, options):
        super().run(pubs, options)
        raise KeyboardInterrupt


def test_a_sampling_that_did_not_finish_leaves_what_was_asked_and_is_sampled_again(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        sample_once(request(Dies()), tmp_path)
    asked = json.loads((tmp_path / "sampling.json").read_bytes())
    backend = UniformBackend()
    sample_once(request(backend), tmp_path)

    assert asked["state"] == "asked"
    assert backend.runs == 1


def test_the_record_says_where_the_result_came_from(tmp_path):
    wanted = ask([lucj()], SamplerOptions(shots=10, seed=3, depolarizing=0.25), FfsimBackend())
    sample_once(wanted, tmp_path / ".hpc-prefect" / "b")
    record = json.loads((tmp_path / ".hpc-prefect" / "b" / "sampling.json").read_bytes())

    assert record["state"] == "finished"
    assert record["digest"] == wanted.digest
    assert record["backend"] == {"kind": "simulator", "name": "ffsim"}
    assert record["options"] == {"depolarizing": 0.25, "seed": 3}
    assert record["shots"] == 10
    assert record["pubs"][0]["qubits"] == 8
    assert record["pubs"][0]["operations"]["ucj_balanced_jw"] == 1
    assert {"hpc-prefect", "qiskit", "numpy", "ffsim"} == set(record["versions"])
    assert record["asked_at"] <= record["finished_at"]
    assert stat.S_IMODE((tmp_path / ".hpc-prefect").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / ".hpc-prefect" / "b" / "result.npz").stat().st_mode) == 0o600


def test_the_result_can_be_read_with_numpy_alone(tmp_path):
    result = sample_once(request(), tmp_path)
    with np.load(tmp_path / "result.npz", allow_pickle=False) as archive:
        layout = json.loads(archive["layout"].tobytes())
        field = layout["pubs"][1]["fields"][0]

        assert (field["name"], field["num_bits"]) == ("α", 9)
        assert np.array_equal(archive[field["array"]], result[1].data["α"].array)


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"x" * 100])
def test_bytes_that_are_no_archive_are_told_apart(data):
    with pytest.raises(LedgerError, match="not the archive of a sampling"):
        unpack(data)
