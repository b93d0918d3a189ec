"""Two sets of PUBs have the same digest exactly when the work is the same."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from circuits import bell, lucj
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit.circuit import (
    Annotation,
    ClassicalRegister,
    Clbit,
    Duration,
    Gate,
    Parameter,
    QuantumCircuit,
    QuantumRegister,
    Qubit,
)
from qiskit.circuit.classical import expr, types
from qiskit.circuit.library import (
    Initialize,
    PauliEvolutionGate,
    PermutationGate,
    UnitaryGate,
    XGate,
)
from qiskit.quantum_info import Clifford, Pauli, SparsePauliOp
from qiskit.synthesis import SuzukiTrotter
from qiskit.transpiler import CouplingMap, generate_preset_pass_manager
from samplomatic import Twirl

from hpc_prefect.errors import InvalidJob
from hpc_prefect.quantum.backends import BackendSpec, build
from hpc_prefect.quantum.options import SamplerOptions
from hpc_prefect.quantum.sampling import ask
from hpc_prefect.quantum.simulators.uniform import UniformBackend


def digest_of(*pubs, backend=None, **options):
    chosen = SamplerOptions(**({"shots": 10, "seed": 1} | options))
    return ask(pubs, chosen, backend or UniformBackend()).digest


# --- The work as plain values. An angle is one number for each point of the sweep; all are eighths,
# --- so that float32 holds them too.


@dataclass(frozen=True)
class Work:
    gates: tuple[tuple[str, int, tuple[float, ...]], ...]
    points: int
    shots: int
    register: str


@dataclass(frozen=True)
class Dress:
    """Everything about a PUB that does not belong to its work."""

    names: str
    dtype: str
    values_as: str
    shots_as: type
    literal: bool
    metadata: bool


POINTS = 2
angles = st.lists(st.integers(-16, 16).map(lambda n: n / 8), min_size=POINTS, max_size=POINTS).map(
    tuple
)
gates = st.tuples(st.sampled_from(["rx", "rz", "half", "sum"]), st.integers(0, 1), angles)
works = st.builds(
    Work,
    gates=st.lists(gates, max_size=4).map(tuple),
    points=st.just(POINTS),
    shots=st.sampled_from([1, 2, 1000]),
    register=st.sampled_from(["c", "meas"]),
)
dresses = st.builds(
    Dress,
    names=st.sampled_from("ab"),
    dtype=st.sampled_from(["float32", "float64"]),
    values_as=st.sampled_from(["array", "list", "mapping", "reversed mapping"]),
    shots_as=st.sampled_from([int, np.int64]),
    literal=st.booleans(),
    metadata=st.booleans(),
)


def pub(work: Work, dress: Dress):
    """The PUB that a person would write for this work, dressed in one of many ways."""
    circuit = QuantumCircuit(
        QuantumRegister(2, dress.names),
        ClassicalRegister(2, work.register),
        name=dress.names,
        metadata={"by": "me"} if dress.metadata else {},
    )
    values: dict[Parameter, np.ndarray] = {}
    for i, (kind, qubit, angle) in enumerate(work.gates):
        column = np.array(angle)
        # Names that sort one way or the other: the order of a circuit's parameters is by name.
        name = f"p{i}" if dress.names == "a" else f"p{9 - i}"
        if dress.literal and len(set(angle)) == 1:
            circuit.rx(angle[0], qubit) if kind == "rx" else circuit.rz(angle[0], qubit)
            continue
        one = Parameter(name)
        if kind == "half":
            values[one] = column * 2
            circuit.rz(one / 2, qubit)
        elif kind == "sum":
            two = Parameter(name + "'")
            values[one], values[two] = column - 1, np.ones(POINTS)
            circuit.rz(one + two, qubit)
        else:
            values[one] = column
            circuit.rx(one, qubit) if kind == "rx" else circuit.rz(one, qubit)
    circuit.measure([0, 1], [0, 1])
    return circuit, _bindings(circuit, values, dress), dress.shots_as(work.shots)


def _bindings(circuit, values, dress):
    columns = {key: column.astype(dress.dtype) for key, column in values.items()}
    if not values:
        return np.empty((POINTS, 0))
    if dress.values_as == "mapping":
        return {key: column.tolist() for key, column in columns.items()}
    if dress.values_as == "reversed mapping":
        return {key.name: column for key, column in reversed(columns.items())}
    table = np.stack([columns[parameter] for parameter in circuit.parameters], axis=-1)
    return table if dress.values_as == "array" else table.tolist()


def meaning(work: Work):
    """A rotation about z is one whether its angle is written as θ, as 2θ/2 or as a sum."""
    same = tuple((kind.replace("half", "rz").replace("sum", "rz"), *r) for kind, *r in work.gates)
    return replace(work, gates=same)


@st.composite
def pairs_of_work(draw):
    """Two lists of work that are the same, nearly the same, or have nothing to do with another."""
    one = draw(st.lists(works, min_size=1, max_size=2))
    other = list(one)
    change = draw(st.sampled_from(["nothing", "angle", "shots", "register", "order", "all"]))
    at = draw(st.integers(0, len(one) - 1))
    if change == "all":
        other = draw(st.lists(works, min_size=1, max_size=2))
    elif change == "angle" and one[at].gates:
        (kind, qubit, angle), *rest = one[at].gates
        changed = (kind, qubit, (*angle[:-1], draw(angles)[0]))
        other[at] = replace(one[at], gates=(changed, *rest))
    elif change == "shots":
        other[at] = replace(one[at], shots=draw(st.sampled_from([1, 2, 1000])))
    elif change == "register":
        other[at] = replace(one[at], register=draw(st.sampled_from(["c", "meas"])))
    elif change == "order":
        other = other[::-1]
    return one, other


@settings(max_examples=400, deadline=None)
@given(pair=pairs_of_work(), data=st.data())
def test_digests_are_equal_exactly_when_the_work_is_equal(pair, data):
    one, other = (digest_of(*[pub(work, data.draw(dresses)) for work in side]) for side in pair)

    same = [meaning(work) for work in pair[0]] == [meaning(work) for work in pair[1]]
    assert (one == other) == same


# --- The rest of the work, and operations that are not plain gates.


def test_seed_backend_method_and_shots_belong_to_the_work():
    digests = {
        digest_of(bell()),
        digest_of(bell(), seed=2),
        digest_of(bell(), shots=11),
        digest_of(bell(), backend=build(BackendSpec(backend_name="aer"))),
        digest_of(bell(), backend=build(BackendSpec(simulator_method="stabilizer"))),
        digest_of(bell(), backend=build(BackendSpec(backend_name="ffsim"))),
        digest_of(bell(), backend=build(BackendSpec(backend_name="ffsim")), depolarizing=0.1),
    }

    assert len(digests) == 7


def test_shots_of_the_options_count_only_for_pubs_without_their_own():
    own = (bell(), None, 10)

    assert digest_of(own, shots=5) == digest_of(own, shots=6) == digest_of(bell(), shots=10)


def test_the_transpiler_seed_is_the_seed_when_it_is_not_given():
    device = build(BackendSpec(kind="fake-device", backend_name="generic", num_qubits=2))

    assert digest_of(bell(), backend=device) == digest_of(bell(), backend=device, seed_transpiler=1)
    assert digest_of(bell(), backend=device) != digest_of(bell(), backend=device, seed_transpiler=2)


class Opaque(Gate):
    """A user's gate that keeps what it was made from only in its definition."""

    def __init__(self, angle):
        super().__init__("opaque", 1, [])
        self.definition = QuantumCircuit(1)
        self.definition.rx(angle, 0)


