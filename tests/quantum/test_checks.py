"""What a service is sure to refuse is refused here: all of it at once, with PUB and value."""

from __future__ import annotations

import math

import numpy as np
import pytest
from circuits import bell
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit.circuit import ClassicalRegister, Parameter, QuantumCircuit, QuantumRegister
from qiskit.circuit.classical import expr, types
from qiskit.quantum_info import SparsePauliOp

from hpc_prefect.errors import InvalidJob
from hpc_prefect.quantum.backends import BackendSpec, build
from hpc_prefect.quantum.options import EstimatorOptions, SamplerOptions
from hpc_prefect.quantum.sampling import ask
from hpc_prefect.quantum.simulators.uniform import UniformBackend

IBM = BackendSpec(kind="ibm", backend_name="fake_manila")


def problems(*pubs, kind="sampler", spec=None, **options) -> list[str]:
    if kind == "sampler":
        chosen = SamplerOptions(**{"shots": 10, "seed": 1, **options})
        backend = UniformBackend() if spec is None else build(spec)
    else:
        chosen = EstimatorOptions(**{"precision": 0.1, "seed": 1, **options})
        backend = build(spec or BackendSpec(backend_name="aer"))
    with pytest.raises(InvalidJob) as refused:
        ask(pubs, chosen, backend, kind=kind)
    return list(refused.value.problems)


def turned(*names, register="c", measured=True):
    circuit = QuantumCircuit(QuantumRegister(2, "q"), ClassicalRegister(2, register))
    for name in names or ("t",):
        circuit.rx(Parameter(name), 0)
    if measured:
        circuit.measure([0, 1], [0, 1])
    return circuit


def with_angle(angle):
    circuit = turned()
    with circuit.if_test((circuit.clbits[0], 1)):
        circuit.rz(angle, 1)
    return circuit


def with_input():
    circuit = QuantumCircuit(1, 1, inputs=[expr.Var.new("a", types.Bool())])
    circuit.measure(0, 0)
    return circuit


def inverse():
    circuit = QuantumCircuit(1, 1)
    circuit.rx(1 / Parameter("t"), 0)
    circuit.measure(0, 0)
    return circuit


SAMPLINGS = {
    "nan": ((turned(), [math.nan]), "the parameter 't' is nan"),
    "inf": ((turned(), [[0.0], [math.inf]]), "the parameter 't' is inf at point (1,)"),
    "None": ((turned(), {"t": [None]}), "the parameter 't' is nan"),
    "empty sweep": ((turned(), np.empty((0, 1))), "its sweep of parameter values is empty"),
    "other names": ((turned("theta"), {"x": 1.0}), "the circuit's parameter 'theta' has no"),
    "no such name": (
        (turned("theta"), {"thetta": 1.0}),
        "the circuit has no parameter 'thetta'; did you mean 'theta'?",
    ),
    "angle": ((with_angle(math.nan), [1.0]), "operation 0 ('rz') in operation 3 ('if_else') has"),
    "expression": ((inverse(), [0.0]), ""),
    "input": (with_input(), "the circuit wants a value for its input 'a'"),
    "no registers": (QuantumCircuit(1), "the circuit measures nothing"),
    "no bits": (
        QuantumCircuit(QuantumRegister(1), ClassicalRegister(0, "c")),
        "the classical register 'c' has no bits",
    ),
    "no qubits": (QuantumCircuit(0, 1), "the circuit has no qubits"),
    "register with a blank": (turned(register="a b"), "the classical register 'a b' cannot be"),
    "register of a keyword": (turned(register="class"), "the classical register 'class' has a"),
    "register of the container": (turned(register="items"), "the classical register 'items' has"),
    "shots": ((bell(), None, 0), "shots must be positive"),
    "half a shot": ((bell(), None, 1.5), "shots must be an integer"),
}


@pytest.mark.parametrize(("pub", "problem"), SAMPLINGS.values(), ids=SAMPLINGS)
def test_a_sampling_that_cannot_be_is_refused_with_the_pub_and_what_is_wrong(pub, problem):
    found = problems(bell(), pub)

    assert [each for each in found if each.startswith(f"pub 1: {problem}")]


ESTIMATIONS = {
    "no observables": ([], [0.1], "it has no observables"),
    "weight": ({"ZZ": math.inf}, [0.1], "the observable has the weight inf at 'ZZ'"),
    "one weight of many": (
        [{"ZZ": 1.0}, {"XX": math.inf}],
        [0.1],
        "the observable (1,) has the weight inf at 'XX'",
    ),
    "value": ("ZZ", [math.nan], "the parameter 't' is nan"),
    "size": (SparsePauliOp("ZZZ"), [0.1], "The number of qubits of the circuit (2) does not"),
}


@pytest.mark.parametrize(
    ("observables", "values", "problem"), ESTIMATIONS.values(), ids=ESTIMATIONS
)
def test_an_estimation_that_cannot_be_is_refused(observables, values, problem):
    found = problems((turned(measured=False), observables, values), kind="estimator")

    assert found[0].startswith(f"pub 0: {problem}")


@pytest.mark.parametrize("precision", [math.nan, math.inf])
def test_a_precision_that_is_no_number_is_refused(precision):
    found = problems((turned(measured=False), "ZZ", [0.1], precision), kind="estimator")

    assert found == [f"pub 0: its precision is {precision}"]


def test_a_quantum_computer_reaches_no_precision_of_0():
    found = problems((turned(measured=False), "ZZ", [0.1], 0.0), kind="estimator", spec=IBM)

    assert found[0].startswith("pub 0: its precision is 0, which a quantum computer cannot reach")


def test_an_empty_list_of_pubs_is_refused():
    assert problems() == ["pubs: there is none; pass at least one"]


def test_all_problems_of_all_pubs_are_told_at_once_with_those_of_the_options():
    broken = (turned("a", "b", register="1st"), {"a": [math.nan, 1.0], "b": [1.0, math.inf]})

    found = problems(bell(), broken, (turned(), []), spec=IBM, runtime={"twirling": {"x": 1}})

    assert [each.partition(":")[0] for each in found] == [
        *["pub 1"] * 3,
        "pub 2",
        "runtime.twirling.x",
    ]


def test_a_fake_device_with_too_few_qubits_refuses_before_it_transpiles():
    device = BackendSpec(kind="fake-device", backend_name="generic", num_qubits=2)
    large = QuantumCircuit(3)
    large.measure_all()

    assert problems(bell(), large, spec=device) == [
        "pub 1: it needs 3 qubits, and generic_backend_2q has 2"
    ]


@settings(max_examples=200, deadline=None)
@given(
    values=st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=5),
    name=st.text(max_size=6).filter(lambda name: name != "q"),
)
def test_a_sampling_is_taken_exactly_when_all_its_values_are_finite_and_its_register_is_a_name(
    values, name
):
    import keyword

    from qiskit.exceptions import QiskitError
    from qiskit.primitives import DataBin

    circuit = turned(register=name or "c")
    name = circuit.cregs[0].name
    pub = (circuit, [[value] for value in values])
    try:
        ask([pub], SamplerOptions(shots=1, seed=1), UniformBackend())
        taken = True
    except (InvalidJob, QiskitError):
        taken = False

    usable = name.isidentifier() and not keyword.iskeyword(name) and not hasattr(DataBin, name)
    usable = usable and name not in ("shape", "self")
    assert taken == (usable and all(map(math.isfinite, values)))
