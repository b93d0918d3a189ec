"""From a call to a valid job with its identity in the experiment, or to all its problems."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import platform
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect.blocks.core import Block
from prefect.context import FlowRunContext
from pydantic import BaseModel

from hpc_prefect.batch.placing import HoldsNodes, placing_of
from hpc_prefect.batch.program import content_of, program_facts
from hpc_prefect.blocks import Blocks, Call, GivenBlocks, HPCProfileBlock, load_blocks, resolve
from hpc_prefect.blocks.from_record import described, name_in_record
from hpc_prefect.blocks.load import load_one
from hpc_prefect.errors import InvalidJob
from hpc_prefect.executor.request import JobRequest
from hpc_prefect.flow_runs.campaigns import (
    CallIdentity,
    absolute_work_dir,
    identity_problems,
    locate,
)
from hpc_prefect.flow_runs.campaigns.opening import is_over
from hpc_prefect.flow_runs.recording import recorded_run
from hpc_prefect.flow_runs.scopes import root_flow
from hpc_prefect.job import folder as names
from hpc_prefect.job.identity import digest
from hpc_prefect.job.retry import RetryPolicy
from hpc_prefect.job.spec import Executable, JobSpec, parse_walltime
from hpc_prefect.schedulers import scheduler_for


@dataclass(frozen=True)
class Job:
    """A valid job with its identity, for the task run."""

    spec: JobSpec
    request: JobRequest
    on_sigterm: str
    retries: int


@dataclass(frozen=True)
class JobTerms:
    """The caller's timeout and retries, and the allocation to use."""

    timeout_seconds: float | None
    retries: int
    policy: RetryPolicy
    allocation: HoldsNodes | None = None


async def prepare(call: Call, given: GivenBlocks, job_key: str | None, terms: JobTerms) -> Job:
    """Everything before the task run; all problems that can be found are found here, at once."""
    found, problems = await resolved(call, given, terms_problems(terms))
    problems += identity_problems(keyed=job_key is not None)
    if problems or found is None:
        raise InvalidJob(call.subject, problems)
    spec, hpc = found.spec, found.blocks.hpc
    try:
        Path(call.work_dir).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = f"work_dir {call.work_dir} cannot be made: {error.strerror}"
        raise InvalidJob(call.subject, [problem]) from error
    inputs, sizes = await asyncio.to_thread(inputs_of, spec) if spec.inputs else ({}, {})
    program = await asyncio.to_thread(program_facts, spec)
    work: list[Any] = [spec.identity(), inputs]
    if hpc.rebuilt_program == "rerun":
        work.append(content_of(program))
    what = digest(["job_key", job_key] if job_key is not None else work)
    place = await locate(work_dir=call.work_dir, name="job", digest=what, keyed=job_key is not None)
    request = JobRequest(
        spec=spec,
        secrets=found.secrets,
        **request_facts(place, hpc),
        placing=placing_of(terms.allocation, given.hpc),
        retry=terms.policy if terms.retries else None,
        timeout=terms.timeout_seconds,
        provenance=provenance_of(place, found.described, inputs) | {"inputs_size": sizes} | program,
    )
    return Job(spec, request, hpc.on_sigterm, terms.retries)


@dataclass(frozen=True)
class ResolvedCall:
    """The blocks of a call, and the job that they make of it.

    Attributes:
        described: how the run record describes the blocks.
    """

    blocks: Blocks
    described: dict[str, Any]
    spec: JobSpec
    secrets: dict[str, str]


async def resolved(
    call: Call, given: GivenBlocks, problems: list[str]
) -> tuple[ResolvedCall | None, list[str]]:
    """Load the blocks and make a job of them, if they allow one; also all problems.

    Args:
        problems: of the call's other arguments; they stand between those of the blocks and those
            of files.
    """
    found = None
    try:
        blocks, told = await blocks_of_run(given, call.subject)
        spec, secrets = resolve(*blocks, call, machine_cores=os.cpu_count() or 1)
        found = ResolvedCall(blocks, told, spec, secrets)
    except InvalidJob as invalid:
        problems = [*invalid.problems, *problems]
    return found, problems + file_problems(call, found.spec if found else None)