def with_gate(operation, qubits=1):
    circuit = QuantumCircuit(qubits, 2)
    circuit.append(operation, range(qubits))
    circuit.measure(0, 0)
    return circuit


def composite(angle):
    inner = QuantumCircuit(1, name="inner")
    inner.rx(angle, 0)
    return with_gate(inner.to_gate())


def branch(value):
    circuit = QuantumCircuit(1, 2)
    circuit.measure(0, 0)
    with circuit.if_test((circuit.clbits[0], value)):
        circuit.x(0)
    circuit.measure(0, 1)
    return circuit


def logic(combine):
    circuit = QuantumCircuit(1, 2)
    with circuit.if_test(combine(circuit.clbits[0], circuit.clbits[1])):
        circuit.x(0)
    return circuit


def switch(case_of_x):
    circuit = QuantumCircuit(1, 2)
    with circuit.switch(circuit.cregs[0]) as case:
        with case(case_of_x):
            circuit.x(0)
        with case(case.DEFAULT):
            circuit.z(0)
    return circuit


def repeat(factor):
    circuit = QuantumCircuit(1, 2)
    with circuit.for_loop(range(3)) as i:
        circuit.rx(factor * i, 0)
    return circuit


OPERATOR = SparsePauliOp(["XX", "ZZ"], [0.1, 0.2])


