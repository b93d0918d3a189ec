"""Checks what the client will be given, with the client's own models, offline."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from hpc_prefect.quantum.services.ibm.client import has_executor

#: Options that are set elsewhere, or with which a result could not be fetched again; and the
#: advice.
_OURS = {
    "default_shots": "give shots in its place",
    "default_precision": "give precision in its place",
    "max_execution_time": "give max_execution_time beside runtime",
    "simulator": "it is for local simulations; use a block of kind 'simulator' or 'fake-device'",
}
_OURS_OF_ENVIRONMENT = {
    "job_tags": "the tag is how a job is found again",
    "private": "the result of a private job can be fetched only once",
    "max_execution_time": "give max_execution_time beside runtime",
}


def runtime_problems(kind: str, interface: str, runtime: Mapping[str, Any]) -> list[str]:
    """What is wrong with the options of qiskit-ibm-runtime's primitive.

    Args:
        kind: sampler or estimator.
        interface: v2 or executor; auto is what is installed.
    """
    problems = [
        f"runtime.{name} cannot be set: {advice}"
        for name, advice in _OURS.items()
        if name in runtime
    ]
    environment = runtime.get("environment")
    if isinstance(environment, Mapping):
        problems += [
            f"runtime.environment.{name} cannot be set: {advice}"
            for name, advice in _OURS_OF_ENVIRONMENT.items()
            if name in environment
        ]
    model = _model(kind, interface)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model(**{name: value for name, value in runtime.items() if name not in _OURS})
    except ValidationError as error:
        for each in error.errors(include_url=False, include_context=False):
            where = ".".join(str(part) for part in each["loc"] if part not in _UNION)
            problems.append(f"runtime.{where}: {each['msg']}")
    except (TypeError, ValueError) as error:
        problems.append(f"runtime: {error}")
    return list(dict.fromkeys(problems))


def pub_refused(kind: str, interface: str, pub: Any) -> str:
    """Why the client would refuse a PUB; empty if it would not."""
    from qiskit_ibm_runtime import utils
    from qiskit_ibm_runtime.exceptions import IBMInputValueError

    module, name, argument = utils.validations, "validate_classical_registers", [pub]
    if interface == "executor":
        module, name, argument = utils.utils, "validate_no_boxes", pub.circuit
    elif kind == "estimator":
        name = "validate_estimator_pubs"
    check = getattr(module, name, None)  # not part of its documented interface
    try:
        if check is not None:
            check(argument)
    except IBMInputValueError as error:
        return str(error.message)
    return ""


#: Words that pydantic adds to an error's location for the alternatives of a type.
_UNION = frozenset({"UnsetType", "Dict"})


def _model(kind: str, interface: str) -> Any:
    if interface == "executor" or (interface == "auto" and has_executor()):
        from qiskit_ibm_runtime import options_models as module
    else:
        from qiskit_ibm_runtime import options as module
    return module.SamplerOptions if kind == "sampler" else module.EstimatorOptions
