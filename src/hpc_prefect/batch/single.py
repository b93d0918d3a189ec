"""A job without stored blocks: `run_job(["./program", "argument"], on="hpc-local")`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import ValidationError

from hpc_prefect.batch.prepare import JobTerms, resolved_work_dir
from hpc_prefect.batch.task import run_call
from hpc_prefect.blocks import (
    Call,
    CommandBlock,
    ExecutionProfileBlock,
    GivenBlocks,
    HPCProfileBlock,
)
from hpc_prefect.blocks.call import as_text
from hpc_prefect.blocks.checks import field_errors, sentence
from hpc_prefect.errors import InvalidJob
from hpc_prefect.flow_runs.sync import run_sync
from hpc_prefect.flow_runs.uncaught import forget_frames
from hpc_prefect.job.result import JobResult
from hpc_prefect.job.retry import RetryPolicy


async def run_job(
    command: Sequence[object],
    *,
    on: str | HPCProfileBlock,
    work_dir: str | os.PathLike[str] = ".",
    name: str | None = None,
    nodes: int = 1,
    ranks_per_node: int = 1,
    threads_per_rank: int = 1,
    memory_per_node: str = "",
    gpus_per_node: int = 0,
    walltime: str = "00:05:00",
    launch: Literal["single", "mpi"] | None = None,
    environment: Mapping[str, str] | None = None,
    job_key: str | None = None,
    inputs: Sequence[str | os.PathLike[str]] = (),
    expected_outputs: Sequence[str | os.PathLike[str]] = (),
    timeout_seconds: float | None = None,
    retries: int = 0,
    retry_policy: RetryPolicy | None = None,
) -> JobResult:
    """Run one HPC job from its command line: for a first hour, before there are named blocks.

    It keeps all promises of `run_job_from_blocks`: the job runs once, is taken up after a crash,
    raises when it fails, has a record.

    Args:
        command: the program and its arguments. A program with a `/` is relative to the current
            folder; a bare name is an executable key of the HPC profile, or else is found on PATH
            where the job runs.
        on: WHERE: the name of a stored HPC profile, or an `HPCProfileBlock`; `hpc-local` is this
            machine, also when nothing is stored.
        work_dir: the program's working directory; made if it is not there.
        name: the job's name, in Prefect and in messages (default: the program's name).
        nodes, ranks_per_node, threads_per_rank, memory_per_node, gpus_per_node, walltime,
            environment: as the fields of an `ExecutionProfileBlock`; with GPUs it is a job of the
            profile's GPU side.
        launch: `mpi`: use the HPC profile's launcher line; or `single`: do not. The default is
            `mpi` with more than one rank.
        job_key, inputs, expected_outputs, timeout_seconds, retries, retry_policy: as of
            `run_job_from_blocks`.

    Raises:
        As `run_job_from_blocks`.
    """
    try:
        program, arguments = _split(command)
        plain = os.path.basename(program)
        shape = {
            "num_nodes": nodes,
            "ranks_per_node": ranks_per_node,
            "threads_per_rank": threads_per_rank,
            "memory_per_node": memory_per_node,
            "gpus_per_node": gpus_per_node,
            "walltime": walltime,
            "launch": launch or _launch(nodes, ranks_per_node),
            "resource_class": "gpu" if gpus_per_node else "cpu",
            "environment": {} if environment is None else environment,
        }
        call = Call(
            script_filename=plain if name is None else name,
            work_dir=resolved_work_dir(work_dir),
            user_args=arguments,
            inputs=inputs,
            expected_outputs=expected_outputs,
            program=program,
        )
        given = GivenBlocks(
            CommandBlock(command_name=plain, executable_key=program),
            _execution(plain, shape, call.subject),
            on,
        )
    except InvalidJob as error:
        forget_frames(error)
        raise
    terms = JobTerms(timeout_seconds, retries, retry_policy or RetryPolicy())
    return await run_call(call, given, job_key, terms)


def run_job_sync(command: Sequence[object], **arguments: Any) -> JobResult:
    """`run_job` for sync flows and tasks and plain scripts; same arguments and errors."""
    return run_sync(lambda: run_job(command, **arguments))


def _split(command: object) -> tuple[str, Sequence[object]]:
    """The program, as an absolute path or a bare name, and its arguments."""
    wanted = 'give a list of the program and its arguments: ["./program", "argument"]'
    if not isinstance(command, Sequence) or isinstance(command, str | bytes) or not command:
        raise InvalidJob("job", [f"command is {command!r}; {wanted}"])
    program = as_text(command[0]) if isinstance(command[0], str | os.PathLike) else None
    if not program:
        raise InvalidJob("job", [f"command[0] is {command[0]!r}, which is no program; {wanted}"])
    if "/" in program or program.startswith("~"):
        program = os.path.abspath(os.path.expanduser(program))
    return program, command[1:]


def _launch(nodes: object, ranks_per_node: object) -> str:
    return "single" if (nodes, ranks_per_node) == (1, 1) else "mpi"


def _execution(name: str, shape: Mapping[str, Any], subject: str) -> ExecutionProfileBlock:
    try:
        return ExecutionProfileBlock(profile_name=name, command_name=name, **shape)
    except ValidationError as error:
        problems = [sentence(_as_given(field), text) for field, text in field_errors(error)]
        raise InvalidJob(subject, problems) from None


def _as_given(field: str) -> str:
    return "nodes" if field == "num_nodes" else field