def variable(start):
    circuit = QuantumCircuit(1, 2)
    stored = circuit.add_var("v", expr.lift(start))
    with circuit.if_test(stored):
        circuit.x(0)
    return circuit


def wired(*targets):
    circuit = QuantumCircuit(2, 2)
    circuit.h(0)
    circuit.measure([0, 1], targets)
    return circuit


def bare_bits(index):
    circuit = QuantumCircuit([Qubit(), Qubit()], [Clbit()], ClassicalRegister(1, "c"))
    circuit.measure(index, 1)
    return circuit


def controlled(state):
    return with_gate(composite(0.5).data[0].operation.control(1, ctrl_state=state), 2)


def clifford(invert):
    circuit = QuantumCircuit(1)
    circuit.s(0) if invert else circuit.sdg(0)
    return with_gate(Clifford(circuit))


class Note(Annotation):
    """A user's annotation of a box."""

    namespace = "tests.note"

    def __init__(self, content):
        self.content = content


def box(*annotations, duration=None):
    circuit = QuantumCircuit(2, 2)
    with circuit.box(annotations, duration=duration, unit="dt" if duration else None):
        circuit.x(0)
    circuit.measure(0, 0)
    return circuit


def wait(length):
    """A delay whose length is an expression with a stretch of the circuit."""
    circuit = QuantumCircuit(1, 2)
    stretch = circuit.add_stretch("s")
    circuit.delay(length(stretch), 0)
    circuit.measure(0, 0)
    return circuit


def counted(value):
    """A variable that is stored to, cast and compared."""
    circuit = QuantumCircuit(1, 2)
    number = circuit.add_var("n", expr.lift(3, types.Uint(8)))
    circuit.store(number, expr.bit_xor(number, expr.lift(value, types.Uint(8))))
    with circuit.while_loop(expr.less(number, 5)):
        circuit.x(0)
        circuit.store(number, expr.shift_left(number, 1))
    circuit.measure(0, 0)
    return circuit


def jump(ends):
    circuit = QuantumCircuit(1, 2)
    with circuit.for_loop(range(3)):
        circuit.x(0)
        circuit.break_loop() if ends else circuit.continue_loop()
    circuit.measure(0, 0)
    return circuit


def laid_out(layout):
    circuit = QuantumCircuit(2, 2)
    circuit.h(0)
    circuit.cx(0, 1)
    circuit.measure([0, 1], [0, 1])
    return generate_preset_pass_manager(
        1,
        coupling_map=CouplingMap.from_line(3),
        basis_gates=["cx", "u"],
        initial_layout=layout,
        seed_transpiler=1,
    ).run(circuit)


