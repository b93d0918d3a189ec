"""Circuits as plain values, so that equal work has an equal digest.

QPY cannot be used for it: its bytes hold the identifiers of parameters and object addresses in the
names of gates, so that two equal circuits differ from one process to the next, and it turns ffsim's
gates into their decomposition (seen with qiskit 2.6.2 and ffsim 0.0.85).

What counts: the operations in their order, the bits they act on by index, the names and bits of the
classical registers (they name the result's fields), and for every parameter the *values* it takes,
not its name. What does not: the names of circuits, quantum registers and parameters, metadata,
versions and source code.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from qiskit.circuit import (
    CASE_DEFAULT,
    AnnotatedOperation,
    Annotation,
    ClassicalRegister,
    Clbit,
    ControlFlowOp,
    ControlledGate,
    Duration,
    ForLoopOp,
    Gate,
    Instruction,
    Operation,
    Parameter,
    ParameterExpression,
    QuantumCircuit,
)
from qiskit.circuit.classical import expr
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.primitives.containers.sampler_pub import SamplerPub

from hpc_prefect.job.identity import digest

#: Values of parameters: one array over the PUB's points for each.
Values = Mapping[Parameter, np.ndarray]

#: Attributes that every operation has, or caches when it is first asked for its definition.
_COMMON = frozenset(
    {"_name", "_num_qubits", "_num_clbits", "_params", "_label", "_definition", "_duration"}
)
#: An expression node's parts; leaves have `var` or `value`.
_NODE_PARTS = ("op", "left", "right", "operand", "target", "index", "value", "var", "type")


class NoDigest(TypeError):
    """A part of a circuit has no content that could be compared, so it has no digest."""


def pub_digest(pub: SamplerPub | EstimatorPub) -> str:
    """The digest of one PUB: circuit, parameter values, and shots or observables and precision.

    Raises:
        NoDigest: the circuit holds an operation that is neither plain data nor defined by others,
            or an annotation that is no plain data.
    """
    parameters = list(pub.circuit.parameters)
    columns = pub.parameter_values.as_array(parameters)
    if isinstance(pub, SamplerPub):
        values = {parameter: columns[..., i] for i, parameter in enumerate(parameters)}
        return digest(["pub", list(pub.shape), pub.shots, circuit_as_data(pub.circuit, values)])
    # Spread over the PUB's shape: the same estimates, however they were written for broadcasting.
    values = {p: np.broadcast_to(columns[..., i], pub.shape) for i, p in enumerate(parameters)}
    circuit = circuit_as_data(pub.circuit, values)
    observables = np.broadcast_to(np.asarray(pub.observables), pub.shape)
    terms = [_observable(each) for each in observables.flat]
    return digest(["estimate", list(pub.shape), pub.precision, terms, circuit])


def _observable(observable: Mapping[str, float]) -> list[Any]:
    """The terms of an observable, sorted, none of them zero."""
    return sorted([label, weight] for label, weight in observable.items() if weight != 0)


def structure_digest(circuit: QuantumCircuit) -> str:
    """The digest of a circuit whose parameters have no values yet: equal circuits transpile alike.

    Its parameters count by name, since the transpiled circuit contains them. Expressions of them
    are compared by their values at three points, at which different expressions do not agree by
    chance.
    """
    points = np.random.default_rng(20260).uniform(0.1, 3.0, (circuit.num_parameters, 3))
    values = {parameter: points[i] for i, parameter in enumerate(circuit.parameters)}
    names = [parameter.name for parameter in circuit.parameters]
    return digest(["structure", names, circuit_as_data(circuit, values)])


def circuit_as_data(circuit: QuantumCircuit, values: Values) -> list[Any]:
    """The circuit as lists, numbers and arrays, every parameter replaced by its values."""
    registers = [_register(circuit, register) for register in circuit.cregs]
    steps = []
    for step in circuit.data:
        qubits = [circuit.find_bit(bit).index for bit in step.qubits]
        clbits = [circuit.find_bit(bit).index for bit in step.clbits]
        steps.append([_operation(step.operation, circuit, values), qubits, clbits])
    phase = _value(circuit.global_phase, circuit, values)
    return [circuit.num_qubits, circuit.num_clbits, registers, phase, steps]


def _register(circuit: QuantumCircuit, register: ClassicalRegister) -> list[Any]:
    return ["register", register.name, [circuit.find_bit(bit).index for bit in register]]


def _operation(operation: Operation, circuit: QuantumCircuit, values: Values) -> list[Any]:
    if isinstance(operation, AnnotatedOperation):
        base = _operation(operation.base_op, circuit, values)
        return ["annotated", base, [repr(modifier) for modifier in operation.modifiers]]
    kind = getattr(operation, "base_class", type(operation))
    head: list[Any] = [f"{kind.__module__}.{kind.__qualname__}", operation.name]
    head += [operation.num_qubits, operation.num_clbits, getattr(operation, "label", None)]
    if isinstance(operation, ForLoopOp):
        return [*head, _for_loop(operation, values)]
    if isinstance(operation, ControlledGate):
        base = _operation(operation.base_gate, circuit, values)
        return [*head, operation.num_ctrl_qubits, operation.ctrl_state, base]
    parameters = _value(getattr(operation, "params", []), circuit, values)
    if getattr(operation, "_standard_gate", None) is not None:
        return [*head, parameters]
    return [*head, parameters, *_nature(operation, kind, circuit, values)]


def _for_loop(loop: ForLoopOp, values: Values) -> list[Any]:
    """The bodies that the loop will run, with its parameter replaced by each value."""
    indices, parameter, body = loop.params
    if parameter is None:
        return [list(indices), circuit_as_data(body, values)]
    return [
        circuit_as_data(body, {**values, parameter: np.asarray(float(index))}) for index in indices
    ]


def _nature(operation: Operation, kind: type, circuit: QuantumCircuit, values: Values) -> list[Any]:
    """What the operation does beyond its name and parameters.

    A gate of ffsim or Qiskit is identified by what it was constructed from (its decomposition can
    take seconds, and is the result of a numerical optimization). Another gate may keep what it was
    constructed from only in its definition, so the definition is included.
    """
    try:
        state: list[Any] = _state(operation, circuit, values)
        digest(state)  # raises if it is not plain data throughout
    except NoDigest:
        raise  # a definition does not contain the annotations
    except TypeError:
        state = []
        known = False
    else:
        plain = kind in (Gate, Instruction)
        known = kind.__module__.startswith(("ffsim.", "qiskit.circuit.")) and not plain
    if known:
        return [state]
    definition = _definition(operation)
    if definition is not None:
        return [state, circuit_as_data(definition, values)]
    if state:
        return [state]
    raise NoDigest(
        f"the operation {operation.name!r} ({kind.__qualname__}) has neither plain attributes nor"
        " a definition, so circuits with it cannot be compared; give it a definition"
    )


def _definition(operation: Operation) -> QuantumCircuit | None:
    if isinstance(operation, Instruction):
        return operation.definition
    as_circuit = getattr(operation, "to_circuit", None)  # a Clifford, for one
    return None if as_circuit is None else as_circuit()


def _state(operation: Operation, circuit: QuantumCircuit, values: Values) -> list[Any]:
    state = _attributes(operation)
    for name in _COMMON:
        state.pop(name, None)
    if isinstance(operation, ControlFlowOp):
        state.pop("_label_spec", None)  # a switch's are objects; `_case_map` has its cases
    return ["state", {name: _value(item, circuit, values) for name, item in state.items()}]


def _attributes(thing: object) -> dict[str, Any]:
    """The attributes of an object, in its dictionary and its slots."""
    names = set(vars(thing)) if hasattr(thing, "__dict__") else set()
    for kind in type(thing).__mro__:
        slots = getattr(kind, "__slots__", ())
        names |= {slots} if isinstance(slots, str) else set(slots)
    names -= {"__dict__", "__weakref__"}
    return {name: getattr(thing, name) for name in sorted(names) if hasattr(thing, name)}


def _annotation(annotation: Annotation, circuit: QuantumCircuit, values: Values) -> list[Any]:
    """An annotation of a box: what passes or the service are to do with it, such as twirling."""
    kind = type(annotation)
    state = {k: _value(item, circuit, values) for k, item in _attributes(annotation).items()}
    try:
        digest(state)
    except TypeError as error:
        raise NoDigest(
            f"the annotation {annotation.namespace!r} ({kind.__qualname__}) of a box is no plain"
            f" data ({error}), so circuits with it cannot be compared; keep numbers, texts, lists"
            " and mappings in it"
        ) from error
    return ["annotation", annotation.namespace, f"{kind.__module__}.{kind.__qualname__}", state]


def _value(value: object, circuit: QuantumCircuit, values: Values) -> Any:
    """An operation's parameter or attribute as plain data; what is not known stays as it is."""
    if isinstance(value, ParameterExpression):
        return _numbers(value, values)
    if isinstance(value, QuantumCircuit):
        return circuit_as_data(value, values)
    if isinstance(value, Operation):
        return _operation(value, circuit, values)
    if isinstance(value, ClassicalRegister):
        return _register(circuit, value)
    if isinstance(value, Clbit):
        return ["clbit", circuit.find_bit(value).index]
    if isinstance(value, expr.Expr):
        return _expression(value, circuit, values)
    if isinstance(value, Duration):
        return ["duration", value.unit(), value.value()]
    if isinstance(value, Annotation):
        return _annotation(value, circuit, values)
    if isinstance(value, str | bytes | enum.Enum) or hasattr(value, "dtype"):
        return value
    if isinstance(value, Mapping):
        pairs = [(_key(k), _value(item, circuit, values)) for k, item in value.items()]
        return ["map", sorted(pairs, key=lambda pair: digest(pair[0]))]
    if isinstance(value, Sequence):
        return [_value(item, circuit, values) for item in value]
    return value


