"""What the parameters of a run tell of it: a digest, or why they do not tell it from others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, NamedTuple

from prefect.context import FlowRunContext

from hpc_prefect.job.identity import parameters_digest

#: Which module of ours knows the values of a package: its `as_data` gives plain data for them.
_KNOWN_TO = {"qiskit": "hpc_prefect.quantum.parameters"}


class ParameterDigest(NamedTuple):
    """What tells a run by its parameters: their digest, or why they do not."""

    digest: str
    problem: str


def parameters_of(flow: FlowRunContext) -> Mapping[str, Any]:
    """A flow run's parameters as its function has them.

    Not as Prefect stores them: there a set is a list, in an order of its process.
    """
    if flow.parameters is not None:
        return flow.parameters
    return flow.flow_run.parameters if flow.flow_run else {}


def values_digest(values: object) -> str:
    """A digest of parameters, also of values that a package of ours knows.

    Raises:
        TypeError: a value has no canonical form.
    """
    return parameters_digest(values, _as_data)


def unknown_values(parameters: Mapping[str, Any]) -> Iterator[str]:
    """Parameters that have no canonical form, each with its kind."""
    for name, value in parameters.items():
        try:
            values_digest(value)
        except TypeError as error:
            yield f"{name!r} ({error})"


def digest_of(parameters: Mapping[str, Any], problem: str) -> ParameterDigest:
    """What parameters tell.

    Args:
        problem: the words for those that tell nothing, with `{which}` for them.
    """
    try:
        return ParameterDigest(values_digest(parameters), "")
    except TypeError:
        which = ", ".join(unknown_values(parameters))
        return ParameterDigest("", problem.replace("{which}", which))


def digest_in_run(parameters: Mapping[str, Any], of: str) -> ParameterDigest:
    """What the parameters of a task run or sub-flow tell of the calls in it."""
    return digest_of(
        parameters,
        f"it is made in {of}, whose parameter {{which}} cannot be told from another one in a"
        " later run. Give the call a job_key, or make it in a scope that is opened in that run"
        " and whose name tells the run: with hpc_prefect.scope('…'): …",
    )


def may_be_others(names: list[str]) -> str:
    return (
        f"{changed_words(names)}. Copy what you change, or give the call a job_key, or make it in a"
        " scope that is opened in that run and whose name tells the run: with"
        " hpc_prefect.scope('…'): …"
    )


def changed_words(names: list[str]) -> str:
    """Why parameters tell nothing that may have been changed since they were given."""
    which = ", ".join(map(repr, names))
    return (
        f"parameter {which} of the run around it was changed before its first call, or Prefect"
        " cannot tell whether it was, so that no later run could find this again"
    )


def _as_data(value: object) -> object:
    module = _KNOWN_TO.get(type(value).__module__.partition(".")[0])
    return NotImplemented if module is None else import_module(module).as_data(value)