def request_facts(place: CallIdentity, hpc: HPCProfileBlock) -> dict[str, Any]:
    """The fields of a request that depend on the call's identity and the HPC profile alone."""
    return {
        "base": str(place.folder),
        "key": place.key,
        "claimant": place.claimant,
        "poll_interval": hpc.poll_interval,
        "max_jobs_in_queue": hpc.max_jobs_in_queue,
        "queue_full_wait": _wait_seconds(hpc.queue_full_wait),
        "is_over": is_over,
    }


def _wait_seconds(text: str) -> int:
    return parse_walltime(text) if text.strip() else 0


def terms_problems(terms: JobTerms) -> list[str]:
    problems, timeout, retries = [], terms.timeout_seconds, terms.retries
    if timeout is not None and not (isinstance(timeout, int | float) and timeout > 0):
        problems.append(f"timeout_seconds is {timeout!r}; it must be more than 0, or None")
    if not isinstance(retries, int) or isinstance(retries, bool) or retries < 0:
        problems.append(f"retries is {retries!r}; it must be a whole number, 0 or more")
    if not isinstance(terms.policy, RetryPolicy):
        kind = type(terms.policy).__name__
        problems.append(f"retry_policy must be a RetryPolicy, not {kind}")
    return problems


def resolved_work_dir(work_dir: Any) -> str:
    """The work_dir as an absolute path; anything else is returned unchanged, to be reported."""
    if work_dir and isinstance(work_dir, str | os.PathLike):
        return absolute_work_dir(work_dir)
    return work_dir  # type: ignore[no-any-return]


_cache: dict[tuple[str, type[Block], str, int], asyncio.Task[Block | list[str]]] = {}


async def blocks_of_run(given: GivenBlocks, subject: str) -> tuple[Blocks, dict[str, Any]]:
    """The three blocks, and how the record describes them.

    What is named is loaded once a flow run: an edit made meanwhile counts in the next run.
    """
    flow = root_flow()
    in_flow = flow is not None and flow.flow_run is not None
    blocks = await load_blocks(given, subject=subject, load=_once_a_run if in_flow else None)
    return blocks, _described(given, blocks)


async def _once_a_run(kind: type[Block], name: str) -> Block | list[str]:
    flow = root_flow()
    assert flow is not None
    assert flow.flow_run is not None
    key = (str(flow.flow_run.id), kind, name, id(asyncio.get_running_loop()))
    loading = _cache.get(key)
    if loading is None:
        for old in [old for old in _cache if old[0] != key[0] and _cache[old].done()]:
            del _cache[old]
        loading = asyncio.get_running_loop().create_task(load_one(kind, name))
        _cache[key] = loading
    try:
        found = await asyncio.shield(loading)
    except BaseException:
        if loading.done():
            _cache.pop(key, None)
        raise
    if isinstance(found, list):  # the next call finds it if it is stored meanwhile
        _cache.pop(key, None)
    return found


#: The record's descriptions of the newest block objects, which a flow's calls share.
_descriptions: dict[int, tuple[BaseModel, str, dict[str, Any]]] = {}
_MOST_DESCRIPTIONS = 100


def _described(given: GivenBlocks, blocks: Blocks) -> dict[str, Any]:
    owns = (blocks.command.command_name, blocks.execution.profile_name, blocks.hpc.scheduler)
    told = {}
    for kind, one, own, block in zip(GivenBlocks._fields, given, owns, blocks, strict=True):
        told[kind] = _description(name_in_record(one, own), block, loaded=isinstance(one, str))
    return told


def _description(name: str, block: BaseModel, *, loaded: bool) -> dict[str, Any]:
    known = _descriptions.get(id(block))
    # Only a block that we loaded ourselves cannot have been changed since.
    if loaded and known is not None and known[0] is block and known[1] == name:
        return known[2]
    told = described(name, block)
    if loaded:
        _descriptions[id(block)] = (block, name, told)
        while len(_descriptions) > _MOST_DESCRIPTIONS:
            _descriptions.pop(next(iter(_descriptions)), None)
    return told