PAIRS = {
    "duration": (
        lambda: wait(lambda s: expr.lift(Duration.ns(100))),
        lambda: wait(lambda s: expr.lift(Duration.ns(200))),
    ),
    "unit of a duration": (
        lambda: wait(lambda s: expr.lift(Duration.ns(100))),
        lambda: wait(lambda s: expr.lift(Duration.us(100))),
    ),
    "stretch": (
        lambda: wait(lambda s: expr.add(s, Duration.dt(16))),
        lambda: wait(lambda s: expr.add(s, Duration.dt(32))),
    ),
    "ratio of durations": (
        lambda: wait(lambda s: expr.mul(s, expr.div(Duration.dt(16), Duration.dt(4)))),
        lambda: wait(lambda s: expr.mul(s, expr.div(Duration.dt(16), Duration.dt(8)))),
    ),
    "duration of a box": (lambda: box(duration=100), lambda: box(duration=200)),
    "annotation": (lambda: box(Note([1, "a"])), lambda: box(Note([2, "a"]))),
    "annotation or none": (lambda: box(Note(1)), box),
    "order of annotations": (lambda: box(Note(1), Note(2)), lambda: box(Note(2), Note(1))),
    "twirled box": (
        lambda: box(Twirl(dressing="left")),
        lambda: box(Twirl(dressing="right")),
    ),
    "store": (lambda: counted(1), lambda: counted(2)),
    "break or continue": (lambda: jump(True), lambda: jump(False)),
    "layout": (lambda: laid_out([0, 1]), lambda: laid_out([1, 2])),
    "initialize": (
        lambda: with_gate(Initialize([1, 0])),
        lambda: with_gate(Initialize([0, 1])),
    ),
    "evolution's product formula": (
        lambda: with_gate(PauliEvolutionGate(OPERATOR, 0.5, synthesis=SuzukiTrotter(reps=1)), 2),
        lambda: with_gate(PauliEvolutionGate(OPERATOR, 0.5, synthesis=SuzukiTrotter(reps=2)), 2),
    ),
    "permutation": (
        lambda: with_gate(PermutationGate([2, 0, 1]), 3),
        lambda: with_gate(PermutationGate([1, 2, 0]), 3),
    ),
    "lucj": (lambda: lucj(1), lambda: lucj(2)),
    "user's gate": (lambda: with_gate(Opaque(0.1)), lambda: with_gate(Opaque(0.2))),
    "composite": (lambda: composite(0.1), lambda: composite(0.2)),
    "unitary": (
        lambda: with_gate(UnitaryGate(np.eye(2))),
        lambda: with_gate(UnitaryGate(np.diag([1, -1]))),
    ),
    "evolution": (
        lambda: with_gate(PauliEvolutionGate(Pauli("X"), 0.5)),
        lambda: with_gate(PauliEvolutionGate(Pauli("Y"), 0.5)),
    ),
    "clifford": (lambda: clifford(False), lambda: clifford(True)),
    "control state": (lambda: controlled(0), lambda: controlled(1)),
    "annotated": (
        lambda: with_gate(XGate().control(1, annotated=True), 2),
        lambda: with_gate(XGate().control(1, annotated=True, ctrl_state=0), 2),
    ),
    "condition": (lambda: branch(0), lambda: branch(1)),
    "logic": (lambda: logic(expr.logic_and), lambda: logic(expr.logic_or)),
    "switch": (lambda: switch(0), lambda: switch(1)),
    "loop": (lambda: repeat(1), lambda: repeat(2)),
    "variable": (lambda: variable(True), lambda: variable(False)),
    "wiring": (lambda: wired(0, 1), lambda: wired(1, 0)),
    "bits without register": (lambda: bare_bits(0), lambda: bare_bits(1)),
}


@pytest.mark.parametrize(("make", "make_other"), PAIRS.values(), ids=PAIRS)
def test_equal_circuits_made_twice_agree_and_others_differ(make, make_other):
    assert digest_of(make()) == digest_of(make())
    assert digest_of(make()) != digest_of(make_other())


def test_running_a_circuit_does_not_change_its_digest():
    backend = build(BackendSpec(backend_name="aer"))
    request = ask([lucj()], SamplerOptions(shots=5, seed=1), backend)
    backend.run(request.pubs, request.options)

    assert digest_of(request.pubs[0], backend=backend) == request.digest


