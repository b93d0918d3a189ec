"""Sampling as a step of a Prefect flow."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, Any, NamedTuple

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import PrefectClient
from prefect.client.utilities import inject_client
from prefect.exceptions import ObjectNotFound
from prefect.utilities.asyncutils import run_coro_as_sync
from pydantic import ValidationError

from hpc_prefect.blocks.checks import field_errors, sentence, suggestion
from hpc_prefect.blocks.load import stored_names
from hpc_prefect.campaigns import absolute_work_dir, locate, note_outcome
from hpc_prefect.errors import ConfigurationError
from hpc_prefect.quantum.backends import SamplingBackend, build
from hpc_prefect.quantum.block import QuantumBackendBlock
from hpc_prefect.quantum.options import SamplerOptions, options_of_variable, parse_options

if TYPE_CHECKING:
    from qiskit.primitives import PrimitiveResult, SamplerPubLike

    from hpc_prefect.quantum.sampling import Request


async def sample(
    pubs: Iterable[SamplerPubLike],
    *,
    quantum_backend_block_name: str,
    work_dir: str | PathLike[str],
    variable_name: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> PrimitiveResult:
    """Sample circuits, once.

    A sampling that an earlier run of the same campaign finished is read back from its record, to
    the last bit. Two identical calls in one scope are two samplings; with one seed on a simulator
    they give the same bits.

    Cancelling does not interrupt a simulation that has begun: it ends in its thread, and its result
    is recorded.

    Args:
        pubs: PUBs as Qiskit's primitives take them: circuits, or tuples (circuit, parameter
            values, shots).
        quantum_backend_block_name: the `QuantumBackendBlock` to sample on.
        work_dir: the record goes below `<work_dir>/.hpc-prefect/`.
        variable_name: a Prefect Variable with the options, a JSON object; or with a key
            `"sampler"` that holds them, and whatever else the flow needs beside it.
        options: options of this call (see `SamplerOptions`); they win over the Variable.

    Returns:
        Qiskit's own `PrimitiveResult`, one result for each PUB.

    Raises:
        InvalidJob: with everything that is wrong with the call; nothing was sampled.
    """
    subject = f"sampling with {quantum_backend_block_name!r}"
    call = await _resolve(quantum_backend_block_name, variable_name, options)
    # Circuits can be large: canonical form and simulation run off the loop, other tasks go on.
    request = await asyncio.to_thread(_ask, subject, pubs, call)
    # The place is found before the task run starts: inside, it would be a place of that task.
    place = await locate(work_dir=absolute_work_dir(work_dir), name="sample", digest=request.digest)
    try:
        result = await _sample(
            quantum_backend_block_name, partial(_sample_once, request, place.folder)
        )
    except BaseException:
        note_outcome(place.key, succeeded=False)
        raise
    note_outcome(place.key, succeeded=True)
    return result


def sample_sync(
    pubs: Iterable[SamplerPubLike],
    *,
    quantum_backend_block_name: str,
    work_dir: str | PathLike[str],
    variable_name: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> PrimitiveResult:
    """`sample` for sync flows and tasks and for plain scripts."""
    return run_coro_as_sync(
        sample(
            pubs,
            quantum_backend_block_name=quantum_backend_block_name,
            work_dir=work_dir,
            variable_name=variable_name,
            options=options,
        )
    )


# The record decides what is repeated, not Prefect's cache (which would also drop an intended
# second sampling). `work` is opaque to Prefect, which would look into every circuit otherwise.
@task(name="sample", task_run_name="sample {backend}", cache_policy=NO_CACHE, persist_result=False)
async def _sample(backend: str, work: Callable[[Any], PrimitiveResult]) -> PrimitiveResult:
    return await asyncio.to_thread(work, get_run_logger())


class _Resolved(NamedTuple):
    """What a call's names stand for, and what is wrong with them."""

    backend: SamplingBackend | None
    options: SamplerOptions | None
    problems: list[str]


def _ask(subject: str, pubs: Iterable[SamplerPubLike], call: _Resolved) -> Request:
    from hpc_prefect.quantum.sampling import ask

    return ask(pubs, call.options, call.backend, subject=subject, problems=call.problems)


def _sample_once(request: Request, folder: Any, log: Any) -> PrimitiveResult:
    from hpc_prefect.quantum.sampling import sample_once

    return sample_once(request, folder, log=log)


@inject_client
async def _resolve(
    block_name: str,
    variable_name: str | None,
    options: Mapping[str, Any] | None,
    client: PrefectClient | None = None,
) -> _Resolved:
    assert client is not None  # inject_client's promise: the flow run's own, or a new one
    (block, wrong_block), (layers, wrong_variable) = await asyncio.gather(
        _load_block(block_name, client), _load_variable(variable_name, client)
    )
    problems = [*wrong_block, *wrong_variable]
    chosen, wrong_options = parse_options([*layers, ("options", options or {})])
    problems += wrong_options
    backend = None
    if block is not None:
        try:
            backend = await asyncio.to_thread(build, block.spec())
        except ConfigurationError as error:
            problems.append(f"Quantum Backend block {block_name!r}, {error}")
    return _Resolved(backend, None if wrong_variable else chosen, problems)


async def _load_block(
    name: str, client: PrefectClient
) -> tuple[QuantumBackendBlock | None, list[str]]:
    """The block, or what is wrong with it."""
    try:
        # Prefect's decorator hides that this is a coroutine.
        loading: Awaitable[QuantumBackendBlock] = QuantumBackendBlock.aload(name, client=client)
        return await loading, []
    except ValueError as error:
        if not isinstance(error.__cause__, ObjectNotFound):
            raise
        near = suggestion(name, await stored_names(QuantumBackendBlock, client))
    except RuntimeError as error:
        if not isinstance(error.__cause__, ValidationError):
            raise
        wrong = [sentence(*each) for each in field_errors(error.__cause__)]
        return None, [f"Quantum Backend block {name!r}, {each}" for each in wrong]
    return None, [f"there is no Quantum Backend block {name!r}{near}{_advice(near)}"]


async def _load_variable(
    name: str | None, client: PrefectClient
) -> tuple[list[tuple[str, object]], list[str]]:
    """The Variable as a layer of options, or what is wrong with it."""
    if name is None:
        return [], []
    variable = await client.read_variable_by_name(name)
    if variable is not None:
        return [(f"Variable {name!r}", options_of_variable(variable.value))], []
    # 200 is the most that the server gives at once.
    near = suggestion(name, [each.name for each in await client.read_variables(limit=200)])
    return [], [f"there is no Variable {name!r}{near}{_advice(near)}"]


def _advice(near: str) -> str:
    stop = "" if near.endswith("?") else "."
    return f"{stop} Add it with: hpc-prefect blocks apply FILE"
