"""From the names in a call to a backend and options, or to all their problems."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from typing import Any, NamedTuple, TypeVar

from prefect.blocks.core import Block
from prefect.client.orchestration import PrefectClient
from prefect.client.utilities import inject_client
from prefect.exceptions import ObjectNotFound
from pydantic import ValidationError

from hpc_prefect.blocks.checks import field_errors, sentence, suggestion
from hpc_prefect.blocks.from_record import (
    described,
    from_record,
    name_in_record,
    recorded_fields,
    stored_name,
)
from hpc_prefect.blocks.load import stored_names
from hpc_prefect.errors import ConfigurationError
from hpc_prefect.flow_runs.reproduction import recorded
from hpc_prefect.quantum.backends import Backend, build
from hpc_prefect.quantum.block import QuantumBackendBlock
from hpc_prefect.quantum.credentials import IBMQuantumCredentials
from hpc_prefect.quantum.options import (
    EstimatorOptions,
    PrimitiveOptions,
    SamplerOptions,
    options_of_variable,
    parse_options,
)

B = TypeVar("B", bound=Block)

_OPTIONS: dict[str, type[PrimitiveOptions]] = {
    "sampler": SamplerOptions,
    "estimator": EstimatorOptions,
}


class Resolved(NamedTuple):
    """What a call's names refer to, and the problems with them."""

    backend: Backend | None
    options: PrimitiveOptions | None
    problems: list[str]
    described: dict[str, dict[str, Any]] = {}  # noqa: RUF012 - never changed


def name_of(given: object) -> str:
    """The name of a backend's block; of one that is not stored, its name in records."""
    if isinstance(given, QuantumBackendBlock):
        return name_in_record(given, given.kind)
    return given if isinstance(given, str) else type(given).__name__


async def resolve(
    kind: str,
    block: str | QuantumBackendBlock,
    variable_name: str | None,
    options: Mapping[str, Any] | None,
) -> Resolved:
    """Load block, credentials and Variable; merge and check the options. Asks only Prefect.

    Args:
        kind: sampler or estimator.
        block: the name of the backend's block, or the block itself.
    """
    # Prefect's decorator hides the return type.
    found: Resolved = await _resolve(kind, block, variable_name, options)
    return found


@inject_client
async def _resolve(
    kind: str,
    given: str | QuantumBackendBlock,
    variable_name: str | None,
    options: Mapping[str, Any] | None,
    client: PrefectClient | None = None,
) -> Resolved:
    assert client is not None  # `inject_client` passes the flow run's client, or a new one
    block_name = name_of(given)
    (block, wrong_block), (layers, wrong_variable) = await asyncio.gather(
        _load_block(QuantumBackendBlock, "Quantum Backend", given, client),
        _load_variable(kind, variable_name, client),
    )
    problems = [*wrong_block, *wrong_variable]
    below = [] if block is None else [(f"Quantum Backend block {block_name!r}", _layer(block))]
    chosen, wrong_options = parse_options(
        [*below, *layers, ("options", options or {})], _OPTIONS[kind]
    )
    problems += wrong_options
    backend, told = None, _described_variable(kind, variable_name, layers)
    if block is not None:
        told["quantum-backend"] = described(block_name, block)
        credentials, wrong_backend = await _credentials(block, client)
        if credentials is not None:
            told["ibm-credentials"] = described(block.credentials_block_name, credentials)
        wrong_backend = [*block.problems(), *wrong_backend]
        if not wrong_backend:
            backend, wrong_backend = await _backend(block, credentials)
        problems += [f"Quantum Backend block {block_name!r}, {each}" for each in wrong_backend]
    return Resolved(backend, None if wrong_variable else chosen, problems, told)


def _described_variable(
    kind: str, name: str | None, layers: list[tuple[str, object]]
) -> dict[str, dict[str, Any]]:
    """The Variable as the run's record has it."""
    return {f"{kind}-variable": {"name": name, "options": layers[0][1]}} if name and layers else {}


def _layer(block: QuantumBackendBlock) -> object:
    return block.option_layer()


async def _credentials(
    block: QuantumBackendBlock, client: PrefectClient
) -> tuple[IBMQuantumCredentials | None, list[str]]:
    """The credentials that a block of IBM's devices names, and the problems with them."""
    name = block.credentials_block_name
    if block.kind != "ibm" or not name:
        return None, []
    found, wrong = await _load_block(IBMQuantumCredentials, "IBM credentials", name, client)
    problems = [f"credentials_block_name: {each}" for each in wrong]
    if found is not None and not found.account().token:
        problems.append(
            f"credentials_block_name: the IBM credentials block {name!r} has no token; put the"
            " API key into it"
        )
    return found, problems


async def _backend(
    block: QuantumBackendBlock, credentials: IBMQuantumCredentials | None
) -> tuple[Backend | None, list[str]]:
    account = None if credentials is None else credentials.account()
    try:
        return await asyncio.to_thread(build, block.spec(), account), []
    except ConfigurationError as error:
        return None, [str(error)]


async def _load_block(
    kind: type[B], what: str, given: str | B, client: PrefectClient
) -> tuple[B | None, list[str]]:
    """The block, or its problems. In a reproduction it is the recorded block."""
    if isinstance(given, kind):
        name = stored_name(given)
        if not name or recorded_fields(kind, name) is None:
            return given, []
    elif isinstance(given, str):
        name = given
    else:
        wanted = f"a {what} block, or its name, is needed"
        return None, [f"{type(given).__name__} was given where {wanted}"]
    if (fields := recorded_fields(kind, name)) is not None:
        found = await from_record(kind, name, fields, client)
        return (None, found) if isinstance(found, list) else (found, [])
    try:
        # Prefect's decorator hides that this is a coroutine.
        loading: Awaitable[B] = kind.aload(name, client=client)
        return await loading, []
    except ValueError as error:
        if not isinstance(error.__cause__, ObjectNotFound):
            raise
        near = suggestion(name, await stored_names(kind, client))
    except RuntimeError as error:
        if not isinstance(error.__cause__, ValidationError):
            raise
        wrong = [sentence(*each) for each in field_errors(error.__cause__)]
        return None, [f"{what} block {name!r}, {each}" for each in wrong]
    return None, [f"there is no {what} block {name!r}{near}{_advice(near)}"]


async def _load_variable(
    kind: str, name: str | None, client: PrefectClient
) -> tuple[list[tuple[str, object]], list[str]]:
    """The Variable as a layer of options, or its problems."""
    if name is None:
        return [], []
    if (reproduced := recorded()) and (told := reproduced.block(f"{kind}-variable", name)):
        return [(f"Variable {name!r} as it was", dict(told["options"]))], []
    variable = await client.read_variable_by_name(name)
    if variable is not None:
        return [(f"Variable {name!r}", options_of_variable(variable.value, kind))], []
    # 200 is the most that the server gives at once.
    near = suggestion(name, [each.name for each in await client.read_variables(limit=200)])
    return [], [f"there is no Variable {name!r}{near}{_advice(near)}"]


def _advice(near: str) -> str:
    stop = "" if near.endswith("?") else "."
    return f"{stop} Add it with: hpc-prefect blocks apply FILE"