def file_problems(call: Call, spec: JobSpec | None) -> list[str]:
    """What is wrong with the job on this machine: files, folders, the flow's environment."""
    problems = _work_dir_problems(call.work_dir)
    if not problems:
        for given in paths_in(call.inputs):
            problems += input_problems(call.work_dir, given)
        for given in paths_in(call.expected_outputs):
            problems += output_problems(call.work_dir, given)
    if spec is not None:
        scheduler = scheduler_for(spec.site.scheduler)
        problems += scheduler.environment_problems(spec, os.environ)
        problems += _executable_problems(spec.executable) if scheduler.runs_here else []
    return problems


def paths_in(given: object) -> list[str]:
    """The paths in a list; `resolve` reports anything else."""
    if not isinstance(given, Sequence) or isinstance(given, str | bytes):
        return []
    return [str(path) for path in given if isinstance(path, str | os.PathLike) and str(path)]


def input_problems(work_dir: str, given: str) -> list[str]:
    path = os.path.join(work_dir, os.path.expanduser(given))
    if not os.path.isfile(path):
        return [f"input {given!r} is missing: there is no file {path}"]
    if not os.access(path, os.R_OK):
        return [f"input {given!r} cannot be read: {path}"]
    return []


def output_problems(work_dir: str, given: str) -> list[str]:
    """Problems of an expected output: no program can write there, or we do not look there."""
    path = os.path.normpath(os.path.join(work_dir, os.path.expanduser(given)))
    inside = os.path.relpath(path, os.path.normpath(work_dir)).split("/")
    if any(names.is_root(name) for name in inside):
        return [
            f"expected output {_short(given)} is in {names.ROOT}, where HPC-Prefect keeps its own"
            " files; let the program write to another place"
        ]
    try:
        os.stat(path)
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            return [f"expected output {_short(given)} cannot be written: {error.strerror}"]
    except ValueError:  # a NUL byte or a surrogate, which `resolve` reports
        pass
    return []


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:60]}…{text[-15:]}")


def _work_dir_problems(work_dir: object) -> list[str]:
    if not isinstance(work_dir, str):
        return [f"work_dir must be a path, not {type(work_dir).__name__}"]
    if not work_dir:
        return ["work_dir is empty; give the folder in which the program runs"]
    if "\0" in work_dir:
        return ["work_dir has a NUL byte, which no program can be given"]
    folder = Path(work_dir)
    try:
        there = next(path for path in (folder, *folder.parents) if path.exists())
    except OSError as error:  # a name that is too long
        return [f"work_dir {_short(work_dir)} cannot be made: {error.strerror}"]
    if not there.is_dir():
        return [f"work_dir {folder}: {there} is not a folder"]
    if not os.access(there, os.W_OK | os.X_OK):
        return [f"work_dir {folder} is not writable: you may not write in {there}"]
    return []


def _executable_problems(executable: Executable) -> list[str]:
    """For jobs on this machine: look for the program now, unless a set-up line may provide it."""
    path = executable.path
    if executable.modules or executable.setup:
        return []
    if "/" not in path:
        searched = os.pathsep.join(
            [*executable.path_prefixes.get("PATH", ()), os.environ.get("PATH", "")]
        )
        if shutil.which(path, path=searched) is None:
            return [f"executable {path!r} is not on PATH"]
    elif not os.path.isfile(path):
        return [f"executable {path} does not exist"]
    elif not os.access(path, os.X_OK):
        return [f"executable {path} may not be executed: chmod +x {path}"]
    return []


def inputs_of(spec: JobSpec) -> tuple[dict[str, str], dict[str, int]]:
    """The SHA-256 and the size in bytes of each input file's content."""
    digests, sizes = {}, {}
    for given in spec.inputs:
        with open(os.path.join(spec.work_dir, os.path.expanduser(given)), "rb") as file:
            digests[given] = hashlib.file_digest(file, "sha256").hexdigest()
            sizes[given] = file.tell()
    return digests, sizes


def provenance_of(
    place: CallIdentity, blocks: dict[str, Any], inputs: dict[str, str]
) -> dict[str, Any]:
    flow = FlowRunContext.get()
    run = flow.flow_run if flow else None
    return {
        "campaign": place.campaign,
        "scope": list(place.scope),
        "n": place.n,
        "digest": place.digest,
        "run": recorded_run(),
        "flow_run": None if run is None else {"id": str(run.id), "name": run.name},
        "parameters": None if run is None else run.parameters,
        "blocks": blocks,
        "inputs_sha256": inputs,
        "host": platform.node(),
    }
