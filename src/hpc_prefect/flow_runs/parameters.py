"""The digest of a run's parameters, or why they have none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, NamedTuple

from prefect.context import FlowRunContext

from hpc_prefect.job.identity import parameters_digest

#: Our modules whose `as_data` turns a package's values into plain data.
_KNOWN_TO = {"qiskit": "hpc_prefect.quantum.parameters"}


class ParameterDigest(NamedTuple):
    """The digest of a run's parameters, or the problem: why they have none."""

    digest: str
    problem: str


def parameters_of(flow: FlowRunContext) -> Mapping[str, Any]:
    """A flow run's parameters as its function has them.

    Not as Prefect stores them: there a set is a list, whose order differs between processes.
    """
    if flow.parameters is not None:
        return flow.parameters
    return flow.flow_run.parameters if flow.flow_run else {}


def values_digest(values: object) -> str:
    """A digest of parameters, also of values that a module of ours can turn into plain data.

    Raises:
        TypeError: a value has no canonical form.
    """
    return parameters_digest(values, _as_data)


def unknown_values(parameters: Mapping[str, Any]) -> Iterator[str]:
    """Parameters that have no canonical form, each with the reason."""
    for name, value in parameters.items():
        try:
            values_digest(value)
        except TypeError as error:
            yield f"{name!r} ({error})"


def digest_of(parameters: Mapping[str, Any], problem: str) -> ParameterDigest:
    """The digest of parameters.

    Args:
        problem: the message if there is none, with `{which}` for the parameters in question.
    """
    try:
        return ParameterDigest(values_digest(parameters), "")
    except TypeError:
        which = ", ".join(unknown_values(parameters))
        return ParameterDigest("", problem.replace("{which}", which))


def digest_in_run(parameters: Mapping[str, Any], of: str) -> ParameterDigest:
    """The digest of a task run's or sub-flow's parameters, for the identity of calls in it."""
    return digest_of(
        parameters,
        f"it is made in {of}, whose parameter {{which}} has no stable identity, so no later run"
        f" could find the call again. Give the call a job_key, or make it inside a scope that is"
        f" opened in {of} and named after this parameter: with hpc_prefect.scope('…'): …",
    )


def changed_problem(names: list[str]) -> str:
    return (
        f"{changed_words(names)}. Copy what you change, or give the call a job_key, or make it"
        f" inside a scope that is opened in that run and named after this parameter: with"
        f" hpc_prefect.scope('…'): …"
    )


def changed_words(names: list[str]) -> str:
    """Why parameters that may have been changed since they were given have no digest."""
    which = ", ".join(map(repr, names))
    return (
        f"parameter {which} of the run around it was changed before its first call, or may have"
        f" been, so no later run could find this again"
    )


def _as_data(value: object) -> object:
    module = _KNOWN_TO.get(type(value).__module__.partition(".")[0])
    return NotImplemented if module is None else import_module(module).as_data(value)