def _key(key: object) -> object:
    return ["default case"] if key is CASE_DEFAULT else key


def _numbers(expression: ParameterExpression, values: Values) -> Any:
    """The value of an expression at every point of the PUB."""
    if isinstance(expression, Parameter) and expression in values:
        return _at_points(values[expression])
    used = list(expression.parameters)
    missing = [parameter.name for parameter in used if parameter not in values]
    if missing:
        raise ValueError(f"parameter {missing[0]!r} of the circuit has no value")
    if not used:
        return expression.numeric()
    columns = np.broadcast_arrays(*[values[parameter] for parameter in used])
    points = np.empty(columns[0].shape, dtype=complex)
    for at in np.ndindex(points.shape):
        point = {p: float(column[at]) for p, column in zip(used, columns, strict=True)}
        points[at] = expression.bind(point).numeric()
        if not np.isfinite(points[at]):
            raise ValueError(f"{expression} is {points[at].real} at {_told(point)}")
    return _at_points(points if points.imag.any() else points.real)


def _told(point: Mapping[Parameter, float]) -> str:
    return ", ".join(f"{parameter.name} = {value:g}" for parameter, value in point.items())


def _at_points(points: np.ndarray) -> Any:
    """A number that is the same at every point counts as a constant of the circuit."""
    if points.size and (points == points.flat[0]).all():
        return points.flat[0].item()
    return ["values", points]


def _expression(node: expr.Expr, circuit: QuantumCircuit, values: Values) -> list[Any]:
    """A classical expression; a variable of the circuit counts by its name, not its identifier."""
    parts: list[Any] = [type(node).__name__]
    for part in _NODE_PARTS:
        if not hasattr(node, part):
            continue
        item = getattr(node, part)
        if part == "type":
            item = repr(item)
        elif part == "op":
            item = item.name
        elif part == "var" and not isinstance(item, Clbit | ClassicalRegister):
            item = getattr(node, "name", None)
        parts.append([part, _value(item, circuit, values)])
    return parts