def test_another_process_finds_the_same_digest():
    program = (
        "from importlib import import_module; from circuits import bell, lucj;"
        f"here = import_module({__name__!r});"
        "made = [make() for make, _ in here.PAIRS.values()];"
        "print(here.digest_of(bell(), lucj(), *made))"
    )
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(
            [str(Path(__file__).parent), str(Path(__file__).parents[2]), *sys.path]
        ),
        "PYTHONHASHSEED": "12345",
    }
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )

    ours = digest_of(bell(), lucj(), *(make() for make, _ in PAIRS.values()))
    assert done.stdout.strip() == ours, done.stderr


# --- Classical expressions: a tree of plain values, and the expression that says it.

numbers = st.integers(0, 255)
bits = st.sampled_from([("bit", 0), ("bit", 1), ("true",), ("false",)])
trees = st.recursive(
    bits | st.tuples(st.sampled_from(["less", "equal"]), numbers, numbers),
    lambda tree: (
        st.tuples(st.sampled_from(["and", "or", "xor"]), tree, tree)
        | st.tuples(st.just("not"), tree)
    ),
    max_leaves=6,
)
lengths = st.recursive(
    st.tuples(st.sampled_from(["dt", "ns"]), st.integers(1, 100)) | st.just(("stretch",)),
    lambda length: (
        st.tuples(st.sampled_from(["add"]), length, length)
        | st.tuples(st.just("mul"), length, st.sampled_from([0.5, 2.0, 3.0]))
    ),
    max_leaves=5,
)


def condition(circuit, tree):
    kind, *rest = tree
    if kind in ("and", "or", "xor"):
        combine = {"and": expr.logic_and, "or": expr.logic_or, "xor": expr.bit_xor}[kind]
        return combine(condition(circuit, rest[0]), condition(circuit, rest[1]))
    if kind == "not":
        return expr.logic_not(condition(circuit, rest[0]))
    if kind in ("less", "equal"):
        compare = expr.less if kind == "less" else expr.equal
        return compare(*(expr.lift(each, types.Uint(8)) for each in rest))
    return expr.lift(circuit.clbits[rest[0]] if kind == "bit" else kind == "true")


def length_of(stretch, tree):
    kind, *rest = tree
    if kind == "add":
        return expr.add(length_of(stretch, rest[0]), length_of(stretch, rest[1]))
    if kind == "mul":
        return expr.mul(length_of(stretch, rest[0]), rest[1])
    return expr.lift(stretch if kind == "stretch" else getattr(Duration, kind)(rest[0]))


def dynamic(tree, length):
    circuit = QuantumCircuit(1, 2)
    stretch = circuit.add_stretch("s")
    with circuit.if_test(condition(circuit, tree)):
        circuit.x(0)
    circuit.delay(length_of(stretch, length), 0)
    circuit.measure(0, 0)
    return circuit


@settings(max_examples=200, deadline=None)
@given(one=st.tuples(trees, lengths), other=st.tuples(trees, lengths), again=st.booleans())
def test_dynamic_circuits_have_equal_digests_exactly_when_their_expressions_are(one, other, again):
    other = one if again else other

    assert (digest_of(dynamic(*one)) == digest_of(dynamic(*other))) == (one == other)


def test_an_annotation_that_is_no_plain_data_is_refused():
    with pytest.raises(InvalidJob) as refused:
        digest_of(bell(), box(Note(object())))

    (problem,) = refused.value.problems
    assert problem.startswith("pub 1: the annotation 'tests.note' (Note) of a box is no plain data")


def test_an_operation_that_says_nothing_about_itself_is_refused():
    class Dark(Gate):
        def __init__(self):
            super().__init__("dark", 1, [])
            self.secret = object()

    with pytest.raises(InvalidJob) as refused:
        digest_of(with_gate(Dark()))

    assert refused.value.problems == (
        "pub 0: the operation 'dark' (test_an_operation_that_says_nothing_about_itself_is_refused"
        ".<locals>.Dark) has neither plain attributes nor a definition, so circuits with it"
        " cannot be compared; give it a definition",
    )
